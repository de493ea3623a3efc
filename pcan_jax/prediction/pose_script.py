"""Runs the script that estimates poses, which has an environment of its own."""

import logging
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Collection

from pcan_jax import shipped
from pcan_jax.clips.pyskl import VIDEO_SHA256, PysklFile
from pcan_jax.clips.video_files import clip_id
from pcan_jax.content import sha256
from pcan_jax.keypoints import LAYOUTS, KeypointLayout

LAYOUT = "openpose-28"
"""The keypoints that the script finds."""

_log = logging.getLogger(__name__)


def estimate_poses(
  videos: pathlib.Path,
  files: Collection[pathlib.Path],
  layout: KeypointLayout,
  target: pathlib.Path,
) -> None:
  """Makes sure that a file has the poses of all videos; runs the script if it does not.

  A video is known by its content: poses of another one that had its name are not used. Of a video
  that the script could not read, there are no poses.

  Args:
    videos: a video or a folder of videos.
    files: the videos.
    layout: of the model.
    target: the file of poses, kept for the next time.

  Raises:
    ValueError: the model needs other keypoints, or the script cannot be run; the message says what
      to type.
  """
  script = shipped.find_file("extract_pose", "data", ".py", "script")
  command = ["uv", "run", str(script), str(videos), "--out", str(target)]
  by_hand = f"`{shlex.join(command)}`, then give --pose={target}"
  if layout != LAYOUTS[LAYOUT]:
    raise ValueError(
      f"the model needs poses with the keypoints {layout.name!r}, and none were given; the "
      f"project's own script finds those of {LAYOUT!r}. Give the poses of your videos with --pose"
    )
  wanted = {clip_id(path): sha256(path) for path in files}
  if target.is_file() and _known_videos(target, wanted) == wanted:
    _log.info("poses: those of %s, from an earlier run", target)
    return
  if shutil.which("uv") is None:
    raise ValueError(
      "the model needs poses, and none were given. The script that estimates them runs with uv, "
      "which is not installed: install it (`pip install uv`) and repeat this command, or "
      f"on a machine that has it, type {by_hand}. The top of {script} says how to do without uv"
    )
  _log.info("no poses given; they are estimated and kept in %s: %s", target, shlex.join(command))
  target.parent.mkdir(parents=True, exist_ok=True)
  code = subprocess.run(command, check=False).returncode
  if not target.is_file() or not _known_videos(target, wanted).items() <= wanted.items():
    raise ValueError(
      f"the poses could not be estimated (exit code {code}, see above). The first time, uv fetches "
      f"the script's packages, which needs a network; with one, type {by_hand}"
    )


def _known_videos(target: pathlib.Path, names: Collection[str]) -> dict[str, object]:
  """Of which content the videos were whose poses a file has, as far as it has those of `names`."""
  poses = PysklFile(target)
  return {name: poses.entry(name).get(VIDEO_SHA256) for name in names if name in poses.clip_ids}

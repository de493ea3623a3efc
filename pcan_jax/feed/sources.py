"""What a data set is built of: digests of every clip and the options, and how two differ.

They are kept beside the shards, in `sources.json`. They do not depend on where the files lie nor on
their times, so that the same clips give the same fingerprint on every machine.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tqdm

from pcan_jax.clips.source_layout import ClipSource
from pcan_jax.content import sha256

FILE_NAME = "sources.json"

_SHOWN_CLIPS = 3
_UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True)
class ClipDigest:
  """One clip.

  Attributes:
    action: id of the action, -1 where the label is not known.
    video: digest of the file's content; empty for a clip without video.
    pose: digest of the keypoints and scores, and of the size for which they were made.
  """

  action: int
  video: str
  pose: str


ClipDigests = Mapping[str, ClipDigest]


@dataclasses.dataclass(frozen=True)
class Sources:
  """Everything that goes into a data set.

  Attributes:
    options: of the build, by name; also the label tree and the keypoint layout.
    splits: by split the clips, by their id.
  """

  options: Mapping[str, Any]
  splits: Mapping[str, ClipDigests]

  @property
  def fingerprint(self) -> str:
    """32 hexadecimal digits that change with anything that changes the data set."""
    return digest(json.dumps(dataclasses.asdict(self), sort_keys=True).encode())

  def changes_since(self, earlier: "Sources") -> list[str]:
    """What is different from what it was, a phrase for each kind of difference."""
    names = sorted(self.options.keys() | earlier.options.keys())
    changes = [
      _option_change(name, self.options.get(name), earlier.options.get(name))
      for name in names
      if self.options.get(name) != earlier.options.get(name)
    ]
    for split in sorted(self.splits.keys() | earlier.splits.keys()):
      changes += _split_changes(split, self.splits.get(split), earlier.splits.get(split))
    return changes

  def write(self, folder: pathlib.Path) -> None:
    """Writes `sources.json`, a line per clip."""
    text = json.dumps(dataclasses.asdict(self), sort_keys=True).replace('}, "', '},\n"')
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")

  @classmethod
  def read(cls, folder: pathlib.Path) -> "Sources | None":
    """Reads what `write` has written; None if there is none, or it is damaged."""
    try:
      stored = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
      return cls(
        options=stored["options"],
        splits={
          split: {name: ClipDigest(**clip) for name, clip in clips.items()}
          for split, clips in stored["splits"].items()
        },
      )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
      return None


def digest_clips(clips: Sequence[ClipSource]) -> dict[str, ClipDigest]:
  """Digests of clips by their id; reads every video once."""
  with concurrent.futures.ThreadPoolExecutor() as pool:
    videos = pool.map(_digest_file, (clip.video for clip in clips))
    # Shown on terminals only.
    progress = tqdm.tqdm(videos, "reading videos", len(clips), unit=" clips", disable=None)
    return {
      clip.id: ClipDigest(clip.action, video, _digest_pose(clip))
      for clip, video in zip(clips, progress)
    }


def digest(*parts: bytes) -> str:
  """32 hexadecimal digits of SHA-256."""
  whole = hashlib.sha256()
  for part in parts:
    whole.update(len(part).to_bytes(8, "little"))
    whole.update(part)
  return whole.hexdigest()[:32]


def _digest_file(path: pathlib.Path | None) -> str:
  if path is None:
    return ""
  try:
    return sha256(path)[:32]
  except OSError:  # which the build reports with the clip
    return _UNREADABLE


def _digest_pose(clip: ClipSource) -> str:
  arrays = clip.keypoints, clip.scores
  facts = (clip.img_shape,) if clip.fps is None else (clip.img_shape, clip.fps)
  form = repr((*((array.dtype.str, array.shape) for array in arrays), *facts))
  return digest(form.encode(), *(array.tobytes() for array in arrays))


def _option_change(name: str, now: Any, earlier: Any) -> str:
  long = isinstance(now, dict) or isinstance(earlier, dict)
  return f"another {name}" if long else f"{name} is {now}, was {earlier}"


def _split_changes(split: str, now: ClipDigests | None, earlier: ClipDigests | None) -> list[str]:
  if now is None or earlier is None:
    return [f"split {split} is {'gone' if now is None else 'new'}"]
  both = now.keys() & earlier.keys()
  kinds = {
    "new": now.keys() - earlier.keys(),
    "gone": earlier.keys() - now.keys(),
    "with another label": (name for name in both if now[name].action != earlier[name].action),
    "with another video": (name for name in both if now[name].video != earlier[name].video),
    "with other poses": (name for name in both if now[name].pose != earlier[name].pose),
  }
  return [
    f"{split}: {_count(names)} {kind} ({_some(names)})"
    for kind, names in ((kind, sorted(names)) for kind, names in kinds.items())
    if names
  ]


def _count(names: Sequence[str]) -> str:
  return "1 clip" if len(names) == 1 else f"{len(names)} clips"


def _some(names: Iterable[str]) -> str:
  names = list(names)
  more = ", ..." if len(names) > _SHOWN_CLIPS else ""
  return ", ".join(names[:_SHOWN_CLIPS]) + more

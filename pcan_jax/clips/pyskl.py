"""Reads pickles of poses in the format of pyskl, which `data/extract_pose.py` writes.

Such a pickle is a list of dicts, or a dict with such a list under `annotations`, or one of these
dicts alone, as MMAction2's `ntu_pose_extraction.py` writes it. One dict per clip:
`frame_dir` (ID, or split/ID), `keypoint` [M, T, V, 2] in pixels, `keypoint_score` [M, T, V], and
optionally `label`, `total_frames`, `img_shape` (h, w) and, for poses without a video, `fps`. Ours
also have `video_sha256`, of the video in which they were found.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from pcan_jax.clips.pose import Pose
from pcan_jax.clips.safe_pickle import load_pickle
from pcan_jax.clips.video_files import clip_id

VIDEO_SHA256 = "video_sha256"


class PysklFile:
  """The poses in one pickle, by clip.

  Args:
    path: of the pickle.
    split: read only the clips of this split, if the pickle lists clips by split under `split`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not such a pickle, or is damaged.
  """

  def __init__(self, path: pathlib.Path, split: str | None = None) -> None:
    self._path = path
    content = load_pickle(path)
    members = None
    if isinstance(content, dict) and "keypoint" in content:
      content = [{"frame_dir": path.stem} | content]
    if isinstance(content, dict):
      splits = content.get("split")
      members = splits.get(split) if isinstance(splits, dict) else None
      content = content.get("annotations")
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
      raise ValueError(
        f"{path}: expected a list of dicts, one per clip, or a dict with one under 'annotations'"
      )
    if isinstance(members, list):
      members = {name for name in members if isinstance(name, str)}
    self._entries: dict[str, list[Mapping[str, Any]]] = {}
    for index, entry in enumerate(content):
      name = entry.get("frame_dir")
      if not isinstance(name, str) or not name:
        raise ValueError(f"{path}: entry {index} has no 'frame_dir'; give it the id of its clip")
      if not isinstance(members, set) or name in members:
        self._entries.setdefault(clip_id(pathlib.PurePosixPath(name)), []).append(entry)

  @property
  def clip_ids(self) -> Collection[str]:
    return self._entries.keys()

  @property
  def num_keypoints(self) -> int | None:
    """V of the first clip; None if there is none, or its `keypoint` is not [M, T, V, 2]."""
    first = next(iter(self._entries.values()), [{}])[0]
    shape = getattr(first.get("keypoint"), "shape", ())
    return shape[2] if len(shape) == 4 else None

  def entry(self, clip_id: str) -> Mapping[str, Any]:
    """The dict of a clip.

    Raises:
      ValueError: the clip has several entries.
    """
    entries = self._entries[clip_id]
    if len(entries) > 1:
      raise ValueError(f"{self._path}: clip {clip_id!r} has {len(entries)} entries; keep one")
    return entries[0]

  def pose(self, clip_id: str, num_frames: int | None = None) -> Pose:
    """The pose of a clip; its arrays are not checked.

    Raises:
      ValueError: the clip has several entries, or a malformed `img_shape` or `fps`.
    """
    entry = self.entry(clip_id)
    where = f"{self._path}: clip {clip_id!r}"
    size = entry.get("img_shape")
    if size is not None:
      size = size.tolist() if isinstance(size, np.ndarray) else size
      if (
        not isinstance(size, tuple | list)
        or len(size) != 2
        or not all(isinstance(pixels, int | np.integer) for pixels in size)
      ):
        raise ValueError(f"{where}: 'img_shape' is not (height, width)")
      size = int(size[0]), int(size[1])
    fps = entry.get("fps")
    if fps is not None and (
      not isinstance(fps, int | float | np.integer | np.floating) or not 0 < fps < np.inf
    ):
      raise ValueError(f"{where}: 'fps' is not a number of frames per second")
    names = ("keypoint", "keypoint_score")
    pose = Pose(entry.get(names[0]), entry.get(names[1]), size, where, names)
    return dataclasses.replace(pose, fps=None if fps is None else float(fps))

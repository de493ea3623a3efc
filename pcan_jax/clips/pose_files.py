"""Reads the poses of clips from the files of common pose estimators.

    open_poses("poses.pkl", layout).read("clip1", num_frames=60, size=(480, 640))

Accepted are

    FILE.pkl    a pickle in the format of pyskl (`pcan_jax.clips.pyskl`)
    FILE.npz    arrays `CLIP/keypoints` [M, T, V, 2] and `CLIP/scores` [M, T, V] for every clip, or
                `keypoints` and `scores` of a single clip, whose id is the name of the file
    FILE.json   COCO annotations or results, one per person and frame (`pcan_jax.clips.pose_json`)
    FOLDER      OpenPose's output, one JSON file per frame (`pcan_jax.clips.pose_json`), in one
                folder per clip or in one folder for all

M persons, T frames, V keypoints, (x, y) in pixels of the video. Keypoints in pickles and arrays are
in the order of the layout; those in JSON files are selected by joint name.
"""

import collections
import dataclasses
import io
import os
import pathlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from pcan_jax.clips.person_box import MAX_BOX_TO_FRAME, person_box
from pcan_jax.clips.pose import FRAME_COUNT_TOLERANCE, Pose
from pcan_jax.clips.pose_json import CocoFile, OpenPoseFolder
from pcan_jax.clips.pyskl import PysklFile
from pcan_jax.keypoints import KeypointLayout

MAX_ARRAY_BYTES = 1 << 29
"""Limit for one unpacked array of an .npz file; enough for hours of video."""

_SHOWN_CLIPS = 5


@runtime_checkable
class _Source(Protocol):
  """One kind of file."""

  @property
  def clip_ids(self) -> Collection[str]:
    """Ids of its clips."""

  def pose(self, clip_id: str, num_frames: int) -> Pose:
    """The pose of one clip; its arrays are not checked."""


@dataclasses.dataclass(frozen=True)
class PoseFiles:
  """Poses of clips, read one clip at a time.

  Attributes:
    path: of the file or folder.
    layout: of the keypoints that `read` returns.
    frames_without_person: for every clip read so far, the number of frames without a detected
      person, including frames missing from the files.
  """

  path: pathlib.Path
  layout: KeypointLayout
  frames_without_person: dict[str, int]
  _source: _Source

  @property
  def clip_ids(self) -> list[str]:
    """Ids of the clips that have poses, sorted."""
    return sorted(self._source.clip_ids)

  def read(
    self, clip_id: str, num_frames: int, size: tuple[int, int]
  ) -> tuple[Float32[np.ndarray, "m t v 2"], Float32[np.ndarray, "m t v"]]:
    """The pose of one clip, frame by frame of its video.

    Args:
      clip_id: name of the video without its suffix.
      num_frames: T, of the video.
      size: (h, w) of the video in pixels.

    Returns:
      Keypoints, (x, y) in pixels of the video, and their scores, of at least one person. Frames in
      which nobody was detected are all zeros. A surplus frame is cut, a missing one is added empty.

    Raises:
      FileNotFoundError: there is no pose of this clip.
      ValueError: the pose cannot be read, or does not fit the video; the message names the file,
        the clip, and the field or frame.
    """
    if clip_id not in self._source.clip_ids:
      raise FileNotFoundError(
        f"{self.path} has no pose of the clip {clip_id!r}; it has {self._describe_clips()}"
      )
    pose = self._source.pose(clip_id, num_frames)
    pose.check(self.layout)
    _check_fit(pose, num_frames, size)
    keypoints = _with_frames(pose.keypoints, num_frames)
    scores = _with_frames(pose.scores, num_frames)
    detected = (scores > 0) & (keypoints != 0).any(axis=-1)
    self.frames_without_person[clip_id] = num_frames - int(detected.any(axis=(0, 2)).sum())
    return keypoints, scores

  def _describe_clips(self) -> str:
    ids = self.clip_ids
    more = f" and {len(ids) - _SHOWN_CLIPS} more" if len(ids) > _SHOWN_CLIPS else ""
    return f"those of {', '.join(map(repr, ids[:_SHOWN_CLIPS]))}{more}" if ids else "none at all"


def open_poses(path: str | os.PathLike[str], layout: KeypointLayout) -> PoseFiles:
  """Opens poses of any accepted format, which is determined by the suffix.

  Args:
    path: a file `.pkl`, `.npz` or `.json`, or a folder written by OpenPose.
    layout: of the keypoints to return.

  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: the format is not accepted, or a file is damaged or lacks joints of the layout.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise FileNotFoundError(
      f"no poses at {path}; `uv run data/extract_pose.py VIDEOS --out FILE.pkl` estimates them"
    )
  suffix = path.suffix.lower()
  if path.is_dir():
    source = OpenPoseFolder(path, layout)
  elif suffix in (".pkl", ".pickle"):
    source = PysklFile(path)
  elif suffix == ".npz":
    source = _Arrays(path)
  elif suffix == ".json":
    source = CocoFile(path, layout)
  else:
    raise ValueError(
      f"{path} is not a file of poses: expected .pkl (pyskl), .npz or .json (COCO), or a folder "
      "of OpenPose's JSON files"
    )
  return PoseFiles(path, layout, {}, source)


class _Arrays:
  """An .npz file: a zip archive of arrays, whose unpacked size is limited here."""

  def __init__(self, path: pathlib.Path) -> None:
    self._path = path
    try:
      with zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist()]
    except _ZIP_ERRORS as error:
      raise ValueError(f"{path}: not an .npz file, or damaged ({_reason(error)})") from error
    self._members: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for name in names:
      clip_id, slash, field = name.removesuffix(".npy").rpartition("/")
      if field not in ("keypoints", "scores"):
        raise ValueError(
          f"{path}: unknown array {name[:80]!r}; expected 'keypoints' and 'scores', or "
          "'CLIP/keypoints' and 'CLIP/scores' for every clip"
        )
      members = self._members[clip_id if slash else path.stem]
      if field in members:
        raise ValueError(f"{path}: two arrays are called {name[:80]!r}")
      members[field] = name

  @property
  def clip_ids(self) -> Collection[str]:
    return self._members.keys()

  def pose(self, clip_id: str, num_frames: int) -> Pose:
    members = self._members[clip_id]
    keypoints, scores = (self._array(members.get(name)) for name in ("keypoints", "scores"))
    return Pose(keypoints, scores, None, f"{self._path}: clip {clip_id!r}")

  def _array(self, name: str | None) -> np.ndarray | None:
    if name is None:
      return None
    try:
      with zipfile.ZipFile(self._path) as archive:
        info = archive.getinfo(name)
        if info.file_size > MAX_ARRAY_BYTES:
          raise ValueError(f"it unpacks to {info.file_size >> 20} MiB")
        # NumPy writes no others, and some need gigabytes to unpack a few bytes.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
          raise ValueError("it is compressed in another way than NumPy's")
        content = io.BytesIO(archive.read(info))
      if content.getbuffer()[:6] != b"\x93NUMPY":
        raise ValueError("it is not an array")
      array = np.lib.format.read_array(content, allow_pickle=False)
    except _ZIP_ERRORS as error:
      raise ValueError(
        f"{self._path}: the array {name[:80]!r} cannot be read ({_reason(error)})"
      ) from error
    return array


# Exceptions of `zipfile` and NumPy's header reader, found by fuzzing.
_ZIP_ERRORS = (
  ValueError, OSError, EOFError, RuntimeError, KeyError, IndexError, TypeError, OverflowError,
  MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip


def _reason(error: BaseException) -> str:
  return str(error)[:200] or type(error).__name__


def _check_fit(pose: Pose, num_frames: int, size: tuple[int, int]) -> None:
  """Rejects poses of another video or of another frame size."""
  keypoints, where = pose.keypoints.astype(np.float32), pose.where
  if abs(keypoints.shape[1] - num_frames) > FRAME_COUNT_TOLERANCE:
    raise ValueError(
      f"{where} has poses for {keypoints.shape[1]} frames, but its video has {num_frames}; "
      "estimate the poses again from this video"
    )
  if pose.img_shape not in (None, tuple(size)):
    raise ValueError(
      f"{where}: the poses were made for {pose.img_shape[1]} x {pose.img_shape[0]} pixels, but the "
      f"video has {size[1]} x {size[0]}; estimate the poses again from this video"
    )
  if keypoints.any() and np.abs(keypoints).max() <= 1:
    raise ValueError(
      f"{where}: all coordinates lie between -1 and 1; they must be pixels of the video"
    )
  limit = MAX_BOX_TO_FRAME * max(size)
  # The first test keeps the arithmetic of the second one finite.
  is_far = np.abs(keypoints).max(initial=0) > 2 * limit
  x0, y0, x1, y1 = (0, 0, 0, 0) if is_far else person_box(keypoints, size)
  if is_far or max(x1 - x0, y1 - y0) > limit:
    raise ValueError(
      f"{where}: its keypoints reach from {keypoints.min():g} to {keypoints.max():g}, far beyond "
      f"the frame of {size[1]} x {size[0]}; they must be pixels of this video"
    )


def _with_frames(array: np.ndarray, num_frames: int) -> Float32[np.ndarray, "..."]:
  """Cuts or zero-pads the end to `num_frames`, and adds a person if there is none."""
  padding = [(0, 0)] * array.ndim
  padding[:2] = (0, not len(array)), (0, max(num_frames - array.shape[1], 0))
  return np.pad(array[:, :num_frames].astype(np.float32), padding)

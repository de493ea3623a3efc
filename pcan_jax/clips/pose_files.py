"""Reads the poses of clips from whatever a pose estimator has written.

    open_poses("poses.pkl", layout).read("clip1", num_frames=60, size=(480, 640))

Accepted are

    FILE.pkl    a pickle as pyskl has it: a list of dicts with `frame_dir`, `keypoint` [M, T, V, 2]
                and `keypoint_score` [M, T, V], or a dict with such a list under `annotations`
    FILE.npz    arrays `CLIP/keypoints` [M, T, V, 2] and `CLIP/scores` [M, T, V] for every clip, or
                `keypoints` and `scores` of the one clip that has the name of the file
    FILE.json   COCO annotations or results, one per person and frame (`pcan_jax.clips.pose_json`)
    FOLDER      OpenPose's output, one JSON file per frame (`pcan_jax.clips.pose_json`), in a folder
                per clip, or in one folder for all

M persons, T frames, V keypoints, (x, y) in pixels of the video. The keypoints of pickles and arrays
are in the order of the layout; those of JSON files are chosen by the names of the joints.
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
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from pcan_jax.clips.person_box import MAX_BOX_TO_FRAME, person_box
from pcan_jax.clips.pose_json import CocoFile, OpenPoseFolder, Pose
from pcan_jax.clips.safe_pickle import load_pickle
from pcan_jax.clips.source_layout import FRAME_COUNT_TOLERANCE
from pcan_jax.clips.video_files import VIDEO_SUFFIXES
from pcan_jax.keypoints import KeypointLayout

MAX_ARRAY_BYTES = 1 << 29
"""Of one array in an .npz file, unpacked: hours of video."""

_SHOWN_CLIPS = 5


@runtime_checkable
class _Source(Protocol):
  """One kind of file."""

  @property
  def clip_ids(self) -> Collection[str]:
    """Clips that it has poses of."""

  def pose(self, clip_id: str, num_frames: int) -> Pose:
    """The pose of one of them; its arrays may still be wrong."""


@dataclasses.dataclass(frozen=True)
class PoseFiles:
  """The poses of some clips, read one clip at a time.

  Attributes:
    path: of the file or folder.
    layout: of the keypoints that `read` returns.
    frames_without_person: for every clip read so far, the frames in which nobody was found, those
      that the files do not mention among them.
  """

  path: pathlib.Path
  layout: KeypointLayout
  frames_without_person: dict[str, int]
  _source: _Source

  @property
  def clip_ids(self) -> list[str]:
    """The clips that there are poses of, in alphabetical order."""
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
      Keypoints, (x, y) in pixels of the video, and their scores. At least one person; frames in
      which nobody was found have only zeros. One frame too many is cut, one too few added empty.

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
    where = f"{pose.origin}: clip {clip_id!r}"
    keypoints, scores = _checked_arrays(pose, self.layout, where)
    _check_fit(keypoints, pose, num_frames, size, where)
    keypoints = _with_frames(keypoints, num_frames)
    scores = _with_frames(scores, num_frames)
    detected = (scores > 0) & (keypoints != 0).any(axis=-1)
    self.frames_without_person[clip_id] = num_frames - int(detected.any(axis=(0, 2)).sum())
    return keypoints, scores

  def _describe_clips(self) -> str:
    ids = self.clip_ids
    more = f" and {len(ids) - _SHOWN_CLIPS} more" if len(ids) > _SHOWN_CLIPS else ""
    return f"those of {', '.join(map(repr, ids[:_SHOWN_CLIPS]))}{more}" if ids else "none at all"


def open_poses(path: str | os.PathLike[str], layout: KeypointLayout) -> PoseFiles:
  """Opens poses of any accepted kind; which one it is shows by the suffix.

  Args:
    path: a file `.pkl`, `.npz` or `.json`, or a folder that OpenPose wrote.
    layout: what the keypoints shall be.

  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: it is of no accepted kind, damaged, or lacks joints of the layout.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise FileNotFoundError(
      f"no poses at {path}; `uv run data/extract_pose.py VIDEOS --out FILE.pkl` estimates them"
    )
  if path.is_dir():
    source = OpenPoseFolder(path, layout)
  elif path.suffix.lower() in _KINDS:
    source = _KINDS[path.suffix.lower()](path, layout)
  else:
    raise ValueError(
      f"{path} is not a file of poses: expected .pkl (pyskl), .npz or .json (COCO), or a folder "
      "of OpenPose's JSON files"
    )
  return PoseFiles(path, layout, {}, source)


class _Pickle:
  """A pickle as pyskl and `data/extract_pose.py` write it."""

  def __init__(self, path: pathlib.Path, layout: KeypointLayout) -> None:
    del layout  # its order is taken for granted
    content = load_pickle(path)
    if isinstance(content, dict):
      content = content.get("annotations")
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
      raise ValueError(
        f"{path}: expected a list of dicts, one per clip, or a dict with one under 'annotations'"
      )
    self._path = path
    self._entries: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for index, entry in enumerate(content):
      name = entry.get("frame_dir")
      if not isinstance(name, str) or not name:
        raise ValueError(f"{path}: entry {index} has no 'frame_dir'; give it the id of its clip")
      name = pathlib.PurePosixPath(name)
      is_video = name.suffix.lower() in VIDEO_SUFFIXES
      self._entries[name.stem if is_video else name.name].append(entry)

  @property
  def clip_ids(self) -> Collection[str]:
    return self._entries.keys()

  def pose(self, clip_id: str, num_frames: int) -> Pose:
    if len(self._entries[clip_id]) > 1:
      raise ValueError(
        f"{self._path}: clip {clip_id!r} has {len(self._entries[clip_id])} entries; keep one"
      )
    (entry,) = self._entries[clip_id]
    names = ("keypoint", "keypoint_score")
    img_shape = entry.get("img_shape")
    if img_shape is not None:
      img_shape = _checked_size(img_shape, f"{self._path}: clip {clip_id!r}")
    return Pose(entry.get(names[0]), entry.get(names[1]), img_shape, str(self._path), names)


def _checked_size(size: Any, where: str) -> tuple[int, int]:
  if isinstance(size, np.ndarray):
    size = size.tolist()
  if (
    not isinstance(size, tuple | list)
    or len(size) != 2
    or not all(isinstance(pixels, int | np.integer) for pixels in size)
  ):
    raise ValueError(f"{where}: 'img_shape' is not (height, width)")
  return int(size[0]), int(size[1])


class _Arrays:
  """An .npz file: a zip archive of arrays, which could unpack to any size."""

  def __init__(self, path: pathlib.Path, layout: KeypointLayout) -> None:
    del layout  # its order is taken for granted
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
    names = ("keypoints", "scores")
    keypoints, scores = (self._array(self._members[clip_id].get(name)) for name in names)
    return Pose(keypoints, scores, None, str(self._path), names)

  def _array(self, name: str | None) -> np.ndarray | None:
    if name is None:
      return None
    try:
      with zipfile.ZipFile(self._path) as archive:
        info = archive.getinfo(name)
        if info.file_size > MAX_ARRAY_BYTES:
          raise ValueError(f"it unpacks to {info.file_size >> 20} MiB")
        # Others are not NumPy's, and some need gigabytes to unpack a few bytes.
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


_KINDS = {".pkl": _Pickle, ".pickle": _Pickle, ".npz": _Arrays, ".json": CocoFile}

# What `zipfile` and NumPy's reader of headers raise, as fuzzing shows.
_ZIP_ERRORS = (
  ValueError, OSError, EOFError, RuntimeError, KeyError, IndexError, TypeError, OverflowError,
  MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip


def _reason(error: BaseException) -> str:
  return str(error)[:200] or type(error).__name__


def _checked_arrays(
  pose: Pose, layout: KeypointLayout, where: str
) -> tuple[Float32[np.ndarray, "m t v 2"], Float32[np.ndarray, "m t v"]]:
  """Keypoints and scores as float32 arrays of the right shape, at least one person."""
  for name, array in zip(pose.names, (pose.keypoints, pose.scores)):
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
      raise ValueError(f"{where}: {name!r} is missing, or not an array of numbers")
  name, scores_name = pose.names
  shape = (layout.num_keypoints, 2)
  if pose.keypoints.ndim != 4 or pose.keypoints.shape[2:] != shape:
    raise ValueError(
      f"{where}: {name!r} has the shape {list(pose.keypoints.shape)}, expected "
      f"[M, T, {shape[0]}, 2] for the layout {layout.name}"
    )
  if pose.scores.shape != pose.keypoints.shape[:3]:
    raise ValueError(
      f"{where}: {scores_name!r} has the shape {list(pose.scores.shape)}, expected "
      f"{list(pose.keypoints.shape[:3])} as {name!r}"
    )
  with np.errstate(over="ignore"):
    keypoints, scores = pose.keypoints.astype(np.float32), pose.scores.astype(np.float32)
  for name, array in zip(pose.names, (keypoints, scores)):
    if not np.isfinite(array).all():
      frame = int(np.argwhere(~np.isfinite(array))[0][1])
      raise ValueError(
        f"{where}: {name!r} holds NaN or infinity in frame {frame}; "
        "write 0 with score 0 for what was not found"
      )
  if not keypoints.shape[0]:
    keypoints = np.zeros((1, *keypoints.shape[1:]), np.float32)
    scores = np.zeros((1, *scores.shape[1:]), np.float32)
  return keypoints, scores


def _check_fit(
  keypoints: Float32[np.ndarray, "m t v 2"],
  pose: Pose,
  num_frames: int,
  size: tuple[int, int],
  where: str,
) -> None:
  """Poses of another video, or of another size of it, show by their numbers."""
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
  # The first keeps the numbers of the second finite.
  is_far = np.abs(keypoints).max() > 2 * limit
  x0, y0, x1, y1 = (0, 0, 0, 0) if is_far else person_box(keypoints, size)
  if is_far or max(x1 - x0, y1 - y0) > limit:
    raise ValueError(
      f"{where}: its keypoints reach from {keypoints.min():g} to {keypoints.max():g}, far beyond "
      f"the frame of {size[1]} x {size[0]}; they must be pixels of this video"
    )


def _with_frames(array: np.ndarray, num_frames: int) -> np.ndarray:
  """Cuts the second axis, or adds zeros at its end."""
  padding = [(0, 0)] * array.ndim
  padding[1] = (0, max(num_frames - array.shape[1], 0))
  return np.pad(array[:, :num_frames], padding)

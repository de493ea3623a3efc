"""Reads the poses of clips from the files of common pose estimators.

    open_poses("poses.pkl", layout).read("clip1", num_frames=60, size=(480, 640))

Accepted are

    FILE.pkl    a pickle in the format of pyskl (`pcan_jax.clips.pyskl`)
    FILE.npz    arrays `CLIP/keypoints` [M, T, V, 2] and `CLIP/scores` [M, T, V] for every clip, or
                `keypoints` and `scores` of a single clip, whose id is the name of the file
    FILE.json   COCO annotations or results, one per person and frame, AlphaPose's among them
                (`pcan_jax.clips.pose_json`), or MMPose's (`pcan_jax.clips.mmpose_json`)
    FOLDER      OpenPose's output, one JSON file per frame (`pcan_jax.clips.pose_json`), in one
                per clip, or in one folder for all; or one file per clip of any kind above, CLIP.pkl
                and so on, or alone in a folder CLIP

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

from pcan_jax.clips.mmpose_json import MMPoseFile
from pcan_jax.clips.person_box import extent
from pcan_jax.clips.pose import Pose
from pcan_jax.clips.pose_frames import read_json
from pcan_jax.clips.pose_json import CocoFile, OpenPoseFolder
from pcan_jax.clips.pyskl import PysklFile
from pcan_jax.clips.video_files import composed
from pcan_jax.keypoints import KeypointLayout

MAX_ARRAY_BYTES = 1 << 29
"""Limit for one unpacked array of an .npz file; enough for hours of video."""

_SHOWN_CLIPS = 5
_SUFFIXES = (".pkl", ".pickle", ".npz", ".json")
_YOLO = (
  "YOLO's own files are not read: save `CLIP/keypoints` (`result.keypoints.xy` of all frames, "
  "[M, T, 17, 2]) and `CLIP/scores` (`result.keypoints.conf`, [M, T, 17]) by `np.savez`, and give "
  "that file and the layout coco-17"
)


@runtime_checkable
class _Source(Protocol):
  """One kind of file."""

  @property
  def clip_ids(self) -> Collection[str]:
    """Ids of its clips."""

  def pose(self, clip_id: str, num_frames: int | None) -> Pose:
    """The pose of one clip; its arrays are not checked. `num_frames` is None without a video."""


@dataclasses.dataclass(frozen=True)
class Skeletons:
  """The poses of a clip that has no video.

  Attributes:
    keypoints: [M, T, V, 2], (x, y) in pixels.
    scores: [M, T, V].
    size: (h, w) of the frame in pixels, or of the smallest that holds all keypoints.
    fps: frames per second.
  """

  keypoints: Float32[np.ndarray, "m t v 2"]
  scores: Float32[np.ndarray, "m t v"]
  size: tuple[int, int]
  fps: float


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
    clip_id = composed(clip_id)
    self._require(clip_id)
    pose = self._source.pose(clip_id, num_frames).checked(self.layout)
    pose.check_fit(num_frames, size)
    keypoints = _with_frames(pose.keypoints, num_frames)
    scores = _with_frames(pose.scores, num_frames)
    self.frames_without_person[clip_id] = num_frames - int(scores.any(axis=(0, 2)).sum())
    return keypoints, scores

  def read_alone(self, clip_id: str, default_fps: float) -> "Skeletons":
    """The pose of one clip that has no video.

    Args:
      clip_id: of the clip, one of `clip_ids`.
      default_fps: frames per second, unless the file states them.

    Raises:
      FileNotFoundError: there is no pose of this clip.
      ValueError: the pose cannot be read, or has no frames; the message names file and clip.
    """
    clip_id = composed(clip_id)
    self._require(clip_id)
    pose = self._source.pose(clip_id, None).checked(self.layout)
    num_frames = pose.keypoints.shape[1]
    if not num_frames:
      raise ValueError(f"{pose.where} has no frames")
    size = pose.img_shape or extent(pose.keypoints)
    pose.check_fit(num_frames, size)
    keypoints, scores = (_with_frames(a, num_frames) for a in (pose.keypoints, pose.scores))
    self.frames_without_person[clip_id] = num_frames - int(scores.any(axis=(0, 2)).sum())
    return Skeletons(keypoints, scores, size, pose.fps or default_fps)

  def _require(self, clip_id: str) -> None:
    if clip_id not in self._source.clip_ids:
      raise FileNotFoundError(
        f"{self.path} has no pose of the clip {clip_id!r}; it has {self._describe_clips()}"
      )

  def _describe_clips(self) -> str:
    ids = self.clip_ids
    more = f" and {len(ids) - _SHOWN_CLIPS} more" if len(ids) > _SHOWN_CLIPS else ""
    return f"those of {', '.join(map(repr, ids[:_SHOWN_CLIPS]))}{more}" if ids else "none at all"


def open_poses(
  path: str | os.PathLike[str], layout: KeypointLayout, *, only_clip: str | None = None
) -> PoseFiles:
  """Opens poses of any accepted format, which is determined by the suffix.

  Args:
    path: a file `.pkl`, `.npz` or `.json`, or a folder that OpenPose wrote, or of a file per clip.
    layout: of the keypoints to return.
    only_clip: id of the clip, if there is only one; AlphaPose's files do not name it.

  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: the format is not accepted, or a file is damaged or lacks joints of the layout.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise FileNotFoundError(
      f"no poses at {path}; `pcan extract_pose VIDEOS --out FILE.pkl` estimates them"
    )
  if not path.is_dir():
    return PoseFiles(path, layout, {}, _open_file(path, layout, only_clip))
  if any(path.glob("*_keypoints.json")) or any(path.glob("*/*_keypoints.json")):
    return PoseFiles(path, layout, {}, OpenPoseFolder(path, layout))
  return PoseFiles(path, layout, {}, _FilePerClip(path, layout))


def _open_file(path: pathlib.Path, layout: KeypointLayout, only_clip: str | None) -> _Source:
  suffix = path.suffix.lower()
  if suffix in (".pkl", ".pickle"):
    return PysklFile(path)
  if suffix == ".npz":
    return _Arrays(path)
  if suffix == ".json":
    content = read_json(path)
    if MMPoseFile.fits(content):
      return MMPoseFile(path, content, layout)
    _refuse_images(path, content)
    return CocoFile(path, content, layout, only_clip)
  raise ValueError(
    f"{path} is not a file of poses: expected .pkl (pyskl), .npz or .json (COCO, MMPose), or a "
    "folder of OpenPose's JSON files or of a file per clip"
    + (f". {_YOLO}" if suffix == ".txt" else "")
  )


def _refuse_images(path: pathlib.Path, content: object) -> None:
  """Refuses what tools write of single images, which do not say which frame they are."""
  person = content[0] if isinstance(content, list) and content else None
  if not isinstance(person, dict) or "image_id" in person:
    return
  if "keypoint_scores" in person:
    raise ValueError(
      f"{path} is of one image, as MMPose writes it; give its inferencer the video, of which it "
      "writes one file with all frames"
    )
  if isinstance(person.get("keypoints"), dict):
    raise ValueError(f"{path} is of one image, as YOLO writes it. {_YOLO}")


def _files_of_poses(path: pathlib.Path) -> list[pathlib.Path]:
  """A file of poses, or those in a folder."""
  files = sorted(path.iterdir()) if path.is_dir() else [path]
  return [
    file
    for file in files
    if file.suffix.lower() in _SUFFIXES and file.is_file() and not file.name.startswith(".")
  ]


class _FilePerClip:
  """A folder with one file per clip, also in folders below it.

  The file is named after the clip, or the folder that it is alone in.
  """

  def __init__(self, path: pathlib.Path, layout: KeypointLayout) -> None:
    self._path = path
    self._layout = layout
    self._files: dict[str, pathlib.Path] = {}
    found = {entry: _files_of_poses(entry) for entry in sorted(path.iterdir())}
    # Folders of several files are those of splits, or what MMPose calls `predictions`.
    of_clips = all(len(files) <= 1 for files in found.values())
    for entry, files in found.items():
      for file in files:
        name = entry.name if entry.is_dir() and of_clips else file.stem
        other = self._files.setdefault(composed(name), file)
        if other is not file:
          raise ValueError(f"{other} and {file} have the name of the same clip; keep one")
    if not self._files:
      is_yolo = any(path.rglob("*.txt"))
      raise ValueError(
        f"{path} holds no poses: expected CLIP/CLIP_000000000000_keypoints.json and so on, as "
        "OpenPose writes with --write_json, or a file CLIP.pkl, CLIP.npz or CLIP.json for every "
        "clip" + (f". {_YOLO}" if is_yolo else "")
      )

  @property
  def clip_ids(self) -> Collection[str]:
    return self._files.keys()

  def pose(self, clip_id: str, num_frames: int | None) -> Pose:
    file = self._files[clip_id]
    source = _open_file(file, self._layout, clip_id)
    ids = source.clip_ids
    if clip_id not in ids and len(ids) != 1:
      raise ValueError(
        f"{file} has poses of {len(ids)} clips, but none of {clip_id!r}, its name; if it has the "
        "poses of all clips, give the file itself"
      )
    return source.pose(clip_id if clip_id in ids else next(iter(ids)), num_frames)


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
      members = self._members[composed(clip_id if slash else path.stem)]
      if field in members:
        raise ValueError(f"{path}: two arrays are called {name[:80]!r}")
      members[field] = name

  @property
  def clip_ids(self) -> Collection[str]:
    return self._members.keys()

  def pose(self, clip_id: str, num_frames: int | None) -> Pose:
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


def _with_frames(array: np.ndarray, num_frames: int) -> Float32[np.ndarray, "..."]:
  """Cuts or zero-pads the end to `num_frames`, and adds a person if there is none."""
  padding = [(0, 0)] * array.ndim
  padding[:2] = (0, not len(array)), (0, max(num_frames - array.shape[1], 0))
  return np.pad(array[:, :num_frames].astype(np.float32), padding)

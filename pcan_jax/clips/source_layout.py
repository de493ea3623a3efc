"""Reads a source directory in the layout in which MA-52 is published.

    SOURCE/
      raw_videos/{train,val,test}/ID.mp4        or all videos in raw_videos/ID.mp4
      pose/*_{train,val,test}.pkl               one pickle of poses per split
      annotations/{split}_list_videos.txt       lines `ID.mp4 label`
      annotations/actions.csv                   the label tree; MA-52's if there is none
      annotations/persons.csv                   optional: lines `id,person`

The pickles have pyskl's format (`pcan_jax.clips.pyskl`).

A split without a list file does not exist. Labels of the split `test` are placeholders. A source
without the folder `raw_videos` is one of skeletons: its clips have poses and no videos.
"""

import dataclasses
import math
import os
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pcan_jax.clips.problems import Problem, describe_problems
from pcan_jax.clips.pyskl import PysklFile
from pcan_jax.clips.video_files import (
  HOW_TO_JOIN_IMAGES,
  VIDEO_SUFFIXES,
  FilesByName,
  clip_id,
  composed,
)
from pcan_jax.keypoints import LAYOUTS, KeypointLayout
from pcan_jax.labels import LabelTree, get_tree
from pcan_jax.tables import read_rows

SPLITS = ("train", "val", "test")
PERSONS_FILE = "persons.csv"
UNLABELLED_SPLIT = "test"
UNLABELLED = -1

SKELETON_FPS = 30.0
"""Frames per second of poses without a video that do not state theirs."""


def skeleton_rate(fps: float | None) -> float:
  """Frames per second of poses without a video that do not state theirs.

  Args:
    fps: what a user says; None is `SKELETON_FPS`.

  Raises:
    ValueError: that is no rate.
  """
  if fps is not None and not 0 < fps < math.inf:
    raise ValueError(f"--fps is {fps}; give the frames per second of the poses")
  return SKELETON_FPS if fps is None else fps


@dataclasses.dataclass(frozen=True)
class ClipSource:
  """One clip of a source directory; its video has not been opened.

  Attributes:
    id: name of the video without its suffix.
    split: train, val or test.
    video: path of the video; None for a clip that has only poses.
    action: id of the action, -1 in the test split.
    keypoints: [M, T, V, 2], (x, y) in pixels of the video.
    scores: [M, T, V].
    img_shape: (h, w) in pixels of the frames used for pose estimation, if the pickle says so.
    fps: frames per second of a clip without video; None if the video tells.
    person: who is in the clip; empty if that is not known.
  """

  id: str
  split: str
  video: pathlib.Path | None
  action: int
  keypoints: np.ndarray
  scores: np.ndarray
  img_shape: tuple[int, int] | None
  fps: float | None = None
  person: str = ""

  @property
  def num_frames(self) -> int:
    return self.keypoints.shape[1]

  @property
  def where(self) -> str:
    """The file, or else the clip, for error messages."""
    return str(self.video) if self.video else f"{self.split}/{self.id}"


def find_splits(source: str | os.PathLike[str]) -> list[str]:
  """The splits for which a source directory has a list of videos.

  Raises:
    FileNotFoundError: the directory does not exist or has no list.
  """
  source = pathlib.Path(source)
  if not source.is_dir():
    raise FileNotFoundError(f"no source directory at {source}")
  splits = [split for split in SPLITS if _list_file(source, split).is_file()]
  if not splits:
    raise FileNotFoundError(
      f"{source} has no annotations/{{train,val,test}}_list_videos.txt. A source directory holds "
      "raw_videos/SPLIT/ID.mp4, pose/NAME_SPLIT.pkl and annotations/SPLIT_list_videos.txt with "
      "lines 'ID.mp4 label'; see docs/DATA.md"
    )
  return splits


def has_videos(source: str | os.PathLike[str]) -> bool:
  """Whether a source directory has videos, or only skeletons."""
  return (pathlib.Path(source) / "raw_videos").is_dir()


def read_tree(
  source: str | os.PathLike[str], path: str | os.PathLike[str] | None = None
) -> LabelTree:
  """The label tree at `path`, or the source's own `annotations/actions.csv`, or MA-52's.

  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: the file is not a label tree.
  """
  own = pathlib.Path(source) / "annotations" / "actions.csv"
  return LabelTree.read_csv(own) if path is None and own.is_file() else get_tree(path or "ma52")


def guess_layout(source: str | os.PathLike[str]) -> KeypointLayout:
  """The only known layout with as many keypoints as the poses of a source directory.

  Raises:
    FileNotFoundError, ValueError: the poses cannot be read, or no layout has this many keypoints.
  """
  split = find_splits(source)[0]
  path = _find_pickle(pathlib.Path(source), split)
  count = PysklFile(path, split).num_keypoints
  if count is None:
    raise ValueError(f"{path}: the first entry has no 'keypoint' of shape [M, T, V, 2]")
  fitting = [layout for layout in LAYOUTS.values() if layout.num_keypoints == count]
  if len(fitting) != 1:
    known = ", ".join(f"{layout.name} ({layout.num_keypoints})" for layout in LAYOUTS.values())
    raise ValueError(
      f"{path} has {count} keypoints per person; known layouts: {known}. "
      "Choose one or describe your own in a JSON file, with --layout"
    )
  return fitting[0]


def read_persons(source: str | os.PathLike[str]) -> dict[str, str] | None:
  """The person in every clip, by clip id; None if the source does not say.

  Raises:
    ValueError: `annotations/persons.csv` is not a table `id,person`; the message names the line.
  """
  path = pathlib.Path(source) / "annotations" / PERSONS_FILE
  if not path.is_file():
    return None
  persons: dict[str, str] = {}
  rows = read_rows(path)
  if not rows or [name.lower() for name in _up_to_the_last(rows[0][1])] != ["id", "person"]:
    raise ValueError(f"{path}: the first line must be 'id,person'")
  for line, cells in rows[1:]:
    where = f"{path}, line {line}"
    found = _up_to_the_last(cells)
    if len(found) != 2 or not all(found):
      raise ValueError(f"{where}: expected 'id,person', found {','.join(cells)[:80]!r}")
    name, person = map(composed, found)
    name = clip_id(pathlib.PurePath(name))
    if persons.setdefault(name, person) != person:
      raise ValueError(f"{where}: {name!r} is {person[:40]!r} here and {persons[name]!r} above")
  return persons


def _up_to_the_last(cells: Sequence[str]) -> list[str]:
  """Cells without white space at their ends, up to the last one that is not empty."""
  stripped = [cell.strip() for cell in cells]
  while stripped and not stripped[-1]:
    stripped.pop()
  return stripped


def read_split(
  source: str | os.PathLike[str],
  split: str,
  tree: LabelTree,
  layout: KeypointLayout,
  fps: float = SKELETON_FPS,
) -> list[ClipSource]:
  """All clips of a split in the order of its list file.

  Args:
    source, split, tree, layout: what to read.
    fps: of skeletons whose pickle does not state it.

  Raises:
    FileNotFoundError: a file of the layout is missing.
    ValueError: a file cannot be read, or records are wrong; the first few are named.
  """
  clips, problems = scan_split(source, split, tree, layout, fps)
  if problems:
    raise ValueError(describe_problems(source, problems))
  return clips


def scan_split(
  source: str | os.PathLike[str],
  split: str,
  tree: LabelTree,
  layout: KeypointLayout,
  fps: float = SKELETON_FPS,
) -> tuple[list[ClipSource], list[Problem]]:
  """The good clips of a split, in the order of its list file, and what is wrong with the others.

  Args:
    source, split, tree, layout: what to read.
    fps: of skeletons whose pickle does not state it.

  Raises:
    FileNotFoundError: a file of the layout is missing.
    ValueError: a file as a whole cannot be read.
  """
  source = pathlib.Path(source)
  listed = _read_list(_list_file(source, split))
  pickle_path = _find_pickle(source, split)
  poses = PysklFile(pickle_path, split)
  files = FilesByName()
  with_videos, persons = has_videos(source), read_persons(source)
  clips, problems = [], []
  for name, lines in listed.items():
    try:
      if len(lines) > 1:
        raise ValueError(f"the list names it {len(lines)} times; keep one of the lines")
      ((video_name, label),) = lines
      action = _checked_label(label, split, tree)
      if name not in poses.clip_ids:
        raise ValueError(f"it has no entry in {pickle_path}; add its pose or drop it from the list")
      pose, entry = poses.pose(name).checked(layout), poses.entry(name)
      num_frames = pose.keypoints.shape[1]
      if num_frames == 0:
        raise ValueError("its pose has no frames")
      total = _integer(entry, "total_frames", num_frames)
      if total != num_frames:
        raise ValueError(f"its 'total_frames' is {total}, but its poses are {num_frames}")
      if action != UNLABELLED and _integer(entry, "label", action) != action:
        raise ValueError(
          f"the list says label {action}, {pickle_path.name} says {entry['label']}; "
          "correct one of them"
        )
      if persons is not None and name not in persons:
        raise ValueError(f"annotations/{PERSONS_FILE} does not say who it shows; add a line")
      clips.append(
        ClipSource(
          name,
          split,
          _find_video(source, split, video_name, files) if with_videos else None,
          action,
          pose.keypoints,
          pose.scores,
          pose.img_shape,
          fps=None if with_videos else pose.fps or fps,
          person=persons[name] if persons else "",
        )
      )
    except ValueError as error:
      problems.append(Problem(name, split, str(error)))
  return clips, problems


def find_unlisted(source: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Videos that no list of their split names, relative to the source directory.

  Raises:
    ValueError: a list cannot be read.
  """
  source = pathlib.Path(source)
  listed = {
    split: {
      composed(name)
      for lines in _read_list(_list_file(source, split)).values()
      for name, _ in lines
    }
    for split in find_splits(source)
  }
  folders = {source / "raw_videos": set().union(*listed.values())}
  folders |= {source / "raw_videos" / split: listed.get(split, set()) for split in SPLITS}
  return [
    path.relative_to(source)
    for folder, names in folders.items()
    if folder.is_dir()
    for path in sorted(folder.iterdir())
    if path.suffix.lower() in VIDEO_SUFFIXES and composed(path.name) not in names
  ]


def _list_file(source: pathlib.Path, split: str) -> pathlib.Path:
  return source / "annotations" / f"{split}_list_videos.txt"


def _read_list(path: pathlib.Path) -> dict[str, list[tuple[str, str]]]:
  """For every clip the lines that name it, (name of the video, label); normally one."""
  if not path.is_file():
    raise FileNotFoundError(f"no list of videos at {path}")
  try:
    text = path.read_text(encoding="utf-8-sig")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
  listed: dict[str, list[tuple[str, str]]] = {}
  for number, line in enumerate(text.splitlines(), start=1):
    if not line.strip():
      continue
    parts = line.rsplit(None, 1)
    if len(parts) != 2:
      raise ValueError(f"{path}, line {number}: expected 'ID.mp4 label', found {line[:80]!r}")
    name = parts[0].strip().strip('"')
    _check_name(name, f"{path}, line {number}")
    if not name.lower().endswith(VIDEO_SUFFIXES):
      name += ".mp4"
    listed.setdefault(clip_id(pathlib.PurePath(name)), []).append((name, parts[1]))
  if not listed:
    raise ValueError(f"{path}: the list names no video")
  return listed


def _check_name(name: str, where: str) -> None:
  """Names of videos are untrusted and become parts of paths."""
  hostile = any(unicodedata.category(char) == "Cc" for char in name)
  if hostile or "/" in name or "\\" in name or name.strip(". ") == "":
    raise ValueError(f"{where}: {name[:80]!r} is not the plain name of a video")


def _find_pickle(source: pathlib.Path, split: str) -> pathlib.Path:
  """The pickle whose name contains the name of the split, or else the only pickle."""
  folders = [source, *sorted(path for path in source.iterdir() if path.is_dir())]
  pickles = [
    path
    for folder in folders
    if folder.name not in ("raw_videos", "annotations")
    for path in sorted(folder.glob("[!.]*.pkl"))
  ]
  words = {path: path.stem.lower().replace("-", "_").split("_") for path in pickles}
  of_split = [path for path in pickles if split in words[path]]
  others = [path for path in pickles if not set(SPLITS) & set(words[path])]
  candidates = of_split or others
  if not candidates:
    raise FileNotFoundError(
      f"{source} has no pose pickle for the split {split!r}: expected pose/NAME_{split}.pkl"
    )
  if len(candidates) > 1:
    raise ValueError(
      f"{source} has several pose pickles for the split {split!r}, keep one of: "
      + ", ".join(map(str, candidates))
    )
  return candidates[0]


def _integer(entry: Mapping[str, Any], field: str, default: int) -> int:
  value = entry.get(field, default)
  if not isinstance(value, int | np.integer):
    raise ValueError(f"its {field!r} in the pose pickle is a {type(value).__name__}, not a number")
  return int(value)


def _checked_label(text: str, split: str, tree: LabelTree) -> int:
  if split == UNLABELLED_SPLIT:
    return UNLABELLED
  try:
    action = int(text)
  except ValueError:
    raise ValueError(f"its label {text[:40]!r} is not the id of an action") from None
  if not 0 <= action < tree.num_actions:
    raise ValueError(
      f"its label {action} is outside the label tree, which has 0..{tree.num_actions - 1}; "
      "correct the label or choose another tree with --tree"
    )
  return action


def _find_video(source: pathlib.Path, split: str, name: str, files: FilesByName) -> pathlib.Path:
  places = [source / "raw_videos" / split / name, source / "raw_videos" / name]
  for path in places:
    found = files.find(path, below=path.parent)
    if found:
      return found
  for folder in (folder for path in places for folder in (path.with_suffix(""), path)):
    if folder.is_dir():
      raise ValueError(
        f"{folder} is a folder, not a video; images are joined by `{HOW_TO_JOIN_IMAGES}`"
      )
  raise ValueError(
    f"its video is missing: neither {places[0]} nor {places[1]} exists. If there are only poses, "
    "remove the folder raw_videos"
  )

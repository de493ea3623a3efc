"""Reads the table of videos and their labels.

A CSV file, as `pcan_jax.tables` reads it, whose first line names the columns

    video    path below the folder of videos; the file name without its suffix is the clip's id
    label    name of the action, or `body/action`, or the id of the action in a label tree
    body     optional: name of the body part
    split    optional: train, val or test; labels of test are not used
    person   optional: who is in the video; drawn splits do not share persons
    fps      optional, without videos: frames per second of the poses

Empty rows and columns, as spreadsheets write them, are ignored; empty cells at the end of a row may
be missing.
"""

import dataclasses
import math
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence

from pcan_jax import tables
from pcan_jax.clips.source_layout import SPLITS, UNLABELLED, UNLABELLED_SPLIT
from pcan_jax.clips.video_files import (
  HOW_TO_CONVERT,
  HOW_TO_JOIN_IMAGES,
  VIDEO_SUFFIXES,
  clip_id,
  composed,
  find_videos,
)
from pcan_jax.labels import LabelTree, plain_name

COLUMNS = ("video", "label", "body", "split", "person", "fps")

_MAX_NAME_BYTES = 255


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table; missing values are empty strings.

  Attributes:
    where: file and line, for error messages.
    video: path of the video below the folder of videos.
    label: of the clip.
    body: body part.
    split: train, val or test.
    person: who is in the video.
    fps: frames per second of poses without a video.
  """

  where: str
  video: str
  label: str
  body: str
  split: str
  person: str
  fps: str = ""

  @property
  def video_name(self) -> str:
    return self.video.rpartition("/")[2]

  @property
  def id(self) -> str:
    return clip_id(pathlib.PurePosixPath(self.video_name))


def read_rows(path: str | os.PathLike[str], *, videos: bool = True) -> tuple[list[Row], list[str]]:
  """Reads the table.

  Args:
    path: of the table.
    videos: whether there are videos; without, names need no suffix, and `fps` is read.

  Returns:
    The rows in their order, and the names of unused columns.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not such a table, or a row is wrong; the message names the line.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no table of clips at {path}: expected a CSV file 'video,label'")
  lines = tables.read_rows(path)
  header, rows = [name.strip() for name in lines.pop(0)[1]] if lines else [], []
  header = [name.lower() if name.lower() in COLUMNS else name for name in header]
  _check_header(header, path)
  for number, cells in lines:
    rows.append(_row(header, cells, f"{path}, line {number}", videos))
  if not rows:
    raise ValueError(f"{path}: the table names no video")
  _require_different(rows)
  for column in ("split", "person"):
    if column in header:
      _check_filled(rows, column)
  used = COLUMNS if not videos else COLUMNS[:-1]
  return rows, [name for name in header if name and name not in used]


def unlabelled_rows(videos: pathlib.Path) -> list[Row]:
  """Rows for all videos in a folder and its subfolders, without labels, in the split test.

  Raises:
    FileNotFoundError: there is none.
    ValueError: a video has a name that a table could not hold, or the id of another one.
  """
  header = ("video", "label", "split")
  rows = [
    _row(header, [path.relative_to(videos).as_posix(), "", UNLABELLED_SPLIT], str(path), True)
    for path in find_videos(videos)
  ]
  _require_different(rows)
  return rows


def _require_different(rows: Sequence[Row]) -> None:
  seen: dict[str, Row] = {}
  for row in rows:
    other = seen.setdefault(row.id, row)
    if other.video == row.video and other is not row:
      raise ValueError(f"{row.where}: {row.video!r} is listed twice, first in {other.where}")
    if other is not row:
      raise ValueError(
        f"{row.where}: {row.video!r} has the id of {other.video!r} ({other.where}); rename one"
      )


def _check_header(header: Sequence[str], path: pathlib.Path) -> None:
  if not {"video", "label"} <= set(header):
    raise ValueError(
      f"{path}: the first line must name the columns 'video,label', and can name "
      f"{', '.join(COLUMNS[2:])}; found {','.join(header)[:80]!r}"
    )
  named = [name for name in header if name]
  if len(set(named)) != len(named):
    raise ValueError(f"{path}: a column is named twice in {','.join(header)[:80]!r}")


def _check_filled(rows: Sequence[Row], column: str) -> None:
  for row in rows:
    if not getattr(row, column):
      raise ValueError(f"{row.where}: {column!r} is empty; fill it everywhere or drop the column")


def _row(header: Sequence[str], cells: Sequence[str], where: str, videos: bool) -> Row:
  while len(cells) > len(header) and not cells[-1].strip():
    cells = cells[:-1]
  if len(cells) > len(header):
    raise ValueError(f"{where}: {len(cells)} cells in {len(header)} columns")
  cells = [*cells, *[""] * (len(header) - len(cells))]
  nameless = [cell for name, cell in zip(header, cells) if not name and cell.strip()]
  if nameless:
    raise ValueError(f"{where}: the column of {nameless[0][:40]!r} has no name; give it one")
  # Other white space around the name of a video is refused below.
  given = {
    name: composed(cell.strip(" ")) if name == "video" else plain_name(cell)
    for name, cell in zip(header, cells)
    if name in COLUMNS
  }
  row = Row(where, **(dict.fromkeys(COLUMNS, "") | given))
  _check_video(row.video, where, videos)
  if row.fps and not videos and not _is_rate(row.fps):
    raise ValueError(f"{where}: fps {row.fps[:40]!r} is not a number of frames per second")
  if row.split not in ("", *SPLITS):
    raise ValueError(f"{where}: split {row.split[:40]!r}; expected one of {', '.join(SPLITS)}")
  if not row.label and row.split != UNLABELLED_SPLIT:
    raise ValueError(f"{where}: no label")
  for text in (row.label, row.body):
    if any(unicodedata.category(char) == "Cc" for char in text):
      raise ValueError(f"{where}: the label {text[:40]!r} holds control characters")
  return row


def _is_rate(text: str) -> bool:
  try:
    return 0 < float(text) < math.inf
  except ValueError:
    return False


def _check_video(name: str, where: str, videos: bool) -> None:
  """Names of videos are untrusted and become parts of paths and lines of lists."""
  forbidden = any(unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") for char in name)
  parts = name.split("/")
  if (
    forbidden
    or "\\" in name
    or '"' in name
    or any(part != part.strip() or part.strip(". ") == "" for part in parts)
    or any(len(part.encode()) > _MAX_NAME_BYTES for part in parts)
  ):
    raise ValueError(f"{where}: {name[:80]!r} is not a plain file name below the folder of videos")
  if not videos:
    return
  stem, dot, suffix = parts[-1].rpartition(".")
  if not stem.strip(". ") or dot + suffix.lower() not in VIDEO_SUFFIXES:
    raise ValueError(
      f"{where}: {name[:80]!r} does not end in one of {' '.join(VIDEO_SUFFIXES)}; others are "
      f"converted by `{HOW_TO_CONVERT}`, folders of images joined by `{HOW_TO_JOIN_IMAGES}`"
    )


def label_rows(rows: Sequence[Row], tree: LabelTree | None) -> tuple[LabelTree, list[int]]:
  """Finds the action of every row.

  Args:
    rows: the table.
    tree: the label tree. None creates one from the labels, in alphabetical order; every row must
      then name its body part.

  Returns:
    The tree, and for every row the id of the action, -1 in the split test.

  Raises:
    ValueError: a label is not in the tree, or no tree can be created; the message names the line.
  """
  labelled = [row for row in rows if row.split != UNLABELLED_SPLIT]
  if tree is None:
    tree = _derive_tree(labelled)
  actions = {row: _find_action(row, tree) for row in labelled}
  return tree, [actions.get(row, UNLABELLED) for row in rows]


def _derive_tree(rows: Sequence[Row]) -> LabelTree:
  if not rows:
    raise ValueError("all clips are in the split test, so there are no labels; give a --tree")
  body_of: dict[str, str] = {}
  for row in rows:
    body, action = _body_and_action(row)
    if not body or not action:
      raise ValueError(
        f"{row.where}: the label {row.label[:40]!r} does not say which body part it belongs to; "
        "write 'body/action', add a column 'body', or give a label tree with --tree"
      )
    if action.isdecimal():
      raise ValueError(
        f"{row.where}: the label {action[:40]!r} is an id, which needs a --tree; or write its name"
      )
    if body_of.setdefault(action, body) != body:
      raise ValueError(
        f"{row.where}: the action {action!r} belongs to {body!r}, above to {body_of[action]!r}; "
        "every action needs a unique name"
      )
  pairs = sorted((body, action) for action, body in body_of.items())
  bodies = tuple(dict.fromkeys(body for body, _ in pairs))
  return LabelTree(
    tuple(action for _, action in pairs), bodies, tuple(bodies.index(body) for body, _ in pairs)
  )


def _body_and_action(row: Row) -> tuple[str, str]:
  """The two in a row, of which a column `body` may repeat what the label says.

  Raises:
    ValueError: the label and the column contradict each other; the message names the line.
  """
  body, slash, action = (part.strip() for part in row.label.rpartition("/"))
  if not row.body:
    return body, action
  if slash and body.casefold() != row.body.casefold():
    raise ValueError(
      f"{row.where}: the label {row.label[:40]!r} says another body part than the column body, "
      f"{row.body[:40]!r}; a name of an action must not hold a slash"
    )
  return row.body, action


def _find_action(row: Row, tree: LabelTree) -> int:
  body, label = ("", row.label) if row.label in tree.actions else _body_and_action(row)
  candidates = set(_actions_called(label, tree))
  if not candidates:
    raise ValueError(
      f"{row.where}: the label {row.label[:40]!r} is not in the label tree, neither as a name nor "
      f"as an id from 0 to {tree.num_actions - 1}; the first action is {tree.actions[0]!r}"
    )
  if len(candidates) > 1:
    raise ValueError(f"{row.where}: {label!r} is the name of one action and the id of another one")
  (action,) = candidates
  parent = tree.bodies[tree.parents[action]]
  if (row.body or body or parent) != parent:
    raise ValueError(
      f"{row.where}: {tree.actions[action]!r} belongs to {parent!r} in the label tree, "
      f"not to {(row.body or body)[:40]!r}"
    )
  return action


def _actions_called(label: str, tree: LabelTree) -> Iterator[int]:
  if label in tree.actions:
    yield tree.actions.index(label)
  if label.isdecimal() and len(label) < 10 and int(label) < tree.num_actions:
    yield int(label)

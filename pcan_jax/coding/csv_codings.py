"""Tables of codings: our own plain CSV, and the CSV of the MMA-52 detection challenge.

Plain CSV has the columns `video,start,end,label` and, optionally, `tier,subject,confidence`. Times
are seconds, or `[hours:]minutes:seconds`. The challenge's file has `video_id,t_start,t_end,class,
score`, where `video_id` is the video's name without its suffix and `class` the id of the action.
"""

import collections
import csv
import io
import math
import pathlib
import re
from collections.abc import Mapping, Sequence

from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.reading import Points, Tell, decode, media_stem
from pcan_jax.coding.writing import files_for, milliseconds, tier_of
from pcan_jax.labels import LabelTree
from pcan_jax.writing import replace_file

_COLUMNS = ("video", "start", "end", "label", "tier", "subject", "confidence")
_DETECTION_COLUMNS = ("video_id", "t_start", "t_end", "class", "score")
_MAX_CELL = 1 << 20


def read_table(content: bytes, path: pathlib.Path) -> list[list[str]]:
  """The rows of a table with commas, semicolons or tabs; empty rows are left out.

  Raises:
    ValueError: it is not a table.
  """
  text = decode(content, path)
  first = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
  before = csv.field_size_limit(_MAX_CELL)
  try:
    rows = csv.reader(
      io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True
    )
    return [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
  except csv.Error as error:
    raise ValueError(f"{path}: not a table ({error})") from error
  finally:
    csv.field_size_limit(before)


def seconds(text: str, where: str) -> float:
  """Seconds from `12.5`, `1:02.5` or `01:02:03.5`, or the same below zero, as `-0:01`.

  Raises:
    ValueError: the text is not such a time.
  """
  parts = text.removeprefix("-").replace(",", ".").split(":")
  if len(parts) <= 3 and all(re.fullmatch(r"\d+(\.\d*)?([eE][-+]?\d+)?", part) for part in parts):
    value = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    if math.isfinite(value):
      return -value if text.startswith("-") else value
  raise ValueError(f"{where}: {text[:40]!r} is not a time in seconds or hours:minutes:seconds")


def is_csv(header: Sequence[str]) -> bool:
  """Whether a first line is that of a plain CSV."""
  return {"video", "start", "end", "label"} <= {name.lower() for name in header}


def read_csv(
  rows: Sequence[Sequence[str]], path: pathlib.Path, point_seconds: float | None, tell: Tell
) -> list[Coding]:
  """Reads plain CSV; a row without an end, or with the end at the start, is a point event.

  Raises:
    ValueError: a row is wrong; the message names it.
  """
  header = [name.lower() for name in rows[0]]
  twice = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
  if twice:
    raise ValueError(f"{path}: there are two columns {', '.join(twice)}; keep one")
  points = Points(point_seconds, path)
  found: dict[str, list[Event]] = {}
  for number, row in enumerate(rows[1:], 2):
    where = f"{path}, row {number}"
    if len(row) > len(header) and any(row[len(header) :]):
      raise ValueError(f"{where}: {len(row)} cells in {len(header)} columns")
    cells = collections.defaultdict(str, zip(header, row))
    if not cells["video"]:
      raise ValueError(f"{where}: no video")
    events = found.setdefault(cells["video"], [])
    events += _events(cells, where, points, tell)
  points.check()
  unused = [name for name in rows[0] if name and name.lower() not in _COLUMNS]
  if unused:
    tell(f"{path}: unused columns: {', '.join(unused)}")
  return [Coding(video, tuple(events)) for video, events in found.items()]


def _events(cells: Mapping[str, str], where: str, points: Points, tell: Tell) -> list[Event]:
  onset = seconds(cells["start"], where)
  offset = seconds(cells["end"] or cells["start"], where)
  if not cells["label"]:
    tell(f"{where}: no label; left out")
    return []
  try:
    confidence = _confidence(cells["confidence"])
    fields = {"tier": cells["tier"], "subject": cells["subject"], "confidence": confidence}
    if offset == onset:
      return points.event(onset, cells["label"], **fields)
    return [Event(onset, offset, cells["label"], **fields)]
  except ValueError as error:
    raise ValueError(f"{where}: {error}") from error


def _confidence(cell: str) -> float | None:
  if not cell:
    return None
  try:
    return float(cell.replace(",", "."))
  except ValueError:
    raise ValueError(f"confidence {cell[:40]!r} is not a number in 0..1") from None


def write_csv(
  codings: Sequence[Coding], tree: LabelTree, output_dir: pathlib.Path
) -> list[pathlib.Path]:
  """Writes all codings to one plain CSV, `codings.csv`."""
  rows = [
    [
      coding.video,
      *(f"{time / 1000:.3f}" for time in milliseconds(event)),
      event.label,
      tier_of(event, tree),
      event.subject,
      "" if event.confidence is None else f"{event.confidence:.4f}",
    ]
    for coding in codings
    for event in coding.events
  ]
  path = output_dir / "codings.csv"
  write_table(path, [_COLUMNS, *rows])
  return [path]


def write_table(path: pathlib.Path, rows: Sequence[Sequence[object]], delimiter: str = ",") -> None:
  """Writes rows as a whole file."""
  text = io.StringIO()
  csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
  replace_file(path, text.getvalue())


def is_detections(header: Sequence[str]) -> bool:
  """Whether a first line is that of the challenge's file."""
  return set(_DETECTION_COLUMNS) <= set(header)


def read_detections(
  rows: Sequence[Sequence[str]],
  path: pathlib.Path,
  point_seconds: float | None,
  tell: Tell,
  tree: LabelTree | None,
) -> list[Coding]:
  """Reads the challenge's file, which has the ids of actions.

  Labels are their names in the tree; without one, the ids themselves as text.

  Raises:
    ValueError: a row is wrong; the message names it.
  """
  column = [rows[0].index(name) for name in _DETECTION_COLUMNS]
  table = [["video", "start", "end", "label", "confidence"]]
  for number, row in enumerate(rows[1:], 2):
    video, start, end, action, score = (row[i] if i < len(row) else "" for i in column)
    if not (action.isdecimal() and len(action) < 10):
      raise ValueError(
        f"{path}, row {number}: the class {action[:40]!r} is not the id of an action"
      )
    if tree and int(action) >= tree.num_actions:
      raise ValueError(
        f"{path}, row {number}: class {action}, but the label tree has {tree.num_actions} actions"
      )
    table.append([video, start, end, tree.actions[int(action)] if tree else action, score])
  return read_csv(table, path, point_seconds, tell)


def write_detections(
  codings: Sequence[Coding], tree: LabelTree, output_dir: pathlib.Path
) -> list[pathlib.Path]:
  """Writes all events to `detections.csv`; a person's coding has the score 1.

  Raises:
    ValueError: a label is not in the tree, or two videos have the same name.
  """
  files_for(codings, output_dir, "")  # no two of one name
  rows = []
  for coding in codings:
    for event in coding.events:
      if event.label not in tree.actions:
        raise ValueError(f"{coding.video}: the label {event.label[:40]!r} is not in the label tree")
      times = (f"{time / 1000:.3f}" for time in milliseconds(event))
      score = 1.0 if event.confidence is None else event.confidence
      video = media_stem(coding.video)
      rows.append([len(rows), video, *times, tree.actions.index(event.label), f"{score:.6f}"])
  path = output_dir / "detections.csv"
  write_table(path, [("", *_DETECTION_COLUMNS), *rows])
  return [path]

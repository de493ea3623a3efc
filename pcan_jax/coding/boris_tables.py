"""BORIS's tables of events.

*Tabular events* have a row per start, stop and point; older versions put lines about the
observation before the header. *Aggregated events* have a row per event. Columns:
https://github.com/olivierfriard/BORIS, `boris/export_observation.py`.
"""

import itertools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from pcan_jax.coding.boris import (
  Playlist,
  Row,
  check_lengths,
  comment_of,
  events_of,
  length_of,
  pair_rows,
  with_lanes,
)
from pcan_jax.coding.csv_codings import seconds, write_table
from pcan_jax.coding.events import Coding
from pcan_jax.coding.reading import Points, Tell, media_stem, plain_path
from pcan_jax.coding.writing import files_for, milliseconds, tier_of
from pcan_jax.labels import LabelTree

_NOTHING = ("", "NA", "Not found", "Not defined", "No focal subject")
_COLUMNS = (
  "Observation id", "Observation date", "Description", "Observation duration", "Observation type",
  "Source", "Time offset (s)", "Media duration (s)", "FPS", "Subject", "Behavior",
  "Behavioral category", "Modifier #1", "Behavior type", "Time", "Media file name", "Image index",
  "Image file path", "Comment",
)  # fmt: skip

_Cells = Mapping[str, str]


def header_row(rows: Sequence[Sequence[str]]) -> int | None:
  """The index of the header of BORIS's table, or None if this is not one."""
  for index, row in enumerate(rows[:200]):
    if _is_aggregated(row) or "Behavior" in row and "Time" in row:
      return index
  return None


def _is_aggregated(header: Sequence[str]) -> bool:
  return {"Behavior", "Start (s)", "Stop (s)"} <= set(header)


def read_boris_table(
  rows: Sequence[Sequence[str]], path: pathlib.Path, point_seconds: float | None, tell: Tell
) -> list[Coding]:
  """Reads tabular or aggregated events, like `boris.read_boris`.

  Raises:
    ValueError: a row is wrong, or the table does not say of which videos it is.
  """
  start = header_row(rows)
  header = rows[start]
  # Older versions name the observation and its media before the header.
  above = {row[0].rstrip(":"): row[1] for row in rows[:start] if len(row) > 1}
  observations: dict[str, list[tuple[str, _Cells]]] = {}
  for number, row in enumerate(rows[start + 1 :], start + 2):
    cells = dict(itertools.zip_longest(header, row[: len(header)], fillvalue=""))
    name = cells.get("Observation id") or above.get("Observation id", "")
    observations.setdefault(name, []).append((f"{path}, row {number}", cells))
  points, codings = Points(point_seconds, path), []
  for name, of_one in observations.items():
    where = f"{path}: observation {name!r}"

    def told(line: str, where: str = where) -> None:
      tell(f"{where}: {line}")

    playlist = _playlist([cells for _, cells in of_one], where, told)
    if playlist is None:
      told("it is not of media files; left out")
      continue
    shift = seconds(_known(of_one[0][1].get("Time offset (s)", "")) or "0", where)
    if _is_aggregated(header):
      pairs = (pair for place, cells in of_one for pair in _aggregated(cells, place, told))
    else:
      pairs = pair_rows((_tabular(cells, place) for place, cells in of_one), told)
    codings += events_of(pairs, playlist, shift, points, told)
  points.check()
  return codings


def _known(cell: str) -> str:
  return "" if cell in _NOTHING else cell


def _playlist(rows: Sequence[_Cells], where: str, tell: Tell) -> Playlist | None:
  first = rows[0]
  source = _known(first.get("Source", ""))
  columns = ("Media file name", "Media file", "Media file path", "Media file(s)")
  named = list(
    dict.fromkeys(
      next((_known(cells[column]) for column in columns if _known(cells.get(column, ""))), "")
      for cells in rows
    )
  )
  players = re.split(r"\|?player #\d:", source)[1:]
  videos = players[0].split(";") if players else [name for name in named if name]
  if len(named) == 1 and players == named:  # its name may hold a semicolon
    videos = named
  if not videos:
    return None
  if len(players) > 1:
    tell(f"the videos of other players are not used: {', '.join(players[1:])}")
  of_first = [
    _known(first.get(column, "")).split("|")[0].split(";")
    for column in ("Media duration (s)", "FPS")
  ]
  lengths, rates = (
    [_float(cells[index]) if index < len(cells) else None for index in range(len(videos))]
    for cells in of_first
  )
  check_lengths(videos, lengths, where)
  return Playlist([plain_path(video.strip()) for video in videos], lengths, rates)


def _float(cell: str) -> float | None:
  return float(cell) if re.fullmatch(r"\d+(\.\d+)?", cell) and float(cell) else None


def _tabular(cells: _Cells, where: str) -> Row:
  kind = (cells.get("Behavior type") or cells.get("Status", "")).upper()
  if kind not in ("START", "STOP", "POINT"):
    raise ValueError(f"{where}: {kind[:40]!r} is not START, STOP or POINT")
  return _row(cells, cells["Time"], cells.get("Comment", ""), kind == "POINT", where)


def _aggregated(cells: _Cells, where: str, tell: Tell) -> Iterator[tuple[Row, Row]]:
  """Start and stop of the one event of a row, or nothing if it lacks one of them."""
  start, stop = _known(cells["Start (s)"]), _known(cells["Stop (s)"])
  is_point = cells.get("Behavior type", "").upper() == "POINT"
  if not start or not (stop or is_point):
    tell(f"{cells['Behavior']!r} has no start or no stop; left out")
    return
  comment = cells.get("Comment start", cells.get("Comment", ""))
  first, last = (_row(cells, time, comment, is_point, where) for time in (start, stop or start))
  if last.time < first.time:
    raise ValueError(f"{where}: {cells['Behavior']!r} stops at {stop} s, before it starts")
  yield first, last


def _row(cells: _Cells, time: str, comment: str, is_point: bool, where: str) -> Row:
  modifiers = [value for name, value in cells.items() if name.startswith("Modifier") and value]
  return Row(
    seconds(time, where),
    _known(cells.get("Subject", "")),
    cells["Behavior"],
    _known(cells.get("Behavioral category", "")),
    "|".join(modifiers),
    _known(comment),
    is_point,
  )


def write_boris_table(
  codings: Sequence[Coding], tree: LabelTree, output_dir: pathlib.Path
) -> list[pathlib.Path]:
  """Writes all codings to one table of tabular events, `boris_events.tsv`."""
  files_for(codings, output_dir, "")  # no two of one name
  rows = [row for coding in codings for row in _rows(coding, tree)]
  path = output_dir / "boris_events.tsv"
  write_table(path, [_COLUMNS, *rows], delimiter="\t")
  return [path]


def _rows(coding: Coding, tree: LabelTree) -> list[tuple[str, ...]]:
  video, name, length = coding.video, media_stem(coding.video), length_of(coding)
  fps = "NA" if coding.fps is None else f"{coding.fps:.3f}"
  found = []
  for event, modifier in with_lanes(coding.events):
    tier = tier_of(event, tree)
    for kind, time in zip(("START", "STOP"), milliseconds(event)):
      cells = (
        name, "", "", f"{length:.3f}", "Media file(s)", f"player #1:{video}", "0.0",
        f"{length:.3f}", fps, event.subject, event.label, tier, modifier, kind,
        f"{time / 1000:.3f}", video, "NA", "NA", comment_of(event),
      )  # fmt: skip
      found.append((time, cells))
  return [cells for _, cells in sorted(found, key=lambda row: row[0])]

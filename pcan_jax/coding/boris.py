"""BORIS projects, `.boris`: JSON with an ethogram, subjects and observations.

An observation has media in up to eight players. Those of one player follow each other; the times
of events count from the start of the first one, plus the observation's offset. A state event is
two rows, start and stop, of the same subject, code and modifiers; a point event is one.

Format: https://github.com/olivierfriard/BORIS, `boris/config.py` (project format 7.0).
"""

import collections
import dataclasses
import datetime
import itertools
import json
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.reading import Points, Tell, parse_json, plain_path
from pcan_jax.coding.writing import files_for, milliseconds, tier_of
from pcan_jax.labels import LabelTree
from pcan_jax.writing import replace_file

_PLAYERS = [str(number) for number in range(1, 9)]
_CONFIDENCE = re.compile(r"confidence ([01]\.\d+)")
_FPS = 25.0  # BORIS wants a number where none is known
# Lengths are this much longer: BORIS compares exactly, and as a binary number 3852.111 is a little
# less than that, so that the stop of an event there would be beyond the video.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of events.

  Attributes:
    time: seconds, on the clock of the observation's first player.
    subject: whom it concerns; empty for none.
    code: of the behaviour.
    category: of the behaviour.
    modifiers: as BORIS joins them.
    comment: free text.
    is_point: whether it is a point event and not the start or stop of a state.
  """

  time: float
  subject: str
  code: str
  category: str
  modifiers: str
  comment: str
  is_point: bool


@dataclasses.dataclass(frozen=True)
class Playlist:
  """Media that follow each other.

  Attributes:
    videos: paths.
    lengths: seconds of each; None where that is not known.
    rates: frames per second of each; None where that is not known.
  """

  videos: Sequence[str]
  lengths: Sequence[float | None]
  rates: Sequence[float | None]

  def parts(self, onset: float, offset: float) -> list[tuple[str, float, float]]:
    """The stretch of each video that lies between two times of the playlist."""
    found, start, last = [], 0.0, len(self.videos) - 1
    for index, (video, length) in enumerate(zip(self.videos, self.lengths)):
      end = math.inf if length is None or index == last else start + length
      if onset < end and (offset > start or onset == offset >= start):
        found.append((video, max(onset, start) - start, min(offset, end) - start))
      start = end
    return found


def is_boris(content: bytes) -> bool:
  """Whether a file is likely to be a BORIS project."""
  return content.lstrip()[:1] == b"{" and b'"behaviors_conf"' in content


def read_boris(
  content: bytes, path: pathlib.Path, point_seconds: float | None, tell: Tell
) -> list[Coding]:
  """Reads all observations of media: a coding per observation and video of the first player.

  The label of an event is the code of the behaviour, its tier the category. Modifiers are not read.

  Raises:
    ValueError: the file is not a BORIS project, or damaged.
  """
  project = parse_json(content, path)
  ethogram = _field(project, "behaviors_conf", dict, path)
  behaviours = {str(_field(entry, "code", str, path)): entry for entry in ethogram.values()}
  codings, points = [], Points(point_seconds, path)
  for name, observation in _field(project, "observations", dict, path).items():
    where = f"{path}: observation {name!r}"

    def told(line: str, where: str = where) -> None:
      tell(f"{where}: {line}")

    if _field(observation, "type", str, where) != "MEDIA":
      told("it is not of media files; left out")
      continue
    playlist = _playlist(observation, where, told)
    rows = _rows(_field(observation, "events", list, where), behaviours, where, told)
    shift = _shift(observation)
    codings += events_of(pair_rows(rows, told), playlist, shift, points, told)
  points.check()
  return codings


def _field(entry: Any, name: str, kind: type, where: object) -> Any:
  value = entry.get(name) if isinstance(entry, dict) else None
  if not isinstance(value, kind):
    raise ValueError(f"{where}: not a BORIS project, or damaged: {name!r} is missing or wrong")
  return value


def _playlist(observation: Mapping[str, Any], where: str, tell: Tell) -> Playlist:
  players = _field(observation, "file", dict, where)
  videos = players.get("1") or []
  if not videos or not all(isinstance(video, str) for video in videos):
    raise ValueError(f"{where}: its first player has no media file")
  others = [video for player in _PLAYERS[1:] for video in players.get(player) or []]
  if others:
    tell(f"the videos of other players are not used: {', '.join(map(str, others))}")
  info = observation.get("media_info")
  info = info if isinstance(info, dict) else {}
  lengths, rates = (
    [_positive(table.get(video)) if isinstance(table, dict) else None for video in videos]
    for table in (info.get("length"), info.get("fps"))
  )
  check_lengths(videos, lengths, where)
  return Playlist([plain_path(video) for video in videos], lengths, rates)


def check_lengths(videos: Sequence[str], lengths: Sequence[float | None], where: str) -> None:
  """Raises ValueError if the place of an event in its video cannot be known."""
  for video, length in zip(videos[:-1], lengths):
    if length is None:
      raise ValueError(
        f"{where}: several videos follow each other, and the length of {video!r} is not given"
      )


def _positive(value: Any) -> float | None:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return float(value) if number and 0 < value < math.inf else None


def _shift(observation: Mapping[str, Any]) -> float:
  """Seconds by which the times of events are ahead of the first video."""
  shift = _number(observation.get("time offset") or 0.0) or 0.0
  if observation.get("media_creation_date_as_offset"):
    created = (observation.get("media_info") or {}).get("media_creation_time") or {}
    shift += next((_number(created[key]) or 0.0 for key in created), 0.0)
  return shift


def _number(value: Any) -> float | None:
  try:
    number = float(value)
  except (TypeError, ValueError):
    return None
  return number if math.isfinite(number) else None


def _rows(
  events: Sequence[Any], behaviours: Mapping[str, Any], where: str, tell: Tell
) -> Iterator[Row]:
  for index, event in enumerate(events):
    time = _number(event[0]) if isinstance(event, list) and len(event) >= 3 else None
    if time is None:
      raise ValueError(f"{where}: event {index} is not [time, subject, code, ...]: {event!r:.60}")
    subject, code, modifiers, comment = map(str, [*event[1:5], "", ""][:4])
    if code not in behaviours:
      tell(f"{code!r} at {time:g} s is not in the ethogram; left out")
      continue
    kind = str(behaviours[code].get("type", ""))
    category = str(behaviours[code].get("category") or "")
    yield Row(time, subject, code, category, modifiers, comment, "point" in kind.lower())


def events_of(
  pairs: Iterable[tuple[Row, Row]],
  playlist: Playlist,
  shift: float,
  points: Points,
  tell: Tell,
) -> list[Coding]:
  """The events of one observation, sorted by the videos that they are in.

  Args:
    pairs: start and stop of every event; twice the same of a point event.
    playlist: the videos.
    shift: seconds by which the times of the observation are later than those of its videos.
    points: collects point events.
    tell: see `formats.read_codings`.
  """
  of_video: dict[str, list[Event]] = {video: [] for video in playlist.videos}
  modified = set()
  for start, end in pairs:
    modified |= {start.code} if start.modifiers and not _is_lane(start.modifiers) else set()
    stated = _CONFIDENCE.fullmatch(start.comment)
    fields = {
      "tier": start.category.strip(),
      "subject": start.subject.strip(),
      "confidence": min(float(stated[1]), 1.0) if stated else None,
    }
    label = start.code.strip()
    if not label:
      tell(f"the behaviour at {start.time:g} s has no code; left out")
      continue
    parts = playlist.parts(round(start.time - shift, 6), round(end.time - shift, 6))
    if len(parts) > 1:
      tell(f"{label!r} at {start.time:g} s goes on in the next video; cut at the border")
    elif not parts:
      tell(f"{label!r} at {start.time:g} s lies before the first video; left out")
    for video, onset, offset in parts:
      if onset == offset:
        of_video[video] += points.event(round(onset, 6), label, **fields)
      else:
        of_video[video].append(Event(round(onset, 6), round(offset, 6), label, **fields))
  if modified:
    tell(f"modifiers are not read; there are some of {', '.join(sorted(modified))}")
  return [
    Coding(video, tuple(of_video[video]), length, rate)
    for video, length, rate in zip(playlist.videos, playlist.lengths, playlist.rates)
  ]


def _is_lane(modifiers: str) -> bool:
  return re.fullmatch(r"lane \d+", modifiers) is not None


def pair_rows(rows: Iterable[Row], tell: Tell) -> Iterator[tuple[Row, Row]]:
  """Starts and stops of states; a point event is a pair with itself."""
  running: dict[tuple[str, str, str], Row] = {}
  for row in sorted(rows, key=lambda row: row.time):
    key = (row.subject, row.code, row.modifiers)
    if row.is_point:
      yield row, row
    elif key in running:
      yield running.pop(key), row
    else:
      running[key] = row
  for row in running.values():
    tell(f"{row.code!r} starts at {row.time:g} s and does not stop; left out")


def write_boris(
  codings: Sequence[Coding], tree: LabelTree, output_dir: pathlib.Path
) -> list[pathlib.Path]:
  """Writes one project, `codings.boris`, with an observation per coding.

  Behaviours are the actions of the tree, their categories its body parts. Events of the same label
  and subject that overlap are told apart by a modifier.
  """
  names = [path.stem for path in files_for(codings, output_dir, ".boris")]
  labels = dict(tree.body_of)
  for event in itertools.chain.from_iterable(coding.events for coding in codings):
    labels.setdefault(event.label, tier_of(event, tree))
  subjects = sorted({event.subject for coding in codings for event in coding.events} - {""})
  categories = list(dict.fromkeys(labels.values()))
  modifiers: dict[str, set[str]] = collections.defaultdict(set)
  for event, modifier in (pair for coding in codings for pair in with_lanes(coding.events)):
    modifiers[event.label].add(modifier)
  project = {
    "time_format": "hh:mm:ss",
    "project_date": datetime.datetime.now().isoformat(timespec="seconds"),
    "project_name": "pcan_jax",
    "project_description": "",
    "project_format_version": "7.0",
    "subjects_conf": {
      str(index): {"key": "", "name": name, "description": ""}
      for index, name in enumerate(subjects)
    },
    "behaviors_conf": {
      str(index): _behaviour(label, category, sorted(modifiers[label] - {""}))
      for index, (label, category) in enumerate(labels.items())
    },
    "observations": {name: _observation(coding) for name, coding in zip(names, codings)},
    "behavioral_categories": categories,
    "behavioral_categories_config": {
      str(index): {"name": name, "color": ""} for index, name in enumerate(categories)
    },
    "independent_variables": {},
    "coding_map": {},
    "behaviors_coding_map": [],
    "converters": {},
  }
  path = output_dir / "codings.boris"
  replace_file(path, json.dumps(project, ensure_ascii=False, indent=1))
  return [path]


def with_lanes(events: Iterable[Event]) -> Iterator[tuple[Event, str]]:
  """Events with a modifier that tells apart those of one label and subject that overlap."""
  ends: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
  for event in events:
    onset, offset = milliseconds(event)
    running = ends[event.subject, event.label]
    lane = next((index for index, end in enumerate(running) if end <= onset), len(running))
    running[lane : lane + 1] = [offset]
    yield event, f"lane {lane + 1}" if lane else ""


def comment_of(event: Event) -> str:
  """The comment of an event, which says its confidence."""
  return "" if event.confidence is None else f"confidence {event.confidence:.3f}"


def length_of(coding: Coding) -> float:
  """Seconds of a recording; where that is not known, until its last event ends."""
  return coding.duration or max((event.offset for event in coding.events), default=0.0)


def _behaviour(label: str, category: str, lanes: Sequence[str]) -> dict[str, Any]:
  modifiers: Any = ""
  if lanes:
    modifiers = {
      "0": {"name": "lane", "description": "", "type": 0, "ask at stop": False, "values": lanes}
    }
  return {
    "type": "State event",
    "key": "",
    "code": label,
    "description": "",
    "color": "",
    "category": category,
    "modifiers": modifiers,
    "excluded": "",
    "coding map": "",
  }


def _observation(coding: Coding) -> dict[str, Any]:
  path = pathlib.Path(coding.video)  # BORIS looks for relative paths beside the project
  video, fps = str(path.absolute()) if path.is_file() else coding.video, coding.fps or _FPS
  rows = []
  for event, modifier in with_lanes(coding.events):
    comment = comment_of(event)
    for time in milliseconds(event):
      frame = round(time / 1000 * fps)
      rows.append([time / 1000, event.subject, event.label, modifier, comment, frame])
  return {
    "file": {player: [video] if player == "1" else [] for player in _PLAYERS},
    "type": "MEDIA",
    "date": datetime.datetime.now().isoformat(timespec="seconds"),
    "description": "",
    "time offset": 0.0,
    "events": sorted(rows, key=lambda row: row[0]),
    "observation time interval": [0, 0],
    "independent_variables": {},
    "visualize_spectrogram": False,
    "visualize_waveform": False,
    "media_creation_date_as_offset": False,
    "media_scan_sampling_duration": 0,
    "image_display_duration": 1,
    "close_behaviors_between_videos": False,
    "media_info": {
      "length": {video: round(length_of(coding), 3) + _ROUNDING},
      "fps": {video: fps},
      "hasVideo": {video: True},
      "hasAudio": {video: False},
      "offset": {"1": 0.0},
    },
  }

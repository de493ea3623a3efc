"""Reads the files of coded sessions, and finds the videos that they speak of."""

import collections
import dataclasses
import difflib
import pathlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pcan_jax.clips.video_files import VIDEO_SUFFIXES, clip_id, composed, find_videos
from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.formats import find_codings, read_codings
from pcan_jax.coding.reading import media_name, plain_path
from pcan_jax.labels import LabelTree

from .findings import Finding

_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Session:
  """All that is coded of one video.

  Attributes:
    video: path of the video.
    events: of all files about it, by time.
    coders: names of these files.
  """

  video: pathlib.Path
  events: tuple[Event, ...]
  coders: tuple[str, ...]
  split: ClassVar[str] = ""

  @property
  def id(self) -> str:
    """The name of the video without its suffix."""
    return clip_id(self.video)

  @property
  def where(self) -> str:
    """The file, for error messages."""
    return str(self.video)


def read_sessions(
  paths: Sequence[pathlib.Path],
  videos: pathlib.Path,
  point_seconds: float | None,
  tree: LabelTree | None,
  findings: list[Finding],
) -> list[Session]:
  """Reads files, and folders of files, and matches them with the videos.

  Args:
    paths: files of codings, or folders that are searched with those below them.
    videos: folder of the videos; file names decide, whatever folders the codings name.
    point_seconds: length of point events; None makes them errors.
    tree: names actions that are given by their ids.
    findings: what is wrong, and what was not taken as it is written, is added to these.

  Raises:
    FileNotFoundError: a path does not exist, or holds no codings, or there are no videos.
    ImportError: an optional package is missing.
  """
  available = find_videos(videos)
  codings: list[tuple[str, Coding]] = []
  for path in dict.fromkeys(file for given in paths for file in find_codings(given)):
    try:
      read = read_codings(
        path,
        point_seconds=point_seconds,
        tree=tree,
        tell=lambda line: findings.append(Finding("not taken as written", line, "", False)),
      )
    except ValueError as error:
      detail = str(error).removeprefix(f"{path}: ")
      # A folder may hold other tables.
      is_table = path.suffix.lower() in (".csv", ".tsv") and path not in paths
      if is_table and "not a file of" in detail:
        findings.append(Finding("no codings", str(path), "left out", is_error=False))
      else:
        findings.append(Finding("unreadable", str(path), detail, is_error=True))
      continue
    codings += [(path.name, coding) for coding in read]
  of_video: dict[pathlib.Path, list[tuple[str, Coding]]] = collections.defaultdict(list)
  for name, coding in codings:
    found = _match(coding.video, available, name, findings)
    if found:
      of_video[found].append((name, coding))
  sessions = [
    Session(
      video,
      tuple(sorted(event for _, coding in of_one for event in coding.events)),
      tuple(name for name, _ in of_one),
    )
    for video, of_one in sorted(of_video.items())
  ]
  _check_names(sessions, findings)
  return sessions


def _match(
  video: str, available: Sequence[pathlib.Path], coder: str, findings: list[Finding]
) -> pathlib.Path | None:
  """The file of a video: of the same name, else of the same name but for case or suffix."""
  wanted = composed(media_name(video))
  stems = {clip_id(pathlib.PurePath(wanted)), pathlib.PurePath(wanted).stem}
  stems = {stem.casefold() for stem in stems}
  ways: Mapping[str, list[pathlib.Path]] = {
    "": [path for path in available if composed(path.name) == wanted],
    "case": [path for path in available if composed(path.name).casefold() == wanted.casefold()],
    "suffix": [path for path in available if clip_id(path).casefold() in stems],
  }
  way, found = next(((way, paths) for way, paths in ways.items() if paths), ("", []))
  if len(found) > 1:  # the folder may tell
    folder = pathlib.PurePath(plain_path(video)).parent.name
    found = [path for path in found if path.parent.name == folder] or found
  if len(found) > 1:
    detail = f"{wanted!r} may be any of {', '.join(map(str, found))}; keep one of them in VIDEOS"
    findings.append(Finding("several videos", coder, detail, is_error=True))
    return None
  if not found:
    names = [path.name for path in available]
    close = difflib.get_close_matches(wanted, names, _SHOWN, 0.5) or names[:_SHOWN]
    detail = (
      f"no video is named {wanted!r}; there are {', '.join(close)}"
      f"{' and others' * (len(names) > len(close))}. Rename it, or link it there anew"
    )
    findings.append(Finding("no video", coder, detail, is_error=True))
    return None
  if way and pathlib.PurePath(wanted).suffix.lower() in VIDEO_SUFFIXES:
    detail = f"{wanted!r} is not there; {found[0].name!r} is taken, which differs in {way}"
    findings.append(Finding("renamed video", coder, detail, is_error=False))
  return found[0]


def _check_names(sessions: Sequence[Session], findings: list[Finding]) -> None:
  first: dict[str, Session] = {}
  for session in sessions:
    other = first.setdefault(session.id, session)
    if other is not session:
      detail = f"{other.video} has the same name, so that their poses and clips would be mixed up"
      findings.append(Finding("same name", str(session.video), f"{detail}; rename one", True))

"""ELAN's annotation format, `.eaf`.

Times are whole milliseconds from the start of the document. A medium starts at its `TIME_ORIGIN`:
what happens at t in the document is at t + TIME_ORIGIN in the video. The schema is
http://www.mpi.nl/tools/elan/EAFv3.0.xsd.

Files are read here and not by pympi, which stops at documents that do not name their schema and
does not place annotations between aligned ones.
"""

import itertools
import math
import mimetypes
import os
import pathlib
import re
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.parsers import expat

from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.reading import Points, Tell, media_name, plain_path
from pcan_jax.coding.writing import files_for, milliseconds, optional, tier_of
from pcan_jax.labels import LabelTree
from pcan_jax.writing import replace_file

_SECONDS = {"milliseconds": 0.001, "PAL-frames": 1 / 25, "NTSC-frames": 1001 / 30000}
_MAX_DEPTH = 64
_CONFIDENCE = "pcan_confidence"  # linguistic type of tiers of confidences
_ASSOCIATION = "Symbolic_Association"
_LANGUAGE = "und"
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
# XML 1.0 has no way to write these.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_Times = Mapping[str, float]


def is_eaf(content: bytes) -> bool:
  """Whether a file is an ELAN document."""
  return b"<ANNOTATION_DOCUMENT" in content[:65536].replace(b"\0", b"")


def read_eaf(
  content: bytes, path: pathlib.Path, point_seconds: float | None, tell: Tell
) -> list[Coding]:
  """Reads the time-aligned annotations of all tiers.

  The tier of an event is that of ELAN, its subject the tier's participant; a tier named
  `TIER@PARTICIPANT` becomes `TIER`. If several videos are linked, the first one counts.

  Raises:
    ValueError: the file is not an ELAN document, or damaged.
  """
  root = _parse(content, path)

  def told(line: str) -> None:
    tell(f"{path}: {line}")

  if root.tag != "ANNOTATION_DOCUMENT":
    raise ValueError(f"{path}: not an ELAN document; its first element is {root.tag[:40]!r}")
  header = root.find("HEADER")
  header = ET.Element("HEADER") if header is None else header
  units = header.get("TIME_UNITS", "milliseconds")
  if units not in _SECONDS:
    raise ValueError(f"{path}: unknown TIME_UNITS {units[:40]!r}")
  video, origin = _video(header, path, told)
  slots = {
    slot.get("TIME_SLOT_ID", ""): _number(slot.get("TIME_VALUE", ""), path) * _SECONDS[units]
    for slot in root.iterfind("TIME_ORDER/TIME_SLOT")
    if slot.get("TIME_VALUE") is not None
  }
  tiers = root.findall("TIER")
  confidences = _confidences(tiers)
  points = Points(point_seconds, path)
  events = [
    event for tier in tiers for event in _events(tier, slots, origin, confidences, points, told)
  ]
  points.check()
  _check_vocabularies(root, tiers, told)
  return [Coding(video, tuple(events))]


def _check_vocabularies(root: ET.Element, tiers: Iterable[ET.Element], tell: Tell) -> None:
  """Tells of values that are not in the controlled vocabulary of their tier."""
  vocabularies = {
    vocabulary.get("CV_ID"): {
      (entry.text or "").strip()
      for entry in vocabulary.iter()
      if entry.tag in ("CV_ENTRY", "CVE_VALUE")
    }
    for vocabulary in root.iterfind("CONTROLLED_VOCABULARY")
  }
  allowed = {
    kind.get("LINGUISTIC_TYPE_ID"): vocabularies.get(kind.get("CONTROLLED_VOCABULARY_REF"))
    for kind in root.iterfind("LINGUISTIC_TYPE")
  }
  for tier in tiers:
    words = allowed.get(tier.get("LINGUISTIC_TYPE_REF"))
    values = {
      (annotation.text or "").strip()
      for annotation in tier.iterfind("ANNOTATION/ALIGNABLE_ANNOTATION/ANNOTATION_VALUE")
    }
    for value in sorted(values - words - {""}) if words else ():  # external ones have no entries
      tell(f"tier {tier.get('TIER_ID')!r}: {value!r} is not in the vocabulary of the tier")


def _parse(content: bytes, path: pathlib.Path) -> ET.Element:
  """Parses XML without a document type, and so without entities, of bounded depth."""
  level = 0

  def refuse(*_: Any) -> None:
    raise ValueError(f"{path}: it declares a document type, which ELAN never does; refused")

  def enter(*_: Any) -> None:
    nonlocal level
    level += 1
    if level > _MAX_DEPTH:
      raise ValueError(f"{path}: elements are nested more than {_MAX_DEPTH} deep")

  def leave(*_: Any) -> None:
    nonlocal level
    level -= 1

  scanner = expat.ParserCreate()
  scanner.StartDoctypeDeclHandler = refuse
  scanner.StartElementHandler, scanner.EndElementHandler = enter, leave
  try:
    scanner.Parse(content, True)
    return ET.fromstring(content)
  except (expat.ExpatError, ET.ParseError, LookupError) as error:
    raise ValueError(f"{path}: not XML, or damaged ({error})") from error


def _number(text: str, path: pathlib.Path) -> int:
  try:
    return int(text)
  except ValueError:
    raise ValueError(f"{path}: {text[:40]!r} is not a time in whole numbers") from None


def _video(header: ET.Element, path: pathlib.Path, tell: Tell) -> tuple[str, float]:
  """The linked video, and the seconds at which it is when the document starts."""
  media = header.findall("MEDIA_DESCRIPTOR")
  videos = [medium for medium in media if _is_video(medium)]
  for other in (videos or media)[1:]:
    tell(f"{_name(other)!r} is linked too; the codings are taken to be of the first video")
  if not media:
    named = header.get("MEDIA_FILE", "")
    tell(f"no video is linked; it is taken to be named {media_name(named) or path.stem!r}")
    return media_name(named) or path.stem, 0.0
  medium = (videos or media)[0]
  origin = _number(medium.get("TIME_ORIGIN", "0"), path) / 1000
  relative = _unquoted(medium.get("RELATIVE_MEDIA_URL", "").removeprefix("file:"))
  beside = path.parent / relative
  if relative and beside.is_file():
    return str(beside), origin
  return _location(medium) or path.stem, origin


def _is_video(medium: ET.Element) -> bool:
  guessed = mimetypes.guess_type(_name(medium))[0] or ""
  return medium.get("MIME_TYPE", "").startswith("video/") or guessed.startswith("video/")


def _location(medium: ET.Element) -> str:
  """The path of a medium: ELAN writes `file:///C:/a b.mp4` on Windows, `file:///a b.mp4` else."""
  url = medium.get("MEDIA_URL", "")
  path = re.sub("^file:/*", "/", url)
  return plain_path(_unquoted(re.sub("^/(?=[A-Za-z]:)", "", path)))


def _name(medium: ET.Element) -> str:
  return media_name(_location(medium))


def _unquoted(path: str) -> str:
  """ELAN does not escape the names of files; other programs do."""
  return urllib.parse.unquote(path)


def _confidences(tiers: Iterable[ET.Element]) -> dict[str, float]:
  """Confidences by the id of the annotation that they are about, as `write_eaf` writes them."""
  found = {}
  for tier in tiers:
    if tier.get("LINGUISTIC_TYPE_REF") == _CONFIDENCE:
      for annotation in tier.iterfind("ANNOTATION/REF_ANNOTATION"):
        value = annotation.findtext("ANNOTATION_VALUE") or ""
        if re.fullmatch(r"[01](\.\d{1,9})?", value) and float(value) <= 1:
          found[annotation.get("ANNOTATION_REF", "")] = float(value)
  return found


def _events(
  tier: ET.Element,
  slots: _Times,
  origin: float,
  confidences: Mapping[str, float],
  points: Points,
  tell: Tell,
) -> Iterator[Event]:
  name, subject = _plain_name(tier), tier.get("PARTICIPANT", "").strip()
  aligned = tier.findall("ANNOTATION/ALIGNABLE_ANNOTATION")
  if tier.find("ANNOTATION/REF_ANNOTATION") is not None:
    if tier.get("LINGUISTIC_TYPE_REF") != _CONFIDENCE:
      tell(f"tier {name!r} has no times of its own; left out")
  spans = [(a.get("TIME_SLOT_REF1", ""), a.get("TIME_SLOT_REF2", "")) for a in aligned]
  times = _all_times(spans, slots)
  empty = sum(not (a.findtext("ANNOTATION_VALUE") or "").strip() for a in aligned)
  if empty:
    tell(f"tier {name!r}: {empty} annotations have no value; they are labelled {name!r}")
  for annotation, (first, last) in zip(aligned, spans):
    label = (annotation.findtext("ANNOTATION_VALUE") or "").strip() or name
    onset, offset = (times.get(slot, math.nan) + origin for slot in (first, last))
    place = f"tier {name!r}, {label!r} from {onset:.3f} s to {offset:.3f} s"
    fields = {
      "tier": name,
      "subject": subject,
      "confidence": confidences.get(annotation.get("ANNOTATION_ID", "")),
    }
    if math.isnan(onset + offset):
      tell(f"tier {name!r}, {label!r}: it has no place in time; left out")
    elif not label:
      tell(f"{place}: neither the annotation nor its tier has a name; left out")
    elif offset < onset:
      tell(f"{place}: it ends before it starts; left out")
    elif offset <= 0:
      tell(f"{place}: it ends before the video starts; left out")
    elif offset == onset:
      yield from points.event(onset, label, **fields)
    else:
      if onset < 0:
        tell(f"{place}: it starts before the video; cut at its start")
      yield Event(max(round(onset, 6), 0.0), round(offset, 6), label, **fields)


def _plain_name(tier: ET.Element) -> str:
  """The name of a tier without the participant, and without the number of a further lane."""
  name, participant = tier.get("TIER_ID", ""), tier.get("PARTICIPANT", "")
  if participant:
    name = name.removesuffix(f"@{participant}")
  kind = tier.get("LINGUISTIC_TYPE_REF", "")
  return kind if re.fullmatch(re.escape(kind) + r" \(\d+\)", name) else name.strip()


def _all_times(spans: Iterable[tuple[str, str]], slots: _Times) -> dict[str, float]:
  """The times of slots. Those without one lie evenly between their neighbours, as in ELAN."""
  times = dict(slots)
  last: float | None = None
  waiting: list[list[str]] = []  # slots without a time, those of one moment together
  for slot, is_end in itertools.chain.from_iterable(((a, False), (b, True)) for a, b in spans):
    if slot not in slots:
      if waiting and not is_end:  # an annotation starts where the one before it ends
        waiting[-1].append(slot)
      else:
        waiting.append([slot])
      continue
    if last is not None:
      for index, moment in enumerate(waiting, 1):
        between = last + (slots[slot] - last) * index / (len(waiting) + 1)
        times.update(dict.fromkeys(moment, between))
    last, waiting = slots[slot], []
  return times


def write_eaf(
  codings: Sequence[Coding], tree: LabelTree, output_dir: pathlib.Path
) -> list[pathlib.Path]:
  """Writes a document per coding: a tier per body part and subject, with its vocabulary.

  Events of one tier that overlap, which ELAN does not allow, go to a further tier `TIER (2)`.
  Confidences are in a tier that depends on the one of the event.

  Raises:
    ImportError: pympi is not installed.
    ValueError: a name has characters that XML does not allow.
  """
  paths = files_for(codings, output_dir, ".eaf")
  for coding, path in zip(codings, paths):
    replace_file(path, _document(coding, tree, path))
  return paths


def _document(coding: Coding, tree: LabelTree, path: pathlib.Path) -> str:
  elan = optional("pympi.Elan")
  document = elan.Eaf(author="pcan_jax")
  document.adocument |= {
    "FORMAT": "3.0",
    "VERSION": "3.0",
    "xsi:noNamespaceSchemaLocation": _SCHEMA,
  }
  document.remove_tier("default")
  document.linguistic_types.clear()
  document.constraints = {_ASSOCIATION: document.CONSTRAINTS[_ASSOCIATION]}
  document.add_language(_LANGUAGE, "http://cdb.iso.org/lg/CDB-00130975-001", "undetermined (und)")
  _link(document, coding.video, path)
  tiers = _tiers(coding.events, tree)
  _add_vocabularies(document, tiers, tree)
  for (name, subject), lanes in tiers.items():
    for events in lanes or [[]]:
      _add_tier(document, name, subject, events)
  _order_slots(document)
  # A bare carriage return would be read as a line feed.
  return _DECLARATION + elan.to_string(document).replace("\r", "&#13;") + "\n"


def _link(document: Any, video: str, path: pathlib.Path) -> None:
  name = re.sub("%(?=[0-9a-fA-F]{2})", "%25", _xml(plain_path(video)))
  absolute = name if re.match("[A-Za-z]:/|/", name) else pathlib.Path(name).absolute().as_posix()
  beside = os.path.relpath(absolute, path.parent.absolute()).replace(os.sep, "/")
  document.add_linked_file(
    "file:///" + absolute.lstrip("/"),
    relpath=None if re.match("[A-Za-z]:", absolute) else f"./{beside}",
    mimetype=mimetypes.guess_type(media_name(name))[0] or "unknown",
  )


def _tiers(
  events: Iterable[Event], tree: LabelTree
) -> dict[tuple[str, str], list[list[tuple[int, int, Event]]]]:
  """Lanes of (onset, offset, event) in ms by (tier, subject), those of the tree first."""
  tiers: dict[tuple[str, str], list[list[tuple[int, int, Event]]]] = {}
  for event in events:
    lanes = tiers.setdefault((tier_of(event, tree), event.subject), [])
    onset, offset = milliseconds(event)
    free = next((lane for lane in lanes if lane[-1][1] <= onset), None)
    if free is None:
      lanes.append(free := [])
    free.append((onset, offset, event))
  used = {name for name, _ in tiers}
  empty = {(body, ""): [] for body in tree.bodies if body not in used}
  order = {body: index for index, body in enumerate(tree.bodies)}
  both = sorted(
    (tiers | empty).items(), key=lambda item: (order.get(item[0][0], len(order)), item[0])
  )
  return dict(both)


def _add_vocabularies(
  document: Any,
  tiers: Mapping[tuple[str, str], list[list[tuple[int, int, Event]]]],
  tree: LabelTree,
) -> None:
  """A controlled vocabulary per tier, and the linguistic type that ties the tier to it."""
  labels: dict[str, dict[str, None]] = {name: {} for name, _ in tiers}
  for action, body in tree.body_of.items():
    labels.get(body, {})[action] = None
  for (name, _), lanes in tiers.items():
    labels[name] |= {event.label: None for lane in lanes for _, _, event in lane}
  for name, of_tier in labels.items():
    document.add_controlled_vocabulary(_xml(name))
    for index, label in enumerate(of_tier):
      document.add_cv_entry(_xml(name), f"cveid{index}", [(_xml(label), _LANGUAGE, None)])
    document.linguistic_types[name] = {
      "LINGUISTIC_TYPE_ID": name,
      "TIME_ALIGNABLE": "true",
      "GRAPHIC_REFERENCES": "false",
      "CONTROLLED_VOCABULARY_REF": name,
    }
  document.linguistic_types[_CONFIDENCE] = {
    "LINGUISTIC_TYPE_ID": _CONFIDENCE,
    "TIME_ALIGNABLE": "false",
    "GRAPHIC_REFERENCES": "false",
    "CONSTRAINTS": _ASSOCIATION,
  }


def _add_tier(
  document: Any, name: str, subject: str, events: Sequence[tuple[int, int, Event]]
) -> None:
  at = f"@{_xml(subject)}" if subject else ""
  lanes = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
  tier = next(lane + at for lane in lanes if lane + at not in document.tiers)
  document.add_tier(tier, ling=name, part=subject or None)
  for onset, offset, event in events:
    document.add_annotation(tier, onset, offset, _xml(event.label))
  if any(event.confidence is not None for _, _, event in events):
    document.add_tier(f"{tier} confidence", ling=_CONFIDENCE, parent=tier)
    for key, (_, _, event) in zip(list(document.tiers[tier][0]), events):
      if event.confidence is not None:
        child = document.generate_annotation_id()
        document.tiers[f"{tier} confidence"][1][child] = (
          key,
          f"{event.confidence:.3f}",
          None,
          None,
        )


def _order_slots(document: Any) -> None:
  """Renames the slots so that they are listed in the order of time."""
  ordered = sorted(document.timeslots, key=document.timeslots.get)
  names = {slot: f"ts{index}" for index, slot in enumerate(ordered, 1)}
  document.timeslots = {names[slot]: document.timeslots[slot] for slot in ordered}
  for aligned, *_ in document.tiers.values():
    for key, (first, last, *rest) in aligned.items():
      aligned[key] = (names[first], names[last], *rest)


def _xml(text: str) -> str:
  found = _NOT_IN_XML.search(text)
  if found:
    raise ValueError(f"{text[:40]!r} holds {found[0]!r}, which XML does not allow; rename it")
  return text

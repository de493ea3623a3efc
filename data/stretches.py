"""From codings of a video to the stretches of it that become clips."""

import collections
import dataclasses
import math
import random
from collections.abc import Iterator, Sequence

import numpy as np

from pcan_jax.clips.timing import Times, frames_between
from pcan_jax.coding.events import Event

from .coded_labels import BACKGROUND, Labels
from .coded_sessions import Session
from .findings import Finding

_SAME = 0.5
"""Two codings of one action and person that share more of their time are one."""

_MARGIN = 0.2
"""Seconds around codings that are not background."""


@dataclasses.dataclass(frozen=True)
class Cutting:
  """How codings become stretches.

  Attributes:
    min_seconds: shorter codings are lengthened to this on both sides.
    max_seconds: longer codings are cut into equal pieces that are no longer than this.
    keep_overlaps: whether codings stay that overlap others of the same person for more than half
      of their time.
  """

  min_seconds: float
  max_seconds: float
  keep_overlaps: bool


@dataclasses.dataclass(frozen=True)
class Stretch:
  """Frames of a video with one label.

  Attributes:
    session: id of the session.
    first: index of the first frame.
    stop: index of the frame after the last one.
    body: body part.
    action: action.
    person: who was coded; empty where that is not said.
  """

  session: str
  first: int
  stop: int
  body: str
  action: str
  person: str


@dataclasses.dataclass(frozen=True)
class _Coded:
  """A coding with what it was understood to mean."""

  onset: float
  offset: float
  body: str
  action: str
  person: str
  place: str  # for people

  @property
  def duration(self) -> float:
    return self.offset - self.onset


def stretches_of(
  session: Session, labels: Labels, times: Times, cutting: Cutting, findings: list[Finding]
) -> list[Stretch]:
  """Cuts out what was coded, by the frame borders that are closest to onset and offset.

  Args:
    session: the codings.
    labels: what they mean.
    times: of the frames of the video.
    cutting: how to treat short, long and overlapping codings.
    findings: what was changed or left out is added to these.
  """
  coded = [
    _Coded(e.onset, e.offset, *meaning, labels.person(e), _place(session, e))
    for e in session.events
    if (meaning := labels.of(e)) is not None
  ]
  coded = _within(coded, float(times[-1]), session, findings)
  coded = _once(coded, findings)
  coded = _without_overlaps(coded, cutting.keep_overlaps, findings)
  found = []
  for one in coded:
    onset, offset = _lengthened(one, cutting.min_seconds, float(times[-1]), findings)
    pieces = max(math.ceil((offset - onset) / cutting.max_seconds - 1e-6), 1)
    if pieces > 1:
      detail = f"{offset - onset:.1f} s; cut into {pieces} clips"
      findings.append(Finding("long coding", one.place, detail, is_error=False))
    borders = np.linspace(onset, offset, pieces + 1)
    for start, end in zip(borders, borders[1:]):
      first, stop = frames_between(times, start, end)
      found.append(Stretch(session.id, first, stop, one.body, one.action, one.person))
  return found


def _place(session: Session, event: Event) -> str:
  label = " ".join(event.label.split())
  return f"{session.id}, {label!r} from {event.onset:.3f} s to {event.offset:.3f} s"


def _within(
  coded: Sequence[_Coded], end: float, session: Session, findings: list[Finding]
) -> list[_Coded]:
  """Leaves out or shortens what lies beyond the end of the video."""
  kept = []
  for one in coded:
    if one.onset >= end:
      detail = f"the video ends at {end:.3f} s; left out"
      findings.append(Finding("beyond the video", one.place, detail, is_error=False))
    elif one.offset > end + 0.1:
      detail = f"the video ends at {end:.3f} s; shortened"
      findings.append(Finding("beyond the video", one.place, detail, is_error=False))
      kept.append(dataclasses.replace(one, offset=end))
    else:
      kept.append(dataclasses.replace(one, offset=min(one.offset, end)))
  if coded and not kept:
    detail = f"all codings are beyond its end at {end:.3f} s; is it the right video?"
    findings.append(Finding("wrong video", str(session.video), detail, is_error=True))
  return kept


def _once(coded: Sequence[_Coded], findings: list[Finding]) -> list[_Coded]:
  """Keeps one of the codings of the same action, person and time, as two coders give."""
  kept: list[_Coded] = []
  last: dict[tuple[str, str, str], list[_Coded]] = collections.defaultdict(list)
  for one in sorted(coded, key=lambda one: (one.onset, -one.offset)):
    rivals = last[one.body, one.action, one.person]
    rivals[:] = [other for other in rivals if other.offset > one.onset]
    same = next((other for other in rivals if _overlap(one, other) > _SAME), None)
    if same is None:
      rivals.append(one)
      kept.append(one)
    else:
      findings.append(Finding("coded twice", one.place, f"as {same.place}; one is kept", False))
  return kept


def _overlap(one: _Coded, other: _Coded) -> float:
  """Shared time in relation to all time of two codings."""
  shared = min(one.offset, other.offset) - max(one.onset, other.onset)
  return max(shared, 0.0) / (max(one.offset, other.offset) - min(one.onset, other.onset))


def _without_overlaps(coded: Sequence[_Coded], keep: bool, findings: list[Finding]) -> list[_Coded]:
  """Finds codings that share more than half of their time with others of the same person."""
  kept: list[_Coded] = []
  told: set[tuple[int, int]] = set()
  for index, one in enumerate(coded):
    other = next(
      (
        number
        for number, other in enumerate(coded)
        if number != index
        and other.person == one.person
        and min(one.offset, other.offset) - max(one.onset, other.onset) > one.duration / 2
      ),
      None,
    )
    if other is None or keep:
      kept.append(one)
    if other is not None and not (keep and (other, index) in told):
      told.add((index, other))
      detail = f"during {coded[other].place}; {'kept' if keep else 'left out'}"
      findings.append(Finding("overlapping codings", one.place, detail, is_error=False))
  return kept


def _lengthened(
  one: _Coded, min_seconds: float, end: float, findings: list[Finding]
) -> tuple[float, float]:
  if one.duration > min_seconds - 1e-6:
    if one.duration < 1 - 1e-6:
      detail = "shorter than a second; taken as it is"
      findings.append(Finding("short coding", one.place, detail, is_error=False))
    return one.onset, one.offset
  length = min(min_seconds, end)
  onset = min(max((one.onset + one.offset - length) / 2, 0.0), end - length)
  detail = f"lengthened to {onset:.3f} s to {onset + length:.3f} s"
  findings.append(Finding("short coding", one.place, detail, is_error=False))
  return onset, onset + length


def background_of(
  session: Session, labels: Labels, times: Times, lengths: Sequence[float], rng: random.Random
) -> list[Stretch]:
  """Stretches in which nothing is coded, of nobody, between the first and the last coding.

  What lies before and after may not have been looked at by the coder. Tiers that are left out as a
  whole, such as a transcript, do not count; single labels that are left out do.

  Args:
    session: the codings.
    labels: what they mean.
    times: of the frames of the video.
    lengths: seconds of clips, ascending; every stretch has one of these, or that of a shorter gap,
      but at least half of the shortest.
    rng: chooses among them, and where in a gap the stretches lie.
  """
  used = {tier for (tier, _), meaning in labels.meanings.items() if meaning}
  coded = [event for event in session.events if event.tier in used]
  persons = {labels.person(event) for event in coded}
  person = persons.pop() if len(persons) == 1 else ""
  found = []
  for start, end in _gaps(coded, float(times[-1])):
    while end - start >= lengths[0] / 2:
      length = min(rng.choice(lengths), end - start)
      start += rng.uniform(0, min(length, end - start - length))
      first, stop = frames_between(times, start, start + length)
      found.append(Stretch(session.id, first, stop, BACKGROUND, BACKGROUND, person))
      start += length
  return found


def _gaps(events: Sequence[Event], end: float) -> Iterator[tuple[float, float]]:
  """Times between codings, with a margin."""
  last = math.inf
  for event in sorted(events):
    if event.onset >= end:
      break
    if event.onset - last > 2 * _MARGIN:
      yield last + _MARGIN, event.onset - _MARGIN
    last = event.offset if last == math.inf else max(last, event.offset)

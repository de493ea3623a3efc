"""Two codings of the same recordings, brought together before they are compared."""

import collections
import dataclasses
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.reading import media_name, media_stem
from pcan_jax.labels import LabelTree, similar_names

ONE_TIER = "all"
"""The tier of all events where nothing tells them apart."""


_Change = Callable[[Event], dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Recording:
  """One person in a recording, with the events of two coders.

  Attributes:
    video: name of the file.
    subject: the person; empty where the codings tell no persons apart.
    duration: seconds that were compared.
    first: events of the first coder, within the duration, with the tiers of `Comparison`.
    second: events of the second coder.
  """

  video: str
  subject: str
  duration: float
  first: tuple[Event, ...]
  second: tuple[Event, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Recordings with the events of two coders.

  Attributes:
    recordings: in order of their names; one for each person whom the codings tell apart.
    classes: tier and label of all events, in order of the label tree or of the names.
    notes: what a reader must know of how they were brought together.
  """

  recordings: tuple[Recording, ...]
  classes: tuple[tuple[str, str], ...]
  notes: tuple[str, ...]

  @property
  def tiers(self) -> tuple[str, ...]:
    """Of the classes, in their order."""
    return tuple(dict.fromkeys(tier for tier, _ in self.classes))


def bring_together(
  first: Sequence[Coding],
  second: Sequence[Coding],
  *,
  names: tuple[str, str] = ("A", "B"),
  tree: LabelTree | None = None,
  one_tier: bool = False,
  only_common: bool = False,
  start: float = 0.0,
  end: float | None = None,
  lengths: Mapping[str, float] | None = None,
) -> Comparison:
  """Pairs the recordings of two codings and gives their events common tiers.

  Recordings are paired by the names of their files without suffix. The tier of an event is the body
  part of its label where there is a tree; else the tier that it was coded under; where one coding
  has no tiers, the tier under which the other one has the label.

  Args:
    first: the first coder's, or the truth.
    second: the second coder's, or a model's.
    names: of the two, for messages.
    tree: labels with their body parts.
    one_tier: whether to compare all events as if they were coded under one tier.
    only_common: whether to leave out recordings that only one side has.
    start: seconds from the start of the recordings, before which nothing is compared.
    end: seconds after which nothing is compared; None for the whole recordings.
    lengths: seconds of recordings, by `video_key`, where the codings do not say it.

  Raises:
    ValueError: a recording is coded twice on one side, or only on one side; a label is not in the
      tree; the tiers of the codings do not fit; nothing is left.
  """
  sides = [_by_video(codings, name) for codings, name in zip((first, second), names)]
  keys, notes = _common_videos(sides, names, only_common)
  if not 0 <= start < math.inf or (end is not None and math.isnan(end)):
    raise ValueError(f"the part to compare is from {start} s to {end} s; both are 0 or more")
  if end is not None and end <= start:
    raise ValueError(f"the part to compare ends at {end} s, before it starts at {start} s")
  sides = [{key: side[key] for key in keys} for side in sides]
  sides, subject_notes = _with_common_subjects(sides)
  sides, tier_notes = _with_common_tiers(sides, names, tree, one_tier)
  recordings, unknown = [], []
  for key in keys:
    one, other = (side[key] for side in sides)
    duration, is_known = _duration(one, other, (lengths or {}).get(key))
    if not is_known and end is None:
      unknown.append(_name(one.video))
    stop = duration if end is None else min(end, duration) if is_known else end
    if start and stop <= start:
      raise ValueError(
        f"{_name(one.video)} ends at {duration:g} s: nothing is left after {start:g} s"
      )
    parts = [tuple(_within(coding.events, start, stop)) for coding in (one, other)]
    for subject in sorted({event.subject for part in parts for event in part}) or [""]:
      of_subject = (tuple(e for e in part if e.subject == subject) for part in parts)
      recordings.append(Recording(_name(one.video), subject, stop - start, *of_subject))
  if unknown:
    notes.append(
      f"the length of {_listed(unknown)} is not known: compared up to the last event, which leaves "
      "out the time after it; --videos gives the lengths"
    )
  if start or end is not None:
    part = f"from {start:g} s" + ("" if end is None else f" to {end:g} s")
    notes.append(f"only the part {part} was compared; events across its borders were cut there")
  said = {(e.label, e.subject) for side in sides for e in _events(side)}
  for kind, different in zip(("labels", "subjects"), map(set, zip(*said))):
    if alike := similar_names(sorted(different)):
      notes.append(f"{kind} that are nearly the same count as different: {', '.join(alike)}")
  found = {(event.tier, event.label) for one in recordings for event in (*one.first, *one.second)}
  return Comparison(
    tuple(recordings), _in_order(found, tree), (*notes, *subject_notes, *tier_notes)
  )


def _name(video: str) -> str:
  """The name of a file, however its path and its letters were written."""
  return unicodedata.normalize("NFC", media_name(video))


def video_key(video: str) -> str:
  """What recordings are paired by: the name of a file without its suffix."""
  return unicodedata.normalize("NFC", media_stem(video))


def _by_video(codings: Sequence[Coding], name: str) -> dict[str, Coding]:
  found: dict[str, Coding] = {}
  for coding in codings:
    key = video_key(coding.video)
    if key in found:
      raise ValueError(f"{name} has two codings of {_name(coding.video)}; keep one of them")
    found[key] = coding
  if not found:
    raise ValueError(f"{name} holds no coding of any video")
  return found


def _common_videos(
  sides: list[dict[str, Coding]], names: tuple[str, str], only_common: bool
) -> tuple[list[str], list[str]]:
  lonely = [
    f"only {name} has {_listed(_name(side[key].video) for key in missing)}"
    for side, other, name in zip(sides, sides[::-1], names)
    if (missing := sorted(side.keys() - other.keys()))
  ]
  keys = sorted(sides[0].keys() & sides[1].keys())
  if not keys:
    raise ValueError(f"the codings have no video in common: {'; '.join(lonely)}")
  if lonely and not only_common:
    raise ValueError(f"{'; '.join(lonely)}; --common compares what both have")
  return keys, [f"{line}, which was left out" for line in lonely]


def _with_common_subjects(
  sides: list[dict[str, Coding]],
) -> tuple[list[dict[str, Coding]], list[str]]:
  """Drops the subjects unless both codings name them."""
  named = [{event.subject for event in _events(side) if event.subject} for side in sides]
  if all(named) and named[0] & named[1]:
    return sides, []
  notes = ["only one coding names subjects, or they differ: not told apart"] if any(named) else []
  return [_changed(side, lambda event: {"subject": ""}) for side in sides], notes


def _with_common_tiers(
  sides: list[dict[str, Coding]], names: tuple[str, str], tree: LabelTree | None, one_tier: bool
) -> tuple[list[dict[str, Coding]], list[str]]:
  if one_tier:
    return [_changed(side, lambda event: {"tier": ONE_TIER}) for side in sides], []
  if tree is not None:
    for side, name in zip(sides, names):
      strange = sorted({event.label for event in _events(side)} - tree.body_of.keys())
      if strange:
        raise ValueError(f"{name} has labels that are not in the tree: {_listed(strange)}")
    return [_changed(side, lambda event: {"tier": tree.body_of[event.label]}) for side in sides], []
  tiers = [{event.tier for event in _events(side)} for side in sides]
  if not (tiers[0] | tiers[1]) - {""}:
    return [_changed(side, lambda event: {"tier": ONE_TIER}) for side in sides], []
  for index, name in enumerate(names):
    if tiers[index] <= {""} and tiers[index]:
      known = _tiers_of_labels(sides[1 - index], names[1 - index])
      borrowed = _changed(
        sides[index], lambda event, known=known: {"tier": known.get(event.label, ONE_TIER)}
      )
      sides = [borrowed, sides[1]] if index == 0 else [sides[0], borrowed]
      return sides, [f"{name} has no tiers: its labels got those of {names[1 - index]}"]
  if all(tiers) and not tiers[0] & tiers[1]:
    raise ValueError(
      f"the codings have no tier in common: {names[0]} has {_listed(sorted(tiers[0]))}, {names[1]} "
      f"has {_listed(sorted(tiers[1]))}; rename them, give --tree, or compare with --one_tier"
    )
  return [_changed(side, lambda event: {"tier": event.tier or ONE_TIER}) for side in sides], []


def _tiers_of_labels(side: dict[str, Coding], name: str) -> dict[str, str]:
  found: dict[str, set[str]] = collections.defaultdict(set)
  for event in _events(side):
    found[event.label].add(event.tier or ONE_TIER)
  for label, tiers in sorted(found.items()):
    if len(tiers) > 1:
      raise ValueError(
        f"{name} has {label!r} under {_listed(sorted(tiers))}, and the other coding has no tiers: "
        "give --tree, or compare with --one_tier"
      )
  return {label: tiers.pop() for label, tiers in found.items()}


def _events(side: dict[str, Coding]) -> Iterable[Event]:
  return (event for coding in side.values() for event in coding.events)


def _changed(side: dict[str, Coding], change: _Change) -> dict[str, Coding]:
  return {
    key: dataclasses.replace(
      coding,
      events=tuple(dataclasses.replace(event, **change(event)) for event in coding.events),
    )
    for key, coding in side.items()
  }


def _duration(one: Coding, other: Coding, length: float | None) -> tuple[float, bool]:
  """Seconds of a recording, and whether they are known; else the end of the last event."""
  last = max((event.offset for event in (*one.events, *other.events)), default=0.0)
  known = [value for value in (one.duration, other.duration, length) if value is not None]
  return max([last, *known]), bool(known)


def _within(events: Iterable[Event], start: float, stop: float) -> Iterable[Event]:
  for event in events:
    onset, offset = max(event.onset, start), min(event.offset, stop)
    if onset < offset:
      yield dataclasses.replace(event, onset=onset - start, offset=offset - start)


def _in_order(classes: set[tuple[str, str]], tree: LabelTree | None) -> tuple[tuple[str, str], ...]:
  if tree is None:
    return tuple(sorted(classes))
  actions = {action: index for index, action in enumerate(tree.actions)}
  bodies = {body: index for index, body in enumerate(tree.bodies)}
  return tuple(sorted(classes, key=lambda key: (bodies.get(key[0], 0), actions[key[1]])))


def _listed(names: Iterable[str], shown: int = 5) -> str:
  names = list(names)
  rest = f" and {len(names) - shown} more" if len(names) > shown else ""
  return ", ".join(repr(name) for name in names[:shown]) + rest

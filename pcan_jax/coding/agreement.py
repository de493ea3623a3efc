"""How well two codings of the same recordings agree: human or model, event by event and in time."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pcan_jax.coding import detection
from pcan_jax.coding.comparison import Comparison
from pcan_jax.coding.kappa import Margins, cohen_kappa, event_kappa
from pcan_jax.coding.tallies import F1_THRESHOLDS, Tally, tally

UNIT, OVERLAP = 0.1, 0.6
"""Defaults: seconds of a time unit, and the least overlap of matched events, which is ELAN's."""

RESAMPLES, COVERAGE = 1000, 0.95
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

MEASURES = {
  "kappa_time": "kappa, time",
  "kappa_tiers": "kappa, time by tier",
  "kappa_active": "kappa, anything",
  "kappa_events": "kappa, events",
  **{f"f1_{threshold:g}": f"F1@{threshold:g}" for threshold in F1_THRESHOLDS},
  "map": "mAP",
  **{f"ap_{threshold:g}": f"AP@{threshold:g}" for threshold in detection.THRESHOLDS},
  "onset_mean": "onset mean",
  "onset_median": "onset median",
  "offset_mean": "offset mean",
  "offset_median": "offset median",
}
"""What is measured, and its name in tables."""


@dataclasses.dataclass(frozen=True)
class Value:
  """A measure.

  Attributes:
    value: NaN where it is not defined.
    low: lower end of the bootstrap interval over videos; NaN where there is none.
    high: its upper end.
  """

  value: float
  low: float = np.nan
  high: float = np.nan


@dataclasses.dataclass(frozen=True)
class Scope:
  """Agreement on all classes, those of one tier, or one class.

  Attributes:
    tier: the tier; empty for all.
    label: the label; empty for all and for a tier.
    events: number of events by coder.
    seconds: coded seconds by coder.
    values: by the names of `MEASURES`; onsets and offsets are those of the second coder minus those
      of the first, in seconds.
    quantiles: of `QUANTILES`, for "onset" and "offset".
  """

  tier: str
  label: str
  events: tuple[int, int]
  seconds: tuple[float, float]
  values: dict[str, Value]
  quantiles: dict[str, tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Disagreement:
  """Events of one class that the second coder coded as another one.

  Attributes:
    first: tier and label of the first coder; None for nothing.
    second: tier and label of the second coder; None for nothing.
    count: number of pairs.
  """

  first: tuple[str, str] | None
  second: tuple[str, str] | None
  count: int


@dataclasses.dataclass(frozen=True)
class Agreement:
  """What `measure` found.

  Attributes:
    videos: names of the recordings.
    seconds: that were compared.
    unit: seconds of a time unit.
    overlap: least overlap of matched events, as a share of the longer one.
    seed: of the bootstrap.
    overall: all classes.
    tiers: one scope per tier.
    classes: one scope per class.
    matched: events by class of the first coder (rows) and of the second; the last row and column
      are for events without a counterpart.
    disagreements: pairs of different classes and events without a counterpart, the most frequent
      first.
    notes: what a reader must know.
  """

  videos: tuple[str, ...]
  seconds: float
  unit: float
  overlap: float
  seed: int
  overall: Scope
  tiers: tuple[Scope, ...]
  classes: tuple[Scope, ...]
  matched: Int[np.ndarray, "k1 k1"]
  disagreements: tuple[Disagreement, ...]
  notes: tuple[str, ...]

  def to_json(self) -> dict[str, Any]:
    """Everything as plain values; NaN becomes None."""
    return _plain(dataclasses.asdict(self) | {"matched": self.matched.tolist()})


def _plain(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _plain(inner) for key, inner in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(inner) for inner in value]
  if isinstance(value, float):
    return float(value) if np.isfinite(value) else None
  return value


def measure(
  comparison: Comparison, *, unit: float = UNIT, overlap: float = OVERLAP, seed: int = 0
) -> Agreement:
  """Measures agreement.

  The first coder's events are the truth of the average precision, the second coder's confidences
  its order. All else but the signs of differences is the same for both orders of the coders.

  Args:
    comparison: of the two codings.
    unit: seconds of a time unit.
    overlap: least share of the longer event that two events must share to be one, above 0.
    seed: of the bootstrap over videos.

  Raises:
    ValueError: `unit` or `overlap` is out of range.
  """
  if not unit > 0:
    raise ValueError(f"the time unit must be longer than 0 s, not {unit}")
  if not 0 < overlap <= 1:
    raise ValueError(f"the least overlap must be above 0 and at most 1, not {overlap}")
  classes = comparison.classes
  tallies = [tally(one, classes, unit=unit, overlap=overlap) for one in comparison.recordings]
  videos = tuple(dict.fromkeys(one.video for one in tallies))
  weights = _weights(tallies, videos, seed)
  numbers = range(len(classes))
  precisions = [
    detection.average_precision([one.detections[number] for one in tallies], weights)
    for number in numbers
  ]

  def scope(chosen: list[int], places: list[int], key: tuple[str, str]) -> Scope:
    return _scope(tallies, weights, [precisions[i] for i in chosen], chosen, places, key)

  tiers = comparison.tiers
  return Agreement(
    videos=videos,
    seconds=sum({one.video: one.duration for one in comparison.recordings}.values()),
    unit=unit,
    overlap=overlap,
    seed=seed,
    overall=scope(list(numbers), list(range(len(tiers))), ("", "")),
    tiers=tuple(
      scope([i for i in numbers if classes[i][0] == tier], [place], (tier, ""))
      for place, tier in enumerate(tiers)
    ),
    classes=tuple(scope([i], [], classes[i]) for i in numbers),
    matched=sum((one.matched for one in tallies), np.zeros((len(classes) + 1,) * 2, np.int64)),
    disagreements=_disagreements(tallies, classes),
    notes=(*comparison.notes, *_notes(comparison, tallies)),
  )


def _weights(
  tallies: Sequence[Tally], videos: Sequence[str], seed: int
) -> Float[np.ndarray, "r v"]:
  """How often each recording counts: once, in the first row; as often as it was drawn, below."""
  count = len(videos)
  drawn = np.ones((1, count))
  if count > 1:
    rng = np.random.default_rng(seed)
    resampled = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    drawn = np.concatenate([drawn, resampled])
  place = {video: number for number, video in enumerate(videos)}
  return drawn[:, [place[one.video] for one in tallies]].astype(float)


def _scope(
  tallies: Sequence[Tally],
  weights: Float[np.ndarray, "r v"],
  precisions: list[Float[np.ndarray, "r t"]],
  numbers: list[int],
  tiers: list[int],
  key: tuple[str, str],
) -> Scope:
  """Agreement on the classes with these numbers, which are all of these tiers, or just one."""
  if not numbers:
    nothing = {name: Value(np.nan) for name in MEASURES}
    undefined = dict.fromkeys(("onset", "offset"), (np.nan,) * len(QUANTILES))
    return Scope(*key, (0, 0), (0.0, 0.0), nothing, undefined)
  events = np.array([one.events[:, numbers].sum(1) for one in tallies])
  seconds = np.array([one.seconds[:, numbers].sum(1) for one in tallies])
  drawn = {
    **_kappas(tallies, weights, numbers, tiers),
    **_f1(tallies, weights, numbers),
    **_precisions(precisions, len(weights)),
  }
  total = weights @ events.sum(1)
  values = {name: np.where(total > 0, found, np.nan) for name, found in drawn.items()}
  quantiles = {}
  for column, name in ((1, "onset"), (2, "offset")):
    mean, median, quantiles[name] = _differences(tallies, weights, numbers, column)
    values |= {f"{name}_mean": mean, f"{name}_median": median}
  # Videos without any such event tell nothing of how much videos differ.
  several = len({one.video for one, count in zip(tallies, events.sum(1)) if count}) > 1
  return Scope(
    *key,
    events=tuple(int(value) for value in events.sum(0)),
    seconds=tuple(float(value) for value in seconds.sum(0)),
    values={name: _value(values[name], several) for name in MEASURES if name in values},
    quantiles=quantiles,
  )


def _value(drawn: Float[np.ndarray, " r"], several: bool) -> Value:
  """The value in the first row, and the central part of the others, if most are defined."""
  resampled = drawn[1:][np.isfinite(drawn[1:])]
  if not several or not np.isfinite(drawn[0]) or 2 * resampled.size <= drawn.size:
    return Value(float(drawn[0]))
  low, high = np.quantile(resampled, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
  return Value(float(drawn[0]), float(low), float(high))


def _kappas(
  tallies: Sequence[Tally], weights: Float[np.ndarray, "r v"], numbers: list[int], tiers: list[int]
) -> dict[str, Float[np.ndarray, " r"]]:
  def kappa(find: Callable[[Tally], Margins], defined: bool = True) -> Float[np.ndarray, " r"]:
    if not defined:
      return np.full(len(weights), np.nan)
    return cohen_kappa(Margins.stacked([find(one) for one in tallies]).weighted(weights))

  # A pair counts twice, because it is two events.
  counts = np.stack([one.matched.astype(float) for one in tallies])
  counts[:, :-1, :-1] *= 2
  if not tiers:
    return {
      "kappa_time": kappa(lambda one: one.units.classes[numbers[0]]),
      "kappa_events": _kappa_of_class(counts, weights, numbers[0]),
    }
  kept = [*numbers, -1]
  events = event_kappa(Margins.of_tables(counts[:, kept][:, :, kept]).weighted(weights))
  one_per_tier = not any(one.units.overlapping[tiers].any() for one in tallies)
  if len(tiers) == 1:
    return {
      "kappa_time": kappa(lambda one: one.units.labels[tiers[0]], one_per_tier),
      "kappa_active": kappa(lambda one: one.units.tiers[tiers[0]]),
      "kappa_events": events,
    }
  one_at_once = not any(one.units.any_overlapping for one in tallies)
  return {
    "kappa_time": kappa(lambda one: one.units.at_once, one_at_once),
    "kappa_tiers": kappa(lambda one: Margins.summed(one.units.labels), one_per_tier),
    "kappa_active": kappa(lambda one: one.units.anything),
    "kappa_events": events,
  }


def _kappa_of_class(
  counts: Float[np.ndarray, "v k1 k1"], weights: Float[np.ndarray, "r v"], this: int
) -> Float[np.ndarray, " r"]:
  """Kappa of "this class or not" among all events, as ELAN has it per value."""
  total, agreed = counts.sum((1, 2)), counts[:, this, this]
  rows, columns = counts[:, this].sum(1), counts[:, :, this].sum(1)
  neither = total - rows - columns + agreed
  table = Margins(
    agreed + neither,
    np.stack([rows, total - rows], axis=1),
    np.stack([columns, total - columns], axis=1),
  ).weighted(weights)
  # Where no event is of another class, nothing could have been agreed on by chance.
  defined = (weights @ neither > 0) | (table.agreed == table.rows.sum(1))
  return np.where(defined, cohen_kappa(table), np.nan)


def _f1(
  tallies: Sequence[Tally], weights: Float[np.ndarray, "r v"], numbers: list[int]
) -> dict[str, Float[np.ndarray, " r"]]:
  hits = weights @ np.stack([one.hits[numbers].sum(0) for one in tallies])
  events = weights @ np.array([one.events[:, numbers].sum() for one in tallies])
  values = 2 * hits / np.maximum(events, 1)[:, None]
  return {f"f1_{level:g}": values[:, column] for column, level in enumerate(F1_THRESHOLDS)}


def _precisions(
  classes: list[Float[np.ndarray, "r t"]], count: int
) -> dict[str, Float[np.ndarray, " r"]]:
  """Averages over the classes that the first coder has."""
  each = np.array(classes).reshape(len(classes), count, len(detection.THRESHOLDS))
  found = np.isfinite(each)
  mean = np.where(found, each, 0.0).sum(0) / np.maximum(found.sum(0), 1)
  mean = np.where(found.any(0), mean, np.nan)
  levels = {f"ap_{level:g}": mean[:, i] for i, level in enumerate(detection.THRESHOLDS)}
  return {"map": mean.mean(1), **levels}


def _differences(
  tallies: Sequence[Tally], weights: Float[np.ndarray, "r v"], numbers: list[int], column: int
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"], tuple[float, ...]]:
  """Mean and median per weighting, and the quantiles of the first."""
  parts = [one.differences[np.isin(one.differences[:, 0], numbers)] for one in tallies]
  values = np.concatenate([part[:, column] for part in parts])
  if not values.size:
    undefined = np.full(len(weights), np.nan)
    return undefined, undefined, (np.nan,) * len(QUANTILES)
  order = np.argsort(values, kind="stable")
  owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
  each, values = weights[:, owner], values[order]
  total = each.sum(1)
  mean = np.where(total > 0, each @ values / np.maximum(total, 1), np.nan)
  cumulated = np.cumsum(each, axis=1)
  # The median of repeated values is between the one that half of them reach and the next.
  half = total[:, None] / 2
  low = values[np.minimum((cumulated < half).sum(1), values.size - 1)]
  high = values[np.minimum((cumulated <= half).sum(1), values.size - 1)]
  median = np.where(total > 0, (low + high) / 2, np.nan)
  return mean, median, tuple(float(value) for value in np.quantile(values, QUANTILES))


def _disagreements(
  tallies: Sequence[Tally], classes: Sequence[tuple[str, str]]
) -> tuple[Disagreement, ...]:
  """Pairs of different classes; a pair across tiers is no longer without a counterpart."""
  counts: collections.Counter[tuple[int, int]] = collections.Counter()
  nothing = len(classes)
  for one in tallies:
    for i, j in zip(*np.nonzero(one.matched)):
      counts[int(i), int(j)] += int(one.matched[i, j])
    for i, j in one.crossed:
      counts[i, j] += 1
      counts[i, nothing] -= 1
      counts[nothing, j] -= 1
  names = [*classes, None]
  return tuple(
    Disagreement(names[i], names[j], count)
    for (i, j), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if i != j and count
  )


def _notes(comparison: Comparison, tallies: Sequence[Tally]) -> list[str]:
  notes = []
  if len({one.video for one in tallies}) == 1:
    notes.append("one video: there are no intervals, which would say how much videos differ")
  crowded = [
    tier
    for place, tier in enumerate(comparison.tiers)
    if any(one.units.overlapping[place] for one in tallies)
  ]
  if crowded:
    notes.append(
      "several labels at the same time in " + ", ".join(crowded) + ": kappa by time unit is given "
      "for each class, and for anything or nothing, but not for one class at a time"
    )
  elif any(one.units.any_overlapping for one in tallies) and len(comparison.tiers) > 1:
    notes.append(
      "tiers overlap in time: the overall kappa by time unit counts the units of each tier"
    )
  found = [event for one in comparison.recordings for event in one.second]
  if found and all(event.confidence is None for event in found):
    notes.append("the second coding has no confidences: its average precision is that of one list")
  return notes

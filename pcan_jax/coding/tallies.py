"""What is counted in each recording, so that agreement is a function of weighted sums of videos."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from pcan_jax.coding.comparison import Recording
from pcan_jax.coding.detection import Detections, detect
from pcan_jax.coding.events import Event
from pcan_jax.coding.kappa import Margins
from pcan_jax.coding.matching import ROUNDING, iou, pair_events, share_of_longer

F1_THRESHOLDS = (0.1, 0.25, 0.5)
"""IoUs of segment F1 (Lea et al., Temporal Convolutional Networks for Action Segmentation and
Detection, CVPR 2017)."""

Classes = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Units:
  """Time units of one recording by what each coder has there; K classes, T tiers.

  Attributes:
    classes: per class the margins of a table "this or not".
    tiers: per tier the same for "anything or nothing".
    labels: per tier the margins of a table of all classes and nothing (the first category).
    at_once: the same for all tiers together.
    anything: the margins of a table "anything or nothing".
    overlapping: per tier, whether a coder has two classes of it in the same unit.
    any_overlapping: whether a coder has two classes in the same unit.
  """

  classes: tuple[Margins, ...]
  tiers: tuple[Margins, ...]
  labels: tuple[Margins, ...]
  at_once: Margins
  anything: Margins
  overlapping: Bool[np.ndarray, " t"]
  any_overlapping: bool


@dataclasses.dataclass(frozen=True)
class Tally:
  """Counts of one recording; K classes.

  Attributes:
    video: name of the file.
    events: number of events by coder and class.
    seconds: coded seconds by coder and class.
    units: time units.
    matched: events by class of the first coder (rows) and of the second; the last row and column
      are for events without a counterpart.
    crossed: pairs of classes in different tiers: events without a counterpart in their own tier
      that overlap as much as a counterpart would.
    hits: events in agreement by class and IoU of `F1_THRESHOLDS`.
    detections: of each class.
    differences: of each pair of events with the same class: the class, onset and offset of the
      second minus those of the first, in seconds.
  """

  video: str
  events: Int[np.ndarray, "2 k"]
  seconds: Float[np.ndarray, "2 k"]
  units: Units
  matched: Int[np.ndarray, "k1 k1"]
  crossed: tuple[tuple[int, int], ...]
  hits: Int[np.ndarray, "k f"]
  detections: tuple[Detections, ...]
  differences: Float[np.ndarray, "n 3"]


def tally(recording: Recording, classes: Classes, *, unit: float, overlap: float) -> Tally:
  """Counts what one recording contributes.

  Args:
    recording: with the events of two coders.
    classes: tier and label of all events.
    unit: seconds of a time unit; what is coded in its middle counts for the unit.
    overlap: least share of the longer event that two events must share to be one.
  """
  sides = (recording.first, recording.second)
  by_class = [
    [[event for event in side if (event.tier, event.label) == key] for side in sides]
    for key in classes
  ]
  matched, crossed, differences = _match(sides, classes, overlap)
  hits = [
    [len(pair_events(*pair, iou, threshold)) for threshold in F1_THRESHOLDS] for pair in by_class
  ]
  return Tally(
    video=recording.video,
    events=_table([[len(pair[coder]) for pair in by_class] for coder in (0, 1)], len(classes)),
    seconds=np.array(
      [[sum(event.duration for event in pair[coder]) for pair in by_class] for coder in (0, 1)],
      dtype=float,
    ),
    units=_count_units(by_class, classes, recording.duration, unit),
    matched=matched,
    crossed=crossed,
    hits=np.array(hits, dtype=np.int64).reshape(len(classes), len(F1_THRESHOLDS)),
    detections=tuple(detect(*pair) for pair in by_class),
    differences=differences,
  )


def _table(values: list[list[int]], columns: int) -> Int[np.ndarray, "r c"]:
  return np.array(values, dtype=np.int64).reshape(len(values), columns)


def _count_units(
  by_class: list[list[list[Event]]], classes: Classes, duration: float, unit: float
) -> Units:
  count = max(0, math.floor(duration / unit + ROUNDING))
  tiers = list(dict.fromkeys(tier for tier, _ in classes))
  # Per coder: the class (from 1) and the number of classes in each unit, for tiers and altogether.
  last = np.zeros((2, count), dtype=np.int64)
  number = np.zeros((2, count), dtype=np.int64)
  per_class, per_tier, labels, overlapping = [], [], [], []
  for tier in tiers:
    tier_last, tier_number = np.zeros_like(last), np.zeros_like(number)
    for index, (owner, _) in enumerate(classes):
      if owner == tier:
        active = np.stack([_covered(events, unit, count) for events in by_class[index]])
        per_class.append((index, _margins(active, 2)))
        tier_last[active] = index + 1
        tier_number += active
    per_tier.append(_margins(tier_number > 0, 2))
    labels.append(_margins(tier_last, len(classes) + 1))
    overlapping.append(bool((tier_number > 1).any()))
    last = np.where(tier_last > 0, tier_last, last)
    number += tier_number
  return Units(
    tuple(margins for _, margins in sorted(per_class, key=lambda pair: pair[0])),
    tuple(per_tier),
    tuple(labels),
    _margins(last, len(classes) + 1),
    _margins(number > 0, 2),
    np.array(overlapping, dtype=bool),
    bool((number > 1).any()),
  )


def _covered(events: list[Event], unit: float, count: int) -> Bool[np.ndarray, " n"]:
  """Which units have their middle in an event."""
  covered = np.zeros(count, dtype=bool)
  for event in events:
    first, stop = (math.ceil(time / unit - 0.5 - ROUNDING) for time in (event.onset, event.offset))
    covered[max(first, 0) : max(stop, 0)] = True
  return covered


def _margins(sides: np.ndarray, categories: int) -> Margins:
  first, second = sides.astype(np.int64)
  return Margins.of_labels(first, second, categories)


def _match(
  sides: tuple[Sequence[Event], Sequence[Event]], classes: Classes, overlap: float
) -> tuple[Int[np.ndarray, "k1 k1"], tuple[tuple[int, int], ...], Float[np.ndarray, "n 3"]]:
  """Matches the events of each tier, and then what is left across tiers."""
  index = {key: number for number, key in enumerate(classes)}
  matched = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
  differences, left = [], ([], [])
  for tier in dict.fromkeys(tier for tier, _ in classes):
    first, second = ([event for event in side if event.tier == tier] for side in sides)
    pairs = pair_events(first, second, share_of_longer, overlap)
    for i, j in pairs:
      one, other = first[i], second[j]
      classes_of_pair = index[tier, one.label], index[tier, other.label]
      matched[classes_of_pair] += 1
      if one.label == other.label:
        differences.append((classes_of_pair[0], other.onset - one.onset, other.offset - one.offset))
    for coder, events in enumerate((first, second)):
      used = {pair[coder] for pair in pairs}
      left[coder].extend(event for number, event in enumerate(events) if number not in used)
  for event in left[0]:
    matched[index[event.tier, event.label], -1] += 1
  for event in left[1]:
    matched[-1, index[event.tier, event.label]] += 1
  crossed = tuple(
    (index[left[0][i].tier, left[0][i].label], index[left[1][j].tier, left[1][j].label])
    for i, j in pair_events(*left, share_of_longer, overlap)
  )
  return matched, crossed, np.array(differences, dtype=float).reshape(-1, 3)

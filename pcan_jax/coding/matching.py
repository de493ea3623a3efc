"""Which events of two codings are the same one: pairs by their overlap in time."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from pcan_jax.coding.events import Event

ROUNDING = 1e-9
"""By which times and similarities may miss a limit and still reach it."""

Similarity = Callable[[float, float, float], float]
"""Of an overlap and two durations, all in seconds; 1 for two equal stretches, 0 for no overlap."""


def share_of_longer(overlap: float, first: float, second: float) -> float:
  """The overlap as a share of the longer event, as ELAN and EasyDIAg have it."""
  return overlap / max(first, second)


def iou(overlap: float, first: float, second: float) -> float:
  """Intersection over union."""
  return overlap / (first + second - overlap)


def overlaps(event: Event, others: Sequence[Event]) -> Float[np.ndarray, " n"]:
  """Seconds that each of `others` shares with an event."""
  onsets = np.array([other.onset for other in others], dtype=float)
  offsets = np.array([other.offset for other in others], dtype=float)
  shared = np.minimum(offsets, event.offset) - np.maximum(onsets, event.onset)
  return np.maximum(shared, 0.0)


def pair_events(
  first: Sequence[Event], second: Sequence[Event], similarity: Similarity, minimum: float
) -> list[tuple[int, int]]:
  """Pairs events one to one, the most similar pairs first.

  Of equally similar pairs, the one with the longer overlap comes first, then one with the same
  label, then the earlier one; so the pairs do not depend on which coding is the first.

  Args:
    first: events of one coding.
    second: events of the other coding.
    similarity: of two events that overlap.
    minimum: smallest similarity of a pair, above 0.

  Returns:
    Pairs of positions in `first` and `second`, in the order of the first ones. Events without a
    counterpart are in no pair.
  """
  found = []
  for i, event in enumerate(first):
    shared = overlaps(event, second)
    for j in np.flatnonzero(shared > 0).tolist():
      other, overlap = second[j], float(shared[j])
      value = similarity(overlap, event.duration, other.duration)
      if value >= minimum - ROUNDING:
        order = (-round(value, 9), -round(overlap, 9), event.label != other.label)
        found.append((*order, event.onset + other.onset, i + j, i, j))
  pairs, taken_first, taken_second = [], set(), set()
  for *_, i, j in sorted(found):
    if i not in taken_first and j not in taken_second:
      taken_first.add(i)
      taken_second.add(j)
      pairs.append((i, j))
  return sorted(pairs)

"""Events in a recording, from predictions of windows that overlap.

The scores of all windows that contain a moment are averaged, smoothed over time and compared with
two thresholds: an event of a class begins where its score reaches the higher one, and that of
nothing, and lasts as long as it stays above the lower one. Gaps are bridged, and what is too short
is dropped.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from pcan_jax.coding.events import Event
from pcan_jax.labels import LabelTree

STEP = 0.05
"""Seconds between the moments that are scored."""

_EDGE = 1e-9  # rounding must not decide whether a score is at its threshold


@dataclasses.dataclass(frozen=True)
class EventRules:
  """What counts as an event; the config's `events`.

  Attributes:
    window: seconds of a window.
    stride: seconds from window to window.
    num_clips: test clips per window.
    smoothing: seconds over which scores are averaged; 0 for none.
    onset: score with which an event begins.
    offset: score below which it ends.
    shortest: seconds; shorter events are dropped.
    bridge: seconds; shorter gaps between events of one class are closed.
    overlapping: whether several classes may occur at a time. If not, it is the one with the highest
      score.
    background: name of the class for moments in which nothing happens, which is no event; a tree
      may lack it.
    max_distance: of a window's embedding from the prototype of its class, as 1 minus their cosine.
      A window beyond it shows nothing that is known, and counts as 0 for all classes. 2 for no
      limit. Models without prototypes have no such distance.

  Raises:
    ValueError: a value makes no sense; the message names it.
  """

  window: float
  stride: float
  num_clips: int
  smoothing: float
  onset: float
  offset: float
  shortest: float
  bridge: float
  overlapping: bool
  background: str
  max_distance: float

  def __post_init__(self) -> None:
    for name in ("window", "stride", "onset"):
      if not getattr(self, name) > 0:
        raise ValueError(f"events.{name} must be positive, not {getattr(self, name)}")
    for name in ("smoothing", "shortest", "bridge", "max_distance"):
      if not getattr(self, name) >= 0:
        raise ValueError(f"events.{name} must not be negative, but it is {getattr(self, name)}")
    if not 0 <= self.offset <= self.onset <= 1:
      raise ValueError(
        f"expected 0 <= events.offset <= events.onset <= 1, found {self.offset} and {self.onset}"
      )
    if self.stride > self.window:
      raise ValueError(
        f"windows of {self.window} s every {self.stride} s leave gaps; events.stride must not be "
        "larger than events.window"
      )
    if self.num_clips < 1:
      raise ValueError(f"events.num_clips must be at least 1, not {self.num_clips}")

  @classmethod
  def of_values(cls, values: dict[str, Any]) -> "EventRules":
    """Of a mapping, such as the config's `events`.

    Raises:
      ValueError: one is missing or makes no sense, or there is one too many.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    odd = sorted(set(values) ^ set(names))
    if odd:
      raise ValueError(f"expected the event settings {', '.join(names)}; check {', '.join(odd)}")
    return cls(**values)


@dataclasses.dataclass(frozen=True, eq=False)
class WindowScores:
  """What a model says about the windows of one recording.

  Attributes:
    starts, ends: of the windows in seconds; the last ends with the recording.
    probabilities: of the actions.
    distances: from each window's embedding to the prototype of its most likely action, the mean of
      the streams; NaN without prototypes.
  """

  starts: Float[np.ndarray, " n"]
  ends: Float[np.ndarray, " n"]
  probabilities: Float[np.ndarray, "n k"]
  distances: Float[np.ndarray, " n"]


def score_moments(scores: WindowScores, rules: EventRules) -> Float[np.ndarray, "t k"]:
  """The score of every class every `STEP` seconds; the first one is at half a step.

  It is the mean over the windows that contain the moment, or that are nearest to it, averaged over
  the time around it.
  """
  known = ~(scores.distances > rules.max_distance)  # NaN is no distance
  values = np.where(known[:, None], scores.probabilities, 0.0).astype(np.float64)
  count = max(int(np.ceil(scores.ends.max() / STEP - _EDGE)), 1)
  first = np.clip(np.round(scores.starts / STEP).astype(int), 0, count - 1)
  stop = np.clip(np.round(scores.ends / STEP).astype(int), first + 1, count)
  # Added where a window starts, taken away where it ends.
  changes = np.zeros((count + 1, values.shape[1] + 1))
  np.add.at(changes, first, np.column_stack([values, np.ones(len(values))]))
  np.subtract.at(changes, stop, np.column_stack([values, np.ones(len(values))]))
  sums = np.cumsum(changes[:-1], axis=0)
  covered = np.round(sums[:, -1])
  means = sums[:, :-1] / np.maximum(covered, 1)[:, None]
  empty = np.flatnonzero(covered == 0)
  if empty.size:  # windows are cut at frames, which may leave a moment between two
    full = np.flatnonzero(covered)
    means[empty] = means[full[np.abs(empty[:, None] - full).argmin(axis=1)]]
  return np.clip(_smooth(means, rules.smoothing), 0.0, 1.0)


def _smooth(values: Float[np.ndarray, "t k"], seconds: float) -> Float[np.ndarray, "t k"]:
  """A moving average; at the ends, over what there is."""
  half = round(seconds / STEP / 2)
  if not half:
    return values
  sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
  moment = np.arange(len(values))
  low, high = np.maximum(moment - half, 0), np.minimum(moment + half + 1, len(values))
  return (sums[high] - sums[low]) / (high - low)[:, None]


def find_events(
  moments: Float[np.ndarray, "t k"], tree: LabelTree, rules: EventRules, duration: float
) -> list[Event]:
  """The events in a recording.

  Args:
    moments: scores of the classes, as `score_moments` gives them.
    tree: the labels. Body parts become tiers.
    rules: what counts as an event.
    duration: seconds of the recording; no event ends later.

  Returns:
    In order of their onsets. The confidence of an event is the mean of its score.
  """
  is_event = np.array([action != rules.background for action in tree.actions])
  scores = np.where(is_event, moments, 0.0)
  if not rules.overlapping:
    leads = np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]
    scores = np.where(leads, scores, 0.0)
  nothing = np.where(is_event, 0.0, moments).max(axis=1)
  spans = {
    action: list(_runs(scores[:, index], nothing, rules))
    for index, action in enumerate(tree.actions)
    if is_event[index]
  }
  bridge, shortest = round(rules.bridge / STEP), rules.shortest / STEP
  spans = _bridged(spans, bridge, rules.overlapping)
  spans = {
    action: [(first, stop) for first, stop in found if stop - first >= shortest - _EDGE]
    for action, found in spans.items()
  }
  # What was dropped may have stood in the way.
  spans = _bridged(spans, bridge, rules.overlapping)
  events = []
  for index, action in enumerate(tree.actions):
    for first, stop in spans.get(action, ()):
      onset, offset = round(first * STEP, 3), round(min(stop * STEP, duration), 3)
      if onset < offset:
        confidence = float(np.clip(moments[first:stop, index].mean(), 0, 1))
        events.append(Event(onset, offset, action, tree.body_of[action], "", confidence))
  return sorted(events)


def _runs(
  scores: Float[np.ndarray, " t"], nothing: Float[np.ndarray, " t"], rules: EventRules
) -> Iterator[tuple[int, int]]:
  """Stretches above the lower threshold that somewhere reach the higher one, and beat nothing."""
  begins = (scores >= rules.onset - _EDGE) & (scores >= nothing)
  for first, stop in _stretches((scores >= rules.offset - _EDGE) & (scores > 0)):
    begun = np.flatnonzero(begins[first:stop])
    if begun.size:
      yield first + int(begun[0]), stop


def _stretches(mask: Bool[np.ndarray, " t"]) -> list[tuple[int, int]]:
  edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
  return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _bridged(
  spans: dict[str, list[tuple[int, int]]], bridge: int, overlapping: bool
) -> dict[str, list[tuple[int, int]]]:
  """Closes short gaps, unless another class may not occur at the same time and does so there."""
  found = {}
  for action, own in spans.items():
    others = [span for name in spans if name != action for span in spans[name]]
    merged: list[tuple[int, int]] = []
    for first, stop in own:
      last = merged[-1][1] if merged else 0
      taken = not overlapping and any(a < first and b > last for a, b in others)
      if merged and first - last < bridge + _EDGE and not taken:
        merged[-1] = (merged[-1][0], stop)
      else:
        merged.append((first, stop))
    found[action] = merged
  return found

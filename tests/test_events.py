"""Events from windows: known answers by hand, and what must hold for any scores."""

import dataclasses

import numpy as np
import pytest

from pcan_jax.config import load_config
from pcan_jax.labels import LabelTree
from pcan_jax.prediction.event_settings import without_background
from pcan_jax.prediction.events import STEP, EventRules, WindowScores, find_events, score_moments

TREE = LabelTree(("nod", "wave", "background"), ("head", "arm", "none"), (0, 1, 2))
RULES = EventRules(
  window=2.0,
  stride=0.5,
  num_clips=1,
  smoothing=0.0,
  onset=0.6,
  offset=0.4,
  shortest=0.0,
  bridge=0.0,
  overlapping=False,
  background="background",
  max_distance=2.0,
)


def rules(**values):
  return dataclasses.replace(RULES, **values)


def moments(*stretches):
  """Scores [t, 3] from (seconds, score of nod, score of wave); the rest is background."""
  rows = [
    np.tile([nod, wave, 1 - nod - wave], (round(seconds / STEP), 1))
    for seconds, nod, wave in stretches
  ]
  return np.concatenate(rows)


def found(scores, **values):
  events = find_events(scores, TREE, rules(**values), len(scores) * STEP)
  return [(event.onset, event.offset, event.label) for event in events]


def test_an_event_starts_at_one_threshold_and_ends_at_another():
  scores = moments((1, 0, 0), (1, 0.5, 0), (1, 0.7, 0), (1, 0.45, 0), (1, 0.3, 0), (1, 0.5, 0))
  assert found(scores) == [(2, 4, "nod")]
  assert found(scores, offset=0.5) == [(2, 3, "nod")]
  assert found(scores, onset=0.8) == []
  (event,) = find_events(scores, TREE, RULES, 6.0)
  assert event.tier == "head"
  assert event.confidence == pytest.approx((0.7 + 0.45) / 2)


def test_an_event_does_not_begin_while_nothing_is_more_likely():
  scores = moments((1, 0.45, 0), (1, 0.55, 0), (1, 0.45, 0))
  assert found(scores, onset=0.45) == [(1, 3, "nod")]


def test_gaps_are_bridged_and_short_events_dropped():
  scores = moments((1, 0.9, 0), (0.4, 0, 0), (1, 0.9, 0), (2, 0, 0), (0.3, 0, 0.9), (1, 0, 0))
  assert found(scores) == [(0, 1, "nod"), (1.4, 2.4, "nod"), (4.4, 4.7, "wave")]
  assert found(scores, bridge=0.4) == [(0, 2.4, "nod"), (4.4, 4.7, "wave")]
  assert found(scores, bridge=0.35, shortest=0.3) == found(scores)
  assert found(scores, shortest=0.35) == [(0, 1, "nod"), (1.4, 2.4, "nod")]


def test_nothing_is_bridged_over_another_event_unless_it_is_dropped_or_they_may_overlap():
  scores = moments((1, 0.9, 0), (0.4, 0.1, 0.9), (1, 0.9, 0))
  both = [(0, 1, "nod"), (1, 1.4, "wave"), (1.4, 2.4, "nod")]
  assert found(scores, bridge=1.0) == both
  assert found(scores, bridge=1.0, shortest=0.5) == [(0, 2.4, "nod")]
  assert found(scores, bridge=1.0, overlapping=True) == [(0, 2.4, "nod"), (1, 1.4, "wave")]


def test_one_class_at_a_time_is_the_one_with_the_highest_score():
  scores = moments((1, 0.5, 0.3), (1, 0.3, 0.5), (1, 0.1, 0.2))
  low = {"onset": 0.2, "offset": 0.2}
  assert found(scores, **low) == [(0, 1, "nod"), (1, 3, "wave")]
  assert found(scores, overlapping=True, **low) == [(0, 2, "nod"), (0, 3, "wave")]


def test_no_event_ends_after_the_recording():
  events = find_events(moments((1, 0.9, 0)), TREE, RULES, 0.98)
  assert [event.offset for event in events] == [0.98]


def windows(probabilities, seconds=2.0, stride=0.5, distances=None):
  starts = stride * np.arange(len(probabilities))
  distances = np.full(len(starts), np.nan) if distances is None else np.array(distances)
  return WindowScores(starts, starts + seconds, np.array(probabilities), distances)


def test_a_moment_has_the_mean_of_its_windows():
  scores = score_moments(windows([[1.0, 0], [0, 1.0], [0.5, 0.5]], stride=1.0), RULES)
  assert scores.shape == (80, 2)
  np.testing.assert_allclose(scores[:20], [[1, 0]] * 20)
  np.testing.assert_allclose(scores[20:40], [[0.5, 0.5]] * 20)
  np.testing.assert_allclose(scores[40:60], [[0.25, 0.75]] * 20)
  np.testing.assert_allclose(scores[60:], [[0.5, 0.5]] * 20)


def test_unknown_windows_count_as_nothing():
  one = windows([[1.0, 0], [1.0, 0]], stride=2.0, distances=[0.2, 0.9])
  known = score_moments(one, rules(max_distance=0.5))
  np.testing.assert_allclose(known[:, 0], [1] * 40 + [0] * 40)
  np.testing.assert_allclose(score_moments(one, RULES)[:, 0], 1)


def test_moments_between_windows_have_the_nearest():
  starts = np.array([0.0, 2.2])
  one = WindowScores(starts, starts + 2, np.array([[1.0, 0], [0, 1.0]]), np.full(2, np.nan))
  scores = score_moments(one, RULES)
  assert scores.shape == (84, 2)
  np.testing.assert_allclose(scores[38:46].argmax(axis=1), [0] * 4 + [1] * 4)


def test_smoothing_keeps_sums_and_removes_blips():
  rng = np.random.default_rng(0)
  given = rng.dirichlet(np.ones(3), 40)
  smooth = score_moments(windows(given, stride=0.1), rules(smoothing=1.0))
  np.testing.assert_allclose(smooth.sum(axis=1), 1)
  assert np.abs(np.diff(smooth, axis=0)).max() < np.abs(np.diff(given, axis=0)).max() / 4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("overlapping", [False, True])
def test_what_holds_for_any_scores(seed, overlapping):
  rng = np.random.default_rng(seed)
  scores = windows(rng.dirichlet(np.full(3, 0.3), 60))
  chosen = rules(overlapping=overlapping, bridge=0.3, shortest=0.4, smoothing=rng.choice([0, 0.5]))
  at = score_moments(scores, chosen)
  duration = float(scores.ends[-1]) - 0.01
  events = find_events(at, TREE, chosen, duration)
  assert events == sorted(events) and events
  for event in events:
    assert (
      event.label != "background" and event.tier == TREE.bodies[TREE.actions.index(event.label)]
    )
    assert event.duration >= 0.4 - 0.02 and event.offset <= duration
    inside = at[round(event.onset / STEP) : round(event.offset / STEP)]
    assert inside[:, TREE.actions.index(event.label)].max() >= 0.6 - 1e-6
  for one, other in zip(events, events[1:]):
    if not overlapping or one.label == other.label:
      assert one.offset <= other.onset
  stricter = find_events(at, TREE, dataclasses.replace(chosen, onset=0.9), duration)
  if overlapping:  # one at a time, what is dropped makes room
    assert sum(e.duration for e in stricter) <= sum(e.duration for e in events)


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"window": 0.0}, "events.window must be positive"),
    ({"offset": 0.7}, "events.offset <= events.onset"),
    ({"onset": 1.2}, "events.onset <= 1"),
    ({"stride": 3.0}, "leave gaps"),
    ({"bridge": -1.0}, "events.bridge must not be negative"),
    ({"num_clips": 0}, "events.num_clips"),
  ],
)
def test_rules_that_make_no_sense_are_named(wrong, message):
  with pytest.raises(ValueError, match=message):
    rules(**wrong)


def test_the_rules_of_the_configs_are_complete():
  assert EventRules.of_values(dict(load_config("ma52").events))
  values = dataclasses.asdict(RULES) | {"blur": 1}
  with pytest.raises(ValueError, match="check blur"):
    EventRules.of_values(values)


def test_nothing_is_no_class_of_a_coder():
  tree = without_background(TREE, "background")
  assert tree == LabelTree(("nod", "wave"), ("head", "arm"), (0, 1))
  assert without_background(tree, "background") == tree

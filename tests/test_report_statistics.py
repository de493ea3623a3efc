import numpy as np
import pytest

from pcan_jax.evaluation.calibration import calibrate
from pcan_jax.evaluation.metrics import Predictions
from pcan_jax.labels import LabelTree
from pcan_jax.report import statistics

TREE = LabelTree(("nod", "shake", "wave", "point"), ("head", "arm"), (0, 0, 1, 1))


def make_predictions(seed=0, num_clips=60):
  rng = np.random.default_rng(seed)
  actions = rng.integers(4, size=num_clips)
  action_scores = rng.random((num_clips, 4)) + 0.5 * np.eye(4)[actions]
  body_scores = rng.random((num_clips, 2)) + 0.5 * np.eye(2)[np.asarray(TREE.parents)[actions]]
  return Predictions.of_scores(action_scores, body_scores, actions, TREE), actions


def test_accuracy_of_a_class_is_over_its_own_clips_and_unknown_without_any():
  confusion = np.array([[2, 1, 0], [0, 0, 0], [0, 1, 0]])
  np.testing.assert_allclose(statistics.class_accuracy(confusion), [2 / 3, np.nan, 0])


def test_wilson_interval_by_hand():
  low, high = statistics.wilson_interval(np.array([8, 0, 0]), np.array([10, 5, 0]))
  # 8 of 10: (0.8 + 0.19207) / 1.38415 -+ 0.31307 / 1.38415 with z = 1.95996.
  np.testing.assert_allclose(low[:2], [0.49016, 0], atol=1e-4)
  np.testing.assert_allclose(high[:2], [0.94332, 0.43448], atol=1e-4)
  assert np.isnan(low[2]) and np.isnan(high[2])


def test_difficulty_is_hard_below_50_and_easy_above_60():
  groups = statistics.difficulty_groups(np.array([0.49, 0.5, 0.6, 0.61, np.nan]))
  assert {name: classes.tolist() for name, classes in groups.items()} == {
    "hard": [0],
    "medium": [1, 2],
    "easy": [3],
  }


def test_calibration_error_by_hand():
  probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6]])
  found = calibrate(probabilities, np.array([0, 1, 1, 1]))
  # Bins of 1/15: twice 0.9 and right once; 0.7 and 0.6 alone and right.
  assert found.error == pytest.approx((2 * 0.4 + 0.3 + 0.4) / 4)
  assert found.count.sum() == 4 and found.count[13] == 2
  certain = calibrate(np.array([[1.0, 0.0]]), np.array([0]))
  assert certain.error == 0 and certain.count[-1] == 1


def test_resamples_are_paired_and_reproducible(monkeypatch):
  monkeypatch.setattr(statistics, "RESAMPLES", 200)
  predictions, actions = make_predictions()
  other, _ = make_predictions(seed=1)
  first, twin, third = statistics.bootstrap([predictions, predictions, other], actions, TREE)
  again = statistics.bootstrap([other], actions, TREE)[0]
  for metric in first:
    np.testing.assert_array_equal(first[metric], twin[metric])
    np.testing.assert_array_equal(third[metric], again[metric])
  low, high = statistics.interval(first["action_top1"])
  accuracy = (predictions.action == actions).mean()
  # Two standard errors of a share on either side.
  width = 2 * 1.96 * np.sqrt(accuracy * (1 - accuracy) / len(actions))
  assert low < accuracy < high and high - low == pytest.approx(width, rel=0.2)


def test_mcnemar_counts_disagreements_only():
  run = np.array([True] * 10 + [False] * 2 + [True] * 50 + [False] * 7)
  baseline = np.array([False] * 10 + [True] * 2 + [True] * 50 + [False] * 7)
  found = statistics.mcnemar(run, baseline)
  # 2 * (1 + 12 + 66) / 2^12
  assert (found.only_run, found.only_baseline) == (10, 2)
  assert found.p_value == pytest.approx(158 / 4096)
  assert statistics.mcnemar(run, run).p_value == 1

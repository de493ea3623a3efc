import numpy as np
import pytest

from pcan_jax.evaluation.metrics import Predictions, confusion_matrix, f1_scores, measure
from pcan_jax.labels import LabelTree

TREE = LabelTree(
  actions=tuple("abcdefgh"), bodies=("x", "y", "z"), parents=(0, 0, 0, 1, 1, 1, 2, 2)
)


def random_split(n=200, seed=0):
  rng = np.random.default_rng(seed)
  action = rng.integers(TREE.num_actions - 1, size=n)
  action_scores = rng.random((n, TREE.num_actions)) + 0.6 * np.eye(TREE.num_actions)[action]
  body_scores = rng.random((n, TREE.num_bodies))
  return action_scores, body_scores, action


def metrics_of(action_scores, body_scores, actions, tree=TREE):
  predictions = Predictions.of_scores(action_scores, body_scores, actions, tree)
  return measure(predictions, actions, tree)


def f1_by_class(true, predicted):
  """The textbook's way: precision and recall of each class that occurs."""
  scores = []
  for k in sorted(set(true) | set(predicted)):
    right = np.sum((true == k) & (predicted == k))
    precision = right / max(np.sum(predicted == k), 1)
    recall = right / max(np.sum(true == k), 1)
    scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
  return np.mean(scores)


def test_figures_follow_their_definitions():
  action_scores, body_scores, action = random_split()
  found = metrics_of(action_scores, body_scores, action)
  predicted, predicted_body = action_scores.argmax(1), body_scores.argmax(1)
  body = np.array(TREE.parents)[action]
  best = np.argsort(-action_scores, axis=1)[:, :5]
  wanted = {
    "action_top1": np.mean(predicted == action),
    "action_top5": np.mean([a in top for a, top in zip(action, best)]),
    "body_top1": np.mean(predicted_body == body),
    "f1_body_macro": f1_by_class(body, predicted_body),
    "f1_body_micro": np.mean(predicted_body == body),
    "f1_action_macro": f1_by_class(action, predicted),
    "f1_action_micro": np.mean(predicted == action),
  }
  wanted["f1_mean"] = np.mean([value for name, value in wanted.items() if name.startswith("f1")])
  assert list(found) == list(wanted)
  assert found == pytest.approx(wanted)
  assert 0.2 < found["action_top1"] < found["action_top5"] < 1


def test_body_prediction_is_of_the_body_classifier():
  # The action is right, its body part is not recognised.
  found = metrics_of(np.eye(8)[[3]], np.array([[0.9, 0.1, 0.0]]), np.array([3]))
  assert found["action_top1"] == 1
  assert found["body_top1"] == 0


def test_macro_f1_is_over_classes_that_occur():
  # Class 0: one right, one taken for 1. Class 2 never occurs.
  macro, micro = f1_scores(np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0]]))
  assert macro == pytest.approx((2 / 3 + 0) / 2)
  assert micro == pytest.approx(1 / 2)


def test_confusions_are_counted_by_true_and_predicted_class():
  confusion = confusion_matrix(np.array([0, 0, 0, 2]), np.array([0, 0, 1, 1]), 3)
  assert confusion.tolist() == [[2, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_order_of_clips_does_not_matter():
  split = random_split()
  order = np.random.default_rng(1).permutation(200)
  assert metrics_of(*split) == metrics_of(*(x[order] for x in split))


def test_chosen_clips_are_those_measured_and_repeated_ones_count_again():
  action_scores, body_scores, actions = random_split()
  predictions = Predictions.of_scores(action_scores, body_scores, actions, TREE)
  chosen = np.random.default_rng(1).integers(200, size=50)
  wanted = metrics_of(action_scores[chosen], body_scores[chosen], actions[chosen])
  assert measure(predictions, actions, TREE, chosen) == wanted
  right = np.flatnonzero(predictions.action == actions)[0]
  wrong = np.flatnonzero(predictions.action != actions)[0]
  found = measure(predictions, actions, TREE, np.array([right, right, right, wrong]))
  assert found["action_top1"] == 0.75


def test_ties_go_to_the_first_class():
  found = Predictions.of_scores(np.zeros((8, 8)), np.zeros((8, 3)), np.arange(8), TREE)
  assert (found.action == 0).all() and (found.body == 0).all()
  assert found.action_in_top5.tolist() == [True] * 5 + [False] * 3


def test_few_classes_are_all_in_the_top_five():
  tree = LabelTree(("a", "b"), ("x",), (0, 0))
  found = metrics_of(np.array([[0.1, 0.9]]), np.array([[1.0]]), np.array([0]), tree)
  assert found["action_top5"] == 1


@pytest.mark.parametrize("label", [-1, 8])
def test_labels_outside_the_tree_are_refused(label):
  with pytest.raises(ValueError, match=f"label {label} "):
    metrics_of(np.zeros((1, 8)), np.zeros((1, 3)), np.array([label]))


def test_broken_scores_are_refused():
  with pytest.raises(ValueError, match="NaN"):
    metrics_of(np.full((1, 8), np.nan), np.zeros((1, 3)), np.array([0]))


def test_other_shapes_are_refused():
  with pytest.raises(ValueError, match=r"\[N, 8\] and \[N, 3\]"):
    metrics_of(np.zeros((2, 7)), np.zeros((2, 3)), np.array([0, 1]))


def test_nothing_evaluated_is_an_error():
  with pytest.raises(ValueError, match="no labelled clips"):
    metrics_of(np.zeros((0, 8)), np.zeros((0, 3)), np.arange(0))

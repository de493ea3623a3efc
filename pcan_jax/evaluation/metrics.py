"""The metrics of PCAN's tables, as fractions in 0..1."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from pcan_jax.labels import LEVELS, LabelTree
from pcan_jax.spec import HostOutputs

TOP_K = 5


def confusion_matrix(
  true: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], num_classes: int
) -> Int[np.ndarray, "k k"]:
  """Clips by true class (rows) and predicted class (columns)."""
  pairs = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
  return pairs.reshape(num_classes, num_classes)


def f1_scores(confusion: Int[np.ndarray, "k k"]) -> tuple[float, float]:
  """Macro and micro F1 of a confusion matrix [true, predicted].

  The macro average runs over the classes that occur, as labels or as predictions, which is
  scikit-learn's default.
  """
  right = np.diag(confusion)
  # Samples of the class plus samples predicted as it, which is 2 TP + FN + FP.
  involved = confusion.sum(axis=1) + confusion.sum(axis=0)
  occurs = involved > 0
  macro = np.mean(2 * right[occurs] / involved[occurs])
  micro = 2 * right.sum() / involved.sum()
  return float(macro), float(micro)


@dataclasses.dataclass(frozen=True)
class Predictions:
  """Predicted classes of N clips; ties go to the first class.

  Attributes:
    action, body: the most likely classes.
    action_in_top5: whether the true action is among the five most likely.
  """

  action: Int[np.ndarray, " n"]
  body: Int[np.ndarray, " n"]
  action_in_top5: Bool[np.ndarray, " n"]

  @classmethod
  def of_scores(
    cls,
    action_scores: Float[np.ndarray, "n a"],
    body_scores: Float[np.ndarray, "n b"],
    actions: Int[np.ndarray, " n"],
    tree: LabelTree,
  ) -> "Predictions":
    """Derives predictions from scores.

    Args:
      action_scores: probabilities, or anything in the same order.
      body_scores: likewise for body parts, from their own classifier.
      actions: true actions.
      tree: the labels.

    Raises:
      ValueError: a shape, label or score is invalid.
    """
    clips = len(actions)
    shapes = np.shape(action_scores), np.shape(body_scores)
    if shapes != ((clips, tree.num_actions), (clips, tree.num_bodies)):
      raise ValueError(
        f"expected scores [N, {tree.num_actions}] and [N, {tree.num_bodies}] for {clips} labels, "
        f"found {list(shapes[0])} and {list(shapes[1])}"
      )
    outside = actions[(actions < 0) | (actions >= tree.num_actions)]
    if outside.size:
      raise ValueError(
        f"label {outside[0]} is not an action in 0..{tree.num_actions - 1}; "
        "clips without a label can be predicted, not evaluated"
      )
    if not (np.isfinite(action_scores).all() and np.isfinite(body_scores).all()):
      raise ValueError("a score is NaN or infinite: the checkpoint or the input is broken")
    best = np.argsort(-action_scores, axis=1, kind="stable")[:, :TOP_K]
    return cls(
      action=best[:, 0],
      body=body_scores.argmax(axis=1),
      action_in_top5=(best == actions[:, None]).any(axis=1),
    )


def measure(
  predictions: Predictions,
  actions: Int[np.ndarray, " n"],
  tree: LabelTree,
  chosen: Int[np.ndarray, " m"] | None = None,
) -> dict[str, float]:
  """The metrics of the paper's table 1, for all clips or those in `chosen` (with repetitions).

  `f1_mean` is PCAN's eq. 13. The true body part of a clip follows from its action.

  Raises:
    ValueError: there are no clips.
  """
  if chosen is None:
    chosen = np.arange(len(actions))
  if not len(chosen):
    raise ValueError("no labelled clips were evaluated")
  true = actions[chosen]
  action = confusion_matrix(true, predictions.action[chosen], tree.num_actions)
  body = confusion_matrix(np.asarray(tree.parents)[true], predictions.body[chosen], tree.num_bodies)
  body_macro, body_micro = f1_scores(body)
  action_macro, action_micro = f1_scores(action)
  return {
    "action_top1": float(np.trace(action) / len(chosen)),
    "action_top5": float(predictions.action_in_top5[chosen].mean()),
    "body_top1": float(np.trace(body) / len(chosen)),
    "f1_body_macro": body_macro,
    "f1_body_micro": body_micro,
    "f1_action_macro": action_macro,
    "f1_action_micro": action_micro,
    "f1_mean": (body_macro + body_micro + action_macro + action_micro) / 4,
  }


def measure_branches(
  outputs: HostOutputs, actions: Int[np.ndarray, " n"], tree: LabelTree
) -> dict[str, dict[str, float]]:
  """The metrics of every branch; empty without labels."""
  if (actions < 0).all():
    return {}
  metrics = {}
  for branch, levels in outputs.items():
    scores = (levels[level]["probabilities"] for level in LEVELS)
    metrics[branch] = measure(Predictions.of_scores(*scores, actions, tree), actions, tree)
  return metrics

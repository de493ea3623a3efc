"""Counts of right and wrong predictions, and the figures that PCAN's tables print of them.

Only plain sums are kept per batch, so a split is evaluated exactly whatever its batches are: the
last one is padded and masked, and counts of several hosts are added.
"""

import numpy as np
from jaxtyping import Float, Int, Shaped

from pcan_jax.labels import LabelTree

TOP_K = 5


def f1_scores(confusion: Int[np.ndarray, "k k"]) -> tuple[float, float]:
  """Macro and micro F1 of a confusion matrix [true, predicted], in 0..1.

  The macro average runs over the classes that occur, as labels or as predictions, which is
  scikit-learn's default.
  """
  right = np.diag(confusion)
  # Samples of the class plus samples taken for it, which is 2 TP + FN + FP.
  involved = confusion.sum(axis=1) + confusion.sum(axis=0)
  occurs = involved > 0
  macro = np.mean(2 * right[occurs] / involved[occurs])
  micro = 2 * right.sum() / involved.sum()
  return float(macro), float(micro)


class ClassificationCounts:
  """Confusion matrices of actions and body parts, and how often the true action is in the top five.

  Attributes:
    action_confusion: [A, A] clips by true and by predicted action.
    body_confusion: [B, B] clips by true and by predicted body part.
    action_top5: clips whose true action is among the five likeliest.
  """

  def __init__(self, tree: LabelTree) -> None:
    self._parents = np.asarray(tree.parents)
    self.action_confusion = np.zeros((tree.num_actions, tree.num_actions), np.int64)
    self.body_confusion = np.zeros((tree.num_bodies, tree.num_bodies), np.int64)
    self.action_top5 = 0

  @property
  def num_clips(self) -> int:
    return int(self.action_confusion.sum())

  def add(
    self,
    action_scores: Float[np.ndarray, "n a"],
    body_scores: Float[np.ndarray, "n b"],
    action: Int[np.ndarray, " n"],
    mask: Shaped[np.ndarray, " n"] | None = None,
  ) -> None:
    """Counts a batch. Of classes with equal scores the first one is predicted.

    Args:
      action_scores: probabilities, or anything that orders actions as they do.
      body_scores: the same of body parts, from their own classifier.
      action: true actions; their body parts follow from the label tree.
      mask: true or 1 for clips that count, false or 0 for padding; all count by default.

    Raises:
      ValueError: a shape, label or score of a clip that counts is impossible.
    """
    counts = np.ones(len(action), bool) if mask is None else np.asarray(mask).astype(bool)
    num_actions, num_bodies = len(self.action_confusion), len(self.body_confusion)
    shapes = tuple(np.shape(array) for array in (action_scores, body_scores, action, counts))
    clips = len(action)
    if shapes != ((clips, num_actions), (clips, num_bodies), (clips,), (clips,)):
      raise ValueError(
        f"expected scores [N, {num_actions}] and [N, {num_bodies}], labels [N] and mask [N], "
        f"found {shapes}"
      )
    action = np.asarray(action)[counts]
    action_scores = np.asarray(action_scores)[counts]
    body_scores = np.asarray(body_scores)[counts]
    outside = action[(action < 0) | (action >= num_actions)]
    if outside.size:
      raise ValueError(
        f"label {outside[0]} is not an action in 0..{num_actions - 1}; "
        "clips without a label can be predicted, not evaluated"
      )
    if not (np.isfinite(action_scores).all() and np.isfinite(body_scores).all()):
      raise ValueError("a score is NaN or infinite: the checkpoint or the input is broken")

    np.add.at(self.action_confusion, (action, action_scores.argmax(-1)), 1)
    np.add.at(self.body_confusion, (self._parents[action], body_scores.argmax(-1)), 1)
    own = np.take_along_axis(action_scores, action[:, None], axis=-1)
    earlier = np.arange(num_actions) < action[:, None]
    rank = np.sum((action_scores > own) | ((action_scores == own) & earlier), axis=-1)
    self.action_top5 += int(np.sum(rank < TOP_K))

  def __iadd__(self, other: "ClassificationCounts") -> "ClassificationCounts":
    """Adds the counts of other clips under the same tree."""
    self.action_confusion += other.action_confusion
    self.body_confusion += other.body_confusion
    self.action_top5 += other.action_top5
    return self

  def summarize(self) -> dict[str, float]:
    """The figures of PCAN's tables, as fractions in 0..1; `f1_mean` is eq. 13.

    Raises:
      ValueError: nothing has been counted.
    """
    if not self.num_clips:
      raise ValueError("no labelled clips were evaluated")
    body_macro, body_micro = f1_scores(self.body_confusion)
    action_macro, action_micro = f1_scores(self.action_confusion)
    return {
      "action_top1": float(np.trace(self.action_confusion) / self.num_clips),
      "action_top5": self.action_top5 / self.num_clips,
      "body_top1": float(np.trace(self.body_confusion) / self.num_clips),
      "f1_body_macro": body_macro,
      "f1_body_micro": body_micro,
      "f1_action_macro": action_macro,
      "f1_action_micro": action_micro,
      "f1_mean": (body_macro + body_micro + action_macro + action_micro) / 4,
    }

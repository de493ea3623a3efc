"""True positives and ambiguous samples of a batch, at each level (PCAN, arXiv 2412.14719).

Sets are masks over the batch.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class AmbiguousSets(NamedTuple):
  """Which samples of a batch are true positives, false negatives, false positives at one level.

  Attributes:
    label: the true class, under which samples of `tp` and `fn` are filed.
    predicted: the predicted class, under which samples of `fp` are filed.
    tp: samples whose embeddings move prototypes.
    fn: one mask per kind of false negative; at the action level A1, A2, A3, at the body level one.
    fp: samples that were mistaken for another class.
  """

  label: Int[Array, " n"]
  predicted: Int[Array, " n"]
  tp: Bool[Array, " n"]
  fn: tuple[Bool[Array, " n"], ...]
  fp: Bool[Array, " n"]


def ambiguous_sets(
  action_logits: Float[Array, "n a"],
  body_logits: Float[Array, "n b"],
  action: Int[Array, " n"],
  body: Int[Array, " n"],
) -> tuple[AmbiguousSets, AmbiguousSets]:
  """Sorts a batch by the predictions of a stream's two classifiers (PCAN section 3.2).

  An action is a true positive only if its body part is right, too. False negatives are A1
  (body right, action wrong), A2 (both wrong) and A3 (body wrong, action right).

  Args:
    action_logits: logits of the action classifier.
    body_logits: logits of the body classifier.
    action: true actions.
    body: the true actions' body parts.

  Returns:
    The sets of the action level and of the body level.
  """
  predicted_action = jnp.argmax(action_logits, axis=-1)
  predicted_body = jnp.argmax(body_logits, axis=-1)
  action_right, body_right = predicted_action == action, predicted_body == body
  action_wrong, body_wrong = ~action_right, ~body_right
  of_actions = AmbiguousSets(
    label=action,
    predicted=predicted_action,
    tp=action_right & body_right,
    fn=(action_wrong & body_right, action_wrong & body_wrong, action_right & body_wrong),
    fp=action_wrong,
  )
  of_bodies = AmbiguousSets(
    label=body, predicted=predicted_body, tp=body_right, fn=(body_wrong,), fp=body_wrong
  )
  return of_actions, of_bodies

"""Ambiguous samples, class means and prototypes: the state that PCAN's losses calibrate with.

Everything is masks and segment sums over the batch. Under `jit` with a batch sharded over devices
the sums, and with them the means and prototypes, are those of the global batch.

Equations are those of PCAN, arXiv 2412.14719.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


class AmbiguousSets(NamedTuple):
  """Which samples of a batch are true positives, false negatives, false positives at one level.

  Attributes:
    label: the true class, under which a sample of `tp` and `fn` is filed.
    predicted: the predicted class, under which a sample of `fp` is filed.
    tp: samples whose embeddings may move a prototype.
    fn: one mask per kind of false negative; at the action level A1, A2, A3, at the body level one.
    fp: samples taken for a class they do not belong to.
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
  mask: Shaped[Array, " n"] | None = None,
) -> tuple[AmbiguousSets, AmbiguousSets]:
  """Sorts a batch by what the two classifiers of a stream predict (PCAN section 3.2).

  An action is a true positive only if its body part was recognised too. False negatives are A1
  (body right, action wrong), A2 (both wrong) and A3 (body wrong, action right).

  Args:
    action_logits: logits of the action classifier.
    body_logits: logits of the body classifier.
    action: true actions.
    body: the true actions' body parts.
    mask: samples that count; the others are in no set. All of them by default.

  Returns:
    The sets of the action level and of the body level.
  """
  predicted_action = jnp.argmax(action_logits, axis=-1)
  predicted_body = jnp.argmax(body_logits, axis=-1)
  counts = jnp.ones(action.shape, bool) if mask is None else mask.astype(bool)
  action_right = counts & (predicted_action == action)
  action_wrong = counts & (predicted_action != action)
  body_right = counts & (predicted_body == body)
  body_wrong = counts & (predicted_body != body)
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


def class_means(
  z: Float[Array, "n d"], index: Int[Array, " n"], mask: Bool[Array, " n"], num_classes: int
) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
  """The mean of the masked embeddings of every class (PCAN eq. 4 and 6).

  Args:
    z: embeddings.
    index: class of every sample.
    mask: samples that count.
    num_classes: K.

  Returns:
    Means, zero for a class without samples, and the number of samples of every class.
  """
  counts = jax.ops.segment_sum(mask.astype(z.dtype), index, num_classes)
  sums = jax.ops.segment_sum(jnp.where(mask[:, None], z, 0), index, num_classes)
  return sums / jnp.maximum(counts, 1)[:, None], counts


def update_prototypes(
  prototypes: Float[Array, "k d"],
  z: Float[Array, "n d"],
  index: Int[Array, " n"],
  tp_mask: Bool[Array, " n"],
  momentum: float = 0.9,
) -> Float[Array, "k d"]:
  """Moves each class with true positives towards their mean (PCAN eq. 3); others stay.

  The gradient flows into `z` through the means; store `jax.lax.stop_gradient` of the result.

  Args:
    prototypes: one per class.
    z: embeddings.
    index: class of every sample.
    tp_mask: true positives.
    momentum: the part of a prototype that stays.

  Returns:
    The new prototypes.
  """
  means, counts = class_means(z, index, tp_mask, prototypes.shape[0])
  moved = momentum * prototypes + (1 - momentum) * means
  return jnp.where(counts[:, None] > 0, moved, prototypes)

"""Losses of one classifier: cross-entropy, with what rare classes need, and a soft F1.

Both are means over a batch, computed in float32 or better.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from pcan_jax.cosine import upcast
from pcan_jax.method.class_balance import Balance


class Mixed(NamedTuple):
  """What was mixed into the samples of a batch, see `inputs.mix`.

  Attributes:
    label: the class of what was mixed into each sample.
    share: how much of it, at most a half, so that the sample's own class is the dominant one.
  """

  label: Int[Array, " n"]
  share: Float[Array, " n"]


def pick(x: Shaped[Array, "*s n k"], label: Int[Array, " n"]) -> Shaped[Array, "*s n"]:
  """The value of every sample's true class. Unlike indexing, its gradient needs no scatter."""
  is_own = jnp.arange(x.shape[-1]) == label[:, None]
  return jnp.sum(jnp.where(is_own, x, 0), axis=-1)


def cross_entropy(
  logits: Float[Array, "n k"],
  labels: Int[Array, " n"],
  *,
  smoothing: float = 0.0,
  mixed: Mixed | None = None,
  balance: Balance | None = None,
  margin: float = 0.0,
) -> Float[Array, ""]:
  """Mean cross-entropy of softmax probabilities.

  Args:
    logits: of K classes.
    labels: true classes.
    smoothing: the share of the target that is spread over all classes.
    mixed: other classes with a share in the target.
    balance: what is added to the logits, and how much the samples of each class count; a mixed
      sample counts by its shares.
    margin: subtracted from the logit of a sample's own class.
  """
  logits = upcast(logits)
  if balance is not None:
    logits += balance.offset
  if margin:
    logits = jnp.where(jnp.arange(logits.shape[-1]) == labels[:, None], logits - margin, logits)
  own = pick(logits, labels)
  if mixed is not None:
    own = (1 - mixed.share) * own + mixed.share * pick(logits, mixed.label)
  if smoothing:
    own = (1 - smoothing) * own + smoothing * jnp.mean(logits, axis=-1)
  losses = jax.nn.logsumexp(logits, axis=-1) - own
  if balance is not None:
    weights = jnp.asarray(balance.weight)
    weight = weights[labels]
    if mixed is not None:
      weight = (1 - mixed.share) * weight + mixed.share * weights[mixed.label]
    losses *= weight
  return jnp.mean(losses)


def soft_f1_loss(
  logits: Float[Array, "n k"], labels: Int[Array, " n"], *, mixed: Mixed | None = None
) -> Float[Array, ""]:
  """One minus the macro F1 of a batch whose hits are counted in probabilities.

  A sample is a hit of its class to the extent of that class's probability, so that F1 has a
  gradient. The mean is over the classes that have samples in the batch.

  Args:
    logits: of K classes.
    labels: true classes.
    mixed: other classes with a share in the target.
  """
  probabilities = jax.nn.softmax(upcast(logits), axis=-1)
  num_classes = probabilities.shape[-1]
  ones = jnp.ones(labels.shape, probabilities.dtype)
  targets = [(labels, ones)]
  if mixed is not None:
    targets = [(labels, 1 - mixed.share), (mixed.label, mixed.share)]
  support, hits = (
    sum(jax.ops.segment_sum(values, label, num_classes) for label, values in counted)
    for counted in (
      targets,
      [(label, share * pick(probabilities, label)) for label, share in targets],
    )
  )
  f1 = 2 * hits / (support + jnp.sum(probabilities, axis=0))
  occurs = support > 0
  return 1 - jnp.sum(jnp.where(occurs, f1, 0)) / jnp.sum(occurs)

"""Class means and prototypes.

Both are segment sums over the batch. Under `jit` with a batch that is sharded over devices, they
are those of the global batch.

Equation numbers are those of arXiv 2412.14719.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pcan_jax.cosine import unit


def class_means(
  z: Float[Array, "n d"], index: Int[Array, " n"], mask: Bool[Array, " n"], num_classes: int
) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
  """The mean of the masked embeddings of every class (PCAN eq. 4 and 6).

  Args:
    z: embeddings.
    index: class of every sample.
    mask: which samples to include.
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
  mask: Bool[Array, " n"],
  momentum: float,
  *,
  first_whole: bool = False,
  on_sphere: bool = False,
) -> Float[Array, "k d"]:
  """Moves the prototypes of classes with samples in the mask towards their mean (PCAN eq. 3).

  The gradient flows into `z` through the means; store `jax.lax.stop_gradient` of the result.

  Args:
    prototypes: one per class.
    z: embeddings.
    index: class of every sample.
    mask: true positives, in the paper.
    momentum: the fraction of a prototype that is kept.
    first_whole: whether a prototype of zeros, which no sample has moved yet, becomes the mean; not
      in the paper.
    on_sphere: whether embeddings count by their directions alone, and moved prototypes have the
      length one; not in the paper.

  Returns:
    The new prototypes; those of other classes are unchanged.
  """
  means, counts = class_means(unit(z) if on_sphere else z, index, mask, prototypes.shape[0])
  moved = momentum * prototypes + (1 - momentum) * means
  if first_whole:
    moved = jnp.where(jnp.all(prototypes == 0, axis=-1, keepdims=True), means, moved)
  if on_sphere:
    moved = unit(moved)
  return jnp.where(counts[:, None] > 0, moved, prototypes)

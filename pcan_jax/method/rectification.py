"""Rectification of predictions by prototypes (PCAN section 3.4)."""

from jaxtyping import Array, Float

from pcan_jax.cosine import cosines, upcast


def rectify(
  logits: Float[Array, "n k"],
  z: Float[Array, "n d"],
  prototypes: Float[Array, "k d"],
  gamma: float,
) -> Float[Array, "n k"]:
  """Adds to the action logits the similarities to the prototypes (PCAN eq. 10 and 11).

  Args:
    logits: of the action classifier.
    z: action embeddings.
    prototypes: of the actions.
    gamma: weight of the similarities.
  """
  return upcast(logits) + gamma * cosines(upcast(z), upcast(prototypes))

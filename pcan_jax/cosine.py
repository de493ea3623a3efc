"""Cosine similarity, of embeddings to prototypes and of features to classifiers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def upcast(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """Converts to float32; float64 stays."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
  """Scales vectors to length one; a zero vector stays zero and has a finite gradient."""
  squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.where(squared > 1e-24, squared, 1.0))


def cosines(x: Float[Array, "n d"], y: Float[Array, "*s k d"]) -> Float[Array, "*s n k"]:
  """Similarities of every x to every y; those of a zero vector are 0.

  Multiplies in float32: the accelerators' default of bfloat16 or TF32 would give errors of a per
  cent of PCAN's temperature.
  """
  return jnp.einsum("nd,...kd->...nk", unit(x), unit(y), precision=jax.lax.Precision.HIGHEST)

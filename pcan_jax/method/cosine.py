"""Cosine similarity, the measure of PCAN's embedding spaces, in float32 or better."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def upcast(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """In float32, or float64 if it is that."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
  """Vectors of length one; a zero vector stays zero, and its gradient finite."""
  squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.where(squared > 1e-24, squared, 1.0))


def cosines(x: Float[Array, "n d"], y: Float[Array, "*s k d"]) -> Float[Array, "*s n k"]:
  """Similarities of every x to every y; a zero vector is similar to none.

  Accelerators would multiply in bfloat16 or TF32 by default: an error of a per cent of PCAN's
  temperature. This multiplies in float32.
  """
  return jnp.einsum("nd,...kd->...nk", _unit(x), _unit(y), precision=jax.lax.Precision.HIGHEST)

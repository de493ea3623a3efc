"""The stems' max-pool over space, in the forms of `forms.Forms.pool`."""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pcan_jax.network.forms import CPU, Forms

SIZE = 3


def max_pool_spatial(
  x: Float[Array, "n t h w c"], stride: int, forms: Forms = CPU
) -> Float[Array, "n t h2 w2 c"]:
  """1 x 3 x 3 maximum with one pixel of padding, as in the stem of a ResNet.

  In a tie, the first value in row-major order receives the gradient.
  """
  form = {"comparisons": _by_comparisons, "index": _with_index, "window": _by_window}[forms.pool]
  return form(x, stride)


def _by_comparisons(x: Array, stride: int) -> Array:
  """Along columns, then rows: on a CPU, the windowed maximum's gradient is five times slower."""
  for axis in (3, 2):
    padding = [(0, 0, 0)] * 5
    padding[axis] = (1, 1, 0)
    padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)
    span = (x.shape[axis] - 1) // stride * stride + 1
    x = lax.slice_in_dim(padded, 0, span, stride, axis)
    for start in (1, 2):
      candidate = lax.slice_in_dim(padded, start, start + span, stride, axis)
      x = jnp.where(x >= candidate, x, candidate)
  return x


def _by_window(x: Array, stride: int) -> Array:
  return lax.reduce_window(
    x,
    -jnp.inf,  # a literal: JAX knows no gradient for other initial values
    lax.max,
    (1, 1, SIZE, SIZE, 1),
    (1, 1, stride, stride, 1),
    [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)],
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _with_index(x: Array, stride: int) -> Array:
  """Keeps for the gradient, instead of the input, which of nine values an output is: one byte."""
  return _with_index_forward(x, stride)[0]


def _with_index_forward(x: Array, stride: int) -> tuple[Array, tuple[Array, tuple[int, ...]]]:
  spans = [(extent - 1) // stride * stride + 1 for extent in x.shape[2:4]]
  padding = [(0, 0, 0), (0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)]
  padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)
  n, t, _, _, c = x.shape
  best = index = None
  for number, (row, column) in enumerate(itertools.product(range(SIZE), repeat=2)):
    candidate = lax.slice(
      padded,
      (0, 0, row, column, 0),
      (n, t, row + spans[0], column + spans[1], c),
      (1, 1, stride, stride, 1),
    )
    if best is None:
      best, index = candidate, jnp.zeros(candidate.shape, jnp.uint8)
    else:
      better = candidate > best
      best = jnp.where(better, candidate, best)
      index = jnp.where(better, jnp.uint8(number), index)
  return best, (index, x.shape[2:4])


def _with_index_backward(
  stride: int, kept: tuple[Array, tuple[int, int]], gradient: Array
) -> tuple[Array]:
  index, size = kept
  total = jnp.zeros((), gradient.dtype)
  for number, place in enumerate(itertools.product(range(SIZE), repeat=2)):
    part = jnp.where(index == number, gradient, 0)
    padding = [(0, 0, 0), (0, 0, 0)]
    for offset, extent, count in zip(place, size, part.shape[2:4]):
      low = offset - 1
      padding.append((low, extent - low - ((count - 1) * stride + 1), stride - 1))
    total += lax.pad(part, jnp.zeros((), part.dtype), [*padding, (0, 0, 0)])
  return (total,)


_with_index.defvjp(_with_index_forward, _with_index_backward)

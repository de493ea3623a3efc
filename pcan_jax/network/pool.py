"""The stems' max-pool over space, in the forms of `forms.Forms.pool`."""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pcan_jax.network.forms import CPU, Forms

SIZE = 3
NEVER = 100  # no number of one of a window's nine values


def max_pool_spatial(
  x: Float[Array, "n t h w c"], stride: int, forms: Forms = CPU
) -> Float[Array, "n t h2 w2 c"]:
  """1 x 3 x 3 maximum with one pixel of padding, as in the stem of a ResNet.

  In a tie, the first value in row-major order receives the gradient.
  """
  return {"index": _with_index, "window": _by_window}[forms.pool](x, stride)


def _by_window(x: Array, stride: int) -> Array:
  n, t, *frame = x.shape
  y = lax.reduce_window(
    x.reshape(n * t, *frame),  # as the convolution before it, so that it may keep its layout
    -jnp.inf,  # a literal: JAX knows no gradient for other initial values
    lax.max,
    (1, SIZE, SIZE, 1),
    (1, stride, stride, 1),
    [(0, 0), (1, 1), (1, 1), (0, 0)],
  )
  return y.reshape(n, t, *y.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _with_index(x: Array, stride: int) -> Array:
  """Keeps for the gradient, instead of the input, which of nine values an output is: one byte."""
  for axis in (3, 2):  # without a gradient, by columns, then rows
    x = _shifted_maximum(x, axis, stride)
  return x


def _shifted_maximum(x: Array, axis: int, stride: int) -> Array:
  padding = [(0, 0, 0)] * 5
  padding[axis] = (1, 1, 0)
  padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)
  span = (x.shape[axis] - 1) // stride * stride + 1
  shifted = [lax.slice_in_dim(padded, start, start + span, stride, axis) for start in range(SIZE)]
  return functools.reduce(jnp.maximum, shifted)


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
  """Row y is row (y + 1) % stride + stride m of the window (y + 1) // stride - m, m = 0, 1, ...

  If every window is repeated `stride` times, with one before the first, that is the one at
  y + 1 + stride (1 - m). So all terms are shifted copies, which are read in a single pass.
  """
  index, size = kept
  padding = [(0, 0, 0), (0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)]
  # Padded in a pass of its own: otherwise every read asks whether it is behind an edge, and reads
  # a single value.
  index, gradient = lax.optimization_barrier(
    (
      lax.pad(index, jnp.uint8(NEVER), padding),
      lax.pad(gradient, jnp.zeros((), gradient.dtype), padding),
    )
  )
  overlapping, taps = range(-(-SIZE // stride)), []
  for axis, extent in enumerate(size, start=2):
    index, gradient = (jnp.repeat(array, stride, axis) for array in (index, gradient))
    tap = [(jnp.arange(extent) + 1) % stride + stride * m for m in overlapping]
    taps.append([jnp.where(t < SIZE, t, NEVER) for t in tap])
  total = jnp.zeros((), gradient.dtype)
  for down, across in itertools.product(overlapping, repeat=2):
    number = SIZE * taps[0][down][:, None] + taps[1][across]
    starts = [1 + stride * (1 - m) for m in (down, across)]
    at = tuple(slice(start, start + extent) for start, extent in zip(starts, size))
    total += jnp.where(index[:, :, *at] == number[..., None], gradient[:, :, *at], 0)
  return (total,)


_with_index.defvjp(_with_index_forward, _with_index_backward)

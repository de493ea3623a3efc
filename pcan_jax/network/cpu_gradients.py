"""Gradients of 2D convolutions in the forms that XLA on CPU runs fastest.

docs/PERFORMANCE.md has measurements. Other backends have libraries for these gradients.
"""

import functools
import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# How much data the gradient of a kernel processes at once on a CPU, to stay within its cache.
GROUP_BYTES = 12 << 20


def shift(x: Float[Array, "*shape"], axis: int, by: int) -> Float[Array, "*shape"]:
  """Shifts an array along an axis, towards higher indices if `by` > 0, and fills up with zeros."""
  if by == 0:
    return x
  padding = [(0, 0, 0)] * x.ndim
  padding[axis] = (by, -by, 0)
  return lax.pad(x, jnp.zeros((), x.dtype), padding)


def of_input(
  strides: tuple[int, int],
  size: tuple[int, int],
  kernel: Float[Array, "kh kw c d"],
  gradient: Float[Array, "n h2 w2 d"],
) -> Float[Array, "n h w c"]:
  """The gradient of a strided 2D convolution's input: a convolution for each phase of the strides.

  XLA on CPU dilates the gradient and multiplies the zeros as well. But input pixels of one phase,
  whose coordinates have the same remainders modulo the strides, meet the same few taps.

  Args:
    strides: of the convolution, none greater than the kernel's extent.
    size: height and width of its input.
    kernel: its weights; every extent is odd.
    gradient: of its output.
  """
  swapped = kernel.swapaxes(2, 3)

  def of_phase(row: int, column: int) -> Array:
    (rows, above), (columns, left) = (
      _taps_of_phase(*axis) for axis in zip(kernel.shape, strides, (row, column))
    )
    return lax.conv_general_dilated(
      gradient,
      swapped[rows, columns],
      (1, 1),
      [above, left],
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  phases = [
    jnp.stack([of_phase(row, column) for column in range(strides[1])], axis=3)
    for row in range(strides[0])
  ]
  whole = jnp.stack(phases, axis=2)  # n, h2, strides[0], w2, strides[1], c
  height, width = (many * stride for many, stride in zip(gradient.shape[1:3], strides))
  whole = whole.reshape(-1, height, width, kernel.shape[2])
  return whole[:, : size[0], : size[1]]


def _taps_of_phase(extent: int, stride: int, phase: int) -> tuple[slice, tuple[int, int]]:
  """The taps that meet the inputs `stride` * m + `phase`, last first, and the padding they need.

  Tap k connects such an input to output m + (phase + p - k) / stride, p = (extent - 1) / 2.
  """
  at_centre = phase + extent // 2
  taps = range(at_centre % stride, extent, stride)
  nearest, furthest = ((at_centre - tap) // stride for tap in (taps[-1], taps[0]))
  return slice(taps[-1], None, -stride), (-nearest, furthest)


def of_kernel(
  extents: tuple[int, int],
  strides: tuple[int, int],
  x: Float[Array, "n h w c"],
  gradient: Float[Array, "n h2 w2 d"],
  group_bytes: int | None = None,
) -> Float[Array, "kh kw c d"]:
  """The gradient of a 2D convolution's kernel as matrix products, summed over groups of frames.

  XLA on CPU would transpose the whole input and gradient and convolve one with the other. Instead,
  the shifted copies that the kernel spans are concatenated along channels and multiplied; the
  copies of a group of frames are read again before they leave the cache.

  Args:
    extents: of the kernel, both odd.
    strides: of the convolution.
    x: its input.
    gradient: of its output.
    group_bytes: approximate size of the shifted copies of a group of frames; None makes one group
      of all frames.
  """
  (kh, kw), c, d = extents, x.shape[-1], gradient.shape[-1]
  if strides == (1, 1):
    products = functools.partial(_products_of_shifts, extents)
    per_pixel = kw * c + kh * d
  else:
    products = functools.partial(_products_of_strided_shifts, extents, strides)
    per_pixel = kw * strides[0] * c + d
  bytes_per_frame = math.prod(gradient.shape[1:3]) * per_pixel * x.dtype.itemsize
  if group_bytes is None or len(x) * bytes_per_frame <= group_bytes:
    return products(x, gradient)
  at_most = max(group_bytes // bytes_per_frame, 1)
  size = next(size for size in range(at_most, 0, -1) if len(x) % size == 0)
  total, _ = lax.scan(
    lambda total, group: (total + products(*group), None),
    jnp.zeros((kh, kw, c, d), jnp.promote_types(x.dtype, jnp.float32)),
    tuple(part.reshape(-1, size, *part.shape[1:]) for part in (x, gradient)),
  )
  return total.astype(x.dtype)


def _products_of_shifts(extents: tuple[int, int], x: Array, gradient: Array) -> Array:
  """Shifts the input along its width, the gradient along its height; one product for all taps."""
  (kh, kw), c, d = extents, x.shape[-1], gradient.shape[-1]
  columns = jnp.concatenate([shift(x, 2, kw // 2 - tap) for tap in range(kw)], axis=-1)
  rows = jnp.concatenate([shift(gradient, 1, tap - kh // 2) for tap in range(kh)], axis=-1)
  products = columns.reshape(-1, kw * c).T @ rows.reshape(-1, kh * d)
  return products.reshape(kw, c, kh, d).transpose(2, 0, 1, 3)


def _products_of_strided_shifts(
  extents: tuple[int, int], strides: tuple[int, int], x: Array, gradient: Array
) -> Array:
  """Shifts the input both ways, with strides; one product per row of taps."""
  (kh, kw), c, d = extents, x.shape[-1], gradient.shape[-1]
  h, w = gradient.shape[1:3]
  padded = jnp.pad(x, [(0, 0), (kh // 2,) * 2, (kw // 2,) * 2, (0, 0)])

  def every(x: Array, axis: int, start: int, count: int) -> Array:
    stride = strides[axis - 1]
    return lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)

  columns = jnp.concatenate([every(padded, 2, tap, w) for tap in range(kw)], axis=-1)
  gradient = gradient.reshape(-1, d)
  products = [every(columns, 1, tap, h).reshape(-1, kw * c).T @ gradient for tap in range(kh)]
  return jnp.stack(products).reshape(kh, kw, c, d)

"""Layers that give a stream the frame rate of the other one: more frames, or fewer.

Arrays are [batch, time, height, width, channels].
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pcan_jax.network.conv import kernel_init, matmul
from pcan_jax.network.cpu_gradients import shift
from pcan_jax.network.forms import CPU, Forms


def upsample_time(
  x: Float[Array, "n t h w c"],
  kernel: Float[Array, "k 1 1 c d"],
  stride: int,
  forms: Forms = CPU,
) -> Float[Array, "n t2 h w d"]:
  """Transposed convolution along time with t2 = stride * t.

  Equals PyTorch's ConvTranspose3d with kernel (2s - 1, 1, 1), stride (s, 1, 1), padding
  (s - 1, 0, 0) and output padding (s - 1, 0, 0).

  Args:
    x: input volume.
    kernel: PyTorch's weight [c, d, k, 1, 1] with its first two axes moved to the end.
    stride: the factor s; the kernel has 2s - 1 taps.
    forms: how it is computed.

  Raises:
    ValueError: the kernel has another number of taps.
  """
  if kernel.shape[0] != 2 * stride - 1:
    raise ValueError(
      f"upsampling by {stride} needs {2 * stride - 1} taps, the kernel has {kernel.shape[0]}"
    )
  between = {"products": _between_by_products, "dilated": _between_by_zeros}[forms.upsampling]
  return between(x, kernel, stride)


def _between_by_zeros(x: Array, kernel: Array, stride: int) -> Array:
  """As a convolution with the kernel turned around, of frames with s - 1 zeros behind each.

  Output frame i is the sum over taps k of frame i + s - 1 - k of these times kernel[k].
  """
  n, t, h, w, c = x.shape
  y = lax.conv_general_dilated(
    x.reshape(n, t, h * w, c),
    kernel[::-1, 0],
    (1, 1),
    [(stride - 1, 2 * stride - 2), (0, 0)],
    lhs_dilation=(stride, 1),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  return y.reshape(n, t * stride, h, w, -1)


def _between_by_products(x: Array, kernel: Array, stride: int) -> Array:
  """As one product for all taps, whose results are put between each other.

  Output frame s*m + r has two sources: x[m] through tap s - 1 + r and, for r > 0, x[m + 1] through
  tap r - 1.
  """
  n, t, h, w, c = x.shape
  d = kernel.shape[-1]
  products = matmul(x, jnp.moveaxis(kernel[:, 0, 0], 0, 1).reshape(c, -1))
  products = products.reshape(n, t, h, w, 2 * stride - 1, d)
  y = products[..., stride - 1 :, :]
  if stride > 1:
    from_next = shift(products[..., : stride - 1, :], 1, -1)
    y += jnp.pad(from_next, [(0, 0)] * 4 + [(1, 0), (0, 0)])
  return jnp.moveaxis(y, 4, 2).reshape(n, t * stride, h, w, d)


class ConvTranspose3D(nn.Module):
  """Upsamples time by an integer factor; see `upsample_time`. No bias.

  The parameter `kernel` is [2s - 1, 1, 1, in, out], not flipped: PyTorch's IODHW moved by
  2,3,4,0,1.

  Attributes:
    features: output channels.
    stride: the factor s.
    dtype: of the computation.
    forms: how it is computed.
  """

  features: int
  stride: int
  dtype: DTypeLike = jnp.float32
  forms: Forms = CPU

  @nn.compact
  def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t2 h w d"]:
    shape = (2 * self.stride - 1, 1, 1, x.shape[-1], self.features)
    weights = self.param("kernel", kernel_init, shape, jnp.float32)
    x, weights = x.astype(self.dtype), weights.astype(self.dtype)
    return upsample_time(x, weights, self.stride, self.forms)


class _FrameGroups(nn.Module):
  """What both layers between a stream and one with `size` times fewer frames have.

  The parameters are `kernel` [size, 1, 1, in, out], laid out as in `Conv3D`, and `bias` [out].
  """

  features: int
  size: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def _variables(self, channels: int) -> tuple[Array, Array]:
    shape = (self.size, 1, 1, channels, self.features)
    weights = self.param("kernel", kernel_init, shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return weights.astype(self.dtype), bias.astype(self.dtype)


class GroupFrames(_FrameGroups):
  """Merges groups of `size` frames: a convolution with kernel and stride (size, 1, 1), no padding.

  Its parameters are those of `_FrameGroups`.
  """

  def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t2 h w d"]:
    n, t, h, w, c = x.shape
    weights, bias = self._variables(c)
    groups = x.astype(self.dtype).reshape(n, t // self.size, self.size, h, w, c)
    groups = jnp.moveaxis(groups, 2, 4).reshape(n, t // self.size, h, w, self.size * c)
    return matmul(groups, weights.reshape(self.size * c, self.features)) + bias


class UngroupFrames(_FrameGroups):
  """Expands every frame to `size` frames, the transpose of `GroupFrames`.

  Its parameters are those of `_FrameGroups`; the kernel is not flipped, as in `ConvTranspose3D`.
  """

  def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t2 h w d"]:
    n, t, h, w, c = x.shape
    weights, bias = self._variables(c)
    y = matmul(x.astype(self.dtype), jnp.moveaxis(weights[:, 0, 0], 0, 1).reshape(c, -1))
    y = jnp.moveaxis(y.reshape(n, t, h, w, self.size, self.features), 4, 2)
    return y.reshape(n, t * self.size, h, w, self.features) + bias

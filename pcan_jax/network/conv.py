"""3D convolutions as 2D ones and matrix products.

Every convolution of a SlowOnly network has a 1 x k x k, k x 1 x 1 or 1 x 1 x 1 kernel. It is
equivalent to a 2D convolution of frames or to matrix products, which XLA runs faster.
Arrays are [batch, time, height, width, channels] throughout.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pcan_jax.network import cpu_gradients
from pcan_jax.network.cpu_gradients import shift
from pcan_jax.network.forms import CPU, Forms
from pcan_jax.network.norm import BatchNorm

# The name of a convolution's output, for the rematerialisation policy.
OUTPUT = "convolution"

# He initialisation with fan-out, as in MMAction2.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# More than these fill a matrix unit without folding.
MOST_FOLDED_CHANNELS = 32
FOLD = 4  # columns


def convolve(
  x: Float[Array, "n t h w c"],
  kernel: Float[Array, "kt kh kw c d"],
  strides: tuple[int, int, int] = (1, 1, 1),
  forms: Forms = CPU,
) -> Float[Array, "n t2 h2 w2 d"]:
  """3D cross-correlation, padded by (k - 1) // 2 on both sides of every axis as in PyTorch.

  Args:
    x: input volume.
    kernel: weights; every extent is odd.
    strides: step along time, height and width.
    forms: how it is computed.

  Returns:
    A volume whose extents are ceil(input extent / stride).

  Raises:
    ValueError: an even kernel extent.
  """
  if not all(extent % 2 for extent in kernel.shape[:3]):
    raise ValueError(f"kernel extents must be odd, got {kernel.shape[:3]}")
  kt, kh, kw = kernel.shape[:3]
  if kt == kh == kw == 1:
    return matmul(_every(x, strides), kernel[0, 0, 0])
  if kt == 1:
    return _per_frame(x[:, :: strides[0]], kernel, strides, forms)
  if kh == kw == 1:
    per_pixel = _per_pixel if kernel.shape[-1] <= forms.products else _over_pixels
    return per_pixel(x[:, :, :: strides[1], :: strides[2]], kernel, strides[0])
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    [((extent - 1) // 2,) * 2 for extent in kernel.shape[:3]],
    dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
  )


def joined(
  x: Float[Array, "*shape c"], further: Float[Array, "*shape d"] | None
) -> Float[Array, "*shape e"]:
  """Appends further channels to those of x, if there are any."""
  return x if further is None else jnp.concatenate([x, further], axis=-1)


def matmul(x: Float[Array, "*batch c"], weights: Float[Array, "c d"]) -> Float[Array, "*batch d"]:
  """A product of 2D operands; with more axes, XLA on CPU transposes whole arrays backwards."""
  y = x.reshape(-1, x.shape[-1]) @ weights
  return y.reshape(*x.shape[:-1], weights.shape[-1])


def _every(x: Array, strides: tuple[int, int, int]) -> Array:
  return x[:, :: strides[0], :: strides[1], :: strides[2]]


def _per_frame(x: Array, kernel: Array, strides: tuple[int, int, int], forms: Forms) -> Array:
  """1 x k x k: a 2D convolution of n * t frames."""
  n, t, *frame = x.shape
  x, kernel = x.reshape(n * t, *frame), kernel[0]
  even = not any(extent % 2 for extent in frame[:2])
  few = frame[2] <= MOST_FOLDED_CHANNELS
  if strides[1:] == (1, 1) and max(frame[:2]) <= 2 and min(kernel.shape[:2]) > 1:
    y = _connect_pixels(x, kernel)
  elif forms.fold and few and strides[1:] == (2, 2) and even:
    y = _convolve_squares(x, kernel, forms)
  elif (
    forms.fold and few and strides[1:] == (1, 1) and kernel.shape[1] > FOLD and not frame[1] % FOLD
  ):
    y = _convolve_columns(*_pad_channels(x, kernel, forms))
  else:
    y = _convolve_frames(*_pad_channels(x, kernel, forms), strides[1:])
  return y.reshape(n, t, *y.shape[1:])


def _connect_pixels(x: Array, kernel: Array) -> Array:
  """A 2D convolution of frames of up to 2 x 2 pixels, each within reach of all, as one product.

  XLA on CPU takes forty times longer for the convolution.
  """
  h, w = x.shape[1:3]
  rows, columns = (  # the tap by which an output, in a column, gets an input, in a row
    jnp.arange(size)[:, None] - jnp.arange(size) + extent // 2
    for size, extent in zip((h, w), kernel.shape)
  )
  weights = kernel[rows[:, None, :, None], columns[:, None, :]]  # h, w, h2, w2, c, d
  weights = jnp.moveaxis(weights, 4, 2)
  c, d = kernel.shape[2:]
  y = x.reshape(-1, h * w * c) @ weights.reshape(h * w * c, h * w * d)
  return y.reshape(-1, h, w, d)


def _pad_channels(x: Array, kernel: Array, forms: Forms) -> tuple[Array, Array]:
  """Adds channels of zeros to a 2D convolution's input and kernel."""
  missing = -x.shape[-1] % forms.channel_multiple
  if not missing:
    return x, kernel
  x = jnp.pad(x, [(0, 0)] * 3 + [(0, missing)])
  return x, jnp.pad(kernel, [(0, 0)] * 2 + [(0, missing), (0, 0)])


def _convolve_columns(x: Array, kernel: Array) -> Array:
  """A 2D convolution without strides as one of groups of columns, as channels of input and output.

  Column f j + r of the output is the sum over taps k of x[f j + r + k - p] w[k], p = (K - 1) / 2.
  With v = r + k + q and q = -p modulo f, tap k of output r meets column v % f of the group
  j + v // f - (p + q) / f. For a few channels and wide kernels, the added products with zeros cost
  a GPU less than its matrix units gain by four times as many channels.
  """
  n, h, w, c = x.shape
  kh, kw, _, d = kernel.shape
  half = kw // 2
  shift_by = -half % FOLD
  taps = -(-(FOLD - 1 + kw + shift_by) // FOLD)
  folded = [
    jnp.pad(kernel, [(0, 0), (start, taps * FOLD - kw - start), (0, 0), (0, 0)])
    for start in range(shift_by, shift_by + FOLD)
  ]
  folded = jnp.stack(folded, axis=-2).reshape(kh, taps, FOLD * c, FOLD * d)
  before = (half + shift_by) // FOLD
  y = lax.conv_general_dilated(
    x.reshape(n, h, w // FOLD, FOLD * c),
    folded,
    (1, 1),
    [(kh // 2, kh // 2), (before, taps - 1 - before)],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  return y.reshape(n, h, w, d)


def _convolve_squares(x: Array, kernel: Array, forms: Forms) -> Array:
  """A 2D convolution with stride 2 as one with stride 1 of 2 x 2 pixels as channels.

  Output i is the sum over taps k of x[2 i + k - p] w[k], p = (K - 1) / 2. With the kernel shifted
  so that p is even, tap k = 2 a + b meets pixel b of the pair i + a - p / 2.
  """
  n, h, w, c = x.shape
  x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(n, h // 2, w // 2, 4 * c)
  before = [extent // 2 for extent in kernel.shape[:2]]
  odd = [p % 2 for p in before]
  # As many taps as fill pairs.
  kernel = jnp.pad(
    kernel, [(p, (extent + p) % 2) for p, extent in zip(odd, kernel.shape)] + [(0, 0)] * 2
  )
  kh, kw, _, d = kernel.shape
  kernel = kernel.reshape(kh // 2, 2, kw // 2, 2, c, d).transpose(0, 2, 1, 3, 4, 5)
  kernel = kernel.reshape(kh // 2, kw // 2, 4 * c, d)
  low = [(p + o) // 2 for p, o in zip(before, odd)]
  padding = [(start, extent - 1 - start) for start, extent in zip(low, kernel.shape)]
  return lax.conv_general_dilated(
    *_pad_channels(x, kernel, forms),
    (1, 1),
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_frames(
  x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c d"], strides: tuple[int, int]
) -> Float[Array, "n h2 w2 d"]:
  """A 2D convolution with symmetric padding, whose gradient depends on the backend."""
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    [((extent - 1) // 2,) * 2 for extent in kernel.shape[:2]],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _convolve_frames_forward(
  x: Array, kernel: Array, strides: tuple[int, int]
) -> tuple[Array, tuple[Array, Array]]:
  return _convolve_frames(x, kernel, strides), (x, kernel)


def _convolve_frames_backward(
  strides: tuple[int, int], kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  return lax.platform_dependent(
    *kept,
    gradient,
    cpu=functools.partial(_gradients_on_cpu, strides),
    default=functools.partial(_gradients_by_xla, strides),
  )


def _gradients_by_xla(
  strides: tuple[int, int], x: Array, kernel: Array, gradient: Array
) -> tuple[Array, Array]:
  _, vjp = jax.vjp(functools.partial(_convolve_frames.fun, strides=strides), x, kernel)
  return vjp(gradient)


def _gradients_on_cpu(
  strides: tuple[int, int], x: Array, kernel: Array, gradient: Array
) -> tuple[Array, Array]:
  if strides == (1, 1) or any(stride > k for stride, k in zip(strides, kernel.shape)):
    to_x, _ = _gradients_by_xla(strides, x, kernel, gradient)
  else:
    to_x = cpu_gradients.of_input(strides, x.shape[1:3], kernel, gradient)
  # Groups of frames would not follow the sharding over several devices.
  group_bytes = cpu_gradients.GROUP_BYTES if jax.device_count() == 1 else None
  return to_x, cpu_gradients.of_kernel(kernel.shape[:2], strides, x, gradient, group_bytes)


_convolve_frames.defvjp(_convolve_frames_forward, _convolve_frames_backward)


def _per_pixel(x: Array, kernel: Array, stride: int) -> Array:
  """K x 1 x 1: one product for all taps that apply to a frame, then shifts and a sum.

  Output frame m is the sum over taps k of x[stride * m + k - p] @ kernel[k], p = (K - 1) / 2. The
  input frames stride * i + r meet the taps with (k - p) % stride = r; the product with such a tap
  is added to output frame i - (k - p) // stride.
  """
  taps, _, _, c, d = kernel.shape
  if x.shape[1] % stride:
    x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % stride)] + [(0, 0)] * 3)
  total = 0.0
  for place in range(stride):
    met = [tap for tap in range(taps) if (tap - taps // 2) % stride == place]
    weights = jnp.moveaxis(kernel[jnp.array(met), 0, 0], 0, 1).reshape(c, len(met) * d)
    products = matmul(x[:, place::stride], weights)
    for number, tap in enumerate(met):
      product = products[..., number * d : (number + 1) * d]
      total += shift(product, 1, -((tap - taps // 2) // stride))
  return total


def _over_pixels(x: Array, kernel: Array, stride: int) -> Array:
  """K x 1 x 1: a 2D convolution over time and h * w pixels."""
  n, t, h, w, c = x.shape
  y = _convolve_frames(x.reshape(n, t, h * w, c), kernel[:, 0], (stride, 1))
  return y.reshape(n, -1, h, w, kernel.shape[-1])


class Conv3D(nn.Module):
  """3D convolution with PyTorch's symmetric padding.

  The parameter `kernel` is [t, h, w, in, out] (PyTorch's OIDHW moved by 2,3,4,1,0), float32.

  Attributes:
    features: output channels.
    kernel: extents (t, h, w).
    strides: steps (t, h, w).
    use_bias: whether to add a parameter `bias` [out].
    dtype: of the computation.
    forms: how it is computed.
  """

  features: int
  kernel: tuple[int, int, int]
  strides: tuple[int, int, int] = (1, 1, 1)
  use_bias: bool = False
  dtype: DTypeLike = jnp.float32
  forms: Forms = CPU

  @nn.compact
  def parameters(self, in_channels: int) -> tuple[Array, Array | None]:
    """The kernel and, if there is one, the bias."""
    shape = (*self.kernel, in_channels, self.features)
    kernel = self.param("kernel", kernel_init, shape, jnp.float32)
    if not self.use_bias:
      return kernel, None
    return kernel, self.param("bias", nn.initializers.zeros, (self.features,))

  def __call__(
    self,
    x: Float[Array, "n t h w c"],
    slope: Float[Array, " d"] | None = None,
    lateral: Float[Array, "n t h w e"] | None = None,
  ) -> Float[Array, "n t2 h2 w2 d"]:
    """Convolves.

    Args:
      x: the input.
      slope: what to multiply every output channel's weights by.
      lateral: further channels of the input, which are convolved by themselves.
    """
    c = x.shape[-1]
    kernel, bias = self.parameters(c if lateral is None else c + lateral.shape[-1])
    if slope is not None:
      kernel = kernel * slope
    kernel = kernel.astype(self.dtype)
    y = convolve(x.astype(self.dtype), kernel[..., :c, :], self.strides, self.forms)
    if lateral is not None:
      y += convolve(lateral.astype(self.dtype), kernel[..., c:, :], self.strides, self.forms)
    y = checkpoint_name(y, OUTPUT)
    return y if bias is None else y + bias.astype(self.dtype)


class ConvNorm(nn.Module):
  """Convolution without bias, BatchNorm and, optionally, ReLU, in this order.

  Channels of `lateral`, from the other stream, are concatenated to those of the input.
  """

  features: int
  kernel: tuple[int, int, int]
  strides: tuple[int, int, int] = (1, 1, 1)
  relu: bool = True
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  dtype: DTypeLike = jnp.float32
  forms: Forms = CPU

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n t h w c"],
    train: bool,
    lateral: Float[Array, "n t h w e"] | None = None,
  ) -> Float[Array, "n t2 h2 w2 d"]:
    if self.forms.lateral == "joined":
      x, lateral = joined(x, lateral), None
    strides, pointwise = self.strides, self.kernel == (1, 1, 1)
    if pointwise:  # joins no more pixels than it reads
      x, lateral = joined(*jax.tree.map(lambda part: _every(part, strides), (x, lateral))), None
      strides = (1, 1, 1)
    conv = Conv3D(
      self.features, self.kernel, strides, dtype=self.dtype, forms=self.forms, name="conv"
    )
    norm = BatchNorm(self.relu, self.scale_init, name="bn")
    if not train:
      slope, offset = norm.slope_and_offset(self.features)
      y = conv(x, slope, lateral)
      rows = y.reshape(-1, self.features) + offset.astype(self.dtype)
      rows = jnp.maximum(rows, 0) if self.relu else rows
      return rows.reshape(y.shape)
    expands = pointwise and x.shape[-1] < self.features and not self.relu
    if expands and x.shape[-1] <= self.forms.moments:
      kernel, _ = conv.parameters(x.shape[-1])
      return norm.of_product(x.astype(self.dtype), kernel[0, 0, 0])
    return norm(conv(x, lateral=lateral))

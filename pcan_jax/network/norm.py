"""BatchNorm with gradients that keep and read as few arrays as possible.

Reference: Ioffe and Szegedy, Batch Normalization, ICML 2015, arXiv 1502.03167.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

MOMENTUM = 0.9  # PyTorch's 0.1
EPSILON = 1e-5


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_batch(
  x: Float[Array, "n t h w c"],
  scale: Float[Array, " c"],
  bias: Float[Array, " c"],
  relu: bool,
) -> tuple[Float[Array, "n t h w c"], Float[Array, " c"], Float[Array, " c"]]:
  """Normalises by the batch's statistics, scales, and applies ReLU if `relu`.

  Automatic differentiation would keep several arrays of the size of x and propagate through mean
  and variance separately. This keeps only x, and its gradient takes two passes: two sums per
  channel, then a linear function of x and the gradient.

  Returns:
    The result in the dtype of x, and mean and variance, float32; gradients of these are ignored.
  """
  return _normalize_forward(x, scale, bias, relu)[0]


def _normalize_forward(x: Array, scale: Array, bias: Array, relu: bool) -> tuple[Any, Any]:
  flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
  mean = flat.mean(axis=0)
  variance = jnp.maximum(jnp.square(flat).mean(axis=0) - jnp.square(mean), 0.0)
  deviation = lax.rsqrt(variance + EPSILON)
  slope = scale * deviation
  offset = bias - mean * slope
  y = _cut(flat * slope + offset, relu).astype(x.dtype).reshape(x.shape)
  return (y, mean, variance), (x, mean, deviation, slope, offset)


def _normalize_backward(relu: bool, kept: Any, gradients: Any) -> tuple[Array, Array, Array]:
  x, mean, deviation, slope, offset = kept
  flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
  gradient = gradients[0].reshape(flat.shape).astype(jnp.float32)
  if relu:
    # Of a comparison, XLA on GPUs keeps the result from the forward pass: one more array.
    gradient *= jnp.sign(jnp.maximum(flat * slope + offset, 0.0))
  to_bias = gradient.sum(axis=0)
  to_scale = ((gradient * flat).sum(axis=0) - mean * to_bias) * deviation
  by_x = slope * deviation * to_scale / -flat.shape[0]
  constant = slope * to_bias / -flat.shape[0] - by_x * mean
  to_x = slope * gradient + by_x * flat + constant
  # Without the barrier, XLA recomputes it for each tap of the preceding convolution.
  to_x = lax.optimization_barrier(to_x.astype(x.dtype).reshape(x.shape))
  return to_x, to_scale, to_bias


normalize_batch.defvjp(_normalize_forward, _normalize_backward)


@jax.custom_vjp
def normalize_product(
  x: Float[Array, "n c"],
  weights: Float[Array, "c d"],
  scale: Float[Array, " d"],
  bias: Float[Array, " d"],
) -> tuple[Float[Array, "n d"], Float[Array, " d"], Float[Array, " d"]]:
  """Normalises `x @ weights` by statistics that follow from the moments of x, for d > c.

  With the mean m and the covariance C of x, a channel of the product with weights w has the mean
  m w and the variance w' C w. So the normalised product is one product of x with scaled weights,
  and neither the wider array before it nor any sum over that is needed, forward or backward.

  Args:
    x: in the dtype of the computation.
    weights: float32, as scale and bias.

  Returns:
    The result in the dtype of x, and mean and variance, float32; gradients of these are ignored.
  """
  return _product_forward(x, weights, scale, bias)[0]


def _dot(a: Array, b: Array, axes: tuple[int, int], dtype: DTypeLike) -> Array:
  """Sums products along an axis of each; in float32, moments need all of its digits."""
  precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  contract = ((axes[:1], axes[1:]), ((), ()))
  return lax.dot_general(a, b, contract, precision=precision, preferred_element_type=dtype)


def _product_forward(x: Array, weights: Array, scale: Array, bias: Array) -> tuple[Any, Any]:
  mean_x = x.astype(jnp.float32).mean(axis=0)
  moments = _dot(x, x, (0, 0), jnp.float32) / len(x)
  covariance = moments - mean_x[:, None] * mean_x
  mean = mean_x @ weights
  variance = jnp.maximum(((covariance @ weights) * weights).sum(axis=0), 0.0)
  deviation = lax.rsqrt(variance + EPSILON)
  slope = scale * deviation
  offset = bias - mean * slope
  y = _dot(x, (weights * slope).astype(x.dtype), (1, 0), x.dtype) + offset.astype(x.dtype)
  return (y, mean, variance), (x, weights, moments, mean_x, mean, deviation, slope)


def _product_backward(kept: Any, gradients: Any) -> tuple[Array, Array, Array, Array]:
  """As in `_normalize_backward`, with x @ weights for its x, multiplied out."""
  x, weights, moments, mean_x, mean, deviation, slope = kept
  gradient = gradients[0]
  to_bias = gradient.astype(jnp.float32).sum(axis=0)
  products = _dot(x, gradient, (0, 0), jnp.float32)
  to_scale = ((weights * products).sum(axis=0) - mean * to_bias) * deviation
  by_product = slope * deviation * to_scale / -len(x)
  constant = slope * to_bias / -len(x) - by_product * mean
  to_weights = products * slope + len(x) * (
    (moments @ weights) * by_product + mean_x[:, None] * constant
  )
  through_product = ((weights * by_product) @ weights.T).astype(x.dtype)
  to_x = _dot(gradient, (weights * slope).astype(x.dtype), (1, 1), x.dtype)
  to_x += _dot(x, through_product, (1, 0), x.dtype)
  to_x = (to_x.astype(jnp.float32) + weights @ constant).astype(x.dtype)
  return to_x, to_weights, to_scale, to_bias


normalize_product.defvjp(_product_forward, _product_backward)


def _cut(x: Array, relu: bool) -> Array:
  return jnp.maximum(x, 0.0) if relu else x


class BatchNorm(nn.Module):
  """BatchNorm and, optionally, ReLU.

  Statistics are float32 whatever the dtype of the input, and those of the global batch: under `jit`
  with a sharded batch, a mean is global. Names are Flax's: parameters `scale` and `bias`, running
  statistics `mean` and `var` in the collection `batch_stats`.
  """

  relu: bool = False
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def _variables(self, channels: int) -> tuple[Array, Array, nn.Variable, nn.Variable]:
    scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
    mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
    variance = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
    return scale, bias, mean, variance

  def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t h w c"]:
    """Normalises by the batch's statistics and updates the running ones."""
    scale, bias, *running = self._variables(x.shape[-1])
    y, *statistics = normalize_batch(x, scale, bias, self.relu)
    self._update(running, statistics)
    return y

  def of_product(
    self, x: Float[Array, "n t h w c"], weights: Float[Array, "c d"]
  ) -> Float[Array, "n t h w d"]:
    """As `__call__` for `x @ weights`, without a ReLU; see `normalize_product`."""
    scale, bias, *running = self._variables(weights.shape[-1])
    y, *statistics = normalize_product(x.reshape(-1, x.shape[-1]), weights, scale, bias)
    self._update(running, statistics)
    return y.reshape(*x.shape[:-1], weights.shape[-1])

  def slope_and_offset(self, channels: int) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """What evaluation multiplies by and adds, by the running statistics."""
    scale, bias, mean, variance = self._variables(channels)
    slope = scale * lax.rsqrt(variance.value + EPSILON)
    return slope, bias - mean.value * slope

  def _update(self, running: Sequence[nn.Variable], statistics: Sequence[Array]) -> None:
    if not self.is_initializing():
      for variable, new in zip(running, statistics):
        variable.value = MOMENTUM * variable.value + (1 - MOMENTUM) * new

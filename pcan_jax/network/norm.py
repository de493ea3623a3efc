"""BatchNorm with a gradient that keeps one array and reads it twice.

Reference: Ioffe and Szegedy, Batch Normalization, ICML 2015, arXiv 1502.03167.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
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
    gradient = jnp.where(flat * slope + offset > 0, gradient, 0.0)
  to_bias = gradient.sum(axis=0)
  to_scale = ((gradient * flat).sum(axis=0) - mean * to_bias) * deviation
  by_x = slope * deviation * to_scale / -flat.shape[0]
  constant = slope * to_bias / -flat.shape[0] - by_x * mean
  to_x = slope * gradient + by_x * flat + constant
  # Without the barrier, XLA recomputes it for each tap of the preceding convolution.
  to_x = lax.optimization_barrier(to_x.astype(x.dtype).reshape(x.shape))
  return to_x, to_scale, to_bias


normalize_batch.defvjp(_normalize_forward, _normalize_backward)


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
  def __call__(self, x: Float[Array, "n t h w c"], train: bool) -> Float[Array, "n t h w c"]:
    channels = (x.shape[-1],)
    mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
    variance = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
    scale = self.param("scale", self.scale_init, channels, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
    if not train:
      slope = scale * lax.rsqrt(variance.value + EPSILON)
      return _cut(x * slope + (bias - mean.value * slope), self.relu).astype(x.dtype)
    y, batch_mean, batch_variance = normalize_batch(x, scale, bias, self.relu)
    if not self.is_initializing():
      for running, new in ((mean, batch_mean), (variance, batch_variance)):
        running.value = MOMENTUM * running.value + (1 - MOMENTUM) * new
    return y

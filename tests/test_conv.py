import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax.network import conv, cpu_gradients, frame_rates
from pcan_jax.network.forms import Forms
from pcan_jax.network.pool import max_pool_spatial

# Kernels of a SlowOnly network, with their strides; the last stays a 3D convolution.
KERNELS = [
  ((1, 1, 1), (1, 1, 1)),
  ((1, 1, 1), (1, 2, 2)),
  ((1, 3, 3), (1, 1, 1)),
  ((1, 3, 3), (1, 2, 2)),
  ((1, 7, 7), (1, 2, 2)),
  ((3, 1, 1), (1, 1, 1)),
  ((7, 1, 1), (1, 1, 1)),
  ((7, 1, 1), (4, 1, 1)),
  ((3, 1, 1), (2, 2, 2)),
  ((3, 3, 3), (2, 1, 2)),
]
FRAMES = [(6, 7), (2, 2), (1, 2)]  # height and width


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def reference(x, kernel, strides):
  """XLA's own 3D convolution."""
  padding = [((extent - 1) // 2,) * 2 for extent in kernel.shape[:3]]
  names = ("NDHWC", "DHWIO", "NDHWC")
  return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=names)


def cross_correlation(x, kernel, strides):
  """Sums over windows of the symmetrically padded input, one output element at a time."""
  extents = kernel.shape[:3]
  padded = np.pad(x, [(0, 0), *(((k - 1) // 2,) * 2 for k in extents), (0, 0)])
  outputs = [(n - 1) // s + 1 for n, s in zip(x.shape[1:4], strides)]
  y = np.zeros((x.shape[0], *outputs, kernel.shape[-1]))
  for place in np.ndindex(*outputs):
    window = tuple(slice(p * s, p * s + k) for p, s, k in zip(place, strides, extents))
    y[:, *place] = np.einsum("nthwc,thwcd->nd", padded[:, *window], kernel)
  return y


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("extents", "strides"), KERNELS)
def test_convolution_is_the_padded_sum(extents, strides, frame):
  x, kernel = normal(2, 8, *frame, 3), normal(*extents, 3, 4, seed=1)
  found = jax.jit(conv.convolve, static_argnums=2)(x, kernel, strides)
  np.testing.assert_allclose(found, cross_correlation(x, kernel, strides), rtol=0, atol=2e-5)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("extents", "strides"), KERNELS[:-1])
def test_gradients_are_those_of_a_3d_convolution(extents, strides, frame):
  x, kernel = normal(2, 8, *frame, 3), normal(*extents, 3, 4, seed=1)

  def gradients(convolve):
    @jax.jit
    def run(x, kernel):
      y, vjp = jax.vjp(lambda x, kernel: convolve(x, kernel, strides), x, kernel)
      return vjp(normal(*y.shape, seed=2))

    return run(x, kernel)

  for found, wanted in zip(gradients(conv.convolve), gradients(reference)):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def scan_lengths(jaxpr):
  return {e.params["length"] for e in jaxpr.eqns if e.primitive.name == "scan"}


@pytest.mark.parametrize(("extents", "strides"), [((3, 3), (1, 1)), ((5, 3), (2, 2))])
def test_the_gradient_of_a_kernel_is_the_sum_over_groups_of_frames(extents, strides):
  x, kernel = normal(6, 8, 9, 3), normal(*extents, 3, 4, seed=1)

  def convolve(kernel):
    return reference(x[None], kernel[None], (1, *strides))[0]

  y, vjp = jax.vjp(convolve, kernel)
  gradient = normal(*y.shape, seed=2)
  (wanted,) = vjp(gradient)
  # All frames at once, then fewer and fewer, down to one.
  lengths = set()
  for group_bytes in (None, 13_000, 5_000, 1):
    arguments = (extents, strides, x, gradient, group_bytes)
    lengths |= scan_lengths(jax.make_jaxpr(cpu_gradients.of_kernel, (0, 1, 4))(*arguments))
    found = jax.jit(cpu_gradients.of_kernel, static_argnums=(0, 1, 4))(*arguments)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
  assert lengths == {3, 6}


@pytest.mark.parametrize("size", [(8, 9), (5, 12)])
@pytest.mark.parametrize(
  ("extents", "strides"),
  [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((5, 3), (3, 2)), ((7, 1), (4, 1)), ((1, 7), (1, 2))],
)
def test_the_gradient_of_an_input_is_put_together_from_phases(extents, strides, size):
  x, kernel = normal(2, *size, 3), normal(*extents, 3, 4, seed=1)

  def convolve(x):
    return reference(x[None], kernel[None], (1, *strides))[0]

  @jax.jit
  def run(x, kernel):
    y, vjp = jax.vjp(convolve, x)
    gradient = normal(*y.shape, seed=2)
    return cpu_gradients.of_input(strides, size, kernel, gradient), vjp(gradient)[0]

  found, wanted = run(x, kernel)
  np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ["products", "dilated"])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_upsampling_scatters_taps(stride, form):
  """PyTorch's definition: input frame t adds tap k of the kernel to frame s * t + k - (s - 1)."""
  x, kernel = normal(2, 3, 2, 2, 5), normal(2 * stride - 1, 1, 1, 5, 4, seed=1)
  wanted = np.zeros((2, 3 * stride, 2, 2, 4))
  for t in range(3):
    for tap in range(2 * stride - 1):
      to = stride * t + tap - (stride - 1)
      if 0 <= to < 3 * stride:
        wanted[:, to] += np.asarray(x[:, t] @ kernel[tap, 0, 0])
  found = frame_rates.upsample_time(x, kernel, stride, Forms(upsampling=form))
  np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_wrong_kernels_are_refused():
  x = normal(1, 2, 2, 2, 1)
  with pytest.raises(ValueError, match=r"extents must be odd, got \(2, 1, 1\)"):
    conv.convolve(x, normal(2, 1, 1, 1, 1))
  with pytest.raises(ValueError, match="upsampling by 4 needs 7 taps, the kernel has 3"):
    frame_rates.upsample_time(x, normal(3, 1, 1, 1, 1), 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool_and_its_gradient_with_ties(stride):
  size = (6, 7)
  x = jnp.round(normal(2, 3, *size, 4))  # few distinct values, so that most windows have ties

  def windowed(x):
    y = nn.max_pool(x.reshape(-1, *size, 4), (3, 3), (stride, stride), ((1, 1), (1, 1)))
    return y.reshape(2, 3, *y.shape[1:])

  @functools.partial(jax.jit, static_argnums=0)
  def value_and_gradient(pool):
    y, vjp = jax.vjp(pool, x)
    return y, vjp(normal(*y.shape, seed=1))[0]

  wanted, wanted_gradient = value_and_gradient(windowed)
  found, gradient = value_and_gradient(lambda x: max_pool_spatial(x, stride))
  np.testing.assert_array_equal(found, wanted)
  np.testing.assert_allclose(gradient, wanted_gradient, atol=1e-5)


def test_grouping_and_ungrouping_are_adjoint():
  x, y = normal(2, 8, 3, 3, 5), normal(2, 2, 3, 3, 6, seed=1)
  kernel = normal(4, 1, 1, 5, 6, seed=2)
  group, ungroup = frame_rates.GroupFrames(6, size=4), frame_rates.UngroupFrames(5, size=4)
  grouped = group.apply({"params": {"kernel": kernel, "bias": jnp.zeros(6)}}, x)
  spread = ungroup.apply({"params": {"kernel": kernel.swapaxes(3, 4), "bias": jnp.zeros(5)}}, y)
  np.testing.assert_allclose(jnp.vdot(grouped, y), jnp.vdot(x, spread), rtol=1e-4)
  first = sum(x[:, tap] @ kernel[tap, 0, 0] for tap in range(4))
  np.testing.assert_allclose(grouped[:, 0], first, atol=1e-5)


@pytest.mark.parametrize("layer", [conv.Conv3D(64, (1, 3, 3)), frame_rates.ConvTranspose3D(64, 2)])
def test_parameters_start_by_fan_out_and_stay_float32(layer):
  layer = layer.clone(dtype=jnp.bfloat16)
  y, variables = jax.jit(layer.init_with_output)(jax.random.key(0), normal(1, 2, 4, 4, 32))
  kernel = variables["params"]["kernel"]
  assert y.dtype == jnp.bfloat16
  assert kernel.dtype == jnp.float32
  fan_out = 64 * np.prod(kernel.shape[:3])
  assert float(kernel.std()) == pytest.approx(np.sqrt(2 / fan_out), rel=0.05)


def test_batch_norm_follows_pytorch_momentum():
  x = 3 + 2 * normal(4, 2, 3, 3, 5)
  layer = conv.ConvNorm(5, (1, 1, 1), relu=False)
  variables = layer.init(jax.random.key(0), x, train=False)
  variables["params"]["conv"]["kernel"] = jnp.eye(5)[None, None, None]
  y, updated = layer.apply(variables, x, train=True, mutable="batch_stats")
  mean, var = x.mean((0, 1, 2, 3)), x.var((0, 1, 2, 3))
  statistics = updated["batch_stats"]["bn"]
  np.testing.assert_allclose(statistics["mean"], 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * var, rtol=1e-5)
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-4)

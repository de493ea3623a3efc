import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax.network import norm

SHAPE = (2, 3, 4, 4, 5)
CLIPS = 3 + 2 * jax.random.normal(jax.random.key(0), SHAPE)


@pytest.mark.parametrize("relu", [False, True])
def test_values_gradients_and_statistics_are_those_of_flax(relu):
  """Flax differentiates as written."""
  theirs = nn.BatchNorm(use_running_average=False, momentum=norm.MOMENTUM, epsilon=norm.EPSILON)
  ours = norm.BatchNorm(relu=relu)
  variables = ours.init(jax.random.key(0), CLIPS)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
    jnp.shape, dict(theirs.init(jax.random.key(0), CLIPS))
  )
  params = {"scale": jnp.linspace(0.5, 2, 5), "bias": jnp.linspace(-1, 1, 5)}
  upstream = jax.random.normal(jax.random.key(1), SHAPE)

  def loss(params, x, apply):
    y, updated = apply({"params": params, "batch_stats": variables["batch_stats"]}, x)
    return jnp.sum(y * upstream), (y, updated["batch_stats"])

  def apply_theirs(variables, x):
    y, updated = theirs.apply(variables, x, mutable=["batch_stats"])
    return jax.nn.relu(y) if relu else y, updated

  def apply_ours(variables, x):
    return ours.apply(variables, x, mutable=["batch_stats"])

  gradients = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
  found, wanted = (gradients(params, CLIPS, apply) for apply in (apply_ours, apply_theirs))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found, wanted)


def test_evaluation_uses_running_statistics():
  layer = norm.BatchNorm()
  variables = layer.init(jax.random.key(0), CLIPS)
  variables["batch_stats"] = {"mean": jnp.full(5, 3.0), "var": jnp.full(5, 4.0)}
  slope, offset = layer.apply(variables, 5, method="slope_and_offset")
  expected = (CLIPS - 3) / np.sqrt(4 + norm.EPSILON)
  np.testing.assert_allclose(CLIPS * slope + offset, expected, rtol=1e-5, atol=1e-6)


def test_statistics_of_half_precision_are_float32():
  layer = norm.BatchNorm()
  clips = CLIPS.astype(jnp.bfloat16)
  variables = layer.init(jax.random.key(0), clips)
  y, updated = layer.apply(variables, clips, mutable=["batch_stats"])
  assert y.dtype == jnp.bfloat16
  assert updated["batch_stats"]["var"].dtype == jnp.float32
  mean = clips.astype(jnp.float32).mean((0, 1, 2, 3))
  np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)

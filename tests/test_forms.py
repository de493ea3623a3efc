"""Every form of an operation computes the same, forward and backward, from the same parameters."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax.network import forms
from pcan_jax.network.conv import Conv3D, ConvNorm
from pcan_jax.network.forms import CPU, GPU, TPU, Forms
from pcan_jax.network.pathway import Bottleneck, Pathway
from pcan_jax.network.pool import max_pool_spatial
from tests.test_pathway import TINY


def value_and_gradients(layer, x, forms, **apply):
  """The outputs, the updated statistics and the gradients of a layer in training."""
  layer = layer.clone(forms=forms)

  @jax.jit
  def run(x):
    variables = layer.init(jax.random.key(1), x, **apply)
    others = {name: variables[name] for name in variables if name != "params"}
    # A block's last scale of zero would hide gradients.
    params = jax.tree.map(lambda value: value + 0.1, variables["params"])

    def loss(params, x):
      y, updated = layer.apply({"params": params, **others}, x, **apply, mutable=["batch_stats"])
      return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), (y, updated)

    (_, found), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    return found, gradients

  return run(x)


def assert_close(found, expected, tolerance=2e-6):
  """Relative to the largest value of each array."""
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(ours, theirs, atol=tolerance * max(np.abs(theirs).max(), 1e-3))


@pytest.mark.parametrize("taps, stride", [(3, 1), (7, 4), (5, 2)])
def test_temporal_convolutions(taps, stride):
  layer = Conv3D(5, (taps, 1, 1), (stride, 1, 1))
  x = jax.random.normal(jax.random.key(0), (2, 8, 3, 4, 6))
  found, expected = (value_and_gradients(layer, x, Forms(products=channels)) for channels in (0, 5))
  assert_close(found, expected)


@pytest.mark.parametrize("extent, stride", [(3, 2), (5, 2), (7, 2), (7, 1), (3, 1)])
@pytest.mark.parametrize("channels", [3, 28])
def test_folded_and_padded_convolutions(extent, stride, channels):
  layer = Conv3D(5, (1, extent, extent), (1, stride, stride))
  x = jax.random.normal(jax.random.key(0), (2, 3, 8, 12, channels))
  expected = value_and_gradients(layer, x, CPU)
  for form in (Forms(fold=True), Forms(channel_multiple=8), Forms(fold=True, channel_multiple=8)):
    assert_close(value_and_gradients(layer, x, form), expected)


def test_sides_of_an_odd_length_are_not_folded():
  layer = Conv3D(5, (1, 7, 7), (1, 2, 2))
  x = jax.random.normal(jax.random.key(0), (2, 3, 9, 10, 3))
  assert_close(value_and_gradients(layer, x, GPU), value_and_gradients(layer, x, CPU))


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [8, 9, 10])
@pytest.mark.parametrize("ties", [False, True])
def test_pools(size, stride, ties):
  x = jax.random.normal(jax.random.key(0), (2, 3, size, size, 4))
  x = jnp.round(x) if ties else x

  def run(form):
    def loss(x):
      y = max_pool_spatial(x, stride, Forms(pool=form))
      return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), y

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(x)

  assert_close(run("index"), run("window"))


@pytest.mark.parametrize("stride", [1, 2])
def test_norms_of_expanding_convolutions(stride):
  layer = ConvNorm(20, (1, 1, 1), (1, stride, stride), relu=False)
  x = 2 + jax.random.normal(jax.random.key(0), (2, 3, 8, 8, 5))
  found, expected = (
    value_and_gradients(layer, x, Forms(moments=form), train=True) for form in (5, 0)
  )
  assert_close(found, expected, 1e-5)


class BlockOfTwoStreams(nn.Module):
  """A block whose last two input channels come from the other stream."""

  temporal_kernel: int
  stride: int
  forms: Forms = CPU

  @nn.compact
  def __call__(self, x, train):
    block = Bottleneck(3, self.temporal_kernel, self.stride, jnp.float32, self.forms)
    return block(x[..., :-2], train, x[..., -2:])


@pytest.mark.parametrize("temporal_kernel, stride, moments", [(1, 2, 64), (3, 1, 0)])
def test_blocks_with_channels_from_the_other_stream(temporal_kernel, stride, moments):
  layer = BlockOfTwoStreams(temporal_kernel, stride)
  x = jax.random.normal(jax.random.key(0), (2, 4, 8, 8, 8))
  expected = value_and_gradients(layer, x, CPU, train=True)
  for form in (Forms(lateral="added"), Forms(subsampling="repeated"), GPU):
    form = dataclasses.replace(form, moments=moments)
    assert_close(value_and_gradients(layer, x, form, train=True), expected, 1e-5)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("train", [True, False])
def test_a_pathway_has_the_same_variables_and_values(platform, train):
  x = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 3))

  @functools.partial(jax.jit, static_argnums=0)
  def run(form):
    pathway = Pathway(TINY, jnp.float32, "none", form)
    variables = pathway.init(jax.random.key(1), x, train=False)
    return variables, pathway.apply(variables, x, train=train, mutable=["batch_stats"])

  found, expected = run(forms.for_platform(platform)), run(CPU)
  jax.tree.map(np.testing.assert_array_equal, found[0], expected[0])
  assert_close(found[1], expected[1], 1e-5)


def test_the_forms_of_a_platform():
  assert forms.for_platform("cpu") == CPU
  assert forms.for_platform("tpu") == TPU
  assert forms.for_platform("cuda") == forms.for_platform("gpu") == GPU
  with pytest.raises(ValueError, match="pool must be one of"):
    dataclasses.replace(CPU, pool="none")

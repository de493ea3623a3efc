"""The video transformer, against `transformers` at full size and in its parts."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax.config import load_config
from pcan_jax.labels import get_tree
from pcan_jax.network import forms
from pcan_jax.network.pathway import REMAT
from pcan_jax.network.pcan import build_model, rgb_path
from pcan_jax.network.video_transformer import (
  DropPath,
  VideoTransformer,
  VideoTransformerConfig,
  sine_positions,
  tubelets,
)
from pcan_jax.torch.videomae import from_videomae
from tests import parity_videomae

SMALL = VideoTransformerConfig(
  width=16,
  depth=2,
  heads=2,
  mlp_width=32,
  patch=8,
  tubelet=2,
  position_grid=(2, 2, 2),
  drop_path=0.0,
)


def build(config=SMALL, dtype=jnp.float32, remat="none"):
  return VideoTransformer(config, dtype, remat)


def clips(frames=4, size=16, batch=2):
  return jax.random.normal(jax.random.key(0), (batch, frames, size, size, 3))


@functools.cache
def variables():
  """Random values of every parameter, biases included."""
  shapes = jax.eval_shape(lambda: build().init(jax.random.key(1), clips(), train=False))
  randomness = np.random.default_rng(0)
  return jax.tree.map(lambda x: 0.3 * randomness.standard_normal(x.shape, np.float32), shapes)


def run(config=SMALL, dtype=jnp.float32, frames=4, size=16):
  model = build(config, dtype)
  return jax.jit(functools.partial(model.apply, train=False))(variables(), clips(frames, size))


@pytest.mark.slow
def test_full_size_outputs_are_those_of_transformers():
  config = rgb_path(load_config("ma52:vit").model.rgb)
  model = VideoTransformer(config, jnp.float32, "none")
  clip = jnp.asarray(parity_videomae.draw_clip())
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), clip, train=False))
  initial = {"params": {"backbone": {"rgb_path": shapes["params"]}}}
  initial = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), initial)
  listing = json.loads(parity_videomae.LISTING.read_text())
  conversion = from_videomae(parity_videomae.draw_state_dict(listing), initial, config)
  params = conversion.variables["params"]["backbone"]["rgb_path"]

  @jax.jit
  def outputs(params):
    pooled, sown = model.apply({"params": params}, clip, train=False, mutable="intermediates")
    return sown["intermediates"]["stage12"][0], pooled[:, 0, 0, 0]

  found = parity_videomae.reduced(*map(np.asarray, outputs(params)))
  with np.load(parity_videomae.FORWARD) as wanted:
    for name in wanted:
      np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-4, err_msg=name)


def test_tubelets_are_cut_in_the_order_of_time_rows_and_columns():
  frames = jnp.arange(2.0 * 4 * 6 * 3).reshape(1, 2, 4, 6, 3)
  config = dataclasses.replace(SMALL, patch=2)
  found = tubelets(frames, config)
  assert found.shape == (1, 1, 2, 3, config.tubelet_size)
  np.testing.assert_array_equal(found[0, 0, 1, 2].reshape(2, 2, 2, 3), frames[0, :, 2:4, 4:6])
  with pytest.raises(ValueError, match=r"3 frames of 4 x 6 pixels .* input\.rgb_frames"):
    tubelets(jnp.repeat(frames[:, :1], 3, axis=1), config)


def test_positions_of_another_grid_lie_between_those_they_were_made_for():
  made_for = (2, 4, 4)
  table = sine_positions(made_for, 8, made_for)
  twice = sine_positions((4, 4, 4), 8, made_for)
  np.testing.assert_allclose(twice[0], table[0])
  np.testing.assert_allclose(twice[1], 0.75 * table[0] + 0.25 * table[1], rtol=1e-5)
  half = sine_positions((2, 2, 4), 8, made_for)
  np.testing.assert_allclose(half[:, 0], (table[:, 0] + table[:, 1]) / 2, rtol=1e-5)


def test_clips_of_other_lengths_and_sizes_go_through():
  for frames, size in ((4, 16), (6, 24)):
    assert run(frames=frames, size=size).shape == (2, 1, 1, 1, 16)


def test_half_precision_is_near():
  found, wanted = run(dtype=jnp.bfloat16), run()
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, wanted, atol=0.1)


def test_paths_are_dropped_in_training_only_and_clip_by_clip():
  x = jnp.ones((64, 2, 3))
  drop = DropPath(0.25)
  np.testing.assert_array_equal(drop.apply({}, x, train=False), x)
  found = drop.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
  assert set(np.unique(found)) == {0.0, np.float32(1 / 0.75)}
  assert (found == found[:, :1, :1]).all()
  assert 0.1 < (found[:, 0, 0] == 0).mean() < 0.4
  config = dataclasses.replace(SMALL, drop_path=0.5)
  rngs = {"dropout": jax.random.key(0)}
  train = jax.jit(functools.partial(build(config).apply, train=True))
  assert not np.allclose(train(variables(), clips(), rngs=rngs), run())


@pytest.mark.parametrize("remat", REMAT[1:])
def test_rematerialisation_leaves_the_gradient(remat):
  def loss(params, remat):
    return jnp.sum(jnp.square(build(remat=remat).apply({"params": params}, clips(), train=True)))

  found, wanted = (
    jax.jit(jax.grad(functools.partial(loss, remat=how)))(variables()["params"])
    for how in (remat, "none")
  )
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found, wanted)


@pytest.mark.parametrize(
  "values, message",
  [
    ({"heads": 3}, "multiple of model.rgb.heads=3"),
    ({"depth": 0}, "model.rgb.depth must be 1 or more"),
    ({"drop_path": 1.0}, "model.rgb.drop_path must be at least 0 and below 1"),
    ({"position_grid": (2, 2)}, "model.rgb.position_grid is"),
  ],
)
def test_values_out_of_range_are_named(values, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SMALL, **values)


def test_kinds_are_chosen_with_their_fields():
  tree = get_tree("ma52")
  config = load_config("ma52").model
  config.rgb.kind = "videomae"
  with pytest.raises(ValueError, match=r"model\.rgb\.kind='videomae' has other fields .*ma52:vit"):
    build_model(config, tree)
  config.rgb.kind = "resnet"
  with pytest.raises(ValueError, match=r"model\.rgb\.kind must be one of .*, not 'resnet'"):
    build_model(config, tree)
  config = load_config("ma52:vit_pcan").model
  config.pool_embedding = "max"
  with pytest.raises(ValueError, match=r"model\.pool_embedding must be mean"):
    build_model(config, tree)


def test_no_two_blocks_call_the_fused_kernel_alike(monkeypatch):
  """XLA confuses equal gradients of it; and what makes them differ changes no bit."""
  attention, scales = jax.nn.dot_product_attention, []

  def fused(q, k, v, *, scale, implementation):
    assert implementation == "cudnn"
    scales.append(scale)
    return attention(q, k, v, scale=scale, implementation="xla")

  def output(forms):
    model = VideoTransformer(SMALL, jnp.bfloat16, "none", forms)
    return jax.jit(
      jax.value_and_grad(
        lambda params: jnp.sum(jnp.square(model.apply({"params": params}, clips(), train=False)))
      )
    )(variables()["params"])

  wanted = output(forms.CPU)
  monkeypatch.setattr(jax.nn, "dot_product_attention", fused)
  found = output(forms.GPU)
  assert len(set(scales)) == SMALL.depth
  jax.tree.map(np.testing.assert_array_equal, found, wanted)

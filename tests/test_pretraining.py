"""Masked video modelling, and what starts from it."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ma52, pretrain
from pcan_jax.checkpoints import load_model
from pcan_jax.network.forms import CPU
from pcan_jax.network.masked_autoencoder import Encoder, build_masked_autoencoder, normalised
from pcan_jax.network.video_transformer import tubelets
from pcan_jax.spec import ModelSpec
from pcan_jax.training import loop, preflight, warm_start
from tests.tiny_config import shrink


def toy_config(path="", **values):
  config = shrink(pretrain.get_config())
  config.data.path = str(path)
  config.data.train_split = "test"  # without labels
  config.model.decoder.update(width=8, depth=1, heads=2, mlp_width=16)
  config.optimizer.batch_size = 2
  config.optimizer.warmup_epochs = 0.0
  config.update_from_flattened_dict(values)
  return config


@pytest.fixture(scope="module")
def run(tiny_dataset_path, tmp_path_factory):
  """A run of 3 steps on the 3 clips of a split without labels: its folder and its last state."""
  workdir = tmp_path_factory.mktemp("pretrained")
  return workdir, loop.train(toy_config(tiny_dataset_path), workdir)


def test_clips_without_labels_train_a_transformer(run, caplog):
  workdir, state = run
  spec, variables, step = load_model(workdir)
  assert step == 3
  assert spec.pretrains
  jax.tree.map(np.testing.assert_array_equal, variables["params"], jax.device_get(state.params))
  with pytest.raises(ValueError, match="comes from pretraining and has no classes yet"):
    spec.predict(variables, {})


def test_what_pretraining_cannot_do_is_said_before_a_folder_is_touched(tiny_dataset_path, tmp_path):
  config = toy_config(tiny_dataset_path)
  config.eval.every_epochs = 1.0
  with pytest.raises(ValueError, match=r"nothing to evaluate; set eval\.every_epochs=0"):
    loop.train(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("variant", ["vit_pcan_pose", "vit"])
def test_runs_start_from_it(run, tiny_dataset, variant, caplog):
  workdir, _ = run
  config = shrink(ma52.get_config(variant))
  config.optimizer.ema = 0.9
  config.init_from.rgb = str(workdir)
  spec = ModelSpec(config, tiny_dataset.tree, tiny_dataset.layout, tiny_dataset.stored_size)
  fresh = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(spec.init))
  with caplog.at_level(logging.INFO, "pcan_jax"):
    started = warm_start.initialize(fresh, spec)
  path = started["params"]["backbone"]["rgb_path"]
  wanted = load_model(workdir)[1]["params"]["backbone"]["rgb_path"]
  jax.tree.map(np.testing.assert_array_equal, path, wanted)
  assert "not used from" in caplog.text
  assert "decoder" in caplog.text


def test_only_tubes_that_are_seen_reach_the_encoder():
  model = build_masked_autoencoder(toy_config().model, CPU)
  frames = jax.random.normal(jax.random.key(0), (2, 2, 32, 32, 3))
  encoder = Encoder(model.rgb, jnp.float32, "none", CPU)
  key = {"params": jax.random.key(1), "dropout": jax.random.key(2)}
  start = jax.jit(encoder.init_with_output, static_argnums=(2, 3))
  encode = jax.jit(encoder.apply, static_argnums=(2, 3))
  (tokens, order), variables = start(key, frames, 4, False)
  assert tokens.shape == (2, 1, 4, 16)
  assert sorted(order[0].tolist()) == list(range(16))
  assert (order[0] != order[1]).any()

  def change(where):
    """Whether the tokens change with the pixels of a tube of the first clip."""
    row, column = divmod(int(where), 4)
    other = frames.at[0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].add(1.0)
    found, _ = encode(variables, other, 4, False, rngs={"dropout": key["dropout"]})
    return not np.allclose(found[0], tokens[0], atol=1e-6)

  found, again = encode(variables, frames, 4, False, rngs={"dropout": key["dropout"]})
  np.testing.assert_array_equal(again, order)
  assert change(order[0, 3])
  assert not change(order[0, 4])


def test_targets_are_normalised_by_colour():
  model = build_masked_autoencoder(toy_config().model, CPU)
  frames = 5 + 3 * jax.random.normal(jax.random.key(0), (1, 2, 16, 16, 3))
  found = normalised(tubelets(frames, model.rgb)).reshape(1, 1, 2, 2, -1, 3)
  np.testing.assert_allclose(found.mean(-2), 0, atol=1e-5)
  np.testing.assert_allclose(found.std(-2), 1, atol=1e-4)


@pytest.mark.slow
def test_hidden_pixels_can_be_learned(tiny_dataset_path):
  config = toy_config(tiny_dataset_path)
  config.optimizer.learning_rate = 0.3
  run = loop.prepare(config)
  init, step = loop.compile_step(run.spec, lambda _: 3e-3, run.mesh)
  state, batch, errors = init(), next(run.batches()), []
  for _ in range(30):
    state, terms = step(state, batch)
    errors.append(float(terms["loss"]))
  assert np.mean(errors[-5:]) < 0.8 * errors[0]


def test_what_pretraining_cannot_do_is_said(tiny_dataset_path, caplog):
  with caplog.at_level(logging.INFO, "pcan_jax"):
    preflight.dry_run(toy_config(tiny_dataset_path))
  assert "rgb, masked video modelling" in caplog.text
  with pytest.raises(ValueError, match="no labels that one batch could be overfitted to"):
    preflight.overfit_batch(toy_config(tiny_dataset_path))
  config = toy_config()
  config.model.streams = ("rgb", "pose")
  with pytest.raises(ValueError, match=r"pretraining needs model\.streams=\('rgb',\)"):
    build_masked_autoencoder(config.model, CPU)
  with pytest.raises(ValueError, match=r"model\.decoder\.mask must be between 0 and 1"):
    build_masked_autoencoder(toy_config(**{"model.decoder.mask": 1.0}).model, CPU)

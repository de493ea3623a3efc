"""What breaks a run stops it at once, is named, and costs no checkpoint."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ma52
from pcan_jax.checkpoints import load_model, locate
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.training import loop
from tests.tiny_config import shrink


@pytest.fixture
def config(tiny_dataset_path):
  config = shrink(ma52.get_config("posec3d_pose"))
  config.data.path = str(tiny_dataset_path)
  config.eval.every_epochs = 0.0
  config.log_every = 100
  config.optimizer.epochs = 4.0  # 8 steps
  config.checkpoints.every_epochs = 0.5  # every step
  return config


def poison(monkeypatch, at_step):
  """One clip of a step gets infinite scores, as a pose file of an estimator once had."""
  batches = loop.TrainingRun.batches

  def poisoned(self, start_step=0):
    for step, batch in enumerate(batches(self, start_step), start_step + 1):
      if step == at_step:
        scores = batch["keypoint_scores"]
        batch["keypoint_scores"] = scores.at[3].set(jnp.inf)
      yield batch

  monkeypatch.setattr(loop.TrainingRun, "batches", poisoned)


def assert_finite(workdir):
  _, variables, step = load_model(workdir)
  assert all(np.isfinite(array).all() for array in jax.tree.leaves(jax.device_get(variables)))
  return step


@pytest.mark.slow
def test_the_step_its_terms_and_its_clips_are_named(config, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    poison(patch, at_step=5)
    with pytest.raises(FloatingPointError, match="step 5: the loss is nan") as error:
      loop.train(config, tmp_path)
  assert "of its terms, pose/ce_action" in str(error.value)
  assert "of its inputs, keypoint_scores" in str(error.value)

  failure = json.loads((tmp_path / "failed_batch" / "step-5.json").read_text())
  assert failure["step"] == 5 and failure["terms"]["pose/ce_action"] == "nan"
  with np.load(tmp_path / "failed_batch" / "step-5-host0.npz") as arrays:
    assert np.isinf(arrays["keypoint_scores"][3]).all()
    actions = arrays["action"]
  dataset = open_dataset(config.data.path)
  known = dict(zip(dataset.clip_ids("train"), dataset.actions("train")))
  assert sorted(known[clip] for clip in failure["clips"]) == sorted(actions)
  assert len(set(failure["clips"])) == 8 and failure["clips"][0] in str(error.value)

  assert assert_finite(tmp_path) == 4  # the next start uses it
  loop.train(config, tmp_path)
  assert assert_finite(tmp_path) == 8


@pytest.mark.long
def test_no_update_that_is_not_finite_is_saved(config, tmp_path, monkeypatch):
  """The loss of the step is finite, the parameters after it are not."""
  config.optimizer.learning_rate, config.optimizer.weight_decay = 1e10, 1e38
  with pytest.raises(FloatingPointError, match="step 1: the parameters after the update"):
    loop.train(config, tmp_path)
  with pytest.raises(FileNotFoundError):
    locate(tmp_path)
  config.checkpoints.every_epochs = 10.0
  with pytest.raises(FloatingPointError, match="step 2: the loss is"):
    loop.train(config, tmp_path)

import logging

import pytest

from configs import ma52
from pcan_jax.training import loop, preflight
from tests.tiny_config import shrink


@pytest.fixture(params=["pcan_pose", pytest.param("pcan", marks=pytest.mark.long)])
def config(request, tiny_dataset_path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = shrink(ma52.get_config(request.param))
  config.data.path = str(tiny_dataset_path)
  config.optimizer.learning_rate = 0.02
  return config


def test_a_dry_run_does_everything_once_and_writes_nothing(config, tmp_path, caplog):
  with caplog.at_level(logging.INFO, "pcan_jax"):
    preflight.dry_run(config)
  facts = ("1 x cpu", "16 clips per epoch, uniform", "8 clips, 8 per device", "step 0", "0.016")
  for fact in facts:
    assert fact in caplog.text
  assert "7 videos evaluated, nothing written" in caplog.text
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("config", ["pcan_pose"], indirect=True)
def test_a_missing_split_is_noticed_before_training(config, caplog):
  """Not at the first evaluation, after hours and with the steps since the last save lost."""
  config.data.eval_split = "dev"
  with pytest.raises(ValueError, match=r"has no split 'dev' to evaluate .*it has .*'val'"):
    loop.prepare(config)
  config.eval.every_epochs = 0.0
  assert loop.prepare(config).order.num_clips == 16
  with caplog.at_level(logging.INFO, "pcan_jax"):
    preflight.dry_run(config)
  assert "nothing evaluated, nothing written" in caplog.text


@pytest.mark.long
@pytest.mark.parametrize("config", ["pcan"], indirect=True)
def test_one_batch_is_overfitted_or_the_losses_are_named(config):
  before = config.to_dict()
  with pytest.raises(FloatingPointError, match="could not overfit .* in 1 steps: pose/ce_action"):
    preflight.overfit_batch(config, max_steps=1)
  assert preflight.overfit_batch(config) <= preflight.OVERFIT_STEPS
  assert config.to_dict() == before

"""The command line as a user meets it, in processes of its own."""

import json
import os
import subprocess
import sys

import pytest

# What tests/tiny_config.py does to a config, as flags.
TOY = """
--config.input.train_size=32 --config.input.test_size=32
--config.input.rgb_frames=2 --config.input.pose_frames=8
--config.model.rgb.stem_features=8 --config.model.rgb.widths=(8,8,8,8)
--config.model.rgb.blocks=(1,1,1,1) --config.model.pose.stem_features=8
--config.model.pose.blocks=(1,1,1) --config.model.pose.widths=(8,8,8)
--config.optimizer.batch_size=8 --config.optimizer.epochs=1 --config.eval.num_clips=1
--config.eval.batch_size=8
""".split()


def launch(*arguments):
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
  return subprocess.run(
    [sys.executable, "launch.py", *map(str, arguments)],
    capture_output=True,
    text=True,
    env=environment,
    timeout=300,
  )


@pytest.fixture(scope="module")
def trained(tiny_dataset_path, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  result = launch(
    "--config=configs/ma52.py",
    f"--workdir={workdir}",
    f"--config.data.path={tiny_dataset_path}",
    *TOY,
  )
  assert result.returncode == 0, result.stderr
  return workdir, result


def test_training_ends_with_the_table(trained):
  workdir, result = trained
  assert "clips/s" in result.stdout and "ETA" in result.stdout
  for text in ("body top-1", "F1 mean", "fused", "rgb", "pose"):
    assert text in result.stdout
  assert (workdir / "eval/val/metrics.json").is_file()


def test_evaluation_needs_the_checkpoint_alone(trained):
  workdir, _ = trained
  before = json.loads((workdir / "eval/val/metrics.json").read_text())
  result = launch("--mode=eval", f"--workdir={workdir}")
  assert result.returncode == 0, result.stderr
  assert json.loads((workdir / "eval/val/metrics.json").read_text()) == before
  assert "fused" in result.stdout


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config=configs/ma52.py", "--workdir=OUT"], "MA-52 is under licence"),
    (["--mode=eval", "--workdir=OUT"], "no checkpoint at"),
    (["--workdir=OUT"], "needs --config and --workdir"),
    (["--config=configs/ma52.py:pcan_depth", "--workdir=OUT"], "no variant 'pcan_depth'"),
    (["--config=configs/ma52.py", "--config.optimizer.lr=1", "--workdir=OUT"], "lr"),
  ],
)
def test_mistakes_are_answered_in_words(tmp_path, arguments, message):
  result = launch(*(argument.replace("OUT", str(tmp_path)) for argument in arguments))
  assert result.returncode != 0
  assert message in result.stderr + result.stdout

import subprocess
import sys

import jax
import numpy as np
import pytest

from pcan_jax import describe
from pcan_jax.checkpoints import Checkpoints
from pcan_jax.saved_steps import SavedStep
from tests.tiny_checkpoint import write_tiny_checkpoint


def described(path, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["pcan describe", str(path)])
  describe.main()
  return capsys.readouterr().out


@pytest.fixture
def workdir(tiny_dataset, tmp_path):
  """With a checkpoint as training writes it, a damaged one before it, and something else."""
  write_tiny_checkpoint(tmp_path, tiny_dataset)
  saved = SavedStep(tmp_path / "checkpoints", 0)
  run = {
    "dataset": {"path": "datasets/mine", "fingerprint": tiny_dataset.fingerprint},
    "allowed_changes": [{"step": 0, "name": "seed", "was": 0, "now": 5}],
  }
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), saved.shapes("model"))
  with Checkpoints(tmp_path / "checkpoints") as checkpoints:
    checkpoints.save(8, zeros, {"step": np.int32(8)}, saved.spec, run=run, f1_mean=0.25)
  (tmp_path / "checkpoints/0/model/manifest.ocdbt").unlink()
  (tmp_path / "checkpoints/8.bak").mkdir()
  return tmp_path


def test_all_that_a_checkpoint_records_is_said(workdir, tiny_dataset, monkeypatch, capsys):
  text = described(workdir, monkeypatch, capsys)
  saved = SavedStep(workdir / "checkpoints", 8)
  packages = saved.description["made_with"]["packages"]
  for part in (
    saved.digest,
    tiny_dataset.fingerprint,
    "seed from 0 to 5 at step 0",
    "F1 mean  25.00 %",
    "6 actions, 3 body parts",
    f"orbax-checkpoint {packages['orbax-checkpoint']}",
    saved.description["made_with"]["devices"],
    "step 0 (damaged: model/manifest.ocdbt is missing), 8.bak (no checkpoint)",
    '"learning_rate": 0.0075',
  ):
    assert part in text
  assert described(workdir / "best", monkeypatch, capsys) == text


def test_an_earlier_checkpoint_is_described_as_far_as_it_goes(monkeypatch, capsys):
  text = described("tests/earlier/run", monkeypatch, capsys)
  assert "fingerprint  not recorded" in text and "beside it  nothing" in text


def test_a_damaged_checkpoint_ends_in_one_line(workdir, tmp_path):
  command = [sys.executable, "launch.py", "describe", str(workdir / "checkpoints/0")]
  result = subprocess.run(command, capture_output=True, text=True)
  assert result.returncode == 1 and result.stderr.count("\n") == 1
  assert "0 is damaged: model/manifest.ocdbt is missing" in result.stderr

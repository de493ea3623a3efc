"""The script for accelerators, with a toy network on whatever is there."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

from benchmarks import accelerator, accelerator_parts, kernel_profile
from tests.test_benchmarks import ROOT, TOY_CONFIG

QUICK = ("machine", "training:float32:64", "evaluation:float16:20")
SLOW = (
  "equality",
  "evaluation:float32:20",
  "resume:float32:64",
  "preprocessing:float32:64",
  "together:float32:64:2",
  "training:float32:64:pool=window:remat=norms",
)


def run_parts(parts, directory):
  """The rows of results by part."""
  (directory / "toy.py").write_text(TOY_CONFIG)
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
  }
  options = ["--toy", "--config", directory / "toy.py", "--results", directory / "results"]
  ended = subprocess.run(
    [sys.executable, "-m", "benchmarks.accelerator", *options, "--jobs", "2", "--parts", *parts],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 0, ended.stderr
  found = {}
  for line in (directory / "results" / "results.jsonl").read_text().splitlines():
    row = json.loads(line)
    found.setdefault(row.pop("part"), {}).update(row)
  return found


@pytest.mark.slow
def test_a_part_that_fails_costs_that_part(tmp_path):
  rows = run_parts(QUICK, tmp_path)
  assert set(rows) == set(QUICK)
  assert "model.dtype must be float32 or bfloat16" in rows[QUICK[-1]].pop("failed")
  assert [part for part in QUICK if "failed" in rows[part]] == []
  assert min(rows[part]["seconds"] for part in QUICK) > 0
  assert rows["training:float32:64"]["clips_per_s"] > 0


@pytest.mark.long
def test_the_same_program_repeats_to_the_bit_and_equals_itself(tmp_path):
  rows = run_parts(SLOW, tmp_path)
  assert set(rows) == {*SLOW, "resumed:float32:64"}
  assert [part for part in SLOW if "failed" in rows[part]] == []
  assert min(rows[part]["seconds"] for part in SLOW) > 0
  assert rows["resume:float32:64"]["differing_when_repeated"] == 0
  assert rows["resume:float32:64"]["differing_when_resumed"] == 0
  assert rows["equality"]["precision"] == "bfloat16"
  assert rows["equality"]["loss"] < 1e-2


def test_what_does_not_fit_the_budget_is_left_out(tmp_path):
  accelerator.main(["--budget", "1", "--parts", "machine", "--results", str(tmp_path)])
  row = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])
  assert row["skipped"].endswith("left of the budget, 20 needed")


def test_unknown_parts_are_named(capsys):
  with pytest.raises(SystemExit):
    accelerator.main(["--parts", "trainign:float32:64"])
  assert "no part 'trainign:float32:64'; there are equality, evaluation" in capsys.readouterr().err


def test_kernels_are_summed_by_class():
  kernels = {
    "cudnn-conv.1 sm90_xmma_fprop_implicit_gemm_bf16": [3.0, 1.0],
    "command_buffer_7 nvjet_sm90_tst_64x256_v_badd_TNN": [2.0, 2.0],
    "command_buffer_7 input_reduce_fusion_3": [1.0, 1.0],
    "command_buffer_7 loop_add_fusion": [0.5, 1.0],
    "MemcpyD2D": [0.25, 4.0],
  }
  summary = kernel_profile.Profile(3, kernels, busy_ms=6.5, span_ms=7.0).summary(longest=1)
  assert summary["classes_ms"] == {
    "convolution": [3.0, 1.0],
    "product": [2.0, 2.0],
    "sum": [1.0, 1.0],
    "elementwise": [0.5, 1.0],
    "copy": [0.25, 4.0],
  }
  assert list(summary["longest_ms"]) == ["cudnn-conv.1 sm90_xmma_fprop_implicit_gemm_bf16"]


def test_a_part_that_measures_stops_the_others(tmp_path):
  running = tmp_path / "scratch" / "running"
  running.mkdir(parents=True)
  other = subprocess.Popen([sys.executable, "-c", "while True: pass"], process_group=0)
  (running / "1").touch()  # as left by a part that has ended
  try:
    with (running / str(other.pid)).open("w") as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      with accelerator_parts.Setting(tmp_path, "demo", toy=True).alone():
        assert os.WIFSTOPPED(os.waitpid(other.pid, os.WUNTRACED)[1])
      assert os.WIFCONTINUED(os.waitpid(other.pid, os.WCONTINUED)[1])
  finally:
    other.kill()
    other.wait()

"""The benchmarks at toy size: that they run and add up, not how fast anything is."""

import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from benchmarks import collectives, step, timing, workload
from pcan_jax.config import load_config

ROOT = pathlib.Path(__file__).parents[1]

TOY_CONFIG = """
from pcan_jax.config import load_config

def get_config(variant="pcan_pose"):
  config = load_config(f"ma52:{variant}")
  config.input.update(pose_frames=4, train_size=32, test_size=32)
  config.model.pose.update(
    stem_features=4, blocks=(1,), widths=(4,), spatial_strides=(2,), temporal_kernels=(1,)
  )
  config.model.update(action_embedding=8, body_embedding=4, dropout=0.0)
  return config
"""

# Simulated devices have to be asked for before the others use JAX, so scaling is the first. Many of
# the programs are the same, and compiled once.
RUN_ALL = """
import json, sys
from benchmarks import compiled, scaling, step
config = sys.argv[1]
scaling.main(["--config", config, "--small_config", config, "--devices", "1", "4", "--batch", "4",
  "--rate", "100", "--clips_per_device", "2"])
step.main(["--configs", config, "--dtypes", "float32", "--batches", "4", "--repeats", "2",
  "--overhead_repeats", "2", "--kinds", "training", "evaluation"])
baseline = f"{config}:posec3d_pose"
compiled.main(["--config", baseline, "--dtypes", "float32", "--batches", "2", "4",
  "--sizes", "16", "32"])
print(json.dumps({"benchmark": "imports", "modules": list(sys.modules)}))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  """The JSON of benchmarks that run on the same config."""
  directory = tmp_path_factory.mktemp("benchmarks")
  (directory / "toy.py").write_text(TOY_CONFIG)
  # Compilation takes nearly all the time; its results are kept for the next run, see conftest.py.
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
  }
  output = subprocess.run(
    [sys.executable, "-W", "error", "-c", RUN_ALL, directory / "toy.py"],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert output.returncode == 0, output.stderr
  lines = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]
  return {line["benchmark"]: line for line in lines}


@pytest.mark.slow
def test_steps_need_nothing_that_reads_data(results):
  loaded = set(results["imports"]["modules"])
  assert "benchmarks.collectives" in loaded
  assert loaded.isdisjoint(["tensorflow", "tensorflow_datasets", "clu", "av"])


@pytest.mark.slow
def test_steps_are_measured_with_their_costs(results):
  rows = results["step"]["steps"]
  assert [(row["step"], row["batch"]) for row in rows] == [("training", 4), ("evaluation", 4)]
  for row in rows:
    assert row["clips/s"] == pytest.approx(4e3 / row["ms"])
    assert row["GFLOP/s"] > 0
    assert row["compiled GB"] > 0
  # A training step computes the forward pass, and its gradient.
  operations = [row["GFLOP/s"] * row["ms"] for row in rows]
  assert operations[0] > 2 * operations[1]
  assert [row["batch"] for row in results["step"]["prototypes"]] == [4]


@pytest.mark.slow
def test_any_number_of_devices_computes_the_same(results):
  one, four = results["scaling"]["equality"]
  assert (one["collectives"], one["devices"], four["devices"]) == (0, 1, 4)
  assert four["collectives"] > 0
  assert four["loss"] == pytest.approx(one["loss"], rel=1e-4)
  assert four["difference of the change"] < 1e-3


@pytest.mark.slow
def test_speed_is_predicted_for_the_given_rate(results):
  rows = results["scaling"]["predicted"]
  assert {row["clips per device"] for row in rows} == {2}
  assert {row["ms computing"] for row in rows} == {20.0}


@pytest.mark.slow
def test_gradients_are_what_devices_exchange(results):
  """Each parameter's gradient once, and some statistics of batches."""
  found = results["scaling"]["collectives"]
  number, num_bytes = found["all-reduce"]
  parameters = results["scaling"]["parameters"]
  assert 4 * parameters < num_bytes < 8 * parameters
  assert number > 1


@pytest.mark.slow
def test_memory_grows_with_the_batch(results):
  rows = results["compiled"]["batches"]
  assert [row["step"] for row in rows] == ["training", "evaluation"]
  for row in rows:
    assert row["MB per clip"] > 0
    assert 0 < row["batch in 16 GB"] < row["batch in 32 GB"]


def test_collectives_are_read_from_a_program():
  text = """
  %all-reduce.1 = (f32[64]{0}, bf16[2,8]{1,0}) all-reduce(%a, %b), channel_id=1, to_apply=%add
  %start = (f32[4]{0}, f32[32]{0}) all-gather-start(%c), dimensions={0}
  %done = f32[32]{0} all-gather-done(%start)
  %all-reduce.2 = f32[] all-reduce(%d), channel_id=2, to_apply=%add
  %add.3 = f32[64]{0} add(%all-reduce.1, %e)
  """
  found = collectives.find(text)
  assert collectives.by_kind(found) == {
    "all-reduce": (2, 64 * 4 + 16 * 2 + 4),
    "all-gather": (1, 128),
  }


def test_rings_send_over_their_slowest_link():
  cluster = collectives.Cluster(per_host=8, within_host=100.0, between_hosts=10.0, latency=1.0)
  found = [collectives.Collective("all-reduce", 800)]
  assert cluster.seconds(found, 1) == 0
  assert cluster.seconds(found, 8) == pytest.approx(2 * 7 / 8 * 800 / 100 + 3)
  assert cluster.seconds(found, 16) == pytest.approx(2 * 15 / 16 * 800 / 10 + 4)


def test_timing_is_the_median_without_the_first_call(monkeypatch):
  ticks = iter([0.0, 9.0, 10.0, 11.0, 20.0, 22.0, 30.0, 36.0])
  monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
  measured = timing.measure(lambda: None, repeats=3, warmup=1)
  assert measured == timing.Timing((1.0, 2.0, 6.0))
  assert (measured.minimum, measured.median, measured.maximum) == (1.0, 2.0, 6.0)


def test_a_ratio_is_of_the_same_turn():
  slower_and_slower = timing.Timing((1.0, 2.0, 4.0))
  assert slower_and_slower.ratios(timing.Timing((1.0, 1.0, 1.0))) == [1.0, 2.0, 4.0]
  assert slower_and_slower.ratios(timing.Timing((0.5, 1.0, 2.0))) == [2.0, 2.0, 2.0]


def test_functions_are_timed_in_turns():
  calls = []
  functions = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
  assert timing.measure_interleaved(functions, repeats=2, warmup=1).keys() == {"a", "b"}
  assert calls == ["a", "b"] * 3


def test_tables_are_aligned(capsys):
  timing.print_table(["name", "ms"], [["a", 1234.5], ["longer", 0.012345]])
  assert capsys.readouterr().out == (
    "|   name |     ms |\n| ------ | ------ |\n|      a |   1234 |\n| longer | 0.0123 |\n"
  )


def test_made_up_batches_fit_the_config():
  spec = workload.model_spec(load_config("demo"), "training")
  batch = workload.made_up_batch(spec.batch_shapes(2), spec.stored_size)
  assert {name: values.shape for name, values in batch.items()} == {
    "rgb": (2, 4, 64, 64, 3),
    "keypoints": (2, 8, 1, 28, 2),
    "keypoint_scores": (2, 8, 1, 28),
  }
  assert np.all(batch["keypoints"] < 64)


def test_everything_can_be_run_with_one_command():
  script = ROOT / "benchmarks" / "run_all.sh"
  assert os.access(script, os.X_OK)
  subprocess.run(["bash", "-n", script], check=True)
  unknown = subprocess.run([script, "--fast"], capture_output=True, text=True)
  assert unknown.returncode == 2
  assert "unknown argument --fast" in unknown.stderr


def test_overhead_is_measured_at_one_of_the_batches(capsys):
  with pytest.raises(SystemExit):
    step.parse(["--batches", "1", "4", "--overhead_batch", "2"])
  assert "--overhead_batch=2 is not one of --batches" in capsys.readouterr().err
  assert step.parse(["--batches", "1", "4", "--overhead_batch", "0"]).overhead_batch == 0

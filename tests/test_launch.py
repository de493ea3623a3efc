"""The command line as a user meets it, in processes of its own."""

import functools
import json
import os
import re
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from pcan_jax import cpu
from pcan_jax.evaluation.results import Results

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


def environment(**variables):
  """Of a process that need not start again for the settings, and compiles in half the time."""
  chosen = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
  return chosen | cpu.settings(chosen) | variables


def start(*arguments, **variables):
  return subprocess.Popen(
    [sys.executable, "launch.py", *map(str, arguments)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=environment(**variables),
  )


def finish(process):
  try:
    stdout, stderr = process.communicate(timeout=300)
  finally:
    process.kill()
  return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def free_port():
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return probe.getsockname()[1]


def launch(*arguments):
  return finish(start(*arguments))


@pytest.fixture(scope="module")
def trained(tiny_dataset_path, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  result = launch(
    "--config=ma52",
    f"--workdir={workdir}",
    f"--config.data.path={tiny_dataset_path}",
    *TOY,
  )
  assert result.returncode == 0, result.stderr
  return workdir, result


@pytest.mark.slow
def test_training_ends_with_the_table(trained):
  workdir, result = trained
  assert "clips/s" in result.stdout and "ETA" in result.stdout
  assert "Warning" not in result.stderr
  for text in ("body top-1", "F1 mean", "fused", "rgb", "pose"):
    assert text in result.stdout
  assert (workdir / "eval/val/metrics.json").is_file()


def test_compiled_programs_are_kept_with_an_accelerator_too(tmp_path):
  """With one, the program does not start itself again."""
  code = """if True:
    import os, sys
    from pcan_jax import cli
    def run():
      import jax
      print(jax.config.jax_compilation_cache_dir)
    os.execv = lambda *_: None
    cli.run_mode = run
    sys.argv = ["pcan", "--mode=eval"]
    cli.main()
  """
  variables = environment(XDG_CACHE_HOME=str(tmp_path))
  variables.pop("JAX_COMPILATION_CACHE_DIR")
  result = subprocess.run(
    [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
  )
  assert result.stdout.strip() == str(tmp_path / "pcan_jax")


@pytest.mark.slow
def test_evaluation_needs_the_checkpoint_alone(trained):
  workdir, _ = trained
  before = json.loads((workdir / "eval/val/metrics.json").read_text())
  result = launch("--mode=eval", f"--workdir={workdir}")
  assert result.returncode == 0, result.stderr
  assert json.loads((workdir / "eval/val/metrics.json").read_text()) == before
  assert "fused" in result.stdout


@pytest.mark.slow
def test_a_split_that_is_not_there_is_not_evaluated_after_training(tiny_dataset_path, tmp_path):
  given = (
    "--config=ma52:pcan_pose",
    f"--config.data.path={tiny_dataset_path}",
    "--config.data.eval_split=dev",
    "--config.eval.every_epochs=0",
    *(flag for flag in TOY if ".rgb" not in flag),
  )
  result = launch(f"--workdir={tmp_path / 'run'}", *given)
  assert result.returncode == 0, result.stderr
  assert "the model will not be evaluated" in result.stderr + result.stdout
  assert not (tmp_path / "run/eval").exists()
  result = launch(f"--workdir={tmp_path / 'other'}", "--split=dev", *given)
  assert result.returncode == 1 and "choose another --split" in result.stderr
  assert not (tmp_path / "other").exists()


def slurm_job(num_hosts):
  """Per host the variables of a job on this machine, as JAX finds them under Slurm."""
  port = free_port()
  job = {
    "JAX_COORDINATOR_PORT": str(port),
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": str(num_hosts),
  }
  return [
    job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(num_hosts)
  ]


@pytest.mark.long
def test_two_hosts_train_and_evaluate_together(tiny_dataset_path, tmp_path):
  """Each has a device and reads its share; one writes and speaks."""
  hosts = [
    start(
      "--multi_host",
      "--config=configs/ma52.py:pcan_pose",
      f"--workdir={tmp_path}",
      f"--config.data.path={tiny_dataset_path}",
      *TOY,
      **job,
    )
    for job in slurm_job(2)
  ]
  first, second = map(finish, hosts)
  assert first.returncode == 0, first.stderr
  assert second.returncode == 0, second.stderr
  assert "2 x cpu" in first.stdout and "fused" in first.stdout
  assert all(line.startswith(("[Gloo]", "waiting")) for line in second.stdout.splitlines())

  def results():
    results = Results.read(tmp_path / "eval/val")
    order = np.argsort(results.ids)
    scores = jax.tree.map(lambda values: values[order], results.outputs)
    return np.array(results.ids)[order], results.actions[order], results.metrics, scores

  *about, scores = results()
  alone = launch("--mode=eval", f"--workdir={tmp_path}")
  assert alone.returncode == 0, alone.stderr
  *about_alone, scores_alone = results()
  jax.tree.map(np.testing.assert_array_equal, about, about_alone)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, scores, scores_alone)


def wait_for(condition, process, seconds=300):
  deadline = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.1)


@pytest.mark.long
def test_a_host_may_come_late_and_if_it_dies_the_others_end(tiny_dataset_path, tmp_path):
  """Each of them with one line; one host alone goes on from the last checkpoint."""
  run = ["--config=ma52:pcan_pose", f"--workdir={tmp_path}", *TOY]
  run += [f"--config.data.path={tiny_dataset_path}", "--config.optimizer.epochs=20"]
  together = ["--multi_host", "--num_hosts=2", f"--coordinator=localhost:{free_port()}"]
  first = start(*run, *together, "--host=0")
  time.sleep(5)
  # By the environment instead of a flag.
  second = start(*run, *together, JAX_PROCESS_ID="1")
  wait_for((tmp_path / "checkpoints" / "4").is_dir, first)
  second.kill()
  killed = time.monotonic()
  finish(second)
  ended = finish(first)
  assert time.monotonic() - killed < 60
  assert ended.returncode
  assert "waiting up to 300 s for 2 hosts" in ended.stdout
  assert re.fullmatch(r"(.*\n)?error: .*host.* was lost, so this one ends too;.*\n", ended.stderr)
  alone = launch(*run)
  assert alone.returncode == 0, alone.stderr
  assert "(resumed)" in alone.stdout and "fused" not in alone.stderr


@pytest.mark.slow
def test_a_host_that_fails_does_not_wait_for_the_others(tmp_path):
  """It says why at once, and the other one ends too."""
  together = ["--multi_host", "--num_hosts=2", f"--coordinator=localhost:{free_port()}"]
  hosts = [
    start("--mode=eval", f"--workdir={tmp_path}/{host}", *together, f"--host={host}")
    for host in range(2)
  ]
  began = time.monotonic()
  for host, result in enumerate(map(finish, hosts)):
    assert result.returncode
    assert "no checkpoint at" in result.stderr or "was lost" in result.stderr, host
    assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr
  assert time.monotonic() - began < 100


@pytest.mark.slow
def test_hosts_that_do_not_come_are_not_waited_for_longer_than_said(tmp_path):
  address = f"localhost:{free_port()}"
  result = launch(
    "--mode=eval",
    f"--workdir={tmp_path}",
    "--multi_host",
    "--num_hosts=2",
    "--host=1",
    f"--coordinator={address}",
    "--wait=3",
  )
  assert result.returncode
  assert "waiting up to 3 s for 2 hosts" in result.stdout
  expected = f"error: 2 hosts did not come together at {address} within 3 s; start all of them"
  assert result.stderr.startswith(expected) and len(result.stderr.splitlines()) == 1

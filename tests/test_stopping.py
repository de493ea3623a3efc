"""A run that is told to stop saves first; a working directory belongs to one run."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import ma52
from pcan_jax.checkpoints import locate
from pcan_jax.saved_steps import find_steps
from pcan_jax.training import loop
from pcan_jax.training.workdir import claimed
from tests.test_launch import environment, finish, slurm_job, start
from tests.tiny_config import shrink

TOY = """
--config=ma52:posec3d_pose --config.input.train_size=32 --config.input.test_size=32
--config.input.pose_frames=8 --config.model.pose.stem_features=8
--config.model.pose.widths=(8,8,8) --config.model.pose.blocks=(1,1,1)
--config.optimizer.batch_size=8 --config.optimizer.epochs=100000 --config.eval.every_epochs=0
--config.checkpoints.every_epochs=0 --config.log_every=5
""".split()


@pytest.fixture(scope="module")
def whole_config(tiny_dataset_path):
  config = shrink(ma52.get_config("posec3d_pose"))
  config.data.path = str(tiny_dataset_path)
  config.eval.every_epochs = 0.0
  config.optimizer.epochs = 3.0  # 6 steps
  config.checkpoints.every_epochs = 10.0
  return config


@pytest.fixture
def config(whole_config):
  return whole_config.copy_and_resolve_references()


@pytest.fixture(scope="module")
def whole(whole_config, tmp_path_factory):
  """The working directory of a run that nobody stops and saves by the clock, and its last state."""
  config = whole_config.copy_and_resolve_references()
  config.checkpoints.every_minutes = 1e-9
  config.checkpoints.keep = 9
  workdir = tmp_path_factory.mktemp("whole")
  return workdir, loop.train(config, workdir)


def send_at(monkeypatch, step, number):
  """Sends this process a signal while a step is taken."""
  compile_step = loop.compile_step

  def compile_with_signal(*arguments):
    init, step_fn = compile_step(*arguments)

    def signalling_step(state, batch):
      if int(state.step) == step - 1:
        signal.raise_signal(number)
      return step_fn(state, batch)

    return init, signalling_step

  monkeypatch.setattr(loop, "compile_step", compile_with_signal)


@pytest.mark.parametrize(
  ("number", "error", "code"),
  [
    (signal.SIGTERM, SystemExit, 143),
    pytest.param(signal.SIGINT, KeyboardInterrupt, None, marks=pytest.mark.slow),
  ],
)
def test_a_stopped_run_saves_and_goes_on_from_there(
  config, whole, tmp_path, monkeypatch, number, error, code
):
  handler = signal.getsignal(number)
  with monkeypatch.context() as patch:
    send_at(patch, 4, number)
    with pytest.raises(error) as raised:
      loop.train(config, tmp_path / "run")
  assert getattr(raised.value, "code", None) == code
  assert signal.getsignal(number) == handler
  assert locate(tmp_path / "run")[1] == 4
  found = loop.train(config, tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, found.model(), whole[1].model())


@pytest.mark.slow
def test_an_evaluation_is_left_unfinished(config, tmp_path, monkeypatch):
  config.eval.every_epochs = 1.0
  monkeypatch.setattr(loop, "_evaluate", lambda *_: signal.raise_signal(signal.SIGTERM))
  with pytest.raises(SystemExit):
    loop.train(config, tmp_path)
  assert locate(tmp_path)[1] == 2


def test_checkpoints_are_saved_by_the_clock(whole):
  workdir, _ = whole
  assert [saved.step for saved in find_steps(workdir / "checkpoints")] == [6, 5, 4, 3, 2, 1]


def wait_for(process, text):
  """Reads what a process prints until it holds a text."""
  for line in process.stdout:
    if text in line:
      return
  raise AssertionError(process.stderr.read())


@pytest.mark.long
def test_two_runs_cannot_share_a_folder_and_sigterm_ends_with_143(tiny_dataset_path, tmp_path):
  process = start(*TOY, f"--config.data.path={tiny_dataset_path}", f"--workdir={tmp_path}")
  try:
    wait_for(process, "step 5/")
    with pytest.raises(ValueError, match=rf"in use by process {process.pid} on .* since 20"):
      with claimed(tmp_path):
        pass
    process.send_signal(signal.SIGTERM)
  finally:
    result = finish(process)
  assert result.returncode == 143 and "Traceback" not in result.stderr
  step = locate(tmp_path)[1]
  assert f"stopped; step {step} is saved" in result.stdout
  with claimed(tmp_path):
    assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()


def test_a_crash_releases_the_folder(tmp_path):
  code = """if True:
    import pathlib, sys, time
    from pcan_jax.training.workdir import claimed
    with claimed(pathlib.Path(sys.argv[1])):
      print("claimed", flush=True)
      time.sleep(600)
  """
  process = subprocess.Popen(
    [sys.executable, "-c", code, str(tmp_path)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=environment(),
    cwd=pathlib.Path(__file__).parents[1],
  )
  wait_for(process, "claimed")
  with pytest.raises(ValueError, match=rf"process {process.pid}"), claimed(tmp_path):
    pass
  process.kill()
  process.communicate()
  with claimed(tmp_path):
    pass


@pytest.mark.long
def test_several_hosts_stop_after_the_same_step(tiny_dataset_path, tmp_path):
  """One of them gets the signal; as JAX finds them under Slurm."""
  flags = [*TOY, f"--config.data.path={tiny_dataset_path}", f"--workdir={tmp_path}", "--multi_host"]
  hosts = [start(*flags, **job) for job in slurm_job(2)]
  try:
    wait_for(hosts[0], "step 5/")
    hosts[1].send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 120
    while hosts[0].poll() is None and time.monotonic() < deadline:
      time.sleep(0.2)
  finally:
    results = [finish(host) for host in hosts]
  assert [result.returncode for result in results] == [143, 143], results
  step = locate(tmp_path)[1]
  assert f"stopped; step {step} is saved" in results[0].stdout

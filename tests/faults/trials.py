"""One fault, tried once: what it has in common with all others."""

import contextlib
import dataclasses
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from pcan_jax import cpu
from pcan_jax.saved_steps import SavedStep, find_steps

TOY = """
--config=ma52:pcan_pose --config.input.train_size=32 --config.input.test_size=32
--config.input.pose_frames=8 --config.model.pose.stem_features=8
--config.model.pose.widths=(8,8,8) --config.model.pose.blocks=(1,1,1)
--config.optimizer.batch_size=8 --config.optimizer.epochs=40 --config.eval.every_epochs=0
--config.eval.num_clips=1 --config.eval.batch_size=8
--config.checkpoints.every_epochs=2 --config.log_every=1
""".split()
"""A run of `NUM_STEPS` on the tiny data set, saved every `SAVE_EVERY`."""

NUM_STEPS = 80
SAVE_EVERY = 4
PATIENCE = 300
"""Seconds after which a process hangs."""


@dataclasses.dataclass(frozen=True)
class Trial:
  """What came of a fault.

  Attributes:
    fault: what was done; trials of the same kind have the same words.
    survived: nothing was lost that had been saved, no number was wrong, and whoever had to act was
      told so in words.
    ended: how it ended, in words or in those of the program.
    seconds: from the next start to the first new step; None where nothing had to recover.
  """

  fault: str
  survived: bool
  ended: str
  seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Ground:
  """Where faults are tried.

  Attributes:
    folder: for everything that is written.
    dataset: the tiny data set of the tests.
    random: decides on places and times.
  """

  folder: pathlib.Path
  dataset: pathlib.Path
  random: random.Random

  def new_folder(self) -> pathlib.Path:
    """An empty folder."""
    return pathlib.Path(tempfile.mkdtemp(dir=self.folder))

  def train(self, workdir: pathlib.Path, *flags: str, **variables: str) -> "Program":
    """Starts a run of `NUM_STEPS` steps, or goes on with it."""
    data = f"--config.data.path={self.dataset}"
    return self.launch(*TOY, data, f"--workdir={workdir}", *flags, **variables)

  def launch(self, *flags: str, **variables: str) -> "Program":
    """Starts `launch.py`."""
    return Program(flags, self.new_folder(), variables)


class Program:
  """A process of `launch.py`, whose output can be waited for."""

  def __init__(
    self, flags: tuple[str, ...], folder: pathlib.Path, variables: dict[str, str]
  ) -> None:
    chosen = os.environ | {
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    self._output = folder / "stdout"
    self._errors: list[str] = []
    self._started = time.monotonic()
    with self._output.open("w") as output:
      self.process = subprocess.Popen(
        [sys.executable, "launch.py", *flags],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=chosen | cpu.settings(chosen) | variables,
      )
    # Not a file: of several hosts, the process that has the last word outlives this one.
    self._reader = threading.Thread(target=self._read_errors, daemon=True)
    self._reader.start()

  def _read_errors(self) -> None:
    with self.process.stderr as errors:
      self._errors.extend(errors)

  @property
  def output(self) -> str:
    """What it has printed so far."""
    return self._output.read_text()

  @property
  def errors(self) -> str:
    """What it has written to standard error so far."""
    return "".join(self._errors)

  def wait_until(self, condition: Callable[[], bool]) -> bool:
    """Waits until something is true; returns whether it was before the process ended.

    Raises:
      TimeoutError: neither happens.
    """
    while not condition():
      if self.process.poll() is not None:
        return condition()
      if time.monotonic() - self._started > PATIENCE:
        self.process.kill()
        raise TimeoutError(f"hung after: {self.output[-500:]}{self.errors[-500:]}")
      time.sleep(0.002)
    return True

  def wait_for_step(self, step: int) -> bool:
    """Waits until a step at least as late is reported."""
    return self.wait_until(lambda: self.last_step() >= step)

  def last_step(self) -> int:
    """The last step that was reported, -1 before the first."""
    steps = re.findall(r"^step (\d+)/", self.output, flags=re.MULTILINE)
    return int(steps[-1]) if steps else -1

  def seconds_to_first_step(self) -> float:
    """Waits for the first step, and tells how long that took from the start of the process."""
    self.wait_for_step(0)
    return time.monotonic() - self._started

  def send(self, number: int) -> int:
    """Sends a signal and waits for the end; returns the exit status."""
    self.process.send_signal(number)
    return self.finish()

  def finish(self) -> int:
    """Waits for the end; returns the exit status, and raises TimeoutError if there is none."""
    self.wait_until(lambda: False)
    self._reader.join(timeout=10)
    return self.process.returncode

  def ended_in_words(self, *words: str) -> bool:
    """Whether it failed with one error that contains all these words, and no traceback."""
    return (
      self.process.returncode not in (0, None)
      and "Traceback" not in self.errors
      and len(re.findall(r"^error: ", self.errors, flags=re.MULTILINE)) == 1
      and all(word in self.errors for word in words)
    )

  def last_words(self) -> str:
    """The end of what it wrote, in one line."""
    lines = (self.errors.strip() or self.output.strip()).splitlines()
    return next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "")


def arrays_of(saved: SavedStep) -> dict[str, np.ndarray]:
  """All arrays of a checkpoint by their names."""
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  found = {}
  for item in ("model", "training"):
    target = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved.shapes(item)
    )
    for path, array in jax.tree.leaves_with_path(saved.restore(item, target)):
      found[item + jax.tree_util.keystr(path)] = np.asarray(array)
  return found


def same_arrays(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
  """Whether two checkpoints hold the same, to the bit."""
  return found.keys() == wanted.keys() and all(
    np.array_equal(found[name], wanted[name], equal_nan=True) for name in wanted
  )


def saved_steps(workdir: pathlib.Path) -> list[int]:
  """The steps that are saved, the latest first."""
  return [saved.step for saved in find_steps(workdir / "checkpoints")]


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
  """A file system of a few bytes, in memory.

  Args:
    folder: where to mount it.
    size: in bytes.

  Raises:
    PermissionError: this process may not mount one.
  """
  folder.mkdir(parents=True, exist_ok=True)
  command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
  try:
    subprocess.run(command, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as error:
    raise PermissionError("only root can mount a small disk") from error
  try:
    yield folder
  finally:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)

"""A long run with many saves: nothing may grow, nothing may become slower.

But for this: whenever TensorStore 0.1.86 writes a specification as JSON, as Orbax asks it to for
every array of a save, it keeps some 200 bytes. Without saves, memory does not grow.
"""

import os
import pathlib
import time
from collections.abc import Iterator

import numpy as np

from tests.faults.trials import Ground, Trial

_SAVE_EVERY = 20  # steps
_SAMPLES = 40
_MAY_KEEP = 150  # kB a save; for 62 arrays, TensorStore keeps 70 to 100


def trials(ground: Ground, count: int) -> Iterator[Trial]:
  """One run with so many saves; the second half is compared with the first quarter."""
  workdir, steps = ground.new_folder(), count * _SAVE_EVERY
  program = ground.train(
    workdir,
    f"--config.optimizer.epochs={steps // 2}",
    f"--config.checkpoints.every_epochs={_SAVE_EVERY // 2}",
    "--config.log_every=10",
  )
  readings, limits = [], np.linspace(0, steps, _SAMPLES + 2)[1:-1]
  for limit in limits:
    if not _patiently(program, int(limit)):
      break
    readings.append((time.monotonic(), program.last_step(), *_of_process(program.process.pid)))
  status = program.process.wait()
  yield Trial(
    f"{steps:,} steps with {count:,} saves",
    status == 0,
    f"status {status}, the last step {program.last_step():,}",
  )
  at, done, memory, handles, threads = np.array(readings).T
  quarter, half = len(at) // 4, len(at) // 2
  saves = (np.median(done[half:]) - np.median(done[1:quarter])) / _SAVE_EVERY
  early, late = np.median(memory[1:quarter]) / 1e6, np.median(memory[half:]) / 1e6
  kept = 1000 * (late - early) / saves
  yield Trial(
    "memory in that run",
    bool(kept <= _MAY_KEEP),
    f"{early:.0f} MB in the first quarter, {late:.0f} MB in the second half: {kept:.0f} kB for "
    "each save, which TensorStore keeps",
  )
  speed = np.diff(done) / np.diff(at)
  for name, values, unit, may_grow in (
    ("open files", handles, "", 1.0),
    ("threads", threads, "", 1.0),
    ("seconds a step", 1000 / speed, "ms", 1.15),
  ):
    early, late = np.median(values[1:quarter]), np.median(values[half:])
    yield Trial(
      f"{name} in that run",
      bool(late <= early * may_grow + (2 if not unit else 0)),
      f"{early:.4g} {unit} in the first quarter, {late:.4g} {unit} in the second half",
    )


def _patiently(program, step: int) -> bool:
  while program.last_step() < step:
    if program.process.poll() is not None:
      return False
    time.sleep(0.2)
  return True


def _of_process(pid: int) -> tuple[int, int, int]:
  """Resident bytes, open files and threads of a process."""
  folder = pathlib.Path("/proc", str(pid))
  pages = int((folder / "statm").read_text().split()[1])
  handles, threads = (len(os.listdir(folder / name)) for name in ("fd", "task"))
  return pages * os.sysconf("SC_PAGE_SIZE"), handles, threads

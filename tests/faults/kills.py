"""Runs that are killed, or told to stop, at any moment."""

import pathlib
import signal
from collections.abc import Iterator

from pcan_jax.saved_steps import SavedStep
from tests.faults.trials import NUM_STEPS, Ground, Trial, arrays_of, same_arrays, saved_steps

_MOMENTS = {
  "SIGKILL between saves": (signal.SIGKILL, -signal.SIGKILL),
  "SIGKILL in a save": (signal.SIGKILL, -signal.SIGKILL),
  "SIGTERM": (signal.SIGTERM, 128 + signal.SIGTERM),
  "SIGINT": (signal.SIGINT, 128 + signal.SIGINT),
}


def trials(ground: Ground, count: int) -> Iterator[Trial]:
  """One run that is ended so many times, and has to end as one that was left alone."""
  undisturbed = ground.new_folder()
  program = ground.train(undisturbed)
  assert program.finish() == 0, program.errors
  wanted = arrays_of(SavedStep(undisturbed / "checkpoints", NUM_STEPS))

  workdir, found = ground.new_folder(), []
  kinds = [kind for _, kind in zip(range(count), [*_MOMENTS] * count)]
  steps = sorted(ground.random.sample(range(1, NUM_STEPS - 8), count))
  program = ground.train(workdir)
  for step, kind in zip(steps, kinds):
    number, status = _MOMENTS[kind]
    reached = program.wait_for_step(step)
    if kind == "SIGKILL in a save":
      reached = reached and program.wait_until(lambda: _is_saving(workdir))
    ended, last, words = program.send(number), program.last_step(), program.last_words()
    before = saved_steps(workdir)
    program = ground.train(workdir)
    seconds = program.seconds_to_first_step()
    first = program.last_step()
    expected = before[0] if before else 0
    kept = number != signal.SIGTERM or expected >= last
    found.append(
      Trial(
        kind,
        reached and ended == status and "Traceback" not in words and kept and first > expected,
        f"status {ended} after step {last}; went on from step {expected}",
        seconds,
      )
    )
  same = program.finish() == 0 and same_arrays(
    arrays_of(SavedStep(workdir / "checkpoints", NUM_STEPS)), wanted
  )
  yield from found
  yield Trial(
    f"the run that met these {count}, at its end",
    same,
    f"{len(wanted)} arrays {'equal to the bit' if same else 'that differ from'} those of a run "
    "left alone",
  )


def _is_saving(workdir: pathlib.Path) -> bool:
  return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))

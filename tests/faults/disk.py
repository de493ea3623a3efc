"""Disks that are full, or may not be written to."""

import subprocess
from collections.abc import Iterator

from pcan_jax.saved_steps import SavedStep
from tests.faults.trials import (
  NUM_STEPS,
  Ground,
  Trial,
  arrays_of,
  same_arrays,
  saved_steps,
  small_disk,
)


def trials(ground: Ground, count: int) -> Iterator[Trial]:
  """Runs on disks of so many sizes, from too small for one checkpoint to room for a few."""
  undisturbed = ground.new_folder()
  program = ground.train(undisturbed)
  assert program.finish() == 0, program.errors
  wanted = arrays_of(SavedStep(undisturbed / "checkpoints", NUM_STEPS))
  saved = SavedStep(undisturbed / "checkpoints", NUM_STEPS).path
  one = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
  sizes = [0.2 * one, *(ground.random.uniform(1.5, 6) * one for _ in range(count - 1))]
  for size in sizes:
    workdir = ground.new_folder()
    with small_disk(workdir, int(size)):
      program = ground.train(workdir, "--config.checkpoints.keep=100")
      program.finish()
      told = program.ended_in_words(str(workdir))
      words, before = program.last_words(), saved_steps(workdir)
      if not told:
        words = f"not one sentence: {' | '.join(program.errors.splitlines())}"
      subprocess.run(["mount", "-o", "remount,size=1g", str(workdir)], check=True)
      program = ground.train(workdir, "--config.checkpoints.keep=100")
      seconds = program.seconds_to_first_step()
      whole = program.finish() == 0 and same_arrays(
        arrays_of(SavedStep(workdir / "checkpoints", NUM_STEPS)), wanted
      )
      yield Trial(
        "the disk is full" if before else "the disk is full before the first checkpoint",
        told and whole,
        f"{words.replace(str(workdir), 'WORKDIR')}; with room again, it went on from step "
        f"{before[0] if before else 0}"
        + ("" if whole else f", but not to the same end: {program.last_words()}"),
        seconds,
      )
  workdir = ground.new_folder()
  with small_disk(workdir, 10**9):
    subprocess.run(["mount", "-o", "remount,ro", str(workdir)], check=True)
    program = ground.train(workdir)
    program.finish()
    told = program.ended_in_words(str(workdir)) and program.last_step() < 0
    words = program.last_words().replace(str(workdir), "WORKDIR")
    yield Trial("the working directory is read-only", told, words)

"""Losses and parameters that are no longer numbers."""

from collections.abc import Iterator

import numpy as np

from pcan_jax.saved_steps import find_steps
from tests.faults.trials import NUM_STEPS, Ground, Trial, arrays_of, saved_steps

_BROKEN = "--config.optimizer.learning_rate=1e30"
_BACK = "optimizer.learning_rate"


def trials(ground: Ground, count: int) -> Iterator[Trial]:
  """Runs whose learning rate becomes absurd at some step, and is mended afterwards."""
  for _ in range(count):
    workdir = ground.new_folder()
    program = ground.train(workdir)
    program.wait_for_step(ground.random.randrange(1, NUM_STEPS // 2))
    program.process.kill()
    program.process.wait()
    before = saved_steps(workdir)
    program = ground.train(workdir, _BROKEN, *_allow(before))
    program.finish()
    told = program.ended_in_words("step ", "its clips are")
    words = program.last_words().replace(str(workdir), "WORKDIR")
    steps = saved_steps(workdir)
    finite = all(
      np.isfinite(array).all()
      for saved in find_steps(workdir / "checkpoints")
      if not saved.find_problem()  # a kill may have met the deletion of an old one
      for array in arrays_of(saved).values()
    )
    batch = any((workdir / "failed_batch").glob("*.npz"))
    program = ground.train(workdir, *_allow(steps))
    seconds = program.seconds_to_first_step()
    mended = program.finish() == 0
    yield Trial(
      "the learning rate becomes 1e30",
      told and finite and batch and set(before[:1]) <= set(steps) and mended,
      words.split("; its clips")[0],
      seconds,
    )


def _allow(steps: list[int]) -> tuple[str, ...]:
  return (f"--allow_changes={_BACK}",) if steps else ()

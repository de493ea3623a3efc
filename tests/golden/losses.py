"""The first losses of a tiny run of every variant, on the small data set in `tests/earlier`."""

import pathlib

from configs import ma52
from pcan_jax.training import loop
from pcan_jax.training.step import compile_step
from tests.tiny_config import shrink

NUM_STEPS = 20
DATASET = pathlib.Path(__file__).parents[1] / "earlier" / "dataset"


def toy_run(variant: str) -> loop.TrainingRun:
  """A variant of configs/ma52.py at toy size."""
  config = shrink(ma52.get_config(variant))
  config.data.path = str(DATASET)
  config.optimizer.epochs = 10.0
  config.optimizer.learning_rate = 1e-3  # with a larger one, rounding decides after a few steps
  return loop.prepare(config)


def first_losses(variant: str) -> list[float]:
  """The total loss of each of the first steps."""
  run = toy_run(variant)
  init, step = compile_step(run.spec, run.schedule, run.mesh)
  state, losses = init(), []
  for _, batch in zip(range(NUM_STEPS), run.batches()):
    state, terms = step(state, batch)
    losses.append(float(terms["loss"]))
  return losses

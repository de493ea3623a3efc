"""Checks before a long run: a dry run, and overfitting one batch."""

import logging

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from pcan_jax.evaluation.protocol import Evaluator
from pcan_jax.training import warm_start
from pcan_jax.training.loop import TrainingRun, prepare
from pcan_jax.training.optimizer import peak_learning_rate
from pcan_jax.training.step import TrainState, compile_step

_log = logging.getLogger(__name__)

OVERFIT_STEPS = 300
OVERFIT_LOSS = 0.05


def dry_run(config: ConfigDict) -> None:
  """Does everything of a run once: data, compilation, a step, evaluation. Writes nothing.

  Raises:
    FileNotFoundError, ValueError, FloatingPointError: as `loop.train`.
  """
  run = prepare(config)
  evaluator = Evaluator(run.spec, run.dataset)
  init, step_fn = compile_step(run.spec, run.schedule, run.mesh)
  state = _start(run, init())
  state, terms = step_fn(state, next(run.batches()))
  loss = float(terms["loss"])
  if not np.isfinite(loss):
    raise FloatingPointError(f"the loss of the first step is {loss}")
  if run.spec.pretrains or not run.dataset.has_split(config.data.eval_split):
    _log.info("dry run: a step with loss %.3f, nothing evaluated, nothing written", loss)
    return
  results = evaluator(state.model(), config.data.eval_split, num_clips=1, max_batches=1)
  _log.info(
    "dry run: a step with loss %.3f, %d videos evaluated, nothing written", loss, len(results.ids)
  )


def overfit_batch(config: ConfigDict, max_steps: int = OVERFIT_STEPS) -> int:
  """Sanity check: overfits one batch.

  Dropout (but for the fixed one of lateral attention), augmentation, label smoothing and weight
  decay are off, and the learning rate stays at its peak. Success is measured by the
  cross-entropies, the only losses that can reach zero; all are optimised.

  Args:
    config: of the run.
    max_steps: when to give up.

  Returns:
    The number of steps taken.

  Raises:
    FileNotFoundError, ValueError: as `loop.train`.
    FloatingPointError: a cross-entropy is not below `OVERFIT_LOSS` after `max_steps`.
  """
  config = config.copy_and_resolve_references()
  config.model.dropout = 0.0
  config.optimizer.weight_decay = 0.0
  config.augmentation.update(
    crop_area=(1.0, 1.0),
    crop_aspect=(1.0, 1.0),
    flip=0.0,
    rotation=0.0,
    scale_jitter=0.0,
    keypoint_noise=0.0,
    mixup=0.0,
  )
  config.loss.update(label_smoothing=0.0, margin=0.0)
  config.eval.flip = False
  if "drop_path" in config.model.rgb:
    config.model.rgb.drop_path = 0.0
  run = prepare(config)
  if run.spec.pretrains:
    raise ValueError("pretraining has no labels that one batch could be overfitted to")
  rate = peak_learning_rate(config.optimizer)
  init, step_fn = compile_step(run.spec, optax.constant_schedule(rate), run.mesh)
  state = _start(run, init())
  batch = next(run.batches())
  for step in range(1, max_steps + 1):
    state, terms = step_fn(state, batch)
    if step % 10 and step != max_steps:
      continue
    values = {name: float(term) for name, term in jax.device_get(terms).items()}
    entropies = {name: value for name, value in values.items() if "/ce_" in name}
    shown = ", ".join(f"{name} {value:.4f}" for name, value in entropies.items())
    _log.info("step %d: %s", step, shown)
    if max(entropies.values()) < OVERFIT_LOSS:
      _log.info("overfitted one batch of %d clips", run.batch_size)
      return step
  raise FloatingPointError(
    f"could not overfit {run.batch_size} clips in {max_steps} steps: {shown}, not below "
    f"{OVERFIT_LOSS}. Try another optimizer.learning_rate ({rate:.4g} here); if none helps, look "
    "at the clips with pcan check --html"
  )


def _start(run: TrainingRun, state: TrainState) -> TrainState:
  state = state.started(warm_start.initialize(state.model(), run.spec))
  _log.info("%s\n", run.start_block(state, 0, None))
  return state

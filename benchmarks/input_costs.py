"""Cost of the input pipeline by stage, and how long training waits for it."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from benchmarks import timing
from pcan_jax.clips.sampling import FrameSampling
from pcan_jax.feed import pipeline
from pcan_jax.feed.dataset import Dataset
from pcan_jax.feed.epochs import uniform_order
from pcan_jax.training.loop import prepare
from pcan_jax.training.step import compile_step

SPLIT = "train"
TRAINING = FrameSampling(rgb_frames=8, pose_frames=32, num_clips=None, max_persons=1)
EVALUATION = FrameSampling(rgb_frames=8, pose_frames=32, num_clips=10, max_persons=1)

_STEPS_PER_TURN = 25


@dataclasses.dataclass(frozen=True)
class Cost:
  """Cost of a clip in milliseconds: wall-clock time, and CPU time of all cores."""

  clock: float
  cpu: float


def cost(iterator: Iterator[Any], calls: int, clips_per_call: int, repeats: int) -> Cost:
  """Median cost over `repeats` measurements of `calls` elements of an iterator."""
  cpu = []

  def some_calls() -> None:
    start = time.process_time()
    for _ in itertools.islice(iterator, calls):
      pass
    cpu.append(time.process_time() - start)

  clock = timing.measure(some_calls, repeats=repeats, warmup=1).median
  per_clip = 1e3 / (calls * clips_per_call)
  return Cost(clock * per_clip, statistics.median(cpu[1:]) * per_clip)


def stage_costs(
  dataset: Dataset, batch_size: int, calls: int, repeats: int
) -> tuple[dict[str, float], Cost]:
  """CPU milliseconds per training clip of each stage, and the cost of the whole pipeline.

  The cost of a stage is that of the pipeline up to it, minus that of the pipeline before it.
  """
  order = uniform_order(dataset.num_clips(SPLIT))
  stages = pipeline.training_stages(dataset, SPLIT, TRAINING, order=order, seed=0)
  costs, before = {}, 0.0
  for end, name in enumerate(stages, start=1):
    iterator = _ending_with(list(stages.values())[:end], batch_size)
    until = cost(iterator, calls, batch_size, repeats).cpu
    costs[name], before = until - before, until
  whole = cost(
    pipeline.training_batches(dataset, SPLIT, TRAINING, batch_size=batch_size, seed=0),
    calls,
    batch_size,
    repeats,
  )
  return costs | {"batch": whole.cpu - before}, whole


def _ending_with(stages: Sequence[pipeline.Stage], batch_size: int) -> Iterator[np.ndarray]:
  """Batches of one number per clip that depends on all outputs of the last stage."""

  def run(element: Any) -> tf.Tensor:
    for stage in stages:
      element = stage(element)
    return tf.add_n([_touch(values) for values in tf.nest.flatten(element)])

  positions = tf.data.Dataset.range(np.iinfo(np.int64).max)
  stream = positions.map(run, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
  return stream.batch(batch_size).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def _touch(values: tf.Tensor) -> tf.Tensor:
  """A number that forces TensorFlow to compute the values."""
  if values.dtype == tf.string:
    return tf.reduce_sum(tf.strings.length(values))
  return tf.cast(tf.reshape(values, [-1])[0], tf.int32)


def evaluation_cost(dataset: Dataset, batch_size: int, calls: int, repeats: int) -> Cost:
  """Cost of a test clip; a video has ten."""
  batches = itertools.chain.from_iterable(
    pipeline.evaluation_batches(dataset, SPLIT, EVALUATION, batch_size=batch_size)
    for _ in itertools.count()
  )
  return cost(batches, calls, batch_size * EVALUATION.num_clips, repeats)


def training_wait(config: ConfigDict, steps: int) -> dict[str, float]:
  """Trains for some steps, alternating with steps on a batch that is already on the device.

  Returns:
    `steps` of each kind; milliseconds per step, `fed` by the pipeline and `not_fed`; and `blocked`,
    the share of the fed steps' time in which the loop waited for the next batch. The device may
    have been busy meanwhile.
  """
  run = prepare(config)
  init, step_fn = compile_step(run.spec, run.schedule, run.mesh)
  batches = run.batches()
  batch = next(batches)
  state, _ = jax.block_until_ready(step_fn(init(), batch))
  fed, not_fed, blocked = [], [], 0.0
  for _ in range(max(steps // _STEPS_PER_TURN, 1)):
    start = time.perf_counter()
    for _ in range(_STEPS_PER_TURN):
      state, _ = step_fn(state, batch)
    jax.block_until_ready(state)
    middle = time.perf_counter()
    for _ in range(_STEPS_PER_TURN):
      asked = time.perf_counter()
      batch = next(batches)
      blocked += time.perf_counter() - asked
      state, _ = step_fn(state, batch)
    jax.block_until_ready(state)
    not_fed.append(middle - start)
    fed.append(time.perf_counter() - middle)
  return {
    "steps": _STEPS_PER_TURN * len(fed),
    "fed": 1e3 * statistics.median(fed) / _STEPS_PER_TURN,
    "not_fed": 1e3 * statistics.median(not_fed) / _STEPS_PER_TURN,
    "blocked": blocked / sum(fed),
  }

"""A training run: what follows from its config and its data set, and the loop of steps."""

import contextlib
import dataclasses
import json
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import optax
from clu import metric_writers, parameter_overview
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from pcan_jax import evaluate, inference, input_pipeline, warm_start
from pcan_jax.checkpoints import Checkpoints, Description
from pcan_jax.epochs import ClipSampling, EpochOrder
from pcan_jax.input_pipeline import Dataset
from pcan_jax.pcan import PCAN, build_model
from pcan_jax.progress import Progress
from pcan_jax.train_step import Batch, TrainState, compile_step, learning_rate

PyTree = Any

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
  """What follows from a config and its data set.

  Attributes:
    description: what the model is made for; holds the config.
    dataset: to train and to evaluate on.
    model: the network.
    mesh: the devices.
    order: of the clips of an epoch.
    total_steps: of the whole schedule.
    schedule: the learning rate by step.
  """

  description: Description
  dataset: Dataset
  model: PCAN
  mesh: Mesh
  order: EpochOrder
  total_steps: int
  schedule: optax.Schedule

  @property
  def config(self) -> ConfigDict:
    return self.description.config

  @property
  def batch_size(self) -> int:
    return self.config.optimizer.batch_size

  @property
  def num_clips(self) -> int:
    """Clips per epoch."""
    return self.order.num_clips

  @property
  def steps_per_epoch(self) -> float:
    return self.num_clips / self.batch_size

  def batches(self, start_step: int = 0) -> Iterator[Batch]:
    """This host's share of the batches from a step on, sent to the devices ahead of their use."""
    batches = input_pipeline.training_batches(
      self.dataset,
      self.config.data.train_split,
      evaluate.clips(self.config, num_clips=None),
      batch_size=self.batch_size,
      seed=self.config.seed,
      order=self.order,
      start_step=start_step,
      num_hosts=jax.process_count(),
      host=jax.process_index(),
    )
    return to_device(batches, NamedSharding(self.mesh, PartitionSpec("data")))

  def start_block(self, state: TrainState, start_step: int, workdir: pathlib.Path | None) -> str:
    """What a user wants to know before waiting: a line per fact."""
    config = self.config
    device = self.mesh.devices.flat[0]
    rate = config.optimizer.learning_rate * self.batch_size
    facts = {
      "devices": f"{self.mesh.size} x {device.device_kind} ({device.platform})",
      "model": f"{' + '.join(self.model.streams)}, fusion {config.model.fusion}, "
      + ("with" if self.model.has_prototypes else "without")
      + " prototypes",
      "parameters": f"{parameter_overview.count_parameters(state.params):,}",
      "precision": f"{config.model.dtype} network, float32 parameters and losses",
      "data": f"{self.dataset.builder.data_path}, {self.num_clips:,} clips per epoch, "
      f"{config.data.sampling} sampling",
      "batch": f"{self.batch_size} clips, {self.batch_size // self.mesh.size} per device",
      "learning rate": f"{rate / config.optimizer.learning_rate_batch_size:.4g} "
      f"({config.optimizer.learning_rate:.4g} for {config.optimizer.learning_rate_batch_size}), "
      f"{config.optimizer.schedule} schedule",
      "schedule": f"{config.optimizer.epochs:g} epochs, {self.total_steps:,} steps",
      "starts at": f"step {start_step:,}" + (" (resumed)" if start_step else ""),
      "workdir": str(workdir or "none, nothing is written"),
    }
    width = max(map(len, facts))
    return "\n".join(f"{name:>{width}}  {fact}" for name, fact in facts.items())


def prepare(config: ConfigDict) -> Run:
  """Opens the data set of a config and works out what follows.

  Raises:
    FileNotFoundError: there is no data set at `config.data.path`.
    ValueError: the config does not fit the data set or the devices.
  """
  dataset = input_pipeline.open_dataset(config.data.path, config.data.instructions)
  mesh = inference.data_mesh()
  batch_size = config.optimizer.batch_size
  if batch_size % mesh.size:
    raise ValueError(
      f"optimizer.batch_size={batch_size} does not divide among {mesh.size} devices; "
      f"use a multiple of {mesh.size}"
    )
  sampling = ClipSampling(config.data.sampling, config.data.repeat_threshold)
  order = dataset.epoch_order(config.data.train_split, sampling)
  steps_per_epoch = order.num_clips / batch_size
  return Run(
    description=Description(config, dataset.tree, dataset.layout, dataset.stored_size),
    dataset=dataset,
    model=build_model(config.model, dataset.tree),
    mesh=mesh,
    order=order,
    total_steps=round(config.optimizer.epochs * steps_per_epoch),
    schedule=learning_rate(config.optimizer, batch_size, steps_per_epoch),
  )


def train(config: ConfigDict, workdir: pathlib.Path) -> TrainState:
  """Trains to the end of the schedule, from the latest checkpoint in `workdir` if there is one.

  Without one, from what `config.init_from` names.

  Writes `checkpoints/`, `config.json`, `parameters.txt` and TensorBoard events below `workdir`.

  Raises:
    FileNotFoundError: there is no data set at `config.data.path`, or no checkpoint where
      `config.init_from` says.
    ValueError: the config does not fit the data set, the devices or the checkpoint.
    FloatingPointError: the loss is not finite.
  """
  run = prepare(config)
  evaluator = evaluate.Evaluator(run.model, run.description, run.dataset)
  state, step_fn = compile_step(run.model, run.description, run.schedule, run.mesh)

  workdir.mkdir(parents=True, exist_ok=True)
  with (
    Checkpoints(workdir / "checkpoints", max_to_keep=config.checkpoints.keep) as checkpoints,
    contextlib.closing(_writer(workdir)) as writer,
  ):
    start_step = checkpoints.latest_step or 0
    if checkpoints.latest_step is None:
      state = state.replace(**warm_start.initialize(state.model(), run.model, run.description))
    else:
      state = restore_state(checkpoints, start_step, state)
    if jax.process_index() == 0:
      _write_overview(workdir, run.description, state)
    _log.info("%s\n", run.start_block(state, start_step, workdir))
    batches = run.batches(start_step)
    progress = Progress(
      start_step, run.total_steps, run.batch_size, run.steps_per_epoch, writer, run.schedule
    )

    def due(step: int, every_epochs: float) -> bool:
      return every_epochs > 0 and step % max(round(every_epochs * run.steps_per_epoch), 1) == 0

    for step in range(start_step + 1, run.total_steps + 1):
      state, terms = step_fn(state, next(batches))
      progress.add(terms)
      last = step == run.total_steps
      if last or step % config.log_every == 0:
        progress.report(step)
      if last or due(step, config.checkpoints.every_epochs):
        checkpoints.save(step, state.model(), state.training(), run.description)
      if due(step, config.eval.every_epochs) and not last:
        with progress.paused():
          results = evaluator(state.model(), config.data.eval_split, num_clips=1)
        for branch, values in results.metrics.items():
          writer.write_scalars(step, {f"eval/{branch}/{name}": v for name, v in values.items()})
        _log.info("epoch %.0f, 1 clip per video\n%s", step / run.steps_per_epoch, results.table())
    progress.close()
  return state


def _write_overview(workdir: pathlib.Path, description: Description, state: TrainState) -> None:
  """What is trained, for people: the whole config, and every parameter with its shape."""
  (workdir / "config.json").write_text(json.dumps(description.to_json(), indent=2) + "\n")
  (workdir / "parameters.txt").write_text(
    parameter_overview.get_parameter_overview(state.params, include_stats=False) + "\n"
  )


def _writer(workdir: pathlib.Path) -> metric_writers.MetricWriter:
  """TensorBoard events, from one host."""
  first = jax.process_index() == 0
  return metric_writers.MultiWriter([metric_writers.SummaryWriter(str(workdir))] if first else [])


def restore_state(checkpoints: Checkpoints, step: int, state: TrainState) -> TrainState:
  """The state of a checkpoint, with the shapes and shardings of `state`."""

  def target(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)

  restored = checkpoints.restore(
    step, model=target(state.model()), training=target(state.training())
  )
  return state.replace(**restored["model"], **restored["training"])


def to_device(batches: Iterator[Batch], sharding: NamedSharding) -> Iterator[Batch]:
  """Sends each batch to the devices while the one before it is in use."""
  ahead = None
  for batch in batches:
    sent = {
      name: jax.make_array_from_process_local_data(sharding, values)
      for name, values in batch.items()
    }
    if ahead is not None:
      yield ahead
    ahead = sent
  if ahead is not None:
    yield ahead

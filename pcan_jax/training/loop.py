"""A training run: preparation from a config and its data set, and the loop of steps."""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import optax
from clu import metric_writers, parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pcan_jax.checkpoints import Checkpoints
from pcan_jax.evaluation.protocol import Evaluator
from pcan_jax.feed.dataset import Dataset, open_dataset
from pcan_jax.feed.epochs import ClassSampling, EpochOrder, uniform_order
from pcan_jax.feed.pipeline import training_batches
from pcan_jax.labels import LabelTree
from pcan_jax.mesh import data_mesh, local_rows, send
from pcan_jax.saved_steps import SavedStep
from pcan_jax.spec import ModelSpec
from pcan_jax.training import resume, warm_start
from pcan_jax.training.failure import FiniteWatch
from pcan_jax.training.optimizer import learning_rate, peak_learning_rate, total_steps
from pcan_jax.training.progress import Progress
from pcan_jax.training.resume import Change
from pcan_jax.training.save_clock import SaveClock
from pcan_jax.training.step import Batch, TrainState, compile_step
from pcan_jax.training.stopping import StopRequest
from pcan_jax.training.term_gradients import compile_gradient_norms
from pcan_jax.training.workdir import claimed, require_room
from pcan_jax.writing import replace_file, told_shortly

PyTree = Any

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainingRun:
  """A config with its data set and devices.

  Attributes:
    spec: of the model; holds the config.
    dataset: for training and evaluation.
    mesh: the devices.
    order: of the clips in an epoch.
  """

  spec: ModelSpec
  dataset: Dataset
  mesh: Mesh
  order: EpochOrder

  @property
  def config(self) -> ConfigDict:
    return self.spec.config

  @property
  def batch_size(self) -> int:
    return self.config.optimizer.batch_size

  @property
  def steps_per_epoch(self) -> float:
    return self.order.num_clips / self.batch_size

  @property
  def total_steps(self) -> int:
    """Number of steps of the schedule."""
    return total_steps(self.config.optimizer, self.steps_per_epoch)

  @property
  def epochs(self) -> float:
    """How often all clips are seen, or as many as there are."""
    optimizer = self.config.optimizer
    return max(optimizer.epochs, optimizer.least_steps / self.steps_per_epoch)

  @property
  def schedule(self) -> optax.Schedule:
    """The learning rate by step."""
    return learning_rate(self.config.optimizer, self.steps_per_epoch)

  def batches(self, start_step: int = 0) -> Iterator[Batch]:
    """This host's share of the batches from a step on, sent to the devices one step ahead."""
    batches = training_batches(
      self.dataset,
      self.config.data.train_split,
      self.spec.frame_sampling(num_clips=None),
      batch_size=self.batch_size,
      seed=self.config.seed,
      order=self.order,
      start_step=start_step,
      rows=local_rows(self.mesh, self.batch_size),
      labelled=not self.spec.pretrains,
    )
    return _one_ahead(send(batch, self.mesh) for batch in batches)

  def clips_of_step(self, step: int) -> list[str]:
    """The ids of the clips in the batch of a step, on all hosts together."""
    ids = self.dataset.clip_ids(self.config.data.train_split)
    start, stop = (step - 1) * self.batch_size, step * self.batch_size
    return [ids[number] for number in self.order.clips_between(start, stop, self.config.seed)]

  def _caution(self) -> str:
    """What to know of evaluations on clips that are trained on."""
    data = self.config.data
    if self.spec.pretrains or not self.dataset.has_split(data.eval_split):
      return ""
    shared = self.dataset.shared_clips(data.train_split, data.eval_split)
    return f"; {shared:,} of them are evaluated, too (split {data.eval_split!r})" if shared else ""

  def start_block(self, state: TrainState, start_step: int, workdir: pathlib.Path | None) -> str:
    """A summary of the run for its user, a line per fact."""
    config, model = self.config, self.spec.model
    optimizer = config.optimizer
    device = self.mesh.devices.flat[0]
    facts = {
      "devices": f"{self.mesh.size} x {device.device_kind} ({device.platform})",
      "model": "rgb, masked video modelling"
      if self.spec.pretrains
      else f"{' + '.join(model.streams)}, fusion {config.model.fusion}, "
      + ("with" if model.has_prototypes else "without")
      + " prototypes",
      "parameters": f"{parameter_overview.count_parameters(state.params):,}",
      "precision": f"{config.model.dtype} network, float32 parameters and losses",
      "data": f"{self.dataset.path}, {self.order.num_clips:,} clips per epoch, "
      f"{config.data.sampling} sampling" + self._caution(),
      "batch": f"{self.batch_size} clips, {self.batch_size // self.mesh.size} per device",
      "learning rate": f"{peak_learning_rate(optimizer):.4g} "
      f"({optimizer.learning_rate:.4g} for {optimizer.learning_rate_batch_size}), "
      f"{optimizer.schedule} schedule",
      "schedule": f"{self.epochs:.4g} epochs, {self.total_steps:,} steps",
      "starts at": f"step {start_step:,}" + (" (resumed)" if start_step else ""),
      "workdir": str(workdir or "none; nothing is written"),
    }
    width = max(map(len, facts))
    return "\n".join(f"{name:>{width}}  {fact}" for name, fact in facts.items())


def prepare(config: ConfigDict) -> TrainingRun:
  """Opens the data set of a config and finds the devices.

  Raises:
    FileNotFoundError: there is no data set at `config.data.path`.
    ValueError: the config does not fit the data set or the devices.
  """
  dataset = open_dataset(config.data.path, config.data.instructions, config.data.held_out)
  mesh = data_mesh()
  batch_size = config.optimizer.batch_size
  if batch_size % mesh.size:
    raise ValueError(
      f"optimizer.batch_size={batch_size} is not divisible by {mesh.size} devices; "
      f"use a multiple of {mesh.size}"
    )
  split = config.data.train_split
  spec = ModelSpec(config, dataset.tree, dataset.layout, dataset.stored_size)
  if config.augmentation.flip is None:
    _log.info("%s", _mirroring(dataset.tree))
  if spec.losses.needs_counts:
    counts = dataset.action_counts(split, config.data.label_share)
    spec = dataclasses.replace(spec, action_counts=counts)
    if config.data.sampling != "uniform":
      _log.warning(
        "rare actions are favoured twice: by data.sampling=%r and by the losses; set it to uniform "
        "unless that is meant",
        config.data.sampling,
      )
  if spec.frame_sampling(None).rgb_frames:
    dataset.require_videos()
  if spec.pretrains:
    if config.eval.every_epochs:
      raise ValueError("pretraining has nothing to evaluate; set eval.every_epochs=0")
    order = uniform_order(dataset.num_clips(split))
  else:
    sampling = ClassSampling(config.data.sampling, config.data.repeat_threshold)
    order = dataset.epoch_order(split, sampling, config.data.label_share)
    if config.eval.every_epochs and not dataset.has_split(config.data.eval_split):
      raise ValueError(
        f"{dataset.path} has no split {config.data.eval_split!r} to evaluate "
        f"(config.data.eval_split); it has {dataset.splits}"
      )
  run = TrainingRun(spec, dataset, mesh, order)
  if run.total_steps < 1:
    raise ValueError(
      f"optimizer.epochs={config.optimizer.epochs:g} of {order.num_clips} clips, {batch_size} at a "
      "time, are no step; raise it, or lower optimizer.batch_size"
    )
  return run


def _mirroring(tree: LabelTree) -> str:
  """Whether clips are mirrored where their labels decide, and why."""
  if tree.of_a_side:
    return (
      f"no clip is mirrored, as {tree.of_a_side[0]!r} is named after a side; "
      "--config.augmentation.flip=0.5 mirrors half of them"
    )
  return "half of the clips are mirrored, as no action is named after a side"


def train(
  config: ConfigDict, workdir: pathlib.Path, allow_changes: Sequence[str] = ()
) -> TrainState:
  """Trains to the end of the schedule.

  Resumes from the last good checkpoint in `workdir`; without one, starts as `config.init_from`
  says. Writes `checkpoints/`, `config.json`, `parameters.txt` and TensorBoard events to `workdir`.
  SIGTERM and SIGINT end it with a checkpoint, see `stopping.StopRequest`.

  Args:
    config: of the run.
    workdir: its working directory, which no other run may use at the same time.
    allow_changes: names of settings that may differ from those of the checkpoint, see
      `resume.find_changes`.

  Raises:
    FileNotFoundError: there is no data set at `config.data.path`, or no checkpoint where
      `config.init_from` says.
    ValueError: the config does not fit the data set, the devices or the checkpoint; or another run
      uses `workdir`.
    OSError: `workdir` cannot be written to, or has no room.
    FloatingPointError: the loss is not finite; `workdir/failed_batch` holds the batch.
  """
  run = prepare(config)
  with claimed(workdir), told_shortly(f"{workdir} cannot be written to"):
    directory = workdir / "checkpoints"
    start, problems = resume.find_start(directory)
    start_step = start.step if start else 0
    changes = resume.require_same_run(start, run.spec, run.dataset, allow_changes) if start else []
    if start_step > run.total_steps:
      raise ValueError(
        f"{workdir} is at step {start_step}, and optimizer.epochs={config.optimizer.epochs:g} ends "
        f"at {run.total_steps}"
      )
    if start and start_step == run.total_steps:
      resume.require_saved_settings(start, run.spec)
    resume.clear_the_way(directory, problems)
    return _train_from(run, workdir, start, _record(run, workdir, start, changes))


def _train_from(
  run: TrainingRun, workdir: pathlib.Path, start: SavedStep | None, record: dict[str, Any]
) -> TrainState:
  """Takes the steps that are left; `record` goes into the checkpoints' descriptions."""
  config, start_step = run.config, start.step if start else 0
  evaluator = Evaluator(run.spec, run.dataset)
  init, step_fn = compile_step(run.spec, run.schedule, run.mesh)
  gradient_norms = compile_gradient_norms(run.spec, run.mesh)
  state = init()
  require_room(workdir, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
  with (
    Checkpoints(workdir / "checkpoints", max_to_keep=config.checkpoints.keep) as checkpoints,
    contextlib.closing(_writer(workdir)) as writer,
    StopRequest() as stop,
  ):
    if start is None:
      state = state.started(warm_start.initialize(state.model(), run.spec))
    else:
      state = state.restored(**checkpoints.restore(start_step, **state.targets()))
    if jax.process_index() == 0:
      _write_overview(workdir, run.spec, state, start_step)
    _log.info("%s\n", run.start_block(state, start_step, workdir))
    _log.info("compiling: minutes when a model first starts on a machine, seconds from then on")
    batches = run.batches(start_step)
    watch = FiniteWatch(workdir / "failed_batch", run.clips_of_step)
    progress = Progress(
      start_step, run.total_steps, run.batch_size, run.steps_per_epoch, writer, run.schedule
    )
    clock = SaveClock(config)

    def due(step: int, every_epochs: float) -> bool:
      return every_epochs > 0 and step % max(round(every_epochs * run.steps_per_epoch), 1) == 0

    stopped = False
    for step in range(start_step + 1, run.total_steps + 1):
      with progress.waiting_for_data():
        batch = next(batches)
      if config.log_gradients and step % config.log_gradients == 0:
        with progress.paused():  # before the step, which takes the state
          writer.write_scalars(step, jax.device_get(gradient_norms(state, batch)))
      state, terms = step_fn(state, batch)
      watch.add(step, batch, terms)
      progress.add(terms)
      last = step == run.total_steps
      if last or step % config.log_every == 0:
        progress.report(step)
      every = config.eval.every_epochs
      evaluate = (due(step, every) or (last and every > 0)) and not stop.reached(step)
      f1_mean = None
      if evaluate:
        watch.settle(state)
        with progress.paused(), stop.interruptible():
          f1_mean = _evaluate(evaluator, run, state, step, writer)
      stopped = stop.reached(step)
      save = due(step, config.checkpoints.every_epochs) or clock.due(step)
      if last or stopped or evaluate or save:
        watch.settle(state)
        checkpoints.save(
          step, state.model(), state.training(), run.spec, run=record, f1_mean=f1_mean
        )
        clock.saved()
      if stopped:
        break
    progress.close()
  if stopped:
    _log.info("stopped; step %d is saved, and the same command goes on from there", step)
    stop.leave()
  return state


def _evaluate(
  evaluator: Evaluator,
  run: TrainingRun,
  state: TrainState,
  step: int,
  writer: metric_writers.MetricWriter,
) -> float | None:
  """Evaluates one clip per video; returns the `f1_mean`, None without labels."""
  results = evaluator(state.model(), run.config.data.eval_split, num_clips=1)
  for branch, values in results.metrics.items():
    writer.write_scalars(step, {f"eval/{branch}/{name}": v for name, v in values.items()})
  _log.info("epoch %.0f, 1 clip per video\n%s", step / run.steps_per_epoch, results.table())
  return results.metrics["fused"]["f1_mean"] if results.metrics else None


def _record(
  run: TrainingRun, workdir: pathlib.Path, start: SavedStep | None, changes: list[Change]
) -> dict[str, Any]:
  """What the descriptions of checkpoints say about the run.

  The data set's path is that from the working directory: both may be moved together, and a model
  that is shared does not tell of the folders of its owner.
  """
  former = start.description.get("run", {}).get("allowed_changes", []) if start else []
  return {
    "dataset": {
      "path": os.path.relpath(run.config.data.path, workdir),
      "fingerprint": run.dataset.fingerprint,
    },
    "allowed_changes": [*former, *({"step": start.step} | c._asdict() for c in changes if start)],
  }


def _write_overview(
  workdir: pathlib.Path, spec: ModelSpec, state: TrainState, start_step: int
) -> None:
  """Writes the complete config and a table of all parameters, for people to read."""
  path, content = workdir / "config.json", json.dumps(spec.to_json(), indent=2) + "\n"
  if path.is_file() and path.read_text() != content:
    path.replace(workdir / f"config-until-step-{start_step}.json")
  replace_file(path, content)
  overview = parameter_overview.get_parameter_overview(state.params, include_stats=False)
  replace_file(workdir / "parameters.txt", overview + "\n")


def _writer(workdir: pathlib.Path) -> metric_writers.MetricWriter:
  """A writer of TensorBoard events, on the first host only."""
  first = jax.process_index() == 0
  return metric_writers.MultiWriter([metric_writers.SummaryWriter(str(workdir))] if first else [])


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
  """Fetches each batch while the previous one is in use."""
  ahead = next(batches)
  for batch in batches:
    yield ahead
    ahead = batch

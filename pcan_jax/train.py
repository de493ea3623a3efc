"""Training: the state, one pure step, and the loop around it."""

import contextlib
import functools
import json
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from clu import metric_writers, metrics, parameter_overview
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from pcan_jax import evaluate, inference, input_pipeline, losses, warm_start
from pcan_jax.checkpoints import Checkpoints, Description
from pcan_jax.pcan import PCAN, build_model
from pcan_jax.preprocess import Augmentation, Preprocessing, preprocess
from pcan_jax.progress import Progress, Terms

Batch = dict[str, Any]
PyTree = Any

_log = logging.getLogger(__name__)


@flax.struct.dataclass
class TrainState:
  """All that a step changes.

  Attributes:
    step: number of steps taken.
    params: trained by the optimizer.
    batch_stats: running statistics of BatchNorm.
    prototypes: class prototypes per stream; neither trained nor decayed.
    opt_state: of the optimizer.
  """

  step: jax.Array
  params: PyTree
  batch_stats: PyTree
  prototypes: PyTree
  opt_state: optax.OptState

  def model(self) -> dict[str, PyTree]:
    return {
      "params": self.params,
      "batch_stats": self.batch_stats,
      "prototypes": self.prototypes,
    }

  def training(self) -> dict[str, PyTree]:
    return {"step": self.step, "opt_state": self.opt_state}


def learning_rate(config: ConfigDict, batch_size: int, steps_per_epoch: float) -> optax.Schedule:
  """The schedule that the `optimizer` part of a config describes, scaled to the batch size.

  Raises:
    ValueError: `schedule` is neither "step" nor "cosine".
  """
  peak = config.learning_rate * batch_size / config.learning_rate_batch_size
  total, warmup = (round(e * steps_per_epoch) for e in (config.epochs, config.warmup_epochs))
  if config.schedule == "step":
    boundaries = {round(e * steps_per_epoch) - warmup: 0.1 for e in config.decay_epochs}
    schedule = optax.piecewise_constant_schedule(peak, boundaries)
  elif config.schedule == "cosine":
    schedule = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
  else:
    raise ValueError(f"optimizer.schedule must be step or cosine, not {config.schedule!r}")
  if not warmup:
    return schedule
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), schedule], [warmup])


def build_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
  """SGD with momentum; weight decay is added to the gradient of every parameter."""
  transforms = [
    optax.add_decayed_weights(config.weight_decay),
    optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov),
  ]
  if config.clip_norm:
    transforms.insert(0, optax.clip_by_global_norm(config.clip_norm))
  return optax.chain(*transforms)


def init_state(
  model: PCAN, optimizer: optax.GradientTransformation, inputs: dict[str, jax.Array], seed: int
) -> TrainState:
  """A fresh state for inputs of the given shapes."""
  variables = model.init(jax.random.key(seed), inputs, train=False)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables["params"],
    batch_stats=variables["batch_stats"],
    prototypes=variables.get("prototypes", {}),
    opt_state=optimizer.init(variables["params"]),
  )


def train_step(
  state: TrainState,
  batch: Batch,
  *,
  model: PCAN,
  optimizer: optax.GradientTransformation,
  loss_config: losses.LossConfig,
  preprocessing: Preprocessing,
  seed: int,
) -> tuple[TrainState, Terms]:
  """One step: preprocess, differentiate, update parameters, statistics and prototypes.

  Args:
    state: before the step; randomness derives from `seed` and `state.step`.
    batch: as `input_pipeline.training_batches` yields it.
    model, optimizer, loss_config, preprocessing, seed: what stays the same over a run.

  Returns:
    The state after the step, and averages of losses, accuracies and sizes of the sets.
  """
  key_inputs, key_dropout = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step))
  inputs = preprocess(batch, preprocessing, key_inputs)
  parents = jnp.asarray(model.tree.parents)
  action = batch["action"]

  def loss_fn(params: PyTree) -> tuple[jax.Array, tuple]:
    outputs, mutated = model.apply(
      {"params": params, "batch_stats": state.batch_stats, "prototypes": state.prototypes},
      inputs,
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": key_dropout},
    )
    total, terms, prototypes = 0.0, {}, {}
    for stream, out in outputs.items():
      loss, stream_terms, updated = losses.stream_loss(
        action_logits=out["action_logits"],
        body_logits=out["body_logits"],
        action_embedding=out.get("action_embedding"),
        body_embedding=out.get("body_embedding"),
        prototypes=state.prototypes.get(stream),
        action=action,
        parents=parents,
        config=loss_config,
      )
      total += loss
      terms |= {f"{stream}/{name}": value for name, value in stream_terms.items()}
      terms[f"{stream}/action_top1"] = jnp.mean(out["action_logits"].argmax(-1) == action)
      terms[f"{stream}/body_top1"] = jnp.mean(out["body_logits"].argmax(-1) == parents[action])
      if updated is not None:
        prototypes[stream] = updated
    return total, (mutated["batch_stats"], prototypes, terms | {"loss": total})

  gradients, (batch_stats, prototypes, terms) = jax.grad(loss_fn, has_aux=True)(state.params)
  updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  state = state.replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=batch_stats,
    prototypes=jax.lax.stop_gradient(prototypes),
    opt_state=opt_state,
  )
  terms["gradient_norm"] = optax.tree.norm(gradients)
  return state, {name: metrics.Average.from_model_output(value) for name, value in terms.items()}


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
  dataset = input_pipeline.open_dataset(config.data.path, config.data.instructions)
  mesh = inference.data_mesh()
  batch_size = config.optimizer.batch_size
  if batch_size % mesh.size:
    raise ValueError(
      f"optimizer.batch_size={batch_size} does not divide among {mesh.size} devices; "
      f"use a multiple of {mesh.size}"
    )
  num_clips = dataset.num_clips(config.data.train_split)
  steps_per_epoch = num_clips / batch_size
  total_steps = round(config.optimizer.epochs * steps_per_epoch)
  description = Description(config, dataset.tree, dataset.layout, dataset.stored_size)
  schedule = learning_rate(config.optimizer, batch_size, steps_per_epoch)
  model = build_model(config.model, dataset.tree)
  evaluator = evaluate.Evaluator(model, description, dataset)
  sharded = NamedSharding(mesh, PartitionSpec("data"))
  state, step_fn = _compile(model, description, schedule, mesh)

  workdir.mkdir(parents=True, exist_ok=True)
  with (
    Checkpoints(workdir / "checkpoints", max_to_keep=config.checkpoints.keep) as checkpoints,
    contextlib.closing(_writer(workdir)) as writer,
  ):
    start_step = checkpoints.latest_step or 0
    if checkpoints.latest_step is None:
      state = state.replace(**warm_start.initialize(state.model(), model, description))
    else:
      state = restore_state(checkpoints, start_step, state)
      _log.info("resumed from step %d of %s", start_step, workdir)
    (workdir / "config.json").write_text(json.dumps(description.to_json(), indent=2) + "\n")
    (workdir / "parameters.txt").write_text(
      parameter_overview.get_parameter_overview(state.params, include_stats=False) + "\n"
    )
    _log.info(
      "%s parameters, %d clips, %d steps of %d clips on %d device(s)",
      f"{parameter_overview.count_parameters(state.params):,}",
      num_clips,
      total_steps,
      batch_size,
      mesh.size,
    )
    batches = input_pipeline.training_batches(
      dataset,
      config.data.train_split,
      evaluate.clips(config, num_clips=None),
      batch_size=batch_size,
      seed=config.seed,
      start_step=start_step,
      num_hosts=jax.process_count(),
      host=jax.process_index(),
    )
    device_batches = to_device(batches, sharded)
    progress = Progress(start_step, total_steps, batch_size, steps_per_epoch, writer, schedule)

    def due(step: int, every_epochs: float) -> bool:
      return every_epochs > 0 and step % max(round(every_epochs * steps_per_epoch), 1) == 0

    for step in range(start_step + 1, total_steps + 1):
      state, terms = step_fn(state, next(device_batches))
      progress.add(terms)
      last = step == total_steps
      if last or step % config.log_every == 0:
        progress.report(step)
      if last or due(step, config.checkpoints.every_epochs):
        checkpoints.save(step, state.model(), state.training(), description)
      if due(step, config.eval.every_epochs) and not last:
        with progress.paused():
          results = evaluator(state.model(), config.data.eval_split, num_clips=1)
        for branch, values in results.metrics.items():
          writer.write_scalars(step, {f"eval/{branch}/{name}": v for name, v in values.items()})
        _log.info("epoch %.0f, 1 clip per video\n%s", step / steps_per_epoch, results.table())
  return state


def _compile(
  model: PCAN, description: Description, schedule: optax.Schedule, mesh: Mesh
) -> tuple[TrainState, Callable[[TrainState, Batch], tuple[TrainState, Terms]]]:
  """A fresh state on all devices, and the step for batches that are sharded over them."""
  config = description.config
  optimizer = build_optimizer(config.optimizer, schedule)
  preprocessing = inference.preprocessing(description, Augmentation(**config.augmentation))
  replicated = NamedSharding(mesh, PartitionSpec())
  init_fn = functools.partial(init_state, model, optimizer, seed=config.seed)
  inputs = inference.example_inputs(model, config.input, preprocessing)
  step_fn = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    loss_config=losses.LossConfig(**config.loss),
    preprocessing=preprocessing,
    seed=config.seed,
  )
  return jax.jit(init_fn, out_shardings=replicated)(inputs), jax.jit(
    step_fn,
    in_shardings=(replicated, NamedSharding(mesh, PartitionSpec("data"))),
    out_shardings=replicated,
    donate_argnums=0,
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

"""The training step: what it changes, what it does, and its compilation for a mesh of devices.

Knows arrays only, no files, so that it can be measured and tested on its own.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from pcan_jax import inference, losses
from pcan_jax.checkpoints import Description
from pcan_jax.pcan import PCAN, StreamOutputs
from pcan_jax.preprocess import Augmentation, Preprocessing, preprocess

Batch = dict[str, Any]
PyTree = Any
Terms = dict[str, metrics.Average]


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

  def loss_fn(params: PyTree) -> tuple[jax.Array, tuple]:
    outputs, mutated = model.apply(
      {"params": params, "batch_stats": state.batch_stats, "prototypes": state.prototypes},
      inputs,
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": key_dropout},
    )
    total, terms, prototypes = _all_streams(
      outputs, state.prototypes, action=batch["action"], parents=parents, config=loss_config
    )
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


def _all_streams(
  outputs: dict[str, StreamOutputs],
  prototypes: PyTree,
  *,
  action: jax.Array,
  parents: jax.Array,
  config: losses.LossConfig,
) -> tuple[jax.Array, dict[str, jax.Array], PyTree]:
  """The losses of all streams, their terms as `STREAM/NAME`, and their new prototypes.

  Streams have the same shapes. Taking both at once halves the number of operations, each of which
  is so small that it takes as long as it takes to be started.
  """

  def one_stream(out: StreamOutputs, prototypes: PyTree) -> tuple[jax.Array, dict, PyTree]:
    total, terms, updated = losses.stream_loss(
      **out, prototypes=prototypes, action=action, parents=parents, config=config
    )
    terms["action_top1"] = jnp.mean(out["action_logits"].argmax(-1) == action)
    terms["body_top1"] = jnp.mean(out["body_logits"].argmax(-1) == parents[action])
    return total, terms, updated

  alike = [(out, prototypes.get(stream)) for stream, out in outputs.items()]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alike)
  total, terms, updated = jax.vmap(one_stream)(*stacked)
  named_terms, new_prototypes = {}, {}
  for index, stream in enumerate(outputs):
    named_terms |= {f"{stream}/{name}": values[index] for name, values in terms.items()}
    if updated is not None:
      new_prototypes[stream] = {level: values[index] for level, values in updated.items()}
  return jnp.sum(total), named_terms, new_prototypes


def jitted(
  model: PCAN, description: Description, schedule: optax.Schedule, mesh: Mesh
) -> tuple[Callable[[], TrainState], Callable[[TrainState, Batch], tuple[TrainState, Terms]]]:
  """What makes a fresh state on all devices, and the step for batches sharded over them."""
  config = description.config
  optimizer = build_optimizer(config.optimizer, schedule)
  preprocessing = inference.preprocessing(description, Augmentation(**config.augmentation))
  replicated = NamedSharding(mesh, PartitionSpec())

  def init() -> TrainState:
    inputs = inference.example_inputs(model, config.input, preprocessing)
    return init_state(model, optimizer, inputs, seed=config.seed)

  step = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    loss_config=losses.LossConfig(**config.loss),
    preprocessing=preprocessing,
    seed=config.seed,
  )
  return jit_once(init, mesh), jax.jit(
    step,
    in_shardings=(replicated, NamedSharding(mesh, PartitionSpec("data"))),
    out_shardings=replicated,
    donate_argnums=0,
  )


def jit_once(make: Callable[[], PyTree], mesh: Mesh) -> Callable[[], PyTree]:
  """Jits what is called once, as a network's initialisation is; its results are on all devices.

  A CPU's compiler would spend a quarter of a second on the random numbers of each parameter, to
  draw them faster by less than that.
  """
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  options = {"xla_backend_optimization_level": 1} if on_cpu else None
  replicated = NamedSharding(mesh, PartitionSpec())
  return jax.jit(make, out_shardings=replicated, compiler_options=options)


def compile_step(
  model: PCAN, description: Description, schedule: optax.Schedule, mesh: Mesh
) -> tuple[TrainState, Callable[[TrainState, Batch], tuple[TrainState, Terms]]]:
  """A fresh state on all devices, and the step for batches that are sharded over them."""
  init, step = jitted(model, description, schedule, mesh)
  return init(), step

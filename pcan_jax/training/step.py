"""The training step: its state, the step itself, and its compilation for a mesh of devices.

Works on arrays only, without files, so that it can be measured and tested on its own.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import UInt32

from pcan_jax.inputs import mix, preprocess
from pcan_jax.mesh import jit_once, jit_step
from pcan_jax.method import losses
from pcan_jax.network.pcan import Outputs, StreamOutputs, rgb_share
from pcan_jax.spec import ModelSpec
from pcan_jax.training.optimizer import build_optimizer

Batch = dict[str, Any]
PyTree = Any
Terms = dict[str, jax.Array]

_MIXUP = 1  # folded into a clip's key, beside what the augmentation draws


class TrainState(flax.struct.PyTreeNode):
  """What a training step updates.

  Attributes:
    step: number of steps taken, int32.
    seed: of all that a run draws, uint32; not stored, as it is the config's. Part of the state so
      that runs with other seeds find the compiled step.
    params: trained by the optimizer.
    batch_stats: running statistics of BatchNorm.
    prototypes: class prototypes per stream; neither trained nor decayed.
    opt_state: of the optimizer.
    averaged: the moving average of `params`, by which is predicted; empty without `optimizer.ema`.
  """

  step: PyTree
  seed: PyTree
  params: PyTree
  batch_stats: PyTree
  prototypes: PyTree
  opt_state: optax.OptState
  averaged: PyTree = flax.struct.field(default_factory=dict)

  def model(self) -> dict[str, PyTree]:
    """The variables of the network, as `ModelSpec.predict` takes them."""
    return {
      "params": self.averaged or self.params,
      "batch_stats": self.batch_stats,
      "prototypes": self.prototypes,
    }

  def training(self) -> dict[str, PyTree]:
    """What only training needs, by name."""
    trained = {"params": self.params} if self.averaged else {}
    return {"step": self.step, "opt_state": self.opt_state} | trained

  def targets(self) -> dict[str, PyTree]:
    """`model` and `training` as shapes with shardings, to restore arrays like them."""
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      {"model": self.model(), "training": self.training()},
    )

  def restored(self, model: dict[str, PyTree], training: dict[str, PyTree]) -> "TrainState":
    """A state of which `model` and `training` return these."""
    variables = model | ({"averaged": model["params"]} if self.averaged else {})
    return self.replace(**variables | training)

  def started(self, model: dict[str, PyTree]) -> "TrainState":
    """A state that starts from other weights, which are also the first average."""
    # A copy, because the step donates both.
    params = jax.tree.map(jnp.copy, model["params"]) if self.averaged else model["params"]
    return self.restored(model, {"params": params})


def init_state(
  spec: ModelSpec, optimizer: optax.GradientTransformation, seed: UInt32[ArrayLike, ""]
) -> TrainState:
  """A new state."""
  variables = spec.init(seed)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    seed=jnp.asarray(seed),
    **variables,
    opt_state=optimizer.init(variables["params"]),
    averaged=variables["params"] if spec.config.optimizer.ema else {},
  )


def loss_function(
  state: TrainState, batch: Batch, spec: ModelSpec
) -> Callable[[PyTree], tuple[jax.Array, tuple[PyTree, PyTree, Terms]]]:
  """The loss of a step as a function of the parameters; it draws what the step draws.

  Args:
    state, batch, spec: as for `train_step`.

  Returns:
    A function that returns the total, and beside it the new statistics of BatchNorm, the new
    prototypes and all terms.
  """
  key = jax.random.fold_in(jax.random.key(state.seed), state.step)
  key_inputs, key_dropout = jax.random.split(key)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key_inputs, batch["position"])
  inputs = preprocess(batch, spec.train_preprocessing, keys)
  mixup, mixed = spec.train_preprocessing.augmentation.mixup, None
  if mixup:
    keys_mixup = jax.vmap(jax.random.fold_in, (0, None))(keys, _MIXUP)
    inputs, share = mix(inputs, mixup, keys_mixup)
    mixed = losses.Mixed(jnp.roll(batch["action"], 1), share)

  def loss_fn(params: PyTree) -> tuple[jax.Array, tuple[PyTree, PyTree, Terms]]:
    outputs, mutated = spec.model.apply(
      {"params": params, "batch_stats": state.batch_stats, "prototypes": state.prototypes},
      inputs,
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": key_dropout},
    )
    if spec.pretrains:
      total, terms, prototypes = outputs, {"rgb/reconstruction": outputs}, {}
    else:
      frames = _without_frames(outputs)
      total, terms, prototypes = _all_streams(outputs, state, batch["action"], mixed, spec)
      for stream, logits in frames.items():
        of_frames = losses.frame_loss(logits, batch["action"], spec.losses, mixed, spec.balances)
        terms[f"{stream}/ce_frames"] = of_frames
        total += spec.losses.frame_weight * of_frames
      if spec.model.learned_fusion:
        labels = {
          "action": batch["action"],
          "body": jnp.asarray(spec.tree.parents)[batch["action"]],
        }
        for level, label in labels.items():
          logits = {stream: levels[level]["logits"] for stream, levels in outputs.items()}
          terms[f"fusion/{level}"] = losses.fusion_loss(logits, rgb_share(params, level), label)
          total += terms[f"fusion/{level}"]
    return total, (mutated.get("batch_stats", {}), prototypes, terms | {"loss": total})

  return loss_fn


def train_step(
  state: TrainState, batch: Batch, *, spec: ModelSpec, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Terms]:
  """One step: preprocess, differentiate, update parameters, statistics and prototypes.

  Args:
    state: before the step; randomness derives from its seed and step and, of the
      augmentation, a clip's `position`.
    batch: as `feed.pipeline.training_batches` yields it.
    spec, optimizer: constant over a run.

  Returns:
    The state after the step, and scalars: losses, accuracies and sizes of the sets.
  """
  loss_fn = loss_function(state, batch, spec)
  with spec.matmul_precision():  # also of the backward pass
    gradients, (batch_stats, prototypes, terms) = jax.grad(loss_fn, has_aux=True)(state.params)
  updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  state = state.replace(
    step=state.step + 1,
    params=params,
    averaged=_average(state, params, spec.config.optimizer.ema) if state.averaged else {},
    batch_stats=batch_stats,
    prototypes=jax.lax.stop_gradient(prototypes),
    opt_state=opt_state,
  )
  return state, terms | {"gradient_norm": optax.tree.norm(gradients)}


def _average(state: TrainState, params: PyTree, ema: float) -> PyTree:
  """The moving average; at first of fewer steps, so that it forgets random weights."""
  kept = jnp.minimum(ema, state.step / (state.step + 10.0))
  return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, state.averaged, params)


def _without_frames(outputs: Outputs) -> dict[str, jax.Array]:
  """Takes the logits of time steps out; streams have different numbers of them."""
  classified = (stream for stream, levels in outputs.items() if "frames" in levels["action"])
  return {stream: outputs[stream]["action"].pop("frames") for stream in classified}


def _all_streams(
  outputs: Outputs,
  state: TrainState,
  action: jax.Array,
  mixed: losses.Mixed | None,
  spec: ModelSpec,
) -> tuple[jax.Array, Terms, PyTree]:
  """The sum of the streams' losses, their terms as `STREAM/NAME`, and their new prototypes.

  Outputs of all streams have the same shapes and are stacked: that halves the number of operations,
  whose cost is mostly that of launching them.
  """
  parents = jnp.asarray(spec.tree.parents)
  pcc_share = spec.losses.pcc_share(state.step)

  def one_stream(out: StreamOutputs, prototypes: PyTree) -> tuple[jax.Array, Terms, PyTree]:
    total, terms, updated = losses.stream_loss(
      out,
      prototypes,
      action=action,
      parents=parents,
      config=spec.losses,
      mixed=mixed,
      balance=spec.balances,
      pcc_share=pcc_share,
    )
    for level, label in (("action", action), ("body", parents[action])):
      terms[f"{level}_top1"] = jnp.mean(out[level]["logits"].argmax(-1) == label)
    return total, terms, updated

  alike = [(out, state.prototypes.get(stream)) for stream, out in outputs.items()]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alike)
  total, terms, updated = jax.vmap(one_stream)(*stacked)
  named_terms, new_prototypes = {}, {}
  for index, stream in enumerate(outputs):
    named_terms |= {f"{stream}/{name}": values[index] for name, values in terms.items()}
    if updated is not None:
      new_prototypes[stream] = {level: values[index] for level, values in updated.items()}
  return jnp.sum(total), named_terms, new_prototypes


def build_step(
  spec: ModelSpec, schedule: optax.Schedule
) -> tuple[Callable[[Any], TrainState], Callable[[TrainState, Batch], tuple[TrainState, Terms]]]:
  """Functions that make a new state of a seed, and that take a step with a batch."""
  optimizer = build_optimizer(spec.config.optimizer, schedule)
  init = functools.partial(init_state, spec, optimizer)
  return init, functools.partial(train_step, spec=spec, optimizer=optimizer)


def compile_step(
  spec: ModelSpec, schedule: optax.Schedule, mesh: Mesh
) -> tuple[Callable[[], TrainState], jax.stages.Wrapped]:
  """Functions that make a new state on all devices, and that take a step with a sharded batch.

  Both are compiled when first called. The state is drawn with the config's seed.
  """
  init, step = build_step(spec, schedule)
  make_state = functools.partial(jit_once(init, mesh), np.uint32(spec.config.seed))
  return make_state, jit_step(step, mesh, donate_argnums=0)

"""What the benchmarks run: a config's training or evaluation step, compiled, on made-up clips."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pcan_jax.keypoints import get_layout
from pcan_jax.labels import get_tree
from pcan_jax.mesh import data_mesh, jit_once, jit_step, sharded
from pcan_jax.network.forms import Forms, for_platform
from pcan_jax.spec import ModelSpec
from pcan_jax.training.optimizer import learning_rate
from pcan_jax.training.step import build_step, compile_step

TREE = get_tree("ma52")
LAYOUT = get_layout("openpose-28")
STEPS_PER_EPOCH = 1125.0  # MA-52's in batches of 10; only the learning rate depends on it
KINDS = ("training", "evaluation")
Shape = jax.ShapeDtypeStruct


@dataclasses.dataclass
class Program:
  """A traced step, and how to make what it takes.

  Attributes:
    spec: of the model that the step is of.
    kind: "training" or "evaluation".
    batch_size: clips of a call, over all devices.
    traced: the program before it is made for a platform.
    make_state: makes its first argument: the training state, or the variables that predict.
    make_batch: makes its second argument, the clips.
  """

  spec: ModelSpec
  kind: str
  batch_size: int
  traced: jax.stages.Traced
  make_state: Callable[[], Any]
  make_batch: Callable[[], dict[str, jax.Array]]

  @functools.cached_property
  def lowered(self) -> jax.stages.Lowered:
    """The program for the backend in use, before any optimisation."""
    return self.traced.lower()

  @property
  def num_parameters(self) -> int:
    """Values that are trained."""
    state = self.traced.in_avals[0][0]
    params = state.params if self.kind == "training" else state["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))

  @functools.cached_property
  def operations(self) -> float:
    """Floating point operations of a call, counted by XLA before any optimisation.

    Of the forms that do the least of them, whatever the device, and of the program for GPUs, as
    that for CPUs has loops, whose body would count once. Only XLA's CPU backend counts.
    """
    mesh = data_mesh(jax.devices("cpu")[:1])
    traced = trace(self.spec.config, self.kind, self.batch_size, mesh).traced
    return traced.lower(lowering_platforms=("cuda",)).cost_analysis()["flops"]

  def compile(self, options: Mapping[str, Any] | None = None) -> "Step":
    """Compiles it, perhaps with other options of XLA than those of its platform."""
    start = time.perf_counter()
    compiled = self.lowered.compile(compiler_options=dict(options) if options else None)
    return Step(self, compiled, time.perf_counter() - start)


@dataclasses.dataclass
class Step:
  """A compiled step that can be called again and again.

  Attributes:
    program: what was compiled.
    compiled: for its memory analysis and its text.
    compile_seconds: by the clock.
  """

  program: Program
  compiled: jax.stages.Compiled
  compile_seconds: float

  @property
  def memory(self) -> int:
    """Bytes that a device needs for a call, by the compiler's plan: arguments, results, the rest.

    What is donated counts once.
    """
    plan = self.compiled.memory_analysis()
    used = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return used - plan.alias_size_in_bytes

  @functools.cached_property
  def _arguments(self) -> list[Any]:
    return [self.program.make_state(), self.program.make_batch()]

  def __call__(self) -> Any:
    """Takes a step, waits for it, and returns what it put out; training goes on from there."""
    outputs = jax.block_until_ready(self.compiled(*self._arguments))
    if self.program.kind == "training":
      self._arguments[0] = outputs[0]
    return outputs


def without_prototypes(config: ConfigDict) -> ConfigDict:
  """The same network with cross-entropies only: no embeddings, no prototypes, no losses on them."""
  config = config.copy_and_resolve_references()
  config.model.prototypes = False
  config.loss.update(hp_weight=0.0, pcc_weight=0.0, pda_weight=0.0)
  return config


def model_spec(config: ConfigDict, kind: str, forms: Forms | None = None) -> ModelSpec:
  """MA-52's labels and keypoints, and stored frames that fit what a kind of step makes of them."""
  size = config.input.train_size if kind == "training" else config.input.test_size
  stored_size = 256 if size > 128 else 64
  return ModelSpec(config, TREE, LAYOUT, stored_size, forms=forms)


def trace(
  config: ConfigDict,
  kind: str,
  batch_size: int,
  mesh: Mesh | None = None,
  forms: Forms | None = None,
) -> Program:
  """Traces a step as training or evaluation does.

  Args:
    config: any config of this project; its batch is not used.
    kind: one of `KINDS`; an evaluation step sees one clip per video.
    batch_size: clips of a step, over all devices.
    mesh: the devices; without one, the first device.
    forms: of operations; without, those for the mesh's platform.
  """
  mesh = mesh or data_mesh(jax.devices()[:1])
  config = config.copy_and_resolve_references()
  config.optimizer.batch_size = batch_size
  spec = model_spec(config, kind, forms or for_platform(mesh.devices.flat[0].platform))
  if kind == "training":
    schedule = learning_rate(config.optimizer, STEPS_PER_EPOCH)
    make_state, step = compile_step(spec, schedule, mesh)
    # `make_state` has compiler options, with which it cannot be part of another trace.
    state = jax.eval_shape(build_step(spec, schedule)[0], Shape((), np.uint32))
    shapes = {
      "action": Shape((batch_size,), np.int32),
      "position": Shape((batch_size,), np.uint32),
    } | spec.batch_shapes(batch_size)
  else:
    make_state, step = jit_once(spec.init, mesh), jit_step(spec.predict, mesh)
    state = jax.eval_shape(spec.init)
    shapes = spec.batch_shapes(batch_size, 1)

  def make_batch() -> dict[str, jax.Array]:
    return jax.device_put(made_up_batch(shapes, spec.stored_size), sharded(mesh))

  traced = cast(jax.stages.Wrapped, step).trace(state, shapes)
  return Program(spec, kind, batch_size, traced, make_state, make_batch)


def made_up_batch(shapes: dict[str, Shape], side: int) -> dict[str, np.ndarray]:
  """Noise for frames, joints anywhere, the labels in turn."""
  rng = np.random.default_rng(0)
  make = {
    "action": lambda shape: np.arange(shape[0], dtype=np.int32) % TREE.num_actions,
    "position": lambda shape: np.arange(shape[0], dtype=np.uint32),
    "rgb": lambda shape: rng.integers(0, 256, shape, np.uint8),
    "keypoints": lambda shape: rng.uniform(0, side, shape).astype(np.float32),
    "keypoint_scores": lambda shape: rng.uniform(0.3, 1, shape).astype(np.float32),
  }
  return {name: make[name](shape.shape) for name, shape in shapes.items()}

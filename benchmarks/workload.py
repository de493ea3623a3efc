"""What the benchmarks run: a config's training or evaluation step, compiled, on made-up clips."""

import dataclasses
import functools
import importlib.util
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from pcan_jax import spec as inference
from pcan_jax.checkpoints import Description
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.network.pcan import build_model
from pcan_jax.training import step as train_step

TREE = LabelTree.read_csv(pathlib.Path(__file__).parents[1] / "data" / "trees" / "ma52.csv")
LAYOUT = get_layout("openpose-28")
STEPS_PER_EPOCH = 1125.0  # MA-52's in batches of 10; only the learning rate depends on it
KINDS = ("training", "evaluation")
Shape = jax.ShapeDtypeStruct


@dataclasses.dataclass
class Program:
  """A traced step, and how to make what it takes.

  Attributes:
    kind: "training" or "evaluation".
    batch_size: clips of a call, over all devices.
    traced: the program before it is made for a platform.
    make_state: makes its first argument: the training state, or the variables that predict.
    make_batch: makes its second argument, the clips.
  """

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
    state = self.lowered.in_avals[0][0]
    params = state.params if self.kind == "training" else state["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))

  @functools.cached_property
  def operations(self) -> float:
    """Floating point operations of a call, counted by XLA before any optimisation.

    Of the program for GPUs, whatever the backend: a CPU's has loops, whose body would count once.
    """
    return self.traced.lower(lowering_platforms=("cuda",)).cost_analysis()["flops"]

  def compile(self) -> "Step":
    start = time.perf_counter()
    compiled = self.lowered.compile()
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


def load_config(name: str) -> ConfigDict:
  """Loads `FILE.py` or `FILE.py:VARIANT`.

  Raises:
    FileNotFoundError: there is no such file.
  """
  path, _, variant = name.partition(":")
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f"there is no config {path}")
  spec = importlib.util.spec_from_file_location("benchmark_config", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*([variant] if variant else []))


def without_prototypes(config: ConfigDict) -> ConfigDict:
  """The same network with cross-entropies only: no embeddings, no prototypes, no losses on them."""
  config = config.copy_and_resolve_references()
  config.model.prototypes = False
  config.loss.update(hp_weight=0.0, pcc_weight=0.0, pda_weight=0.0)
  return config


def data_mesh(devices: list[jax.Device]) -> Mesh:
  """These devices along one axis, `data`."""
  return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def trace(config: ConfigDict, kind: str, batch_size: int, mesh: Mesh | None = None) -> Program:
  """Traces a step as training or evaluation does.

  Args:
    config: any config of this project.
    kind: one of `KINDS`; an evaluation step sees one clip per video.
    batch_size: clips of a step, over all devices.
    mesh: the devices; without one, the first device.
  """
  mesh = mesh or data_mesh(jax.devices()[:1])
  size = config.input.train_size if kind == "training" else config.input.test_size
  side = 256 if size > 128 else 64  # of stored frames
  description = Description(config, TREE, LAYOUT, stored_size=side)
  model = build_model(config.model, TREE)
  shapes = batch_shapes(config, side, batch_size)
  if kind == "training":
    schedule = train_step.learning_rate(config.optimizer, batch_size, STEPS_PER_EPOCH)
    init, step = train_step.jitted(model, description, schedule, mesh)
  else:
    init, step = _evaluation(model, description, mesh)
    del shapes["action"]
    one_clip = lambda x: Shape((x.shape[0], 1, *x.shape[1:]), x.dtype)  # noqa: E731
    shapes = jax.tree.map(one_clip, shapes)
  sharding = NamedSharding(mesh, PartitionSpec("data"))

  def make_batch() -> dict[str, jax.Array]:
    return jax.device_put(made_up_batch(shapes, side), sharding)

  return Program(kind, batch_size, step.trace(jax.eval_shape(init), shapes), init, make_batch)


def _evaluation(model: Any, description: Description, mesh: Mesh) -> tuple[Callable, Callable]:
  """Jitted functions that make a network's variables, and predict with them."""
  config = description.config
  sizes = inference.preprocessing(description)
  replicated = NamedSharding(mesh, PartitionSpec())

  def init() -> Any:
    inputs = inference.example_inputs(model, config.input, sizes)
    return {"prototypes": {}} | dict(model.init(jax.random.key(0), inputs, train=False))

  step = functools.partial(
    inference.predict_step, model=model, sizes=sizes, gamma=config.eval.gamma.to_dict()
  )
  return train_step.jit_once(init, mesh), jax.jit(
    step,
    in_shardings=(replicated, NamedSharding(mesh, PartitionSpec("data"))),
    out_shardings=replicated,
  )


def batch_shapes(config: ConfigDict, side: int, batch_size: int) -> dict[str, Shape]:
  """The arrays of a training batch, as `config` wants them of frames of `side` pixels."""
  shapes = {"action": Shape((batch_size,), np.int32)}
  if "rgb" in config.model.streams:
    frames = (batch_size, config.input.rgb_frames, side, side, 3)
    shapes["rgb"] = Shape(frames, np.uint8)
  if "pose" in config.model.streams:
    joints = (batch_size, config.input.pose_frames, config.input.max_persons, len(LAYOUT.joints))
    shapes["keypoints"] = Shape((*joints, 2), np.float32)
    shapes["keypoint_scores"] = Shape(joints, np.float32)
  return shapes


def made_up_batch(shapes: dict[str, Shape], side: int) -> dict[str, np.ndarray]:
  """Noise for frames, joints anywhere, the labels in turn."""
  rng = np.random.default_rng(0)
  make = {
    "action": lambda shape: np.arange(shape[0], dtype=np.int32) % TREE.num_actions,
    "rgb": lambda shape: rng.integers(0, 256, shape, np.uint8),
    "keypoints": lambda shape: rng.uniform(0, side, shape).astype(np.float32),
    "keypoint_scores": lambda shape: rng.uniform(0.3, 1, shape).astype(np.float32),
  }
  return {name: make[name](shape.shape) for name, shape in shapes.items()}

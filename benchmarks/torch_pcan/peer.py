"""The network in PyTorch with given weights, its steps in all forms, and their time."""

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from ml_collections import ConfigDict

from benchmarks import workload
from benchmarks.torch_pcan import network, preprocess, steps
from benchmarks.torch_pcan.steps import Form
from pcan_jax.method import losses
from pcan_jax.spec import ModelSpec
from pcan_jax.torch.weights import to_state_dict

# What PyTorch can be run as: as its users have it at once, and as they can have it with some care.
_FRAMES = Form(layout="frames", channels=8)
FORMS = {
  "eager": Form(),
  "channels-last": Form(layout="channels-last volumes"),
  "frames": _FRAMES,
  "compiled": Form(compiled="default"),
  "frames-compiled": dataclasses.replace(_FRAMES, compiled="default"),
  "products-compiled": dataclasses.replace(_FRAMES, compiled="default", products=True),
  "frames-graphs": dataclasses.replace(_FRAMES, compiled="reduce-overhead"),
  "frames-autotuned": dataclasses.replace(_FRAMES, compiled="max-autotune-no-cudagraphs"),
}
# What is timed unless other forms are asked for. On a CPU, compiling takes minutes and a compiler
# of C++.
CHOSEN_FORMS = {
  "cpu": ("eager", "channels-last", "frames"),
  "cuda": ("eager", "frames-compiled", "products-compiled"),
}

Batch = dict[str, np.ndarray]
PyTree = Any


@dataclasses.dataclass(frozen=True)
class Peer:
  """What PyTorch computes with.

  Attributes:
    spec: what our network is made for, which PyTorch's is like.
    device: PyTorch's.
  """

  spec: ModelSpec
  device: torch.device

  @property
  def loss_config(self) -> losses.LossConfig:
    return losses.LossConfig(**self.spec.config.loss)

  @property
  def parents(self) -> torch.Tensor:
    return torch.tensor(self.spec.tree.parents, device=self.device)

  def torch_network(self, variables: PyTree) -> network.PCANNet:
    """The network with our weights."""
    net = network.PCANNet(self.spec.model, len(self.spec.test_preprocessing.heatmap_channels))
    arrays = to_state_dict(variables)
    net.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in arrays.items()})
    return net.to(self.device)

  def batch(self, batch: Batch) -> dict[str, torch.Tensor]:
    """A batch on the device."""
    tensors = {name: torch.from_numpy(np.array(x)).to(self.device) for name, x in batch.items()}
    return {name: x.long() if name == "action" else x for name, x in tensors.items()}

  def loss(self, variables: PyTree, batch: Batch, form: Form) -> float:
    """The loss of a batch in training mode, without dropout and augmentation."""
    net = form.apply(self.torch_network(variables)).train()
    net.dropout = 0.0
    tensors = self.batch(batch)
    prepare = preprocess.Preprocess(self.spec.train_preprocessing, form.dtype)
    whole = preprocess.draw(len(tensors["action"]), None, self.device)
    inputs = tuple(map(form.inputs, prepare.to(self.device)(tensors, *whole)))
    with torch.no_grad():
      loss, _, _ = steps.training_loss(
        net, inputs, tensors["action"], self.parents, self.loss_config, form.dtype
      )
    return loss.item()

  def training(self, variables: PyTree, batch: Batch, form: Form) -> Callable[[], Any]:
    """A call takes a step of training; on a GPU it does not wait for it."""
    net, optimizer = self.torch_network(variables), self.spec.config.optimizer
    step = steps.train_step(
      net,
      steps.sgd(net, optimizer, len(batch["action"])),
      self.parents,
      self.loss_config,
      self.spec.train_preprocessing,
      form,
      optimizer.clip_norm,
    )
    return functools.partial(step, self.batch(batch))

  def evaluation(self, variables: PyTree, videos: Batch, form: Form) -> Callable[[], Any]:
    """A call predicts; on a GPU it does not wait for it."""
    gamma = self.spec.config.eval.gamma.to_dict()
    net = self.torch_network(variables)
    step = steps.predict_step(net, self.spec.test_preprocessing, gamma, form)
    return functools.partial(step, self.batch(videos))


def find_form(name: str, dtype: str, device: torch.device) -> Form:
  """One of `FORMS`, to compute in a type on a device.

  Raises:
    ValueError: there is no such form.
  """
  if name not in FORMS:
    raise ValueError(f"no form {name!r} of PyTorch; there are {', '.join(FORMS)}")
  form = dataclasses.replace(FORMS[name], dtype=getattr(torch, dtype))
  return form if device.type == "cuda" else dataclasses.replace(form, channels=1)


def torch_device() -> torch.device:
  """PyTorch's device."""
  return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw_variables(spec: ModelSpec) -> PyTree:
  """Random weights with which every layer counts, made without compiling anything.

  Residual branches are scaled by a half, so that their sums stay moderate without BatchNorm's
  statistics of a batch.
  """
  random = np.random.default_rng(0)

  def draw(path: tuple, shape: jax.ShapeDtypeStruct) -> np.ndarray:
    name = path[-1].key
    if name == "scale":
      return np.full(shape.shape, 0.5 if "conv3" in [part.key for part in path] else 1, np.float32)
    if name in ("var", "mean", "bias"):
      return np.full(shape.shape, name == "var", np.float32)
    fan_in = np.prod(shape.shape[:-1])
    return random.standard_normal(shape.shape, np.float32) * np.float32(np.sqrt(2 / fan_in))

  return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(spec.init))


def draw_batch(spec: ModelSpec, kind: str, batch_size: int) -> Batch:
  """The clips of `workload.made_up_batch`: to train on, or as videos of one clip to predict."""
  shapes = spec.batch_shapes(*((batch_size,) if kind == "training" else (batch_size, 1)))
  if kind == "training":
    shapes["action"] = jax.ShapeDtypeStruct((batch_size,), np.int32)
  return workload.made_up_batch(shapes, spec.stored_size)


def make_step(config: ConfigDict, kind: str, batch_size: int, form: Form) -> Callable[[], Any]:
  """PyTorch's step; where it is compiled, the first call does so; on a GPU none waits."""
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision("high")
  spec = workload.model_spec(config, kind)
  peer, variables = Peer(spec, torch_device()), draw_variables(spec)
  make = peer.training if kind == "training" else peer.evaluation
  return make(variables, draw_batch(spec, kind, batch_size), form)


def wait() -> None:
  """Waits for the GPU, if there is one."""
  if torch.cuda.is_available():
    torch.cuda.synchronize()


def time_peer(
  config: ConfigDict,
  kind: str,
  batch_size: int,
  form: str,
  seconds: float = 10.0,
  alone: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> dict[str, Any]:
  """Times PyTorch alone, in this process; JAX says what shapes are (JAX_PLATFORMS=cpu will do).

  Steps are queued as a training loop does: the clock is read, and the GPU waited for, after groups
  of steps of about a tenth of the time.

  Args:
    config: of a network with both streams; `model.dtype` is what PyTorch computes in.
    kind: one of `workload.KINDS`.
    batch_size: clips.
    form: one of `FORMS`.
    seconds: how long to measure, after the first calls.
    alone: within which it is measured.

  Returns:
    `ms`, the median over the groups, and `least_ms` of a step, `steps` measured,
    `clips_per_second` by the median, `first_call_seconds` (with the compilation), and `peak_bytes`
    and `reserved_bytes` that PyTorch took of the GPU's memory, the former while being timed.

  Raises:
    ValueError: PyTorch's side has no counterpart to the config, or no such form.
  """
  step = make_step(config, kind, batch_size, find_form(form, config.model.dtype, torch_device()))

  def run(number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
      step()
    wait()
    return time.perf_counter() - start

  first = run(1)
  run(2)  # a graph is recorded in the second and third call
  group = max(1, round(seconds / 10 / run(1)))
  on_gpu = torch.cuda.is_available()
  if on_gpu:
    torch.cuda.reset_peak_memory_stats()
  measured: list[float] = []
  with alone():
    while not measured or sum(measured) * group < seconds:
      measured.append(run(group) / group)
  median = statistics.median(measured)
  return {
    "form": form,
    "ms": 1000 * median,
    "least_ms": 1000 * min(measured),
    "steps": group * len(measured),
    "clips_per_second": batch_size / median,
    "first_call_seconds": first,
    "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    "reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
  }

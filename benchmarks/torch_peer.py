"""Our steps against the same network, losses and preprocessing in plain PyTorch, in one run.

  python -m benchmarks.torch_peer
  python -m benchmarks.torch_peer --config=demo --batch=16
  python -m benchmarks.torch_peer --batch=64 --dtype=bfloat16       on a GPU

Both sides get the same stored clips (uint8 frames and keypoints, on the device already) and all
cores. First it is checked that both make the same of the same weights; then they are timed in
turns, each in a process of its own. Ours also reports accuracies, sizes of sets and the norm of the
gradient.
"""

import argparse
import dataclasses
import functools
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

# On a GPU, JAX would take most of the memory at once and leave PyTorch too little.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from benchmarks import timing, workload  # noqa: E402
from benchmarks.torch_pcan import losses as torch_losses  # noqa: E402
from benchmarks.torch_pcan import network, steps  # noqa: E402
from benchmarks.torch_pcan import preprocess as torch_preprocess  # noqa: E402
from benchmarks.torch_pcan.steps import Form  # noqa: E402
from pcan_jax.config import load_config  # noqa: E402
from pcan_jax.inputs import preprocess  # noqa: E402
from pcan_jax.method import losses  # noqa: E402
from pcan_jax.spec import ModelSpec  # noqa: E402
from pcan_jax.torch.weights import to_state_dict  # noqa: E402

# How far outputs may differ, relative to the largest, and the loss, relative to itself.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}

Batch = dict[str, np.ndarray]
Outputs = dict[str, dict[str, dict[str, Any]]]
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
    whole = torch_preprocess.draw(len(tensors["action"]), None, self.device)
    inputs = torch_preprocess.preprocess(tensors, self.spec.train_preprocessing, *whole)
    with torch.no_grad():
      loss, _, _ = steps.training_loss(
        net, *inputs, tensors["action"], self.parents, self.loss_config, form.dtype
      )
    return loss.item()

  def training(self, variables: PyTree, batch: Batch, form: Form) -> Callable[[], Any]:
    """A call takes a step of training and waits for it."""
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
    return functools.partial(self._finished, step, self.batch(batch))

  def evaluation(self, variables: PyTree, videos: Batch, form: Form) -> Callable[[], Any]:
    """A call predicts and waits for it."""
    gamma = self.spec.config.eval.gamma.to_dict()
    net = self.torch_network(variables)
    step = steps.predict_step(net, self.spec.test_preprocessing, gamma, form)
    return functools.partial(self._finished, step, self.batch(videos))

  def _finished(self, step: Callable, batch: dict[str, torch.Tensor]) -> Any:
    outputs = step(batch)
    if self.device.type == "cuda":
      torch.cuda.synchronize()
    return outputs


def forms(device: torch.device, dtype: str, compiled: bool) -> dict[str, Form]:
  """How PyTorch is run: as its users have it at once, and as they can have it with some care."""
  precision = getattr(torch, dtype)
  if device.type == "cpu":
    found = {
      f"PyTorch {dtype}": Form(precision, channels_last=False),
      f"PyTorch {dtype}, channels last": Form(precision),
    }
  else:
    found = {"PyTorch float32": Form(torch.float32, channels_last=False)}
  if compiled or device.type != "cpu":
    found[f"PyTorch {dtype}, channels last, compiled"] = Form(precision, compiled=True)
  return found


def torch_device() -> torch.device:
  """PyTorch's device; it must be of JAX's kind.

  Raises:
    ValueError: it is not.
  """
  ours = jax.devices()[0].platform
  theirs = "cuda" if torch.cuda.is_available() else "cpu"
  if (ours == "cpu") != (theirs == "cpu"):
    raise ValueError(
      f"JAX runs on {ours}, PyTorch on {theirs}; to compare them on the CPU, set "
      "JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES="
    )
  return torch.device(theirs)


def awake(variables: PyTree) -> PyTree:
  """The variables of a fresh network, scales of BatchNorm that start at zero set to 0.5.

  Otherwise most of the network would not count in the comparison.
  """

  def wake(path: tuple, values: np.ndarray) -> np.ndarray:
    asleep = path[-1].key == "scale" and not values.any()
    return np.full_like(values, 0.5) if asleep else values

  return jax.tree_util.tree_map_with_path(wake, jax.device_get(variables))


@functools.partial(jax.jit, static_argnames="spec")
def our_loss(variables: PyTree, batch: Batch, spec: ModelSpec) -> jax.Array:
  """The loss of a batch in training mode, without dropout and augmentation."""
  inputs = preprocess(batch, dataclasses.replace(spec.train_preprocessing, augmentation=None))
  outputs, _ = spec.model.clone(dropout=0.0).apply(
    variables, inputs, train=True, mutable=["batch_stats"]
  )
  return sum(
    losses.stream_loss(
      out,
      variables["prototypes"][stream],
      action=batch["action"],
      parents=spec.tree.parents,
      config=losses.LossConfig(**spec.config.loss),
    )[0]
    for stream, out in outputs.items()
  )


def difference(ours: Outputs, theirs: Outputs) -> float:
  """The largest difference of an output, relative to the largest of its values."""
  worst = 0.0
  for branch, levels in theirs.items():
    for level, output in levels.items():
      for name, values in output.items():
        values = values.float().cpu().numpy()
        error = np.abs(np.asarray(ours[branch][level][name]) - values).max()
        worst = max(worst, float(error / np.abs(values).max()))
  return worst


def compare(
  config: ConfigDict, batch_size: int, repeats: int, compiled: bool = False
) -> dict[str, Any]:
  """Checks that both sides agree, then times them.

  Args:
    config: of a network with both streams.
    batch_size: clips.
    repeats: timed calls of each step.
    compiled: whether PyTorch is compiled on a CPU too.

  Returns:
    `agreement`: by form of PyTorch the differences of `outputs` and `loss`. For "training" and
    "evaluation", by implementation ("ours" or a form of PyTorch): `seconds` of a call,
    `clips_per_second`, `first_call_seconds` (with the compilation), and `ratio`, how many times as
    long as ours it takes, the median over the turns.

  Raises:
    ValueError: PyTorch's side has no counterpart to the config, or runs on another device.
    RuntimeError: the two sides differ in what they compute.
  """
  network.check(workload.model_spec(config, "training").model)
  torch_losses.check(losses.LossConfig(**config.loss))
  found = forms(torch_device(), config.model.dtype, compiled)
  with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
    results = {"agreement": apart.submit(agreement, config, batch_size, found).result()}
  for kind in workload.KINDS:
    sides = {"ours": timing.OwnProcess(our_step, config, kind, batch_size)}
    for name, form in found.items():
      sides[name] = timing.OwnProcess(peer_step, config, kind, batch_size, form)
    first_calls = {name: side() for name, side in sides.items()}
    timings = timing.take_turns(sides, repeats=repeats)
    for side in sides.values():
      side.close()
    results[kind] = {
      name: {
        "seconds": {
          "median": measured.median,
          "minimum": measured.minimum,
          "maximum": measured.maximum,
        },
        "clips_per_second": batch_size / measured.median,
        "first_call_seconds": first_calls[name],
        "ratio": statistics.median(measured.ratios(timings["ours"])),
      }
      for name, measured in timings.items()
    }
  return results


def agreement(
  config: ConfigDict, batch_size: int, forms: dict[str, Form]
) -> dict[str, dict[str, float]]:
  """How far ours and each form of PyTorch differ, in `outputs` and `loss`; see `compare`."""
  variables, batch, videos = clips_and_weights(config, batch_size)
  peer = Peer(workload.model_spec(config, "evaluation"), torch_device())
  outputs = workload.trace(config, "evaluation", batch_size).compile().compiled(variables, videos)
  loss = float(our_loss(variables, batch, peer.spec))
  tolerance = TOLERANCE[config.model.dtype]
  differences = {}
  for name, form in forms.items():
    found = differences[name] = {
      "outputs": difference(outputs, peer.evaluation(variables, videos, form)()),
      "loss": abs(peer.loss(variables, batch, form) / loss - 1),
    }
    if not max(found.values()) <= tolerance:
      raise RuntimeError(f"ours and {name} differ by more than {tolerance}: {found}")
  return differences


def clips_and_weights(config: ConfigDict, batch_size: int) -> tuple[PyTree, Batch, Batch]:
  """The variables of a network, a batch to train on, and videos to predict."""
  training, evaluation = (workload.trace(config, kind, batch_size) for kind in workload.KINDS)
  return awake(evaluation.make_state()), training.make_batch(), evaluation.make_batch()


def our_step(config: ConfigDict, kind: str, batch_size: int) -> Callable[[], Any]:
  """Our step, which the first call compiles."""
  compiled = functools.cache(workload.trace(config, kind, batch_size).compile)
  return lambda: compiled()()


def peer_step(config: ConfigDict, kind: str, batch_size: int, form: Form) -> Callable[[], Any]:
  """PyTorch's step; where it is compiled, the first call does so."""
  torch.backends.cudnn.benchmark = True
  variables, batch, videos = clips_and_weights(config, batch_size)
  peer = Peer(workload.model_spec(config, kind), torch_device())
  if kind == "training":
    return peer.training(variables, batch, form)
  return peer.evaluation(variables, videos, form)


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a table and a line of JSON."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.torch_peer",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--config", default="ma52", help="of a network with both streams")
  parser.add_argument("--batch", type=int, default=2, help="clips")
  parser.add_argument("--size", type=int, help="side of the input in both steps (the config's)")
  parser.add_argument("--dtype", choices=tuple(TOLERANCE), default="float32")
  parser.add_argument("--repeats", type=int, default=15, help="timed calls of each step")
  parser.add_argument(
    "--compiled",
    action="store_true",
    help="measure torch.compile on a CPU too: it wants a C++ compiler and a few minutes",
  )
  args = parser.parse_args(argv)
  for name in ("batch", "repeats"):
    if getattr(args, name) < 1:
      parser.error(f"--{name} must be 1 or more, not {getattr(args, name)}")
  try:
    config = load_config(args.config)
    config.model.dtype = args.dtype
    if args.size:
      config.input.update(train_size=args.size, test_size=args.size)
    results = compare(config, args.batch, args.repeats, args.compiled)
  except (FileNotFoundError, ValueError) as error:
    sys.exit(f"error: {error}")

  rows = []
  for kind in workload.KINDS:
    for name, found in results[kind].items():
      seconds = found["seconds"]
      rows.append(
        (
          kind,
          name,
          1000 * seconds["median"],
          1000 * seconds["minimum"],
          1000 * seconds["maximum"],
          found["clips_per_second"],
          found["first_call_seconds"],
          found["ratio"],
        )
      )
  timing.print_table(
    ("step", "by", "ms", "least", "most", "clips/s", "first call s", "time / ours"), rows
  )
  sizes = {"training": config.input.train_size, "evaluation": config.input.test_size}
  timing.print_json(
    timing.environment()
    | {"benchmark": "torch_peer", "config": args.config, "batch": args.batch, "dtype": args.dtype}
    | {"sizes": sizes, "torch_threads": torch.get_num_threads()}
    | {"glibc_tunables": os.environ.get("GLIBC_TUNABLES", "")}
    | results
  )


if __name__ == "__main__":
  main()

"""Our steps against the same network, losses and preprocessing in PyTorch, in one run.

  python -m benchmarks.torch_peer
  python -m benchmarks.torch_peer --config=demo --batch=16
  python -m benchmarks.torch_peer --batch=64 --dtype=bfloat16       on a GPU
  python -m benchmarks.torch_peer --forms frames frames-compiled    what PyTorch is run as

Both sides get the same stored clips (uint8 frames and keypoints, on the device already) and all
cores. First it is checked that both make the same of the same weights; then they are timed in
turns, each in a process of its own. On a CPU every process is started with the settings of
`pcan_jax.cpu`: those of memory spare PyTorch page faults too (390,000 per full-size training step
of two clips). Ours also reports accuracies, sizes of sets and the norm of the gradient.
"""

import argparse
import contextlib
import dataclasses
import functools
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
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
from benchmarks.torch_pcan import network  # noqa: E402
from benchmarks.torch_pcan.peer import (  # noqa: E402
  CHOSEN_FORMS,
  FORMS,
  Batch,
  Peer,
  draw_batch,
  draw_variables,
  find_form,
  make_step,
  torch_device,
  wait,
)
from benchmarks.torch_pcan.steps import Form  # noqa: E402
from pcan_jax import cpu  # noqa: E402
from pcan_jax.config import load_config  # noqa: E402
from pcan_jax.inputs import preprocess  # noqa: E402
from pcan_jax.method import losses  # noqa: E402
from pcan_jax.spec import ModelSpec  # noqa: E402

# How far outputs may differ, relative to the largest, and the loss, relative to itself.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}

Outputs = dict[str, dict[str, dict[str, Any]]]
PyTree = Any


def check_devices() -> None:
  """Raises ValueError unless JAX and PyTorch run on the same kind of device."""
  ours, theirs = jax.devices()[0].platform, torch_device().type
  if (ours == "cpu") != (theirs == "cpu"):
    raise ValueError(
      f"JAX runs on {ours}, PyTorch on {theirs}; to compare them on the CPU, set "
      "JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES="
    )


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
  config: ConfigDict, batch_size: int, repeats: int, forms: Sequence[str] = ()
) -> dict[str, Any]:
  """Checks that both sides agree, then times them.

  Args:
    config: of a network with both streams.
    batch_size: clips.
    repeats: timed calls of each step.
    forms: names of `FORMS`; without any, `CHOSEN_FORMS` of the device.

  Returns:
    `settings`: the variables that all processes were started with, beside those of this one.
    `agreement`: by form of PyTorch the differences of `outputs` and `loss`. For "training" and
    "evaluation", by implementation ("ours" or a form of PyTorch): `seconds` of a call,
    `clips_per_second`, `first_call_seconds` (with the compilation), and `ratio`, how many times as
    long as ours it takes, the median over the turns.

  Raises:
    ValueError: PyTorch's side has no counterpart to the config or no such form, or runs on another
      device.
    RuntimeError: the two sides differ in what they compute.
  """
  network.check(workload.model_spec(config, "training").model)
  torch_losses.check(losses.LossConfig(**config.loss))
  check_devices()
  device = torch_device()
  forms = tuple(forms) or CHOSEN_FORMS[device.type]
  found = {name: find_form(name, config.model.dtype, device) for name in forms}
  settings = cpu.settings(os.environ) if device.type == "cpu" else {}
  results: dict[str, Any] = {"settings": settings}
  with starting_with(settings):
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
      results["agreement"] = apart.submit(agreement, config, batch_size, found).result()
    for kind in workload.KINDS:
      results[kind] = _take_turns(config, kind, batch_size, repeats, found)
  return results


def _take_turns(
  config: ConfigDict, kind: str, batch_size: int, repeats: int, forms: dict[str, Form]
) -> dict[str, dict[str, Any]]:
  sides = {"ours": timing.OwnProcess(our_step, config, kind, batch_size)}
  for name, form in forms.items():
    sides[f"PyTorch {name}"] = timing.OwnProcess(peer_step, config, kind, batch_size, form)
  first_calls = {name: side() for name, side in sides.items()}
  timings = timing.take_turns(sides, repeats=repeats)
  for side in sides.values():
    side.close()
  return {
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


@contextlib.contextmanager
def starting_with(variables: dict[str, str]) -> Iterator[None]:
  """Processes that are started meanwhile have these variables in their environment."""
  before = dict(os.environ)
  os.environ.update(variables)
  try:
    yield
  finally:
    for name in variables:
      if name in before:
        os.environ[name] = before[name]
      else:
        del os.environ[name]


def agreement(
  config: ConfigDict, batch_size: int, forms: dict[str, Form]
) -> dict[str, dict[str, float]]:
  """How far ours and each form of PyTorch differ, in `outputs` and `loss`.

  Products of float32 are computed as such here, also where a GPU's steps round their factors.

  Raises:
    RuntimeError: by more than `TOLERANCE`.
  """
  torch.backends.cudnn.allow_tf32 = False
  spec = workload.model_spec(config, "evaluation")
  variables = draw_variables(spec)
  batch = draw_batch(workload.model_spec(config, "training"), "training", batch_size)
  videos = draw_batch(spec, "evaluation", batch_size)
  with jax.default_matmul_precision("highest"):
    outputs = jax.jit(spec.predict)(variables, videos)
    loss = float(our_loss(variables, batch, workload.model_spec(config, "training")))
  tolerance = TOLERANCE[config.model.dtype]
  differences = {}
  for name, form in forms.items():
    predicted = Peer(spec, torch_device()).evaluation(variables, videos, form)()
    trained = Peer(workload.model_spec(config, "training"), torch_device())
    found = differences[name] = {
      "outputs": difference(outputs, predicted),
      "loss": abs(trained.loss(variables, batch, form) / loss - 1),
    }
    if not max(found.values()) <= tolerance:
      raise RuntimeError(f"ours and PyTorch {name} differ by more than {tolerance}: {found}")
  return differences


def our_step(config: ConfigDict, kind: str, batch_size: int) -> Callable[[], Any]:
  """Our step, which the first call compiles."""
  compiled = functools.cache(workload.trace(config, kind, batch_size).compile)
  return lambda: compiled()()


def peer_step(config: ConfigDict, kind: str, batch_size: int, form: Form) -> Callable[[], Any]:
  """PyTorch's step; a call returns when it is done."""
  step = make_step(config, kind, batch_size, form)

  def finished() -> None:
    step()
    wait()

  return finished


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
    "--forms",
    nargs="+",
    choices=tuple(FORMS),
    metavar="FORM",
    default=(),
    help=f"what PyTorch is run as: {', '.join(FORMS)} (on a CPU: {', '.join(CHOSEN_FORMS['cpu'])}; "
    f"on a GPU: {', '.join(CHOSEN_FORMS['cuda'])}); compiling on a CPU takes minutes and a C++ "
    "compiler",
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
    results = compare(config, args.batch, args.repeats, args.forms)
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
    | results
  )


if __name__ == "__main__":
  main()

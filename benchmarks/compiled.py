"""What the compiler makes of training and evaluation for a device, which need not be there.

  python -m benchmarks.compiled                            for the first device at hand
  python -m benchmarks.compiled --target h200 --batches 32 64
  python -m benchmarks.compiled --target t4 rtx4090 --kinds training --remat none norms blocks
  python -m benchmarks.compiled --target v5e --kinds evaluation --batches 10 20
  python -m benchmarks.compiled --target h200 --config demo --devices 1 8 --longest 20

Nothing runs and nothing is timed. The compiler says what a step holds in memory, which grows
linearly with the batch, so that two batches give what fits. The compiled program says what its
kernels read, write and compute; with a target's figures (`benchmarks/targets`) that gives the least
time of a step (roofline) and one that good kernels reach (cautious; see `kernels.Kernel`).

GPUs need the packages jax-cuda13-plugin and jax-cuda13-pjrt of JAX's own version, installed with
--no-deps, and TPUs libtpu; neither a driver nor a device.
"""

import argparse
import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from benchmarks import collectives, hlo, kernels, target, timing, workload
from benchmarks.kernels import Kernel, Totals
from benchmarks.target import Target
from pcan_jax.config import load_config
from pcan_jax.mesh import data_mesh

HERE = "here"
USABLE = 0.9  # the rest of the memory is for the runtime and for fragmentation
SIZES = (16, 24, 80)  # GB


@dataclasses.dataclass(frozen=True)
class Case:
  """A program to compile.

  Attributes:
    target: a name of `target.names()`, or `HERE`.
    config: for `load_config`.
    kind: one of `workload.KINDS`.
    dtype: of the network.
    remat: see `pcan_jax.network.pathway.rematerialized`; of no consequence in evaluation.
    devices: how many share the work.
    batch: clips of a step on each of them.
  """

  target: str
  config: str
  kind: str
  dtype: str
  remat: str
  devices: int
  batch: int

  @property
  def columns(self) -> dict[str, Any]:
    """How tables name it."""
    fields = dataclasses.asdict(self)
    return {("step" if name == "kind" else name): value for name, value in fields.items()}


@dataclasses.dataclass
class Compiled:
  """What is known of a compiled program; everything is per call and device.

  Attributes:
    case: what was compiled.
    target: whose figures are used, if they are known.
    memory: bytes of arguments, results and temporaries; what is donated counts once.
    temporaries: bytes of them.
    kernels: in the order of the program.
    state: arrays of the training state, or of the variables that predict.
    donated: those of them that the results take the place of.
    exchanged: between devices.
    seconds: that compilation took.
  """

  case: Case
  target: Target | None
  memory: int
  temporaries: int
  kernels: list[Kernel]
  state: int
  donated: int
  exchanged: list[collectives.Collective]
  seconds: float

  def row(self) -> dict[str, Any]:
    """The main table's."""
    total = Totals.of(self.kernels)
    row = self.case.columns | {
      "kernels": total.kernels,
      "GB/clip": total.num_bytes / self.case.batch / 1e9,
      "GFLOP/clip": total.operations / self.case.batch / 1e9,
      "padding": total.padding,
      "temporaries GB": self.temporaries / 1e9,
      "memory GB": self.memory / 1e9,
      "compile s": self.seconds,
    }
    if self.target:
      row["roofline clips/s"] = self.case.batch / sum(k.seconds(self.target) for k in self.kernels)
      row["cautious clips/s"] = self.case.batch / sum(k.cautious(self.target) for k in self.kernels)
    return row

  def kinds(self) -> list[dict[str, Any]]:
    """A row for each kind of kernel."""
    rows = []
    for kind, found in kernels.by_kind(self.kernels).items():
      total = Totals.of(found)
      row = {
        "kind": kind,
        "kernels": total.kernels,
        "MB/clip": total.num_bytes / self.case.batch / 1e6,
        "GFLOP/clip": total.operations / self.case.batch / 1e9,
        "padding": total.padding,
      }
      if self.target:
        row["roofline ms"] = 1e3 * sum(one.seconds(self.target) for one in found)
        row["cautious ms"] = 1e3 * sum(one.cautious(self.target) for one in found)
      rows.append(row)
    return rows

  def libraries(self) -> dict[str, int]:
    """How often each function of a library is called."""
    found: dict[str, int] = {}
    for one in self.kernels:
      if one.callee:
        found[one.callee] = found.get(one.callee, 0) + one.times
    return found

  def longest(self, number: int) -> list[dict[str, Any]]:
    """The kernels that take the longest by the figures, or that move the most bytes."""
    figures = self.target
    cost = (
      (lambda one: one.cautious(figures)) if figures else (lambda one: one.times * one.num_bytes)
    )
    return [
      {
        "kernel": one.name,
        "kind": one.kind,
        "MB": one.times * one.num_bytes / 1e6,
        "GFLOP": one.times * sum(one.operations.values()) / 1e9,
        "cautious us": 1e6 * one.cautious(figures) if figures else None,
        "result": one.result,
        "operation": one.source.rpartition(")/")[2][-60:],
      }
      for one in sorted(self.kernels, key=cost, reverse=True)[:number]
    ]


@dataclasses.dataclass(frozen=True)
class Need:
  """Memory as a linear function of the batch, in bytes."""

  fixed: float
  per_clip: float

  @classmethod
  def through(cls, points: dict[int, int]) -> "Need":
    """The line through the plans of the smallest and the largest batch, in bytes by batch."""
    (small, low), *_, (large, high) = sorted(points.items())
    per_clip = (high - low) / (large - small)
    return cls(low - small * per_clip, per_clip)

  def largest_batch(self, gigabytes: float) -> int:
    return max(int((USABLE * gigabytes * 1e9 - self.fixed) / self.per_clip), 0)


def compile_case(case: Case, save: pathlib.Path | None = None) -> Compiled:
  """Compiles a program and reads it; with a folder, its text is kept there.

  Raises:
    FileNotFoundError, ValueError: there is no such config or target.
    target.MissingCompilerError: as `target.Target.devices` does.
  """
  figures = None if case.target == HERE else target.load(case.target)
  devices = figures.devices(case.devices) if figures else jax.devices()[: case.devices]
  config = load_config(case.config)
  config.model.update(dtype=case.dtype, remat=case.remat)
  program = workload.trace(config, case.kind, case.batch * case.devices, data_mesh(devices))
  step = program.compile()
  text = step.compiled.as_text()
  if save:
    save.mkdir(parents=True, exist_ok=True)
    name = "-".join(str(value) for value in dataclasses.astuple(case)).replace("/", "_")
    (save / f"{name}.hlo").write_text(text)
  module = hlo.parse(text)
  return Compiled(
    case,
    figures,
    step.memory,
    step.compiled.memory_analysis().temp_size_in_bytes,
    kernels.find(module),
    len(jax.tree.leaves(program.traced.in_avals[0][0])),
    module.donated,
    collectives.find(text),
    step.compile_seconds,
  )


def fits(found: Sequence[Compiled], sizes: Sequence[float]) -> Iterator[dict[str, Any]]:
  """Up to which batch each kind of program fits, of those that were compiled for two."""
  groups: dict[Case, list[Compiled]] = {}
  for one in found:
    groups.setdefault(dataclasses.replace(one.case, batch=0), []).append(one)
  for case, members in groups.items():
    points = {one.case.batch: one.memory for one in members}
    if len(points) < 2:
      continue
    need = Need.through(points)
    row = {name: value for name, value in case.columns.items() if name != "batch"}
    row |= {"fixed MB": need.fixed / 1e6, "MB per clip": need.per_clip / 1e6}
    figures = members[0].target
    row["batch that fits"] = need.largest_batch(figures.memory) if figures else None
    yield row | {f"batch in {size:g} GB": need.largest_batch(size) for size in sizes}


def report(one: Compiled, longest: int) -> None:
  """Prints what a program is made of."""
  case = one.case
  print(f"\n{case.kind}, {case.dtype}, remat {case.remat}, {case.batch} clips, {case.target}\n")
  _print(one.kinds())
  calls = ", ".join(f"{number} x {name}" for name, number in one.libraries().items())
  copies = Totals.of(kernel for kernel in one.kernels if kernel.kind == "copy")
  print(f"\nlibraries: {calls or 'none'}")
  print(f"copies: {copies.kernels}, {copies.num_bytes / case.batch / 1e6:.3g} MB per clip")
  print(f"in place: {one.donated} of {one.state} arrays of the state")
  for kind, (number, size) in collectives.by_kind(one.exchanged).items():
    print(f"{kind}: {number}, {size / 1e6:.3g} MB per step and device")
  if longest:
    print()
    _print(one.longest(longest))


def _print(rows: Sequence[dict[str, Any]]) -> None:
  headers = [name for name in rows[0] if any(row[name] is not None for row in rows)]
  timing.print_table(headers, [[row[name] for name in headers] for row in rows])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
  """The arguments."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.compiled",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--target",
    nargs="+",
    default=[HERE],
    choices=[HERE, *target.names()],
    help="what to compile for (here: the first device at hand)",
  )
  parser.add_argument("--config", default="ma52", help="a name or a file, [:VARIANT] (ma52)")
  parser.add_argument("--kinds", nargs="+", choices=workload.KINDS, default=list(workload.KINDS))
  parser.add_argument("--dtypes", nargs="+", default=["bfloat16"], help="bfloat16 by default")
  parser.add_argument(
    "--remat", nargs="+", default=["none"], help="none (the default), norms or blocks; of training"
  )
  parser.add_argument(
    "--batches", nargs="+", type=int, default=[8, 16], help="clips of each device (8 16)"
  )
  parser.add_argument("--devices", nargs="+", type=int, default=[1], help="1, 8 or both (1)")
  parser.add_argument("--sizes", nargs="*", type=float, default=SIZES, help="memories in GB")
  parser.add_argument("--longest", type=int, default=0, help="so many kernels are listed")
  parser.add_argument("--save", type=pathlib.Path, help="a folder for the programs' text")
  return parser.parse_args(argv)


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
  """What the arguments ask for."""
  for name, kind, dtype, remat, devices, batch in itertools.product(
    arguments.target,
    arguments.kinds,
    arguments.dtypes,
    arguments.remat,
    arguments.devices,
    dict.fromkeys(arguments.batches),
  ):
    if kind == "training" or remat == arguments.remat[0]:
      yield Case(name, arguments.config, kind, dtype, remat, devices, batch)


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  arguments = parse(argv)
  if HERE not in arguments.target:
    jax.config.update("jax_platforms", "cpu")  # no driver is looked for
  found = []
  try:
    for case in cases(arguments):
      one = compile_case(case, arguments.save)
      print(*dataclasses.astuple(case), f"{one.seconds:.0f} s", file=sys.stderr, flush=True)
      found.append(one)
  except (FileNotFoundError, ValueError, target.MissingCompilerError) as error:
    sys.exit(f"error: {error}")
  rows = [one.row() for one in found]
  batches = list(fits(found, arguments.sizes))
  print(f"compiled with JAX {jax.__version__}, not timed\n")
  _print(rows)
  for one in found:
    report(one, arguments.longest)
  if batches:
    print(f"\nwhat fits into {100 * USABLE:.0f} % of the memory, by the compiler's plans\n")
    _print(batches)
  timing.print_json(
    {
      "benchmark": "compiled",
      "environment": timing.environment(),
      "programs": [
        row | {"kinds": one.kinds(), "libraries": one.libraries(), "donated": one.donated}
        for row, one in zip(rows, found)
      ],
      "batches": batches,
    }
  )


if __name__ == "__main__":
  main()

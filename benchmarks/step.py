"""Clips per second of the training and the evaluation step, and what they cost.

  python -m benchmarks.step                                     full and demo size, both precisions
  python -m benchmarks.step --configs ma52 --dtypes bfloat16 --batches 32 64 128
  python -m benchmarks.step --configs ma52 --remat none norms blocks

Clips are made up and on the device already: what the input pipeline takes is the business of
`benchmarks.input`. A step includes what runs on the device in use, from cropping and heatmaps to
the update of parameters and prototypes. The last table takes turns with the same network trained
on its cross-entropies only.
"""

import argparse
import dataclasses
import itertools
import statistics
import sys
from collections.abc import Iterator, Sequence

import jax
from ml_collections import ConfigDict

from benchmarks import timing, workload
from pcan_jax.config import load_config

COLUMNS = (
  "config",
  "step",
  "dtype",
  "remat",
  "batch",
  "ms",
  "clips/s",
  "GFLOP/s",
  "% of peak",
  "compiled GB",
  "highest GB",
  "compile s",
)


@dataclasses.dataclass(frozen=True)
class Case:
  """A step to measure.

  Attributes:
    config: for `load_config`.
    kind: one of `workload.KINDS`.
    dtype: of the network.
    remat: see `pcan_jax.network.pathway.rematerialized`; of no consequence in evaluation.
    batch: clips of a step.
  """

  config: str
  kind: str
  dtype: str
  remat: str
  batch: int

  def load(self) -> ConfigDict:
    config = load_config(self.config)
    config.model.dtype = self.dtype
    config.model.remat = self.remat
    return config


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
  """All that the command line asks for, small batches first."""
  for config, dtype, kind, remat, batch in itertools.product(
    arguments.configs, arguments.dtypes, arguments.kinds, arguments.remat, arguments.batches
  ):
    if kind == "training" or remat == arguments.remat[0]:
      yield Case(config, kind, dtype, remat, batch)


def measure(case: Case, repeats: int) -> dict[str, str | float]:
  """The values of `COLUMNS` for a step, all but the share of the peak.

  Args:
    case: the step.
    repeats: calls to take the median of.
  """
  program = workload.trace(case.load(), case.kind, case.batch)
  row = dict(zip(COLUMNS, dataclasses.astuple(case)))
  try:
    step = program.compile()
    seconds = timing.measure(step, repeats=repeats).median
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return row | dict.fromkeys(COLUMNS[5:], "does not fit")
  return row | {
    "ms": 1e3 * seconds,
    "clips/s": case.batch / seconds,
    "GFLOP/s": program.operations / seconds / 1e9,
    "compiled GB": step.memory / 1e9,
    "highest GB": highest_memory(),
    "compile s": step.compile_seconds,
  }


def highest_memory() -> float | str:
  """GB that the device has held at most since the program started; processors do not say."""
  held = jax.devices()[0].memory_stats()
  return held["peak_bytes_in_use"] / 1e9 if held else "-"


def prototype_overhead(case: Case, repeats: int) -> dict[str, str | float]:
  """The step with and without everything that prototypes add, timed in turns.

  The overhead is the median over the turns, between two quartiles.
  """
  config = case.load()
  steps = {
    name: workload.trace(changed, "training", case.batch).compile()
    for name, changed in (("with", config), ("without", workload.without_prototypes(config)))
  }
  seconds = timing.measure_interleaved(steps, repeats=repeats)
  ratios = seconds["with"].ratios(seconds["without"])
  quartiles = statistics.quantiles(ratios, method="inclusive")
  lower, overhead, upper = (100 * (ratio - 1) for ratio in quartiles)
  return {
    "config": case.config,
    "dtype": case.dtype,
    "batch": case.batch,
    "ms": 1e3 * seconds["with"].median,
    "ms without prototypes": 1e3 * seconds["without"].median,
    "overhead %": overhead,
    "lower quartile": lower,
    "upper quartile": upper,
  }


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  arguments = parse(argv)
  try:
    before = {dtype: timing.matmul_peak(dtype) for dtype in arguments.dtypes}
    rows = []
    for case in cases(arguments):
      rows.append(measure(case, arguments.repeats))
      print(*rows[-1].values(), file=sys.stderr, flush=True)
    # Other programs may slow one of the two.
    peaks = {dtype: max(peak, timing.matmul_peak(dtype)) for dtype, peak in before.items()}
    for dtype, peak in peaks.items():
      print(f"a large {dtype} matrix product runs at {peak / 1e9:.0f} GFLOP/s")
    for row in rows:
      if row["GFLOP/s"] != "does not fit":
        row["% of peak"] = 100 * row["GFLOP/s"] / (peaks[row["dtype"]] / 1e9)
    timing.print_table(COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    overheads = [
      prototype_overhead(case, arguments.overhead_repeats)
      for case in cases(arguments)
      if case.kind == "training" and case.remat == arguments.remat[0]
      if case.batch == arguments.overhead_batch
    ]
    if overheads:
      print()
      timing.print_table(list(overheads[0]), [list(row.values()) for row in overheads])
  except (FileNotFoundError, ValueError) as error:
    sys.exit(f"error: {error}")
  timing.print_json(
    {
      "benchmark": "step",
      "environment": timing.environment(),
      "peak_gflops": {dtype: peak / 1e9 for dtype, peak in peaks.items()},
      "steps": rows,
      "prototypes": overheads,
    }
  )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
  """The arguments; what batches are the default depends on the device."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.step",
    description="Measures the training and the evaluation step on made-up clips.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    "--configs", nargs="+", default=["ma52", "demo"], help="a name or a file, [:VARIANT]"
  )
  parser.add_argument("--kinds", nargs="+", choices=workload.KINDS, default=workload.KINDS)
  parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
  parser.add_argument("--remat", nargs="+", default=["none"], help="none, norms, blocks")
  parser.add_argument("--batches", nargs="+", type=int, help="default: by the device")
  parser.add_argument(
    "--overhead_batch", type=int, help="where the cost of prototypes is measured; 0: nowhere"
  )
  parser.add_argument("--repeats", type=int, default=5, help="of which the median is taken")
  parser.add_argument(
    "--overhead_repeats", type=int, default=25, help="as a small difference needs many"
  )
  arguments = parser.parse_args(argv)
  if arguments.overhead_repeats < 2:
    parser.error("--overhead_repeats must be at least 2, for quartiles")
  if arguments.batches is None:
    arguments.batches = [1, 2, 4] if jax.default_backend() == "cpu" else [16, 32, 64, 128]
  arguments.batches.sort()
  if arguments.overhead_batch is None:
    arguments.overhead_batch = arguments.batches[-1]
  if arguments.overhead_batch not in (0, *arguments.batches):
    parser.error(f"--overhead_batch={arguments.overhead_batch} is not one of --batches")
  return arguments


if __name__ == "__main__":
  main()

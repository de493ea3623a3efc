"""Speed of the input pipeline, by stage.

  python -m benchmarks.input                            artificial clips of MA-52's shape, one core
  python -m benchmarks.input --data datasets/ma52 --cores 8
  python -m benchmarks.input --data runs/demo/dataset --train demo

The artificial clips are written as videos and poses and built into shards as usual. The last
command trains, and measures how long training waits for its batches.
"""

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from benchmarks import timing
from pcan_jax.config import load_config
from pcan_jax.console import quiet_libraries

if TYPE_CHECKING:
  from pcan_jax.feed.dataset import Dataset

_RATES = ("clips/s", "clips/s per core", "clips per CPU second")


@contextlib.contextmanager
def shards(data: pathlib.Path | None, num_clips: int, side: int = 256) -> Iterator["Dataset"]:
  """Opens a data set, or one of artificial clips that is deleted afterwards."""
  # TensorFlow is imported late, after its logging has been set.
  from benchmarks.textured_clips import write_dataset
  from pcan_jax.feed.dataset import open_dataset

  if data is not None:
    yield open_dataset(data)
    return
  with tempfile.TemporaryDirectory() as directory:
    write_dataset(pathlib.Path(directory), num_clips, side)
    yield open_dataset(directory)


def report_pipeline(
  dataset: "Dataset", *, cores: int, batch_size: int, clips_per_repeat: int, repeats: int
) -> None:
  """Measures training and evaluation batches, and prints two tables and a line of JSON."""
  from benchmarks import input_costs

  num_clips = dataset.num_clips(input_costs.SPLIT)
  kilobytes = dataset.builder.info.splits[input_costs.SPLIT].num_bytes / num_clips / 1e3
  calls = max(clips_per_repeat // batch_size, 1)
  stages, training = input_costs.stage_costs(dataset, batch_size, calls, repeats)
  testing = input_costs.evaluation_cost(dataset, max(batch_size // 8, 1), calls, repeats)
  print(
    f"{num_clips} clips of {kilobytes:.0f} kB, frames of {dataset.stored_size} px, "
    f"on {cores} core(s)\n"
  )
  timing.print_table(
    ["stage", "CPU ms per clip", "share in %"],
    [
      [name, value, 100 * value / training.cpu]
      for name, value in (stages | {"all": training.cpu}).items()
    ],
  )
  print()
  rates = {
    name: [1e3 / cost.clock, 1e3 / cost.clock / cores, 1e3 / cost.cpu]
    for name, cost in (("training", training), ("evaluation", testing))
  }
  timing.print_table(["", *_RATES], [[name, *values] for name, values in rates.items()])
  timing.print_json(
    {
      "benchmark": "input",
      "environment": timing.environment(),
      "clips": num_clips,
      "kilobytes_per_clip": kilobytes,
      "side": dataset.stored_size,
      "cores": cores,
      "stages_ms": stages,
    }
    | {name: dict(zip(_RATES, values)) for name, values in rates.items()}
  )


def report_training(config: ConfigDict, steps: int) -> None:
  """Measures how long training waits for its batches, and prints a table and a line of JSON."""
  from benchmarks.input_costs import training_wait

  result = training_wait(config, steps)
  timing.print_table(
    ["steps", "ms per step", "ms without input", "loop blocked in %"],
    [[result["steps"], result["fed"], result["not_fed"], 100 * result["blocked"]]],
  )
  timing.print_json({"benchmark": "input_wait", "environment": timing.environment()} | result)


def keep_to_cores(cores: int) -> int:
  """Confines this process to some of its cores; returns their number.

  Raises:
    ValueError: there are not enough cores.
  """
  if not hasattr(os, "sched_setaffinity"):
    if cores:
      raise ValueError("this system cannot restrict a process to cores; use --cores 0")
    return os.cpu_count()
  available = sorted(os.sched_getaffinity(0))
  if not 0 <= cores <= len(available):
    raise ValueError(f"--cores is {cores}, but there are {len(available)}")
  if cores:
    os.sched_setaffinity(0, available[:cores])
  return cores or len(available)


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.input",
    description="Measures the host's input pipeline: clips/s per core, and time per stage.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--data", type=pathlib.Path, help="a data set; default: artificial clips")
  parser.add_argument("--clips", type=int, default=96, help="number of artificial clips")
  parser.add_argument("--side", type=int, default=256, help="pixels of their frames")
  parser.add_argument("--cores", type=int, default=1, help="cores to use; 0 is all")
  parser.add_argument("--batch_size", type=int, default=16, help="clips per batch")
  parser.add_argument("--clips_per_repeat", type=int, default=128, help="clips per measurement")
  parser.add_argument(
    "--repeats", type=int, default=5, help="number of measurements, of which the median is taken"
  )
  parser.add_argument(
    "--train", help="name or file of a config: train on --data and measure how long it waits"
  )
  parser.add_argument("--steps", type=int, default=200, help="training steps with --train")
  arguments = parser.parse_args(argv)
  quiet_libraries()
  try:
    if arguments.train:
      config = load_config(arguments.train)
      config.data.path = str(arguments.data or config.data.path)
      report_training(config, arguments.steps)
      return
    cores = keep_to_cores(arguments.cores)
    with shards(arguments.data, arguments.clips, arguments.side) as dataset:
      report_pipeline(
        dataset,
        cores=cores,
        batch_size=arguments.batch_size,
        clips_per_repeat=arguments.clips_per_repeat,
        repeats=arguments.repeats,
      )
  except (FileNotFoundError, ValueError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  main()

"""Command line: `pcan yardstick DATASET`, what a simple classifier gets on its joints."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from pcan_jax.console import leave_out_keras, quiet_libraries


def main(argv: Sequence[str] | None = None) -> None:
  """Measures a data set and prints a line."""
  parser = argparse.ArgumentParser(
    prog="pcan yardstick",
    description="Trains a support vector machine on the stored joints of a data set and evaluates "
    "it: what a model should get at least. It takes about a minute for 3,000 clips.",
  )
  parser.add_argument("dataset", type=pathlib.Path, help="a built data set")
  parser.add_argument("--train_split", default="train", help="(default: %(default)s)")
  parser.add_argument("--split", default="val", help="to evaluate (default: %(default)s)")
  parser.add_argument(
    "--held_out", nargs="+", default=(), metavar="PERSON", help="evaluate on these, train on others"
  )
  arguments = parser.parse_args(argv)
  quiet_libraries()
  leave_out_keras()
  from pcan_jax.feed.dataset import open_dataset
  from pcan_jax.yardstick.beside import require_scikit_learn

  try:
    require_scikit_learn()
    from pcan_jax.yardstick.measured import measure_yardstick

    dataset = open_dataset(arguments.dataset, held_out=arguments.held_out)
    found = measure_yardstick(dataset, arguments.train_split, arguments.split)
  except (ModuleNotFoundError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(f"yardstick, {found.eval_clips:,} clips of split {arguments.split!r}, in %: {found}")


if __name__ == "__main__":
  main()

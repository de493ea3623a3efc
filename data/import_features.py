"""Stores features of another network with the clips of a data set: `pcan import_features`.

FEATURES is an `.npz` file with an array per clip, under the clip's id: [D] for the clip as a whole,
or [T, D] for moments of it, such as frames or windows, in their order.
"""

import argparse
import pathlib
import sys
import zipfile
from collections.abc import Sequence

import numpy as np

from pcan_jax.console import leave_out_keras, quiet_libraries
from pcan_jax.writing import told_shortly


def import_features(features: pathlib.Path, data: pathlib.Path, out: pathlib.Path) -> list[str]:
  """Writes a data set with features.

  Args:
    features: the `.npz` file.
    data: a built data set with the same clips.
    out: folder for the new one.

  Returns:
    Notes on the result, line by line.

  Raises:
    FileNotFoundError: there is no such file or data set.
    FileExistsError: there is a data set in `out` already.
    ValueError: the file cannot be read, or does not fit the clips.
    OSError: the data set cannot be written.
  """
  from pcan_jax.feed.dataset import open_dataset
  from pcan_jax.feed.stored_features import add_features

  dataset = open_dataset(data)
  try:
    with features.open("rb") as file, np.load(file, allow_pickle=False) as stored:
      arrays = dict(stored)
  except FileNotFoundError as error:
    raise FileNotFoundError(f"no features at {features}") from error
  except (AttributeError, EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
    raise ValueError(f"{features}: cannot be read as .npz: {error}") from error
  try:
    with told_shortly(f"the data set cannot be written to {out}"):
      size = add_features(dataset, arrays, out)
  except ValueError as error:
    raise ValueError(f"{features}: {error}") from error
  count = sum(dataset.num_clips(split) for split in dataset.splits)
  unused = len(arrays) - count
  notes = [f"{count} clips with features of {size} numbers in {out}"]
  return notes + ([f"{unused} arrays are of no clip of {data}"] if unused else [])


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="pcan import_features",
    description="Stores features of another network with the clips of a data set, for "
    "model.rgb.kind=features; docs/VIDEOMAE.md has an example.",
  )
  parser.add_argument("features", type=pathlib.Path, help=".npz file: [D] or [T, D] by clip id")
  parser.add_argument("--data", type=pathlib.Path, required=True, help="built data set")
  parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the new one")
  arguments = parser.parse_args(argv)
  quiet_libraries()
  leave_out_keras()
  try:
    print("\n".join(import_features(**vars(arguments))))
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  main()

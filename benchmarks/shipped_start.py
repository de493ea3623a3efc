"""Takes the weights of a run as the start that comes with the package.

  pcan synthetic --preset lookalikes --train 2000 --out runs/figures
  pcan build runs/figures runs/figures_dataset --side 64
  pcan --config=lookalikes:posec3d_pose --config.data.path=runs/figures_dataset \
    --config.optimizer.epochs=45 --workdir=runs/start
  python -m benchmarks.shipped_start runs/start pcan_jax/starts/figures

`--config=small` starts from it, see `pcan_jax.shipped.find_start`.
"""

import argparse
import dataclasses
import pathlib

import numpy as np

from pcan_jax.checkpoints import Checkpoints, load_model


def write_start(run: pathlib.Path, start: pathlib.Path) -> None:
  """Writes the latest checkpoint of a run without the state of its optimizer.

  Args:
    run: a working directory.
    start: a new folder.

  Raises:
    FileExistsError: the folder is there.
    FileNotFoundError: there is no checkpoint.
    ValueError: it is damaged.
  """
  start.mkdir(parents=True)
  spec, variables, step = load_model(run)
  config = spec.config.copy_and_resolve_references()
  config.data.path = ""  # where the data set lay says nothing elsewhere
  spec = dataclasses.replace(spec, config=config)
  with Checkpoints(start / "checkpoints") as checkpoints:
    checkpoints.save(step, variables, {"step": np.asarray(step)}, spec)


def main() -> None:
  """Parses the arguments and writes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("run", type=pathlib.Path, help="the working directory of a run")
  parser.add_argument("start", type=pathlib.Path, help="a new folder")
  arguments = parser.parse_args()
  write_start(arguments.run, arguments.start)


if __name__ == "__main__":
  main()

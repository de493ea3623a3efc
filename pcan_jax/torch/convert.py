r"""Turns a PyTorch checkpoint into one of this project's, to evaluate or to start from.

  pcan convert --config=ma52:release --source=release.pth --workdir=runs/release
  pcan --mode=eval --workdir=runs/release

Read are the checkpoint that PCAN's authors released, MMAction2's RGBPoseConv3D and the start it is
trained from, and MMAction2's SlowOnly of one stream. PyTorch is not needed, and nothing in the file
is executed.
"""

import functools
import os
import pathlib
import sys

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from pcan_jax.checkpoints import Checkpoints
from pcan_jax.console import define_config_flag, run_with_flags
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import get_tree
from pcan_jax.mesh import data_mesh, jit_once
from pcan_jax.spec import ModelSpec
from pcan_jax.torch.checkpoint import read_state_dict
from pcan_jax.torch.weights import Conversion, from_state_dict
from pcan_jax.training.optimizer import build_optimizer
from pcan_jax.training.step import init_state


def convert(
  source: str | os.PathLike[str],
  workdir: str | os.PathLike[str],
  spec: ModelSpec,
  *,
  reinit_stem: bool = False,
) -> Conversion:
  """Writes the weights of a PyTorch checkpoint as step 0 of a working directory.

  Args:
    source: a file of `torch.save`.
    workdir: where `checkpoints/0` is written; it must hold no checkpoint yet.
    spec: the config of the network that the weights are for, labels and keypoints. Its
      `seed` draws what the file lacks.
    reinit_stem: whether a pose stem for another number of keypoints starts fresh.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file cannot be read, does not fit the network, or `workdir` is in use.
  """
  directory = pathlib.Path(workdir) / "checkpoints"
  if directory.is_dir() and any(directory.iterdir()):
    raise ValueError(f"{directory} holds checkpoints already; choose another --workdir")
  state_dict = read_state_dict(source)
  # Only its structure matters: the next training run brings its own schedule.
  optimizer = build_optimizer(spec.config.optimizer, lambda step: 0.0)
  state = jit_once(functools.partial(init_state, spec, optimizer), data_mesh())()
  try:
    conversion = from_state_dict(state_dict, state.model(), reinit_stem=reinit_stem)
  except ValueError as error:
    raise ValueError(f"{source}: {error}") from error
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(0, conversion.variables, state.training(), spec)
  return conversion


def main() -> None:
  """The command line."""
  define_config_flag()
  flags.DEFINE_string("source", None, "File of torch.save.", required=True)
  flags.DEFINE_string("workdir", None, "Where the checkpoint goes.", required=True)
  flags.DEFINE_string("tree", "ma52", "Labels: a tree's name or CSV file, id,action,body.")
  flags.DEFINE_string("layout", "openpose-28", "Keypoints: a layout's name or JSON file.")
  flags.DEFINE_integer("stored_size", None, "Side of stored frames, if not input.test_size.")
  flags.DEFINE_bool("reinit_stem", False, "Start a pose stem of other keypoints fresh.")
  flags.mark_flag_as_required("config")
  usage = "usage: pcan convert --config=NAME[:VARIANT] --source=FILE --workdir=DIR"
  run_with_flags(_convert_as_flags_say, usage, __name__)


def _convert_as_flags_say() -> None:
  """Converts and says what was left out."""
  logging.set_verbosity(logging.ERROR)
  config: ConfigDict = flags.FLAGS.config
  try:
    spec = ModelSpec(
      config=config,
      tree=get_tree(flags.FLAGS.tree),
      layout=get_layout(flags.FLAGS.layout),
      stored_size=flags.FLAGS.stored_size or config.input.test_size,
    )
    conversion = convert(
      flags.FLAGS.source,
      flags.FLAGS.workdir,
      spec,
      reinit_stem=flags.FLAGS.reinit_stem,
    )
  except (FileNotFoundError, ValueError) as error:
    sys.exit(f"error: {error}")
  for note in conversion.notes:
    print(note)
  size = sum(leaf.size for leaf in jax.tree.leaves(conversion.variables["params"]))
  print(f"wrote {size / 1e6:.2f} M parameters to {flags.FLAGS.workdir}/checkpoints/0")


if __name__ == "__main__":
  main()

r"""Turns a PyTorch checkpoint into one of this project's, to evaluate or to start from.

  python -m pcan_jax.convert --source=release.pth --workdir=runs/release \
    --config=configs/ma52.py:release
  python launch.py --mode=eval --workdir=runs/release

Read are the checkpoint that PCAN's authors released, MMAction2's RGBPoseConv3D and the start it is
trained from, and MMAction2's SlowOnly of one stream. PyTorch is not needed, and nothing in the file
is executed.
"""

import os
import pathlib
import sys

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from pcan_jax import inference, train_step
from pcan_jax.checkpoints import Checkpoints, Description
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.pcan import build_model
from pcan_jax.torch_checkpoint import read_state_dict
from pcan_jax.torch_weights import Conversion, from_state_dict


def convert(
  source: str | os.PathLike[str],
  workdir: str | os.PathLike[str],
  description: Description,
  *,
  reinit_stem: bool = False,
) -> Conversion:
  """Writes the weights of a PyTorch checkpoint as step 0 of a working directory.

  Args:
    source: a file of `torch.save`.
    workdir: where `checkpoints/0` is written; it must hold no checkpoint yet.
    description: the config of the network that the weights are for, labels and keypoints. Its
      `seed` draws what the file lacks.
    reinit_stem: whether a pose stem for another number of keypoints starts fresh.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file cannot be read, does not fit the network, or `workdir` is in use.
  """
  directory = pathlib.Path(workdir) / "checkpoints"
  if directory.is_dir() and any(directory.iterdir()):
    raise ValueError(f"{directory} holds checkpoints already; choose another --workdir")
  config = description.config
  state_dict = read_state_dict(source)
  model = build_model(config.model, description.tree)
  inputs = inference.example_inputs(model, config.input, inference.preprocessing(description))
  # Only its structure matters: the next training run brings its own schedule.
  optimizer = train_step.build_optimizer(config.optimizer, lambda step: 0.0)
  state = jax.jit(lambda: train_step.init_state(model, optimizer, inputs, config.seed))()
  try:
    conversion = from_state_dict(state_dict, state.model(), reinit_stem=reinit_stem)
  except ValueError as error:
    raise ValueError(f"{source}: {error}") from error
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(0, conversion.variables, state.training(), description)
  return conversion


def main(_: list[str]) -> None:
  """Converts what the flags name and says what was left out."""
  logging.set_verbosity(logging.ERROR)
  config: ConfigDict = flags.FLAGS.config
  try:
    description = Description(
      config=config,
      tree=LabelTree.read_csv(flags.FLAGS.tree),
      layout=get_layout(flags.FLAGS.layout),
      stored_size=flags.FLAGS.stored_size or config.input.test_size,
    )
    conversion = convert(
      flags.FLAGS.source,
      flags.FLAGS.workdir,
      description,
      reinit_stem=flags.FLAGS.reinit_stem,
    )
  except (FileNotFoundError, ValueError) as error:
    sys.exit(f"error: {error}")
  for note in conversion.notes:
    print(note)
  size = sum(leaf.size for leaf in jax.tree.leaves(conversion.variables["params"]))
  print(f"wrote {size / 1e6:.2f} M parameters to {flags.FLAGS.workdir}/checkpoints/0")


if __name__ == "__main__":
  config_flags.DEFINE_config_file("config", None, "Config of the network.", lock_config=True)
  flags.DEFINE_string("source", None, "File of torch.save.")
  flags.DEFINE_string("workdir", None, "Where the checkpoint goes.")
  flags.DEFINE_string("tree", "data/trees/ma52.csv", "Labels: CSV of id,action,body.")
  flags.DEFINE_string("layout", "openpose-28", "Keypoints: a layout's name or JSON file.")
  flags.DEFINE_integer("stored_size", None, "Side of stored frames, if not input.test_size.")
  flags.DEFINE_bool("reinit_stem", False, "Start a pose stem of other keypoints fresh.")
  flags.mark_flags_as_required(["config", "source", "workdir"])
  app.run(main)

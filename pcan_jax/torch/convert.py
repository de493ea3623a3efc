r"""Converts a PyTorch checkpoint to this project's format, for evaluation or fine-tuning.

  pcan convert --config=ma52:release --source=release.pth --workdir=runs/release
  pcan --mode=eval --workdir=runs/release

Supports the checkpoint released by PCAN's authors, MMAction2's RGBPoseConv3D and its initial
weights, MMAction2's single-stream SlowOnly, and VideoMAE for the variants `vit`. Needs no PyTorch
and executes nothing in the file.
"""

import os
import pathlib

from pcan_jax.checkpoints import Checkpoints
from pcan_jax.mesh import data_mesh
from pcan_jax.network.video_transformer import VideoTransformerConfig
from pcan_jax.spec import ModelSpec
from pcan_jax.torch.checkpoint import read_state_dict
from pcan_jax.torch.videomae import from_videomae, is_videomae
from pcan_jax.torch.weights import Conversion, from_state_dict
from pcan_jax.training.step import compile_step


def convert(
  source: str | os.PathLike[str],
  workdir: str | os.PathLike[str],
  spec: ModelSpec,
  *,
  reinit_stem: bool = False,
) -> Conversion:
  """Writes the weights of a PyTorch checkpoint as step 0 of a working directory.

  Args:
    source: a file written by `torch.save`, or one whose name ends in `.safetensors`.
    workdir: `checkpoints/0` is written here; it must not have a checkpoint yet.
    spec: config of the network, labels and keypoints. Its `seed` initialises arrays that the file
      lacks.
    reinit_stem: whether to reinitialise a pose stem for another number of keypoints.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file cannot be read, does not fit the network, or `workdir` is in use.
  """
  directory = pathlib.Path(workdir) / "checkpoints"
  if directory.is_dir() and any(directory.iterdir()):
    raise ValueError(f"{directory} holds checkpoints already; choose another --workdir")
  state_dict = read_state_dict(source)
  has_transformer = isinstance(spec.model.rgb, VideoTransformerConfig)
  if is_videomae(state_dict) and not has_transformer:
    raise ValueError(f"{source} holds VideoMAE; convert it for a config with it, such as ma52:vit")
  # Only its structure matters: the next training run has its own schedule.
  make_state, _ = compile_step(spec, lambda step: 0.0, data_mesh())
  state = make_state()
  try:
    if has_transformer:
      conversion = from_videomae(state_dict, state.model(), spec.model.rgb)
    else:
      conversion = from_state_dict(state_dict, state.model(), reinit_stem=reinit_stem)
  except ValueError as error:
    raise ValueError(f"{source}: {error}") from error
  with Checkpoints(directory) as checkpoints:
    started = state.started(conversion.variables)
    checkpoints.save(0, started.model(), started.training(), spec)
  return conversion

"""A model as a function that only needs JAX: preprocessing, network, weights, rectification.

The folder that is written holds

  model.stablehlo    the serialised function, for CPUs, NVIDIA GPUs and TPUs (`jax.export`)
  model.json         names of the classes, inputs, frames and clips per video
  run_exported.py    runs it, without this project
"""

import json
import os
import pathlib
import shutil
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from pcan_jax import run_exported
from pcan_jax.evaluate import clips
from pcan_jax.inference import ByLevel, load, predict_step, preprocessing

PLATFORMS = ("cpu", "cuda", "tpu")


def export_checkpoint(
  checkpoint: str | os.PathLike[str],
  output: str | os.PathLike[str],
  *,
  num_clips: int | None = None,
) -> pathlib.Path:
  """Exports a checkpoint.

  The function takes what `inference.predict_step` takes, of any number of videos, and returns its
  probabilities.

  Args:
    checkpoint: a working directory, or one checkpoint, DIR/checkpoints/STEP.
    output: folder for the files; it is made.
    num_clips: test clips per video; None is as many as the model is evaluated with.

  Returns:
    The folder.

  Raises:
    FileNotFoundError: there is no checkpoint.
  """
  model, variables, description, step = load(checkpoint)
  config, layout = description.config, description.layout
  num_clips = num_clips or config.eval.num_clips
  lengths = clips(config, num_clips).lengths
  # From all devices to one, so that the weights become plain constants of the function.
  variables = jax.device_put(variables, jax.local_devices()[0])
  sizes, gamma = preprocessing(description), config.eval.gamma.to_dict()

  def probabilities(batch: dict[str, jax.Array]) -> ByLevel:
    return predict_step(variables, batch, model=model, sizes=sizes, gamma=gamma)["probabilities"]

  inputs: dict[str, tuple[Any, tuple[int, ...]]] = {}
  if "rgb" in lengths:
    side = description.stored_size
    inputs["rgb"] = (jnp.uint8, (num_clips, lengths["rgb"], side, side, 3))
  if "pose" in lengths:
    joints = (num_clips, lengths["pose"], config.input.max_persons, layout.num_keypoints)
    inputs["keypoints"] = (jnp.float32, (*joints, 2))
    inputs["keypoint_scores"] = (jnp.float32, joints)
  (videos,) = jax.export.symbolic_shape("videos")
  exported = jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)(
    {name: jax.ShapeDtypeStruct((videos, *shape), dtype) for name, (dtype, shape) in inputs.items()}
  )
  output = pathlib.Path(output)
  output.mkdir(parents=True, exist_ok=True)
  (output / "model.stablehlo").write_bytes(exported.serialize())
  about = description.tree.to_dict() | {
    "checkpoint": str(checkpoint),
    "step": step,
    "inputs": {
      name: {"dtype": np.dtype(dtype).name, "shape": ["videos", *shape]}
      for name, (dtype, shape) in inputs.items()
    },
    "num_clips": num_clips,
    "frames_per_clip": lengths,
    "layout": layout.to_dict(),
    "branches": ["fused", *model.streams],
    "platforms": PLATFORMS,
    "jax_version": jax.__version__,
  }
  (output / "model.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
  shutil.copyfile(run_exported.__file__, output / "run_exported.py")
  return output

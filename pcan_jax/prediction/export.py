"""Exports a model as a function that only needs JAX: preprocessing, network, rectification.

The output folder contains

  model.stablehlo    the serialised function, for CPUs, NVIDIA GPUs and TPUs (`jax.export`)
  model.json         names of the classes, inputs, frames and clips per video
  run_exported.py    runs it, without this project
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import jax
import jax.export

from pcan_jax.checkpoints import load_model
from pcan_jax.network import forms
from pcan_jax.network.pcan import Outputs
from pcan_jax.prediction import run_exported
from pcan_jax.writing import replace_file, require_writable

PLATFORMS = ("cpu", "cuda", "tpu")


def export_checkpoint(
  checkpoint: str | os.PathLike[str],
  output: str | os.PathLike[str],
  *,
  num_clips: int | None = None,
) -> pathlib.Path:
  """Exports a checkpoint.

  The function is `ModelSpec.predict` including the weights, for any number of videos.

  Args:
    checkpoint: a working directory, or one checkpoint, DIR/checkpoints/STEP.
    output: folder for the files; it is created.
    num_clips: test clips per video; None is the number used in evaluation.

  Returns:
    The folder.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it is damaged.
    OSError: `output` cannot be written to, which is tried first.
  """
  output = require_writable(output)
  spec, variables, step = load_model(checkpoint)
  spec = dataclasses.replace(spec, forms=forms.CPU)  # which run everywhere
  num_clips = num_clips or spec.config.eval.num_clips
  # Gathered from all devices, so that the weights become plain constants of the function.
  variables = jax.device_put(variables, jax.local_devices()[0])

  def predict(batch: dict[str, jax.Array]) -> Outputs:
    return spec.predict(variables, batch)

  (videos,) = jax.export.symbolic_shape("videos")
  inputs = spec.batch_shapes(videos, num_clips)
  exported = jax.export.export(jax.jit(predict), platforms=PLATFORMS)(inputs)
  program = bytes(exported.serialize())
  replace_file(output / "model.stablehlo", program)
  about = spec.tree.to_dict() | {
    "checkpoint": str(checkpoint),
    "step": step,
    "inputs": {
      name: {"dtype": shape.dtype.name, "shape": ["videos", *shape.shape[1:]]}
      for name, shape in inputs.items()
    },
    "outputs": {
      branch: {level: sorted(kinds) for level, kinds in levels.items()}
      for branch, levels in jax.eval_shape(predict, spec.batch_shapes(1, num_clips)).items()
    },
    "num_clips": num_clips,
    "frames_per_clip": spec.frame_sampling(num_clips).lengths,
    "layout": spec.layout.to_dict(),
    "platforms": PLATFORMS,
    "jax_version": jax.__version__,
  }
  # In the order in which the file will have them.
  text = json.dumps(about).encode()
  about["sha256"] = {
    "model.stablehlo": hashlib.sha256(program).hexdigest(),
    "model.json": hashlib.sha256(text).hexdigest(),
  }
  replace_file(output / "model.json", json.dumps(about, indent=1) + "\n")
  shutil.copyfile(run_exported.__file__, output / "run_exported.py")
  return output

"""Heatmaps, test-time frame indices and person boxes, in the format of `release_data.npz`."""

import argparse
import re
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from pcan_jax import heatmaps
from pcan_jax.clips.person_box import person_box
from pcan_jax.clips.sampling import test_clips

Arrays = dict[str, np.ndarray]


def heatmap(keypoint, score, img_shape, scaling, sigma) -> np.ndarray:
  """Heatmaps [T, V, h, w] of keypoints [M, T, V, 2] in image pixels."""
  # Half a pixel rounds up, as in the release.
  size = tuple(int(side * scaling + 0.5) for side in img_shape)
  rendered = heatmaps.render_joints(
    jnp.moveaxis(keypoint * np.float32(scaling), 0, 1),
    jnp.moveaxis(score, 0, 1),
    size,
    float(sigma),
  )
  return np.moveaxis(np.asarray(rendered), -1, 1)


def boxes(keypoint, img_shape) -> np.ndarray:
  """Boxes [N, 4] of N videos with one person each (or M, on a second axis)."""
  persons = keypoint if keypoint.ndim == 5 else keypoint[:, None]
  return np.array(
    [person_box(video, tuple(map(int, shape))) for video, shape in zip(persons, img_shape)]
  )


def compute_file(arrays: Arrays) -> Arrays:
  """What the release makes of the inputs in a file, under the names of `release_data.npz`."""
  outputs = {}
  for name in arrays:
    sample = re.fullmatch(r"sample/len(\d+)_clips(\d+)_frames(\d+)", name)
    group, _, field = name.partition("/")
    if sample:
      clip_len, num_clips, num_frames = map(int, sample.groups())
      outputs[name] = test_clips(num_frames, clip_len, num_clips)
    elif field == "keypoint" and f"{group}/score" in arrays:
      fields = ("keypoint", "score", "img_shape", "scaling", "sigma")
      outputs[f"{group}/heatmap"] = heatmap(*(arrays[f"{group}/{f}"] for f in fields))
    elif field == "keypoint":
      outputs[f"{group}/box_xyxy"] = boxes(arrays[name], arrays[f"{group}/img_shape"])
  return outputs


def main(argv: Sequence[str]) -> None:
  parser = argparse.ArgumentParser(prog="python -m tests.parity data", description=__doc__)
  parser.add_argument(
    "inputs",
    help="an .npz file with heatmapI/{keypoint,score,img_shape,scaling,sigma}, "
    "sample/lenL_clipsC_framesN (only the name is read), box/{keypoint,img_shape}",
  )
  parser.add_argument(
    "outputs", help="the .npz file to write, with heatmapI/heatmap, sample/*, box/box_xyxy"
  )
  args = parser.parse_args(argv)
  with np.load(args.inputs) as arrays:
    outputs = compute_file(dict(arrays))
  if not outputs:
    parser.error(f"{args.inputs} has none of the inputs")
  np.savez_compressed(args.outputs, **outputs)

"""A checkpoint of a narrow network with random weights, written without training."""

import functools
import pathlib

import jax
import numpy as np

from configs import ma52
from pcan_jax.checkpoints import Checkpoints
from pcan_jax.feed.dataset import Dataset
from pcan_jax.keypoints import KeypointLayout
from pcan_jax.labels import LabelTree
from pcan_jax.spec import ModelSpec
from tests.tiny_config import shrink


@functools.cache
def _shapes(variant: str, tree: LabelTree, layout: KeypointLayout, stored_size: int):
  """Of the variables; tracing takes most of the time that a checkpoint takes."""
  return jax.eval_shape(ModelSpec(shrink(ma52.get_config(variant)), tree, layout, stored_size).init)


def write_tiny_checkpoint(
  workdir: pathlib.Path, dataset: Dataset, variant: str = "pcan"
) -> pathlib.Path:
  """Writes step 0 of a working directory; different clips get clearly different scores."""
  config = shrink(ma52.get_config(variant))
  config.data.path = str(dataset.path)
  spec = ModelSpec(config, dataset.tree, dataset.layout, dataset.stored_size)
  rng = np.random.default_rng(0)

  def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    if path[-1].key in ("scale", "var"):
      return np.ones(leaf.shape, np.float32)
    if path[-1].key in ("bias", "mean"):
      return np.zeros(leaf.shape, np.float32)
    fan_in = max(np.prod(leaf.shape[:-1], dtype=int), 1)
    return rng.normal(0, np.sqrt(2 / fan_in), leaf.shape).astype(np.float32)

  shapes = _shapes(variant, dataset.tree, dataset.layout, dataset.stored_size)
  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  with Checkpoints(workdir / "checkpoints") as checkpoints:
    checkpoints.save(0, variables, {"step": np.zeros((), np.int32)}, spec)
  return workdir

"""From a checkpoint and a batch of clips to probabilities, logits and embeddings.

Nothing here knows where clips come from, so that it serves evaluation, prediction and export.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from pcan_jax import losses
from pcan_jax.checkpoints import Checkpoints, Description, locate
from pcan_jax.pcan import PCAN, build_model
from pcan_jax.preprocess import Augmentation, Preprocessing, preprocess

PyTree = Any
# Per branch ("fused", "rgb", "pose") and level ("action", "body"), an array [N, ...].
ByLevel = dict[str, dict[str, Any]]


def preprocessing(
  description: Description, train_augmentation: Augmentation | None = None
) -> Preprocessing:
  """The preprocessing of a model, for training if `train_augmentation` is given."""
  config = description.config.input
  size = config.test_size if train_augmentation is None else config.train_size
  if size % config.heatmap_scale:
    raise ValueError(
      f"input sizes must be multiples of input.heatmap_scale={config.heatmap_scale}, not {size}"
    )
  return Preprocessing(
    stored_size=description.stored_size,
    rgb_size=size,
    heatmap_size=size // config.heatmap_scale,
    layout=description.layout,
    sigma=config.sigma,
    heatmaps=config.get("heatmaps", "joints"),  # older checkpoints do not name it
    augmentation=train_augmentation,
  )


def example_inputs(
  model: PCAN, config: ConfigDict, sizes: Preprocessing, batch_size: int = 1
) -> dict[str, jax.Array]:
  """Zeros in the shapes of the network's inputs."""
  inputs = {}
  if model.rgb is not None:
    inputs["rgb"] = jnp.zeros((batch_size, config.rgb_frames, sizes.rgb_size, sizes.rgb_size, 3))
  if model.pose is not None:
    side = sizes.heatmap_size
    inputs["heatmaps"] = jnp.zeros(
      (batch_size, config.pose_frames, side, side, len(sizes.heatmap_channels))
    )
  return inputs


def data_mesh() -> Mesh:
  """All devices along one axis, `data`."""
  return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def predict_step(
  variables: PyTree,
  batch: dict[str, Any],
  *,
  model: PCAN,
  sizes: Preprocessing,
  gamma: dict[str, float],
) -> dict[str, ByLevel]:
  """What the network says of a batch of videos, averaged over the clips of each.

  Args:
    variables: `params`, `batch_stats`, `prototypes`.
    batch: `rgb` uint8 [B, K, T, S, S, 3] and/or `keypoints` [B, K, T', M, V, 2] in pixels of the
      stored frames with `keypoint_scores` [B, K, T', M, V], of K clips per video.
    model, sizes: the network and its preprocessing.
    gamma: weight of the prototypes per stream (PCAN eq. 10 and 11).

  Returns:
    `logits`: per stream those of actions [B, A], rectified, and of body parts [B, B'].
    `probabilities`: per stream the softmax of these; `fused` is the mean of the streams.
    `embeddings`: per stream those of actions [B, D] and of body parts [B, D']; without prototypes
    there are none.
  """
  num_clips = next(iter(batch.values())).shape[1]
  flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in batch.items()}
  outputs = model.apply(variables, preprocess(flat, sizes), train=False)
  logits, embeddings = {}, {}
  for stream, out in outputs.items():
    action_logits = out["action_logits"]
    if model.has_prototypes:
      embeddings[stream] = {level: out[f"{level}_embedding"] for level in ("action", "body")}
      prototypes = variables["prototypes"][stream]["action"]
      action_logits = losses.rectify(
        action_logits, embeddings[stream]["action"], prototypes, gamma[stream]
      )
    logits[stream] = {"action": action_logits, "body": out["body_logits"]}
  probabilities = jax.tree.map(jax.nn.softmax, logits)
  fused = jax.tree.map(lambda *streams: sum(streams) / len(streams), *probabilities.values())
  return jax.tree.map(
    lambda values: values.reshape(-1, num_clips, values.shape[-1]).mean(axis=1),
    {
      "logits": logits,
      "probabilities": {"fused": fused} | probabilities,
      "embeddings": embeddings,
    },
  )


def load(path: str | os.PathLike[str]) -> tuple[PCAN, PyTree, Description, int]:
  """Loads a model from a checkpoint, wherever and on how many devices it was trained.

  Args:
    path: as for `checkpoints.locate`.

  Returns:
    The network, its variables, what it was made for, and the step.
  """
  directory, step = locate(path)
  with Checkpoints(directory) as checkpoints:
    description = checkpoints.describe(step)
    model = build_model(description.config.model, description.tree)
    inputs = example_inputs(model, description.config.input, preprocessing(description))
    replicated = NamedSharding(data_mesh(), PartitionSpec())
    variables = jax.eval_shape(lambda: dict(model.init(jax.random.key(0), inputs, train=False)))
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
      {"prototypes": {}} | variables,
    )
    return model, checkpoints.restore(step, model=target)["model"], description, step

"""PCAN: a backbone, and per stream two classifiers, two embeddings and two sets of prototypes.

Reference: Li et al., Prototypical Calibrating Ambiguous Samples for Micro-Action Recognition,
AAAI 2025, arXiv 2412.14719.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from pcan_jax.cosine import unit
from pcan_jax.labels import LEVELS, LabelTree
from pcan_jax.network.backbone import Backbone, PathConfig
from pcan_jax.network.feature_path import FeaturePathConfig
from pcan_jax.network.forms import CPU, Forms
from pcan_jax.network.pathway import REMAT, PathwayConfig
from pcan_jax.network.video_transformer import VideoTransformerConfig

STREAMS = ("rgb", "pose")
RGB_KINDS = {
  "slowonly": PathwayConfig,
  "videomae": VideoTransformerConfig,
  "features": FeaturePathConfig,
}
"""What the RGB stream may be, by its name in the config."""

# One stream's outputs for a batch, by level: `logits` [N, C] and, with prototypes, an `embedding`
# [N, D]; of actions in training also the logits of every time step, `frames` [N, T, C], if the
# stream has a classifier for them. `ModelSpec.predict` adds `probabilities` [N, C].
StreamOutputs = dict[str, dict[str, jax.Array]]
# The same by stream. Files of results and exported models have this form, too.
Outputs = dict[str, StreamOutputs]


class CosineClassifier(nn.Module):
  """Logits that are cosines to a direction per class, scaled (CosFace, arXiv 1801.09414).

  Attributes:
    classes: number of classes.
    scale: of the cosines.
  """

  classes: int
  scale: float

  @nn.compact
  def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n k"]:
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.classes))
    directions = unit(kernel.T).T
    return self.scale * jnp.matmul(unit(x), directions, precision=jax.lax.Precision.HIGHEST)


class Head(nn.Module):
  """Classifies pooled features and embeds them in the space of the prototypes.

  Attributes:
    tree: the labels.
    action_embedding, body_embedding: sizes of the two embeddings; 0 leaves both out.
    dropout: rate before the classifiers; the embeddings have none.
    pool_embedding: "mean" over time and space, or "max": in training the spatial maximum of the
      mean over time, as in the authors' release.
    cosine_scale: of the logits of classifiers by cosine; 0 is linear classifiers.
    frames: whether there is also a classifier of every time step, which only training uses.
  """

  tree: LabelTree
  action_embedding: int
  body_embedding: int
  dropout: float
  pool_embedding: str
  cosine_scale: float = 0.0
  frames: bool = False

  @nn.compact
  def __call__(self, features: Float[Array, "n t h w c"], train: bool) -> StreamOutputs:
    features = features.astype(jnp.float32)
    pooled = features.mean(axis=(1, 2, 3))
    classified = nn.Dropout(self.dropout, deterministic=not train)(pooled)
    outputs = {
      "action": {"logits": self._classifier(self.tree.num_actions, "action")(classified)},
      "body": {"logits": self._classifier(self.tree.num_bodies, "body")(classified)},
    }
    if self.action_embedding:
      if train and self.pool_embedding == "max":
        pooled = features.mean(axis=1).max(axis=(1, 2))
      for level, size in (("action", self.action_embedding), ("body", self.body_embedding)):
        outputs[level]["embedding"] = nn.Dense(size, name=f"{level}_embedding")(pooled)
    if self.frames and (train or self.is_initializing()):
      each = nn.Dropout(self.dropout, deterministic=not train)(features.mean(axis=(2, 3)))
      outputs["action"]["frames"] = self._classifier(self.tree.num_actions, "frames")(each)
    return outputs

  def _classifier(self, classes: int, name: str) -> nn.Module:
    if self.cosine_scale:
      return CosineClassifier(classes, self.cosine_scale, name=name)
    return nn.Dense(classes, name=name)


class PCAN(nn.Module):
  """The network.

  Prototypes are the collection `prototypes`: per stream `action` [A, D] and `body` [B, D']. They
  are initialised as N(0, 1) or as zeros, replaced by the training step, and never parameters.

  Attributes:
    tree: the labels.
    rgb, pose: the pathways; None leaves a stream out.
    fusion: how the pathways exchange features, see `Backbone`.
    lateral_stride: pose frames per RGB frame.
    learned_fusion: whether the parameter `fusion_weight` decides how the streams' probabilities are
      averaged, see `rgb_share`; only with two streams.
    action_embedding, body_embedding, dropout, pool_embedding, cosine_scale: see `Head`.
    prototype_start: "normal" or "zero".
    dtype: precision of the backbone's arithmetic; parameters and heads stay float32.
    remat: what the backward pass recomputes, see `pathway.rematerialized`.
    frames: whether streams with feature maps have a classifier of every time step, see `Head`.
    forms: how the backbone's operations are computed.
  """

  tree: LabelTree
  rgb: PathConfig | None
  pose: PathwayConfig | None
  fusion: str
  lateral_stride: int
  learned_fusion: bool
  action_embedding: int
  body_embedding: int
  dropout: float
  pool_embedding: str
  prototype_start: str
  dtype: DTypeLike
  remat: str
  cosine_scale: float = 0.0
  frames: bool = False
  forms: Forms = CPU

  @property
  def streams(self) -> tuple[str, ...]:
    return tuple(stream for stream in STREAMS if getattr(self, stream) is not None)

  @property
  def has_prototypes(self) -> bool:
    return self.action_embedding > 0

  def setup(self) -> None:
    self.backbone = Backbone(
      rgb=self.rgb,
      pose=self.pose,
      fusion=self.fusion,
      lateral_stride=self.lateral_stride,
      dtype=self.dtype,
      remat=self.remat,
      forms=self.forms,
    )
    self.heads = {
      stream: Head(
        tree=self.tree,
        action_embedding=self.action_embedding,
        body_embedding=self.body_embedding,
        dropout=self.dropout,
        pool_embedding=self.pool_embedding,
        cosine_scale=self.cosine_scale,
        frames=self.frames and isinstance(getattr(self, stream), PathwayConfig),
        name=f"head_{stream}",
      )
      for stream in self.streams
    }
    if self.learned_fusion:
      self.param("fusion_weight", nn.initializers.zeros, (2,))
    if self.has_prototypes:
      self.prototypes = {
        stream: self.variable("prototypes", stream, self._initial_prototypes)
        for stream in self.streams
      }

  def _initial_prototypes(self) -> dict[str, Array]:
    keys = jax.random.split(self.make_rng("params"))
    shapes = {
      "action": (self.tree.num_actions, self.action_embedding),
      "body": (self.tree.num_bodies, self.body_embedding),
    }
    if self.prototype_start == "zero":
      return {level: jnp.zeros(shape) for level, shape in shapes.items()}
    return {
      level: jax.random.normal(key, shape) for key, (level, shape) in zip(keys, shapes.items())
    }

  def __call__(self, inputs: dict[str, Array], train: bool) -> Outputs:
    """Classifies and embeds a batch.

    Args:
      inputs: `rgb` [N, T, H, W, 3], or [N, T, D] of stored features, and/or `heatmaps`
        [N, T', h, w, V], as the streams need.
      train: whether BatchNorm uses the batch's statistics and dropout is on (rng `dropout`).

    Returns:
      Per stream the outputs of its `Head`, before rectification.
    """
    features = self.backbone(inputs.get("rgb"), inputs.get("heatmaps"), train)
    return {stream: self.heads[stream](features[stream], train) for stream in self.streams}


def rgb_share(params: Mapping[str, Any], level: str) -> Float[Array, ""]:
  """The share of the RGB stream's probabilities in those of both, with a learned fusion.

  Args:
    params: of the network.
    level: "action" or "body".
  """
  return jax.nn.sigmoid(params["fusion_weight"][LEVELS.index(level)])


def rgb_path(config: ConfigDict) -> PathConfig:
  """The shape that the `model.rgb` part of a config describes.

  Raises:
    ValueError: its kind is unknown, or it has other fields than that kind.
  """
  fields = dict(config)
  kind = fields.pop("kind")
  if kind not in RGB_KINDS:
    raise ValueError(f"model.rgb.kind must be one of {tuple(RGB_KINDS)}, not {kind!r}")
  known = {field.name for field in dataclasses.fields(RGB_KINDS[kind])}
  if fields.keys() != known:
    different = ", ".join(sorted(fields.keys() ^ known))
    raise ValueError(
      f"model.rgb.kind={kind!r} has other fields than model.rgb ({different}); choose a variant of "
      "the config that has them, such as ma52:vit, or replace all of config.model.rgb"
    )
  return RGB_KINDS[kind](**fields) if kind != "slowonly" else _pathway("rgb", fields)


def _pathway(stream: str, fields: Mapping[str, Any]) -> PathwayConfig:
  try:
    return PathwayConfig(**fields)
  except ValueError as error:
    raise ValueError(f"model.{stream}: {error}") from error


def build_model(
  config: ConfigDict,
  tree: LabelTree,
  forms: Forms = CPU,
  *,
  prototype_start: str = "normal",
  frames: bool = False,
) -> PCAN:
  """The network that the `model` part of a config describes.

  Args:
    config: that part.
    tree: the labels.
    forms: how operations are computed; of no consequence for parameters and, to rounding, results.
    prototype_start: as in `method.loss_config.LossConfig`.
    frames: whether every time step is classified, too, in training.

  Raises:
    ValueError: a field has an unknown value; the message names the field.
  """
  unknown = set(config.streams) - set(STREAMS)
  if unknown or not config.streams:
    raise ValueError(f"model.streams must hold 'rgb', 'pose' or both, not {config.streams}")
  if config.pool_embedding not in ("mean", "max"):
    raise ValueError(f"model.pool_embedding must be mean or max, not {config.pool_embedding!r}")
  if config.dtype not in ("float32", "bfloat16"):
    raise ValueError(f"model.dtype must be float32 or bfloat16, not {config.dtype!r}")
  if config.remat not in REMAT:
    raise ValueError(f"model.remat must be one of {REMAT}, not {config.remat!r}")
  rgb = rgb_path(config.rgb) if "rgb" in config.streams else None
  pose = _pathway("pose", dict(config.pose)) if "pose" in config.streams else None
  if config.pool_embedding == "max" and not isinstance(rgb, PathwayConfig | None):
    raise ValueError("model.pool_embedding must be mean for an RGB stream without feature maps")
  if config.cosine_scale < 0:
    raise ValueError(f"model.cosine_scale must be 0 or more, not {config.cosine_scale}")
  if frames and not isinstance(rgb, PathwayConfig) and "pose" not in config.streams:
    raise ValueError("loss.frame_weight must be 0 without a stream that has feature maps over time")
  return PCAN(
    tree=tree,
    rgb=rgb,
    pose=pose,
    fusion=config.fusion,
    lateral_stride=config.lateral_stride,
    learned_fusion=config.learned_fusion and len(config.streams) == 2,
    action_embedding=config.action_embedding if config.prototypes else 0,
    body_embedding=config.body_embedding if config.prototypes else 0,
    dropout=config.dropout,
    pool_embedding=config.pool_embedding,
    prototype_start=prototype_start,
    dtype=jnp.dtype(config.dtype),
    remat=config.remat,
    cosine_scale=config.cosine_scale,
    frames=frames,
    forms=forms,
  )

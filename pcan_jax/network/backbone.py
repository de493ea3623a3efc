"""One or two pathways and their fusion.

The RGB stream is a 3D CNN or another pathway with a stem and stages, see `PATHS`.

`fusion` is how an RGB and a pose pathway exchange features: "late" not at all, "lateral" as in
RGBPoseConv3D (Duan et al., CVPR 2022, arXiv 2104.13586), "lateral_attention" as in the network that
PCAN's authors released, where each stream is first gated by cross-attention with the other.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pcan_jax.network import conv, frame_rates
from pcan_jax.network.feature_path import FeaturePathConfig
from pcan_jax.network.forms import CPU, Forms
from pcan_jax.network.norm import BatchNorm
from pcan_jax.network.pathway import EXPANSION, Pathway, PathwayConfig
from pcan_jax.network.video_transformer import VideoTransformer, VideoTransformerConfig

FUSIONS = ("late", "lateral", "lateral_attention")

PathConfig = PathwayConfig | VideoTransformerConfig | FeaturePathConfig

# The module for each kind of pathway.
PATHS = {
  PathwayConfig: Pathway,
  VideoTransformerConfig: VideoTransformer,
  FeaturePathConfig: VideoTransformer,
}

# A lateral projection has one channel for every four of the stream that it is concatenated to.
LATERAL_RATIO = 4


def exchange_places(rgb_stages: int, pose_stages: int) -> tuple[tuple[int, int], ...]:
  """Stages (rgb, pose), counted from 1, after which the streams exchange features.

  After every pose stage but the last, at the RGB stage as far from the end.
  """
  offset = rgb_stages - pose_stages
  return tuple((p + offset, p) for p in range(1, pose_stages) if p + offset >= 1)


class CrossAttention(nn.Module):
  """Multi-head attention of one stream's tokens to the other's.

  Attributes:
    num_heads: number of heads; must divide the channels.
    dropout: rate on the attention weights in training; needs the rng `dropout`.
    dtype: of the computation; the softmax is float32.
  """

  num_heads: int = 8
  dropout: float = 0.1
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, queries: Float[Array, "n q c"], context: Float[Array, "n k c"], train: bool
  ) -> Float[Array, "n q c"]:
    n, _, features = queries.shape
    if features % self.num_heads:
      raise ValueError(
        f"attention over {features} channels cannot have {self.num_heads} heads; set "
        f"model.pose.widths to multiples of {self.num_heads}"
      )

    def project(name: str, tokens: Array) -> Array:
      projected = nn.Dense(features, dtype=self.dtype, name=name)(tokens)
      return projected.reshape(n, -1, self.num_heads, features // self.num_heads)

    q, k, v = (
      project("query", queries),
      project("key", context),
      project("value", context),
    )
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(self.dtype)
    weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
    y = jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, -1, features)
    return nn.Dense(features, dtype=self.dtype, name="out")(y)


class CrossGate(nn.Module):
  """Gates both streams by cross-attention between short summaries of them.

  Each stream is reduced to the pose stream's channels and the RGB stream's frames, then max-pooled
  over space: one token per frame. The RGB tokens attend to the pose tokens, then the pose tokens to
  the updated RGB tokens. Expanded again, the result gates the stream: x + x * gate.

  Attributes:
    stride: pose frames per RGB frame.
    dtype: of the computation.
  """

  stride: int
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, rgb: Float[Array, "n t h w c"], pose: Float[Array, "n tp h w d"], train: bool
  ) -> tuple[Float[Array, "n t h w c"], Float[Array, "n tp h w d"]]:
    hidden = pose.shape[-1]
    pointwise = functools.partial(conv.Conv3D, kernel=(1, 1, 1), use_bias=True, dtype=self.dtype)
    rgb_tokens = pointwise(hidden, name="rgb_in")(rgb).max(axis=(2, 3))
    pose_tokens = frame_rates.GroupFrames(hidden, self.stride, dtype=self.dtype, name="pose_in")(
      pose
    )
    pose_tokens = pose_tokens.max(axis=(2, 3))
    rgb_tokens = CrossAttention(dtype=self.dtype, name="rgb_attention")(
      rgb_tokens, pose_tokens, train
    )
    pose_tokens = CrossAttention(dtype=self.dtype, name="pose_attention")(
      pose_tokens, rgb_tokens, train
    )
    rgb_gate = pointwise(rgb.shape[-1], name="rgb_out")(rgb_tokens[:, :, None, None])
    pose_gate = frame_rates.UngroupFrames(
      pose.shape[-1], self.stride, dtype=self.dtype, name="pose_out"
    )(pose_tokens[:, :, None, None])
    return rgb + rgb * rgb_gate, pose + pose * pose_gate


class UpsampleNorm(nn.Module):
  """Transposed convolution along time, BatchNorm and ReLU."""

  features: int
  stride: int
  dtype: DTypeLike = jnp.float32
  forms: Forms = CPU

  @nn.compact
  def __call__(self, x: Float[Array, "n t h w c"], train: bool) -> Float[Array, "n t2 h w d"]:
    upsample = frame_rates.ConvTranspose3D(
      self.features, self.stride, self.dtype, self.forms, name="conv"
    )
    x = upsample(x)
    norm = BatchNorm(relu=True, name="bn")
    if train:
      return norm(x)
    slope, offset = norm.slope_and_offset(self.features)
    return jnp.maximum(x * slope + offset, 0).astype(self.dtype)


class Backbone(nn.Module):
  """The pathways of the configured streams, with the exchange of features that `fusion` names.

  Besides those of the pathways, these intermediates are sown for the exchange after RGB stage r and
  pose stage p: `lateral_rgb{r}` and `lateral_pose{p}`, the projections that are concatenated to a
  stream; with attention, `gated_rgb{r}` and `gated_pose{p}`, the features they are concatenated to.

  Attributes:
    rgb: shape of the RGB pathway, None to leave the stream out. Only convolutional pathways can
      exchange features; with another, `fusion` is "late".
    pose: shape of the pose pathway, None to leave the stream out.
    fusion: one of `FUSIONS`; has no effect with one stream.
    lateral_stride: pose frames per RGB frame.
    dtype: of the computation; parameters and statistics are float32.
    remat: see `pathway.rematerialized`.
    forms: how operations are computed.

  Raises:
    ValueError: no stream, an unknown fusion, or pathways or inputs that do not fit the fusion.
  """

  rgb: PathConfig | None
  pose: PathwayConfig | None
  fusion: str
  lateral_stride: int
  dtype: DTypeLike
  remat: str
  forms: Forms = CPU

  def setup(self) -> None:
    if self.rgb is None and self.pose is None:
      raise ValueError("a backbone needs a stream: configure rgb, pose or both")
    if self.fusion not in FUSIONS:
      raise ValueError(f"fusion {self.fusion!r} is not one of {FUSIONS}")
    if self.rgb is not None:
      self.rgb_path = PATHS[type(self.rgb)](self.rgb, self.dtype, self.remat, self.forms)
    if self.pose is not None:
      self.pose_path = Pathway(self.pose, self.dtype, self.remat, self.forms)
    self.places = ()
    if self.rgb is None or self.pose is None or self.fusion == "late":
      return
    if not isinstance(self.rgb, PathwayConfig):
      raise ValueError(
        f"model.fusion={self.fusion!r} joins feature maps of two 3D CNNs, and the RGB stream has "
        "none; set model.fusion='late'"
      )
    self.places = exchange_places(self.rgb.num_stages, self.pose.num_stages)
    if not self.places:
      raise ValueError(
        f"fusion {self.fusion!r} needs at least two stages in each pathway, got rgb.blocks="
        f"{self.rgb.blocks} and pose.blocks={self.pose.blocks}; add stages or set fusion='late'"
      )
    for r, p in self.places:
      rgb_features = EXPANSION * self.rgb.widths[r - 1] // LATERAL_RATIO
      pose_features = EXPANSION * self.pose.widths[p - 1] // LATERAL_RATIO
      taps = 2 * self.lateral_stride - 1
      strides = (self.lateral_stride, 1, 1)
      to_rgb = conv.Conv3D(rgb_features, (taps, 1, 1), strides, dtype=self.dtype, forms=self.forms)
      to_pose = UpsampleNorm(pose_features, self.lateral_stride, self.dtype, self.forms)
      setattr(self, f"pose_to_rgb{r}", to_rgb)
      setattr(self, f"rgb_to_pose{p}", to_pose)
      if self.fusion == "lateral_attention":
        setattr(self, f"gate{r}", CrossGate(self.lateral_stride, self.dtype))

  def __call__(
    self,
    rgb: Float[Array, "n t h w 3"] | Float[Array, "n t d"] | None,
    heatmaps: Float[Array, "n tp hp wp v"] | None,
    train: bool,
  ) -> dict[str, Float[Array, "n t2 h2 w2 c"]]:
    """Returns the features of every configured stream, under "rgb" and "pose".

    Args:
      rgb: normalised frames, or stored features; ignored without an RGB pathway.
      heatmaps: keypoint heatmaps; ignored without a pose pathway.
      train: whether BatchNorm uses the batch's statistics and dropout is on.
    """
    x = {}
    if self.rgb is not None:
      x["rgb"] = self.rgb_path.stem(rgb.astype(self.dtype), train)
    if self.pose is not None:
      x["pose"] = self.pose_path.stem(heatmaps.astype(self.dtype), train)
    done = {"rgb": 0, "pose": 0}
    lateral = {}
    for r, p in self.places:
      x = self._advance(x, lateral, done, {"rgb": r, "pose": p}, train)
      x, lateral = self._exchange(x, r, p, train)
    last = {stream: getattr(self, stream).num_stages for stream in x}
    return self._advance(x, lateral, done, last, train)

  def _advance(
    self,
    x: dict[str, Array],
    lateral: dict[str, Array],
    done: dict[str, int],
    until: dict[str, int],
    train: bool,
  ) -> dict[str, Array]:
    """Runs the stages after `done` up to `until`, the first with `lateral`; updates `done`."""
    x = dict(x)
    for stream in x:
      pathway = self.rgb_path if stream == "rgb" else self.pose_path
      further = [lateral[stream]] if stream in lateral else []
      for number in range(done[stream] + 1, until[stream] + 1):
        x[stream] = pathway.stage(number, x[stream], train, *further)
        further = []
      done[stream] = until[stream]
    return x

  def _exchange(
    self, x: dict[str, Array], r: int, p: int, train: bool
  ) -> tuple[dict[str, Array], dict[str, Array]]:
    """The streams, and for each the projection of the other, to be concatenated to it."""
    rgb, pose = x["rgb"], x["pose"]
    self._check_sizes(rgb, pose, r, p)
    # Both projections read the features before any gate.
    to_rgb = getattr(self, f"pose_to_rgb{r}")(pose)
    to_pose = getattr(self, f"rgb_to_pose{p}")(rgb, train)
    self.sow("intermediates", f"lateral_rgb{r}", to_rgb)
    self.sow("intermediates", f"lateral_pose{p}", to_pose)
    if self.fusion == "lateral_attention":
      rgb, pose = getattr(self, f"gate{r}")(rgb, pose, train)
      self.sow("intermediates", f"gated_rgb{r}", rgb)
      self.sow("intermediates", f"gated_pose{p}", pose)
    return {"rgb": rgb, "pose": pose}, {"rgb": to_rgb, "pose": to_pose}

  def _check_sizes(self, rgb: Array, pose: Array, r: int, p: int) -> None:
    places = f"after RGB stage {r} and pose stage {p}"
    if pose.shape[1] != self.lateral_stride * rgb.shape[1]:
      raise ValueError(
        f"lateral_stride={self.lateral_stride} needs {self.lateral_stride} pose frames per RGB "
        f"frame, but there are {pose.shape[1]} and {rgb.shape[1]} {places}; change the clip "
        "length of a stream, or lateral_stride"
      )
    if pose.shape[2:4] != rgb.shape[2:4]:
      raise ValueError(
        f"the streams differ in size (height, width) {places}: RGB {rgb.shape[2:4]}, pose "
        f"{pose.shape[2:4]}; change an input size, or stem_strides, stem_pool or spatial_strides "
        "of a pathway"
      )

"""One SlowOnly ResNet3D pathway: a stem and stages of bottleneck blocks that keep all frames.

The topology is that of PoseConv3D and RGBPoseConv3D (Duan et al., CVPR 2022, arXiv 2104.13586).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pcan_jax.network import conv
from pcan_jax.network.forms import CPU, Forms
from pcan_jax.network.pool import max_pool_spatial

EXPANSION = 4  # output channels of a bottleneck block per channel of its width

REMAT = ("none", "norms", "blocks")


@dataclasses.dataclass(frozen=True)
class PathwayConfig:
  """Shape of a pathway; the last four fields have one entry per stage.

  Attributes:
    stem_features: channels of the 1 x 7 x 7 stem.
    stem_strides: spatial steps (h, w) of the stem.
    stem_pool: whether a 1 x 3 x 3 max-pool follows the stem.
    stem_pool_stride: its spatial step. MMAction2's pose pathway pools with step 1, which keeps the
      size. Its papers do not mention that, but its weights and PCAN's released ones depend on it.
    blocks: bottleneck blocks in every stage.
    widths: channels inside the blocks; a stage has `EXPANSION` times as many output channels.
    spatial_strides: spatial step of the first block of every stage.
    temporal_kernels: extent in time of the first convolution of every block.

  Raises:
    ValueError: the four differ in length or are empty, or an entry is out of range.
  """

  stem_features: int
  stem_strides: tuple[int, ...]
  stem_pool: bool
  stem_pool_stride: int
  blocks: tuple[int, ...]
  widths: tuple[int, ...]
  spatial_strides: tuple[int, ...]
  temporal_kernels: tuple[int, ...]

  def __post_init__(self) -> None:
    stages = {
      name: getattr(self, name)
      for name in ("blocks", "widths", "spatial_strides", "temporal_kernels")
    }
    if len({len(value) for value in stages.values()}) > 1 or not self.blocks:
      raise ValueError(f"a pathway needs one entry per stage in each of {stages}")
    if len(self.stem_strides) != 2:
      raise ValueError(f"stem_strides are (height, width), got {self.stem_strides}")
    for name, value in (
      *stages.items(),
      ("stem_features", (self.stem_features,)),
      ("stem_strides", self.stem_strides),
      ("stem_pool_stride", (self.stem_pool_stride,)),
    ):
      if any(entry < 1 for entry in value):
        raise ValueError(f"{name} must be 1 or more, got {value}")
    if any(extent % 2 == 0 for extent in self.temporal_kernels):
      raise ValueError(f"temporal_kernels must be odd, got {self.temporal_kernels}")

  @property
  def num_stages(self) -> int:
    return len(self.blocks)

  @property
  def features(self) -> int:
    """Channels of the pathway's output."""
    return EXPANSION * self.widths[-1]


def rematerialized(target: Callable[..., Any], remat: str) -> Callable[..., Any]:
  """Makes a module class, or a method of one, called as (x, train), keep less for its gradient.

  Args:
    target: the class or method.
    remat: "none" keeps all that the gradient needs. "norms" keeps the outputs of convolutions and
      recomputes BatchNorm, ReLU and pooling: less memory at little cost. "blocks" keeps only the
      input and recomputes everything: the least memory, at the cost of another forward pass.

  Raises:
    ValueError: `remat` is none of these.
  """
  if remat not in REMAT:
    raise ValueError(f"model.remat must be one of {REMAT}, not {remat!r}")
  if remat == "none":
    return target
  keep = jax.checkpoint_policies
  policy = keep.save_only_these_names(conv.OUTPUT) if remat == "norms" else keep.nothing_saveable
  return nn.remat(target, static_argnums=(2,), policy=policy)


@jax.custom_vjp
def _join(x: Float[Array, "*shape c"], y: Float[Array, "*shape c"]) -> Float[Array, "*shape c"]:
  """max(x + y, 0) with a gradient that reads the result, which the next convolution keeps anyway.

  XLA would recompute the sum, from twice as many arrays, to see where it is positive. The sum is of
  matrices, so that a GPU's library adds it to the product that one of them is.
  """
  return _join_forward(x, y)[0]


def _join_forward(x: Array, y: Array) -> tuple[Array, Array]:
  x, y, shape = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), x.shape
  joined = lax.optimization_barrier(jnp.maximum(x + y, 0)).reshape(shape)
  return joined, joined


def _join_backward(joined: Array, gradient: Array) -> tuple[Array, Array]:
  gradient = jnp.where(joined > 0, gradient, 0)
  return gradient, gradient


_join.defvjp(_join_forward, _join_backward)


class Bottleneck(nn.Module):
  """Convolutions k x 1 x 1, 1 x 3 x 3 (with the stride) and 1 x 1 x 1, added to the input.

  Channels of `lateral`, from the other stream, are concatenated to those of the input.
  """

  width: int
  temporal_kernel: int
  spatial_stride: int
  dtype: DTypeLike
  forms: Forms

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n t h w c"],
    train: bool,
    lateral: Float[Array, "n t h w e"] | None = None,
  ) -> Float[Array, "n t h2 w2 d"]:
    features = EXPANSION * self.width
    strides = (1, self.spatial_stride, self.spatial_stride)
    how = {"dtype": self.dtype, "forms": self.forms}
    conv1 = conv.ConvNorm(self.width, (self.temporal_kernel, 1, 1), name="conv1", **how)
    conv2 = conv.ConvNorm(self.width, (1, 3, 3), strides, name="conv2", **how)
    # With a last scale of zero, a block starts as the identity.
    zeros = nn.initializers.zeros
    conv3 = conv.ConvNorm(features, (1, 1, 1), relu=False, scale_init=zeros, name="conv3", **how)
    y = conv3(conv2(conv1(x, train, lateral), train), train)
    joined = conv.joined(x, lateral)
    if joined.shape == y.shape:
      return _join(joined, y)
    layer = conv.ConvNorm
    if self.forms.subsampling == "repeated":
      layer = nn.remat(layer, static_argnums=(2,), policy=_keep_sums)
    downsample = layer(features, (1, 1, 1), strides, relu=False, name="downsample", **how)
    return _join(downsample(x, train, lateral), y)


def _keep_sums(primitive: Primitive, *_: Any, **__: Any) -> bool:
  """A policy of rematerialisation that keeps the results of products and sums."""
  return primitive.name in ("dot_general", "reduce_sum")


class Stage(nn.Module):
  """Bottleneck blocks of one width; the first may have a spatial stride."""

  blocks: int
  width: int
  temporal_kernel: int
  spatial_stride: int
  dtype: DTypeLike
  forms: Forms
  remat: str

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n t h w c"],
    train: bool,
    lateral: Float[Array, "n t h w e"] | None = None,
  ) -> Float[Array, "n t h2 w2 d"]:
    bottleneck = rematerialized(Bottleneck, self.remat)
    for block in range(self.blocks):
      x = bottleneck(
        self.width,
        self.temporal_kernel,
        self.spatial_stride if block == 0 else 1,
        self.dtype,
        self.forms,
        name=f"block{block}",
      )(x, train, lateral if block == 0 else None)
    return x


class Pathway(nn.Module):
  """A stem and stages that can be run one at a time.

  The outputs of the stem's convolution, its pool and every stage are sown as the intermediates
  `stem`, `pool`, `stage1`, ...

  Attributes:
    config: the pathway's shape.
    dtype: of the computation; parameters and statistics are float32.
    remat: see `rematerialized`.
    forms: how operations are computed.
  """

  config: PathwayConfig
  dtype: DTypeLike
  remat: str
  forms: Forms = CPU

  def setup(self) -> None:
    config = self.config
    self.conv1 = conv.ConvNorm(
      config.stem_features,
      (1, 7, 7),
      (1, *config.stem_strides),
      dtype=self.dtype,
      forms=self.forms,
    )
    for number, (blocks, width, temporal_kernel, stride) in enumerate(
      zip(config.blocks, config.widths, config.temporal_kernels, config.spatial_strides), start=1
    ):
      stage = Stage(blocks, width, temporal_kernel, stride, self.dtype, self.forms, self.remat)
      setattr(self, f"layer{number}", stage)

  def stem(self, x: Float[Array, "n t h w c"], train: bool) -> Float[Array, "n t h2 w2 d"]:
    """The first convolution and, if configured, the max-pool."""
    return rematerialized(Pathway._stem, self.remat)(self, x, train)

  def _stem(self, x: Float[Array, "n t h w c"], train: bool) -> Float[Array, "n t h2 w2 d"]:
    x = self.conv1(x, train)
    self.sow("intermediates", "stem", x)
    if self.config.stem_pool:
      x = max_pool_spatial(x, self.config.stem_pool_stride, self.forms)
      self.sow("intermediates", "pool", x)
    return x

  def stage(
    self,
    number: int,
    x: Float[Array, "n t h w c"],
    train: bool,
    lateral: Float[Array, "n t h w e"] | None = None,
  ) -> Float[Array, "n t h2 w2 d"]:
    """Stage `number`, counted from 1; channels of `lateral` are concatenated to those of x."""
    x = getattr(self, f"layer{number}")(x, train, lateral)
    self.sow("intermediates", f"stage{number}", x)
    return x

  def __call__(self, x: Float[Array, "n t h w c"], train: bool) -> Float[Array, "n t h2 w2 d"]:
    """Runs the stem and all stages."""
    x = self.stem(x, train)
    for number in range(1, self.config.num_stages + 1):
      x = self.stage(number, x, train)
    return x

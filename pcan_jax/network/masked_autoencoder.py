"""Masked video modelling: learns the RGB stream's video transformer from clips without labels.

Most tubes of a clip are hidden, a tube being the tubelets at one place over all of its time; the
transformer sees the others, and a small decoder predicts the pixels of the hidden ones. As in
VideoMAE (Tong et al., NeurIPS 2022, arXiv 2203.12602).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from pcan_jax.network.forms import CPU, Forms
from pcan_jax.network.pathway import rematerialized
from pcan_jax.network.pcan import rgb_path
from pcan_jax.network.video_transformer import (
  Block,
  VideoTransformer,
  VideoTransformerConfig,
  sine_positions,
)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """What predicts hidden pixels, and how much is hidden.

  Attributes:
    width, depth, heads, mlp_width: of the decoder, see `VideoTransformerConfig`.
    mask: the fraction of the tubes that is hidden.

  Raises:
    ValueError: a value is out of range.
  """

  width: int
  depth: int
  heads: int
  mlp_width: int
  mask: float

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if name != "mask" and value < 1:
        raise ValueError(f"model.decoder.{name} must be 1 or more, not {value}")
    if self.width % self.heads or self.width % 2:
      raise ValueError(
        f"model.decoder.width must be even and a multiple of model.decoder.heads={self.heads}, "
        f"not {self.width}"
      )
    if not 0 < self.mask < 1:
      raise ValueError(f"model.decoder.mask must be between 0 and 1, not {self.mask}")


class Encoder(nn.Module):
  """The RGB stream under the name that it has in other networks, given a part of the tokens."""

  rgb: VideoTransformerConfig
  dtype: DTypeLike
  remat: str
  forms: Forms

  def setup(self) -> None:
    self.rgb_path = VideoTransformer(self.rgb, self.dtype, self.remat, self.forms)

  def __call__(
    self, frames: Float[Array, "n t h w 3"], keep: int, train: bool
  ) -> tuple[Float[Array, "n t2 keep d"], Array]:
    """Encodes the tubes that are not hidden.

    Args:
      frames: normalised.
      keep: how many tubes those are.
      train: whether paths are dropped.

    Returns:
      Their tokens, after a LayerNorm, and all places in a random order, of which they are first.
    """
    tokens = self.rgb_path.tokens(frames)
    n, times, rows, columns, width = tokens.shape
    drawn = jax.random.uniform(self.make_rng("dropout"), (n, rows * columns))
    order = jnp.argsort(drawn, axis=1)
    tokens = tokens.reshape(n, times, rows * columns, width)
    seen = at_places(tokens, order[:, :keep]).reshape(n, times * keep, width)
    for number in range(1, self.rgb.depth + 1):
      seen = getattr(self.rgb_path, f"block{number}")(seen, train)
    return self.rgb_path.norm(seen).reshape(n, times, keep, width), order


class Decoder(nn.Module):
  """Predicts the pixels of hidden tubelets from the tokens of the others."""

  config: DecoderConfig
  tubelet_size: int
  dtype: DTypeLike
  remat: str
  forms: Forms

  @nn.compact
  def __call__(
    self,
    seen: Float[Array, "n t keep d"],
    order: Array,
    positions: Float[Array, "t k e"],
    train: bool,
  ) -> Float[Array, "n t hidden p"]:
    config, (n, times, keep, _) = self.config, seen.shape
    token = self.param("mask_token", nn.initializers.normal(0.02), (config.width,))
    y = nn.Dense(config.width, use_bias=False, dtype=self.dtype, name="embedding")(seen)
    hidden = jnp.broadcast_to(
      token.astype(self.dtype), (n, times, order.shape[1] - keep, config.width)
    )
    everywhere = jnp.broadcast_to(positions, (n, *positions.shape)).astype(self.dtype)
    y = jnp.concatenate([y, hidden], axis=2) + at_places(everywhere, order)
    y = y.reshape(n, -1, config.width)
    block = rematerialized(Block, self.remat)
    for number in range(1, config.depth + 1):
      one = block(
        config.heads, config.mlp_width, number, 0.0, self.dtype, self.forms, name=f"block{number}"
      )
      y = one(y, train)
    y = y.reshape(n, times, -1, config.width)[:, :, keep:]
    y = nn.LayerNorm(name="norm")(y.astype(jnp.float32))
    return nn.Dense(self.tubelet_size, name="pixels")(y)


class MaskedAutoencoder(nn.Module):
  """The network of pretraining. It has one stream, "rgb", and no classes.

  Attributes:
    rgb: shape of the stream.
    decoder: shape of what is thrown away afterwards.
    dtype: precision of the arithmetic; parameters, the last layer and the loss are float32.
    remat: what the backward pass recomputes, see `pathway.rematerialized`.
    forms: how operations are computed.
  """

  rgb: VideoTransformerConfig
  decoder: DecoderConfig
  dtype: DTypeLike
  remat: str
  forms: Forms = CPU

  streams = ("rgb",)
  has_prototypes = False
  learned_fusion = False
  fusion = "late"

  def setup(self) -> None:
    self.backbone = Encoder(self.rgb, self.dtype, self.remat, self.forms)
    self.decode = Decoder(
      self.decoder, self.rgb.tubelet_size, self.dtype, self.remat, self.forms, name="decoder"
    )

  def __call__(self, inputs: dict[str, Array], train: bool) -> Float[Array, ""]:
    """The mean squared error of the hidden pixels.

    Args:
      inputs: `rgb` [N, T, H, W, 3]; what is hidden is drawn with the rng `dropout`.
      train: whether paths are dropped.
    """
    frames = inputs["rgb"].astype(self.dtype)
    pixels = normalised(self.rgb.parts(inputs["rgb"].astype(jnp.float32)))
    n, times, rows, columns, size = pixels.shape
    places = rows * columns
    keep = min(max(round((1 - self.decoder.mask) * places), 1), places - 1)
    seen, order = self.backbone(frames, keep, train)
    positions = sine_positions(
      (times, rows, columns), self.decoder.width, self.rgb.position_grid
    ).reshape(times, places, -1)
    found = self.decode(seen, order, jnp.asarray(positions), train)
    wanted = at_places(pixels.reshape(n, times, places, size), order[:, keep:])
    return jnp.mean(jnp.square(found - wanted))


def at_places(values: Float[Array, "n t k d"], places: Array) -> Float[Array, "n t j d"]:
  """Of every clip the values at some places, [n, j], at all times."""
  return jnp.take_along_axis(values, places[:, None, :, None], axis=2)


def normalised(pixels: Float[Array, "n t h w p"]) -> Float[Array, "n t h w p"]:
  """Every colour of every tubelet with a mean of 0 and a variance of 1."""
  colours = pixels.reshape(*pixels.shape[:-1], -1, 3)
  centred = colours - colours.mean(axis=-2, keepdims=True)
  deviation = jnp.sqrt(jnp.mean(jnp.square(centred), axis=-2, keepdims=True) + 1e-6)
  return (centred / deviation).reshape(pixels.shape)


def build_masked_autoencoder(config: ConfigDict, forms: Forms) -> MaskedAutoencoder:
  """The network of pretraining that the `model` part of a config describes.

  Raises:
    ValueError: the RGB stream is not a video transformer, or not alone.
  """
  rgb = rgb_path(config.rgb)
  if not isinstance(rgb, VideoTransformerConfig) or tuple(config.streams) != ("rgb",):
    raise ValueError(
      "pretraining needs model.streams=('rgb',) and model.rgb.kind='videomae', not "
      f"{config.streams} and {config.rgb.kind!r}"
    )
  return MaskedAutoencoder(
    rgb, DecoderConfig(**config.decoder), jnp.dtype(config.dtype), config.remat, forms
  )

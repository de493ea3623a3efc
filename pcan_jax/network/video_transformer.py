"""The video transformer of VideoMAE: joint attention of all tokens of a clip.

A clip is cut into tubelets of a few frames by a square of pixels, each of which becomes a token
with a fixed position. All tokens attend to each other in every block; the mean of what comes out is
the stream's feature. The topology and the parameters are those of VideoMAE's encoder (Tong et al.,
NeurIPS 2022, arXiv 2203.12602) as it is fine-tuned.
"""

import abc
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pcan_jax.network import conv
from pcan_jax.network.forms import CPU, Forms
from pcan_jax.network.pathway import rematerialized

_EPSILON = 1e-6  # of every LayerNorm


@dataclasses.dataclass(frozen=True)
class TransformerConfig(abc.ABC):
  """Shape of a transformer.

  Attributes:
    width: size of a token.
    depth: number of blocks.
    heads: of the attention; they divide the width.
    mlp_width: hidden size of a block's two-layer perceptron.
    drop_path: rate at which the last block is left out of a clip in training; it grows evenly from
      0 for the first block.

  Raises:
    ValueError: a value is out of range.
  """

  width: int
  depth: int
  heads: int
  mlp_width: int
  drop_path: float

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if isinstance(value, int) and name != "drop_path" and value < 1:
        raise ValueError(f"model.rgb.{name} must be 1 or more, not {value}")
    if self.width % self.heads or self.width % 2:
      raise ValueError(
        f"model.rgb.width must be even and a multiple of model.rgb.heads={self.heads}, "
        f"not {self.width}"
      )
    if not 0 <= self.drop_path < 1:
      raise ValueError(f"model.rgb.drop_path must be at least 0 and below 1, not {self.drop_path}")

  @property
  def num_stages(self) -> int:
    return self.depth

  @abc.abstractmethod
  def parts(self, x: Float[Array, "n *size c"]) -> Float[Array, "n *grid p"]:
    """Cuts clips into what becomes a token each."""

  @abc.abstractmethod
  def positions(self, grid: tuple[int, ...]) -> Float[np.ndarray, "*grid d"]:
    """What is added to the tokens of a clip, so that each says where it is."""


@dataclasses.dataclass(frozen=True)
class VideoTransformerConfig(TransformerConfig):
  """Shape of a video transformer.

  Attributes:
    patch: side in pixels of a tubelet.
    tubelet: frames in a tubelet.
    position_grid: tubelets (time, height, width) of the clips that positions were made for. Those
      of clips of another size are interpolated, so that pretrained weights find them where they
      were.

  Raises:
    ValueError: a value is out of range.
  """

  patch: int
  tubelet: int
  position_grid: tuple[int, ...]

  def __post_init__(self) -> None:
    super().__post_init__()
    if len(self.position_grid) != 3 or min(self.position_grid) < 1:
      raise ValueError(
        f"model.rgb.position_grid is (time, height, width), not {self.position_grid}"
      )

  @property
  def tubelet_size(self) -> int:
    """Numbers in a tubelet: its frames, rows, columns and colours."""
    return self.tubelet * self.patch * self.patch * 3

  def parts(self, x: Float[Array, "n t h w 3"]) -> Float[Array, "n t2 h2 w2 p"]:
    """Tubelets."""
    return tubelets(x, self)

  def positions(self, grid: tuple[int, ...]) -> Float[np.ndarray, "*grid d"]:
    """Those of `position_grid`, or between them."""
    return sine_positions(grid, self.width, self.position_grid)


def tubelets(
  frames: Float[Array, "n t h w 3"], config: VideoTransformerConfig
) -> Float[Array, "n t2 h2 w2 p"]:
  """Cuts clips into tubelets: frame by frame, row by row, pixel by pixel.

  Raises:
    ValueError: they do not fit into the clip.
  """
  n, t, h, w, colours = frames.shape
  if t % config.tubelet or h % config.patch or w % config.patch:
    raise ValueError(
      f"a clip of {t} frames of {h} x {w} pixels cannot be cut into tubelets of {config.tubelet} "
      f"frames and {config.patch} pixels; change input.rgb_frames, input.train_size or "
      "input.test_size to multiples of these"
    )
  shape = (t // config.tubelet, config.tubelet, h // config.patch, config.patch)
  cut = frames.reshape(n, *shape, w // config.patch, config.patch, colours)
  return cut.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, *shape[::2], w // config.patch, -1)


def sine_positions(
  grid: tuple[int, ...], width: int, made_for: tuple[int, ...]
) -> Float[np.ndarray, "*grid width"]:
  """The fixed positions of the tokens of a clip.

  Sines and cosines of the token's number in the flattened grid `made_for`, with wavelengths of 2 pi
  to 20000 pi, in turns; interpolated linearly along each axis on which `grid` differs.

  Args:
    grid: tokens along each axis.
    width: size of a token.
    made_for: the grid in which tokens are numbered, with as many axes.
  """
  number = np.arange(np.prod(made_for))[:, None]
  channel = np.arange(width)
  angle = number / 10000 ** (2 * (channel // 2) / width)
  table = np.where(channel % 2, np.cos(angle), np.sin(angle)).reshape(*made_for, width)
  for axis, (wanted, there) in enumerate(zip(grid, made_for)):
    if wanted != there:
      place = np.clip((np.arange(wanted) + 0.5) * there / wanted - 0.5, 0, there - 1)
      below = np.floor(place).astype(int)
      above = np.minimum(below + 1, there - 1)
      share = np.expand_dims(place - below, [a for a in range(table.ndim) if a != axis])
      table = (1 - share) * table.take(below, axis) + share * table.take(above, axis)
  return table.astype(np.float32)


class Attention(nn.Module):
  """Multi-head attention of tokens to each other. Keys have no bias, as it would change nothing.

  Attributes:
    heads: number of heads.
    number: of the block in its network.
    dtype: of the computation; the softmax is float32.
    forms: whether a GPU's fused kernel computes it.
  """

  heads: int
  number: int
  dtype: DTypeLike
  forms: Forms = CPU

  @nn.compact
  def __call__(self, x: Float[Array, "n k d"]) -> Float[Array, "n k d"]:
    n, tokens, width = x.shape
    size = width // self.heads
    qkv = nn.Dense(3 * width, use_bias=False, dtype=self.dtype, name="qkv")(x)
    q_bias, v_bias = (
      self.param(name, nn.initializers.zeros, (width,)) for name in ("q_bias", "v_bias")
    )
    bias = jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias]).astype(self.dtype)
    qkv = checkpoint_name(qkv + bias, conv.OUTPUT)
    q, k, v = jnp.split(qkv.reshape(n, tokens, 3 * self.heads, size), 3, axis=2)
    attended = self._attend(q, k, v)
    out = nn.Dense(width, dtype=self.dtype, name="out")(attended.reshape(n, tokens, width))
    return checkpoint_name(out, conv.OUTPUT)

  def _attend(
    self, q: Float[Array, "n k h e"], k: Float[Array, "n k h e"], v: Float[Array, "n k h e"]
  ) -> Float[Array, "n k h e"]:
    """The values, weighted; by NVIDIA's kernel in half precision and for heads of up to 128."""
    size = q.shape[-1]
    fits = jnp.dtype(self.dtype).itemsize == 2 and size % 8 == 0 and size <= 128
    if self.forms.attention == "xla" or not fits:
      return jax.nn.dot_product_attention(q, k, v, implementation="xla")
    # Where steps have to repeat to the bit, XLA (of JAX 0.11) compiles the first of several equal
    # gradients of this kernel only and does not find the others. So each block has a scale of its
    # own; powers of two change no digit.
    own = 2.0**self.number
    return jax.nn.dot_product_attention(
      q * own, k, v, scale=size**-0.5 / own, implementation="cudnn"
    )


class DropPath(nn.Module):
  """Leaves a branch out of some clips in training and scales it up in the others."""

  rate: float

  @nn.compact
  def __call__(self, x: Float[Array, "n k d"], train: bool) -> Float[Array, "n k d"]:
    if not train or not self.rate:
      return x
    kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, (x.shape[0], 1, 1))
    return jnp.where(kept, x / (1 - self.rate), 0).astype(x.dtype)


class Block(nn.Module):
  """Attention and a perceptron, each after a LayerNorm and added to its input.

  Attributes:
    heads, mlp_width: see `TransformerConfig`.
    number: of the block in its network.
    drop_path: rate at which each of the two is left out in training.
    dtype: of the computation.
    forms: see `Attention`.
  """

  heads: int
  mlp_width: int
  number: int
  drop_path: float
  dtype: DTypeLike
  forms: Forms = CPU

  @nn.compact
  def __call__(self, x: Float[Array, "n k d"], train: bool) -> Float[Array, "n k d"]:
    y = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="norm1")(x)
    y = Attention(self.heads, self.number, self.dtype, self.forms, name="attention")(y)
    x = x + DropPath(self.drop_path)(y, train)
    y = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="norm2")(x)
    y = checkpoint_name(nn.Dense(self.mlp_width, dtype=self.dtype, name="mlp1")(y), conv.OUTPUT)
    y = nn.gelu(y, approximate=False)
    y = checkpoint_name(nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp2")(y), conv.OUTPUT)
    return x + DropPath(self.drop_path)(y, train)


class VideoTransformer(nn.Module):
  """Tokens, blocks and the mean of all tokens, which can be run one at a time.

  The tokens and the outputs of every block are sown as the intermediates `stem`, `stage1`, ...

  Attributes:
    config: its shape.
    dtype: of the computation; parameters are float32.
    remat: see `pathway.rematerialized`: "norms" computes LayerNorm, GELU and attention again,
      "blocks" all of a block.
    forms: how operations are computed.
  """

  config: TransformerConfig
  dtype: DTypeLike
  remat: str
  forms: Forms = CPU

  def setup(self) -> None:
    config = self.config
    self.patches = nn.Dense(config.width, dtype=self.dtype)
    block = rematerialized(Block, self.remat)
    for number in range(1, config.depth + 1):
      rate = config.drop_path * (number - 1) / max(config.depth - 1, 1)
      module = block(config.heads, config.mlp_width, number, rate, self.dtype, self.forms)
      setattr(self, f"block{number}", module)
    self.norm = nn.LayerNorm(_EPSILON)

  def tokens(self, x: Float[Array, "n *size c"]) -> Float[Array, "n *grid d"]:
    """One token for each part of a clip, with its position."""
    tokens = self.patches(self.config.parts(x).astype(self.dtype))
    return tokens + self.config.positions(tokens.shape[1:-1]).astype(tokens.dtype)

  def stem(self, x: Float[Array, "n *size c"], train: bool) -> Float[Array, "n k d"]:
    """All tokens of a clip."""
    del train
    tokens = self.tokens(x).reshape(x.shape[0], -1, self.config.width)
    self.sow("intermediates", "stem", tokens)
    return tokens

  def stage(
    self, number: int, x: Float[Array, "n k d"], train: bool
  ) -> Float[Array, "n k d"] | Float[Array, "n 1 1 1 d"]:
    """Block `number`, counted from 1. After the last one, the LayerNorm of the tokens' mean."""
    x = getattr(self, f"block{number}")(x, train)
    self.sow("intermediates", f"stage{number}", x)
    if number < self.config.depth:
      return x
    return self.norm(x.astype(jnp.float32).mean(axis=1))[:, None, None, None]

  def __call__(self, x: Float[Array, "n *size c"], train: bool) -> Float[Array, "n 1 1 1 d"]:
    """Runs everything."""
    x = self.stem(x, train)
    for number in range(1, self.config.depth + 1):
      x = self.stage(number, x, train)
    return x

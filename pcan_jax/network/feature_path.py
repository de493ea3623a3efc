"""The RGB stream over stored features: a small transformer over the vectors of a clip.

The vectors come from another network, one per clip or one per moment of it; `pcan import_features`
stores them with the clips.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pcan_jax.network.video_transformer import TransformerConfig, sine_positions


@dataclasses.dataclass(frozen=True)
class FeaturePathConfig(TransformerConfig):
  """Shape of a transformer over stored vectors.

  Attributes:
    size: of a vector.

  Raises:
    ValueError: a value is out of range.
  """

  size: int

  def parts(self, x: Float[Array, "n t p"]) -> Float[Array, "n t p"]:
    """The vectors, each with a mean of 0 and a variance of 1, whatever network it comes from.

    Raises:
      ValueError: they are not of this size.
    """
    if x.shape[-1] != self.size:
      raise ValueError(
        f"the stored features have {x.shape[-1]} numbers; set model.rgb.size to that instead of "
        f"{self.size}"
      )
    return jax.nn.standardize(x.astype(jnp.float32), axis=-1)

  def positions(self, grid: tuple[int, ...]) -> Float[np.ndarray, "*grid d"]:
    """The places of the vectors in time."""
    return sine_positions(grid, self.width, grid)

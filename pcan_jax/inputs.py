"""From stored clips to network inputs, on the device: crop, flip, normalise, render heatmaps.

A stored frame is a square with a side of S pixels. Keypoints are (x, y) in its pixels, x to the
right and y down; rescaling an image by s multiplies its keypoints by s, and mirroring an image of
width W maps x to W - x. In a heatmap, a keypoint at (x, y) is in column x and row y. These are the
conventions of MMAction2, on which the authors' release is built.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt8

from pcan_jax import heatmaps
from pcan_jax.keypoints import KeypointLayout

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

# Candidates per clip for a crop of random area and aspect ratio that fits into the frame.
_CROP_ATTEMPTS = 10

Batch = dict[str, Array | np.ndarray]
Box = Float[Array, "b 4"]


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Random transformations of training clips, the same for both streams of a clip.

  Attributes:
    crop_area: smallest and largest area of the crop, as a fraction of the frame.
    crop_aspect: smallest and largest width / height of the crop.
    flip: probability of a horizontal flip.
    rotation: largest rotation of the keypoints, in degrees; the frames are not rotated.
    scale_jitter: largest relative change of the skeletons' width and height, each drawn separately.
    keypoint_noise: standard deviation of a shift per joint and clip, as a fraction of the side.
    mixup: parameter of the Beta distribution of what a clip gets of another one, see `mix`; 0 mixes
      nothing.

  Raises:
    ValueError: a value is out of range.
  """

  crop_area: tuple[float, float]
  crop_aspect: tuple[float, float]
  flip: float
  rotation: float
  scale_jitter: float
  keypoint_noise: float
  mixup: float

  def __post_init__(self) -> None:
    for name, most in (("crop_area", 1.0), ("crop_aspect", np.inf)):
      low, high = getattr(self, name)
      if not 0 < low <= high <= most:
        raise ValueError(
          f"augmentation.{name} is (smallest, largest), both above 0"
          f"{' and at most 1' if most == 1 else ''}, not {(low, high)}"
        )
    if not 0 <= self.flip <= 1:
      raise ValueError(f"augmentation.flip is a probability in 0..1, not {self.flip}")
    for name in ("rotation", "scale_jitter", "keypoint_noise", "mixup"):
      if getattr(self, name) < 0:
        raise ValueError(f"augmentation.{name} must be 0 or more, not {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How stored clips become network inputs.

  Attributes:
    stored_size: side of the stored frames in pixels.
    rgb_size: side of the RGB input in pixels.
    heatmap_size: side of the heatmaps in pixels.
    layout: names, flip pairs and limbs of the keypoints.
    sigma: standard deviation of a keypoint's Gaussian, in heatmap pixels.
    heatmaps: which heatmaps are drawn: "joints", "limbs", or "both", joints first.
    augmentation: the random transformations, or None in evaluation.
    dtype: of the inputs; below float32, frames are resized at the device's default precision.

  Raises:
    ValueError: `heatmaps` is none of these, or the layout has no limbs to draw.
  """

  stored_size: int
  rgb_size: int
  heatmap_size: int
  layout: KeypointLayout
  sigma: float
  heatmaps: str
  augmentation: Augmentation | None
  dtype: str = "float32"

  def __post_init__(self) -> None:
    if self.heatmaps not in ("joints", "limbs", "both"):
      raise ValueError(f"input.heatmaps must be joints, limbs or both, not {self.heatmaps!r}")
    if self.heatmaps != "joints" and not self.layout.limbs:
      raise ValueError(
        f"input.heatmaps={self.heatmaps!r} needs limbs, but the keypoint layout "
        f"{self.layout.name!r} has none; set it to joints"
      )

  @property
  def heatmap_channels(self) -> tuple[str, ...]:
    """The name of each heatmap: that of a joint, or those of a limb's two joints."""
    joints = self.layout.joints
    limbs = tuple(f"{joints[start]}-{joints[end]}" for start, end in self.layout.limbs)
    return {"joints": joints, "limbs": limbs, "both": joints + limbs}[self.heatmaps]


def preprocess(
  batch: Batch,
  config: Preprocessing,
  keys: Key[Array, " b"] | None = None,
  *,
  mirrored: bool = False,
) -> dict[str, Array]:
  """Makes network inputs of a batch of stored clips.

  Args:
    batch: `rgb` uint8 [B, T, S, S, 3] or `features` [B, T, D], and/or `keypoints` [B, T', M, V, 2],
      in pixels of stored frames, with `keypoint_scores` [B, T', M, V].
    config: sizes and augmentation.
    keys: one per clip, so that a clip's augmentation does not depend on the batch it is in; unused
      without augmentation.
    mirrored: whether all clips are mirrored; only without augmentation, which decides by itself.

  Returns:
    `rgb` [B, T, H, W, 3], normalised, or the features, and/or `heatmaps` [B, T', h, w, C] with the
    channels `config.heatmap_channels`, in `config.dtype`.
  """
  augmentation = config.augmentation
  num_clips = next(iter(batch.values())).shape[0]
  if augmentation is None:
    box = jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), (num_clips, 1))
    flipped = jnp.full(num_clips, mirrored)
  else:
    keys_crop, keys_flip, keys_keypoints = jax.vmap(lambda key: jax.random.split(key, 3))(keys).T
    box = jax.vmap(lambda key: random_crop(key, augmentation))(keys_crop)
    flipped = jax.vmap(lambda key: jax.random.bernoulli(key, augmentation.flip))(keys_flip)
  box *= config.stored_size

  inputs = {}
  if "rgb" in batch:
    precision = lax.Precision.HIGHEST if config.dtype == "float32" else lax.Precision.DEFAULT
    frames = crop_and_resize(batch["rgb"], box, config.rgb_size, precision)
    frames = jnp.where(flipped[:, None, None, None, None], frames[:, :, :, ::-1], frames)
    normalised = (frames - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)
    inputs["rgb"] = normalised.astype(config.dtype)
  if "features" in batch:
    inputs["rgb"] = jnp.asarray(batch["features"], config.dtype)
  if "keypoints" in batch:
    keypoints, scores = batch["keypoints"], batch["keypoint_scores"]
    if augmentation is not None:
      jitter = functools.partial(jitter_keypoints, side=config.stored_size, config=augmentation)
      keypoints = jax.vmap(jitter)(keys_keypoints, keypoints)
    keypoints = crop_keypoints(keypoints, box, config.heatmap_size)
    keypoints, scores = flip_keypoints(
      keypoints, scores, flipped, config.heatmap_size, config.layout.flip_permutation()
    )
    # Without the barrier, XLA draws them again for the gradient of the first kernel.
    drawn = _render(keypoints, scores, config).astype(config.dtype)
    inputs["heatmaps"] = lax.optimization_barrier(drawn)
  return inputs


def mix(
  inputs: dict[str, Array], mixup: float, keys: Key[Array, " b"]
) -> tuple[dict[str, Array], Float[Array, " b"]]:
  """Mixes every clip of a batch with the one before it, the first with the last (mixup).

  Zhang et al., ICLR 2018, arXiv 1710.09412; the share is at most a half, so that the clip's own
  label is the dominant one. All streams of a clip are mixed alike.

  Args:
    inputs: of the network, arrays [B, ...].
    mixup: both parameters of the Beta distribution.
    keys: one per clip.

  Returns:
    The mixed inputs, and the share of the clip before.
  """
  drawn = jax.vmap(lambda key: jax.random.beta(key, mixup, mixup))(keys)
  share = jnp.minimum(drawn, 1 - drawn)

  def mixed(values: Array) -> Array:
    weight = share.reshape(-1, *(1,) * (values.ndim - 1)).astype(values.dtype)
    return (1 - weight) * values + weight * jnp.roll(values, 1, axis=0)

  return jax.tree.map(mixed, inputs), share


def _render(
  keypoints: Float[Array, "b t m v 2"], scores: Float[Array, "b t m v"], config: Preprocessing
) -> Float[Array, "b t h w c"]:
  """Draws `config.heatmap_channels` from keypoints in heatmap pixels."""
  size = (config.heatmap_size, config.heatmap_size)
  drawn = []
  if config.heatmaps != "limbs":
    drawn.append(heatmaps.render_joints(keypoints, scores, size, config.sigma))
  if config.heatmaps != "joints":
    limbs = config.layout.limbs
    drawn.append(heatmaps.render_limbs(keypoints, scores, limbs, size, config.sigma))
  return jnp.concatenate(drawn, axis=-1)


def random_crop(key: Array, config: Augmentation) -> Float[Array, "4"]:
  """A box (x0, y0, x1, y1) of random area, aspect ratio and position in the unit square.

  The first of ten candidates that fits into the square is taken; if none does, the whole square.
  """
  key_area, key_aspect, key_place = jax.random.split(key, 3)
  attempts = (_CROP_ATTEMPTS,)
  area = jax.random.uniform(
    key_area, attempts, minval=config.crop_area[0], maxval=config.crop_area[1]
  )
  log_aspect = jax.random.uniform(
    key_aspect, attempts, minval=np.log(config.crop_aspect[0]), maxval=np.log(config.crop_aspect[1])
  )
  sizes = jnp.stack([jnp.sqrt(area) * jnp.exp(s * log_aspect / 2) for s in (1, -1)], axis=-1)
  fits = jnp.all(sizes <= 1, axis=-1)
  size = jnp.where(jnp.any(fits), sizes[jnp.argmax(fits)], 1.0)
  start = jax.random.uniform(key_place, (2,)) * (1 - size)
  return jnp.concatenate([start, start + size])


def crop_and_resize(
  frames: UInt8[Array, "b t s s 3"],
  box: Box,
  size: int,
  precision: lax.Precision = lax.Precision.HIGHEST,
) -> Float[Array, "b t size size 3"]:
  """Crops every frame of a clip to `box`, in pixels, and resizes it, bilinear and antialiased."""

  def one_clip(clip: Array, corners: Array) -> Array:
    scale = size / (corners[2:] - corners[:2])
    return jax.image.scale_and_translate(
      clip.astype(jnp.float32),
      (clip.shape[0], size, size, 3),
      spatial_dims=(1, 2),
      scale=scale[::-1],
      translation=(-corners[:2] * scale)[::-1],
      method="linear",
      precision=precision,
    )

  return jax.vmap(one_clip)(frames, box)


def crop_keypoints(
  keypoints: Float[Array, "b t m v 2"], box: Box, size: int
) -> Float[Array, "b t m v 2"]:
  """Keypoints in the pixels of the heatmap that shows `box`."""
  start, end = box[:, None, None, None, :2], box[:, None, None, None, 2:]
  return (keypoints - start) * (size / (end - start))


def flip_keypoints(
  keypoints: Float[Array, "b t m v 2"],
  scores: Float[Array, "b t m v"],
  flipped: Array,
  width: int,
  permutation: Int[np.ndarray, "v"],
) -> tuple[Array, Array]:
  """Mirrors the clips in `flipped`: x becomes width - x, left and right joints are swapped."""
  mirrored = keypoints[..., permutation, :]
  mirrored = jnp.stack([width - mirrored[..., 0], mirrored[..., 1]], axis=-1)
  where = flipped[:, None, None, None]
  return (
    jnp.where(where[..., None], mirrored, keypoints),
    jnp.where(where, scores[..., permutation], scores),
  )


def jitter_keypoints(
  key: Array, keypoints: Float[Array, "t m v 2"], side: int, config: Augmentation
) -> Float[Array, "t m v 2"]:
  """Rotates and scales a clip's skeletons about the frame's centre, and adds noise to joints."""
  key_rotation, key_scale, key_noise = jax.random.split(key, 3)
  _, persons, joints, _ = keypoints.shape
  angle = jax.random.uniform(key_rotation, minval=-1, maxval=1) * jnp.deg2rad(config.rotation)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  rotation = jnp.array([[cos, -sin], [sin, cos]])
  stretch = jax.random.uniform(key_scale, (1, 2), minval=-1, maxval=1)
  transform = rotation * (1 + config.scale_jitter * stretch)
  noise = jax.random.normal(key_noise, (persons, joints, 2)) * config.keypoint_noise
  centred = jnp.einsum(
    "ij,tmvj->tmvi", transform, keypoints - side / 2, precision=lax.Precision.HIGHEST
  )
  return centred + side / 2 + noise * side

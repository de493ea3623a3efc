"""The augmentation as version 0.1 drew it: with one key for the whole batch.

With it, a run of such a version goes on to its own numbers, and everything else is compared.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pcan_jax import inputs


def preprocess(batch, config, key):
  """As `inputs.preprocess`, of a batch with both streams."""
  key_crop, key_flip, key_keypoints = jax.random.split(key, 3)
  num_clips = len(batch["rgb"])
  box = _crops(key_crop, num_clips, config.augmentation) * config.stored_size
  flipped = jax.random.bernoulli(key_flip, config.augmentation.flip, (num_clips,))
  frames = inputs.crop_and_resize(batch["rgb"], box, config.rgb_size)
  frames = jnp.where(flipped[:, None, None, None, None], frames[:, :, :, ::-1], frames)
  keypoints = _jitter(key_keypoints, batch["keypoints"], config.stored_size, config.augmentation)
  keypoints, scores = inputs.flip_keypoints(
    inputs.crop_keypoints(keypoints, box, config.heatmap_size),
    batch["keypoint_scores"],
    flipped,
    config.heatmap_size,
    config.layout.flip_permutation(),
  )
  return {
    "rgb": (frames - jnp.array(inputs.IMAGENET_MEAN)) / jnp.array(inputs.IMAGENET_STD),
    "heatmaps": inputs._render(keypoints, scores, config),
  }


def _crops(key, num_clips, config):
  key_area, key_aspect, key_place = jax.random.split(key, 3)
  attempts = (num_clips, 10)
  low, high = config.crop_area
  area = jax.random.uniform(key_area, attempts, minval=low, maxval=high)
  low, high = np.log(config.crop_aspect)
  log_aspect = jax.random.uniform(key_aspect, attempts, minval=low, maxval=high)
  sizes = jnp.stack([jnp.sqrt(area) * jnp.exp(s * log_aspect / 2) for s in (1, -1)], axis=-1)
  first = jnp.argmax(jnp.all(sizes <= 1, axis=-1), axis=1)
  size = sizes[jnp.arange(num_clips), first]
  start = jax.random.uniform(key_place, (num_clips, 2)) * (1 - size)
  return jnp.concatenate([start, start + size], axis=-1)


def _jitter(key, keypoints, side, config):
  key_rotation, key_scale, key_noise = jax.random.split(key, 3)
  num_clips, _, persons, joints, _ = keypoints.shape
  angle = jax.random.uniform(key_rotation, (num_clips,), minval=-1, maxval=1)
  angle *= jnp.deg2rad(config.rotation)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  rotation = jnp.moveaxis(jnp.array([[cos, -sin], [sin, cos]]), -1, 0)
  stretch = jax.random.uniform(key_scale, (num_clips, 1, 2), minval=-1, maxval=1)
  noise = jax.random.normal(key_noise, (num_clips, 1, persons, joints, 2)) * config.keypoint_noise
  transform = rotation * (1 + config.scale_jitter * stretch)
  centred = jnp.einsum("bij,btmvj->btmvi", transform, keypoints - side / 2)
  return centred + side / 2 + noise * side

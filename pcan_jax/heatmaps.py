"""Draws keypoints as heatmap volumes, on the device.

Coordinates are (x, y) in heatmap pixels; a pixel's centre is at its integer indices. A joint is a
Gaussian whose peak is the joint's score. Results, including the borders of the Gaussians, are those
of MMAction2's GeneratePoseTarget, with which the released PCAN models were trained:
https://github.com/open-mmlab/mmaction2/blob/main/mmaction/datasets/transforms/pose_transforms.py
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

MIN_SCORE = 1e-4
"""Joints with a lower score are not drawn."""


def _windowed_gaussian(
  centre: Float[Array, "*batch v"], length: int, sigma: float
) -> Float[Array, "*batch length v"]:
  """exp(-(i - centre)^2 / 2 sigma^2) for i in 0..length-1, truncated at about three sigma."""
  pixels = jnp.arange(length, dtype=jnp.float32)
  window = _window(centre, centre, pixels, sigma)
  offset = pixels[:, None] - centre[..., None, :]
  # A NaN coordinate fails every comparison, so the joint is not drawn.
  return jnp.where(window, jnp.exp(-jnp.square(offset) / (2 * sigma**2)), 0.0)


def _window(
  low: Float[Array, "*batch v"],
  high: Float[Array, "*batch v"],
  pixels: Float[Array, " n"],
  sigma: float,
) -> Bool[Array, "*batch n v"]:
  """True for the pixels of the patch drawn around [low, high] along one axis.

  Both ends are truncated towards zero, as by `int()`, so a patch that ends just before column 0
  includes it.
  """
  start = jnp.trunc(low - 3 * sigma)[..., None, :]
  stop = jnp.trunc(high + 3 * sigma)[..., None, :] + 1
  return (pixels[:, None] >= start) & (pixels[:, None] < stop)


def _maximum(patches: Iterable[Array], shape: tuple[Any, ...]) -> Array:
  """The maximum of zero and all patches. Unrolled, so that XLA fuses products and maxima."""
  return functools.reduce(jnp.maximum, patches, jnp.zeros(shape, jnp.float32))


def render_joints(
  keypoints: Float[Array, "*batch t m v 2"],
  scores: Float[Array, "*batch t m v"],
  size: tuple[int, int],
  sigma: float,
) -> Float[Array, "*batch t h w v"]:
  """Draws one heatmap per joint, the maximum over persons.

  Args:
    keypoints: (x, y) of V joints of M persons in T frames, in heatmap pixels.
    scores: the joints' scores, which become the peaks; below `MIN_SCORE` nothing is drawn.
    size: (h, w) of a heatmap.
    sigma: standard deviation in heatmap pixels.

  Returns:
    float32 heatmaps, joints last.
  """
  keypoints, scores = keypoints.astype(jnp.float32), scores.astype(jnp.float32)
  height, width = size
  peak = jnp.where(scores >= MIN_SCORE, scores, 0.0)
  # A Gaussian patch is an outer product: exp() of h + w values instead of h * w, which XLA would
  # compute again for every pixel without the barrier.
  columns = _windowed_gaussian(keypoints[..., 0], width, sigma)
  rows = _windowed_gaussian(keypoints[..., 1], height, sigma) * peak[..., None, :]
  rows, columns = lax.optimization_barrier((rows[..., :, None, :], columns[..., None, :, :]))
  persons = range(scores.shape[-2])
  return _maximum(
    (rows[..., m, :, :, :] * columns[..., m, :, :, :] for m in persons),
    (*scores.shape[:-2], height, width, scores.shape[-1]),
  )


def _limb_patches(
  start: Float[Array, "*batch l 2"],
  end: Float[Array, "*batch l 2"],
  start_score: Float[Array, "*batch l"],
  end_score: Float[Array, "*batch l"],
  size: tuple[int, int],
  sigma: float,
) -> Float[Array, "*batch h w l"]:
  """The limbs of one person, given by their end points."""
  squared_length = jnp.sum(jnp.square(end - start), axis=-1)
  is_point = squared_length < 1
  end = jnp.where(is_point[..., None], start, end)
  score = jnp.minimum(start_score, end_score)
  peak = jnp.where(score >= MIN_SCORE, jnp.where(is_point, start_score, score), 0.0)

  x = jnp.arange(size[1], dtype=jnp.float32)
  y = jnp.arange(size[0], dtype=jnp.float32)
  low, high = jnp.minimum(start, end), jnp.maximum(start, end)
  columns = _window(low[..., 0], high[..., 0], x, sigma)
  rows = _window(low[..., 1], high[..., 1], y, sigma)
  window = rows[..., :, None, :] & columns[..., None, :, :]

  def on_pixels(per_limb: Float[Array, "*batch l"]) -> Float[Array, "*batch 1 1 l"]:
    return per_limb[..., None, None, :]

  start_x, start_y = on_pixels(start[..., 0]), on_pixels(start[..., 1])
  limb_x, limb_y = on_pixels(end[..., 0]) - start_x, on_pixels(end[..., 1]) - start_y
  x, y = x[None, :, None] - start_x, y[:, None, None] - start_y
  # Position on the limb of the point nearest to the pixel: 0 at the start, 1 at the end.
  along = (x * limb_x + y * limb_y) / on_pixels(jnp.maximum(squared_length, 1.0))
  along = jnp.clip(along, 0.0, 1.0)
  squared_distance = jnp.square(x - along * limb_x) + jnp.square(y - along * limb_y)
  patch = on_pixels(peak) * jnp.exp(-squared_distance / (2 * sigma**2))
  return jnp.where(window, patch, 0.0)


def render_limbs(
  keypoints: Float[Array, "*batch t m v 2"],
  scores: Float[Array, "*batch t m v"],
  limbs: Sequence[tuple[int, int]],
  size: tuple[int, int],
  sigma: float,
) -> Float[Array, "*batch t h w l"]:
  """Draws one heatmap per limb: a Gaussian of the distance to the segment between two joints.

  A limb's peak is the lower score of its two joints. A limb shorter than a pixel is drawn as its
  first joint alone.

  Args:
    keypoints: (x, y) of V joints of M persons in T frames, in heatmap pixels.
    scores: the joints' scores; a limb with a joint below `MIN_SCORE` is not drawn.
    limbs: L pairs of joint indices.
    size: (h, w) of a heatmap.
    sigma: standard deviation in heatmap pixels.

  Returns:
    float32 heatmaps, limbs last.

  Raises:
    ValueError: a limb is not a pair of valid joint indices.
  """
  num_joints = scores.shape[-1]
  for limb in limbs:
    if len(limb) != 2 or not all(0 <= joint < num_joints for joint in limb):
      raise ValueError(f"limb {limb} is not a pair of joints in 0..{num_joints - 1}")
  num_frame_axes = scores.ndim - 2
  if not limbs:
    return jnp.zeros((*scores.shape[:num_frame_axes], *size, 0), jnp.float32)
  keypoints, scores = keypoints.astype(jnp.float32), scores.astype(jnp.float32)
  first, second = (jnp.array(joints, jnp.int32) for joints in zip(*limbs))
  patches = (
    _limb_patches(
      keypoints[..., person, first, :],
      keypoints[..., person, second, :],
      scores[..., person, first],
      scores[..., person, second],
      size,
      sigma,
    )
    for person in range(scores.shape[-2])
  )
  return _maximum(patches, (*scores.shape[:num_frame_axes], *size, len(limbs)))

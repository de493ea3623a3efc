"""Simulates a pose detector: jitter, scores, occlusion and missing points."""

import numpy as np
from jaxtyping import Float

from .camera import Camera
from .take import Performance

Array = np.ndarray
NUM_KEYPOINTS = 28
_FINGERS = slice(18, 28)


def _hidden(performance: Performance, camera: Camera) -> Array:
  """Which keypoints `[t, 28]` are behind the head or the torso."""
  pixels, near = camera.project(performance.keypoints)
  trunk = performance.trunk
  middle = (trunk.waist + trunk.neck_base) / 2
  hidden = np.zeros(near.shape, bool)
  arms = np.isin(np.arange(NUM_KEYPOINTS), [3, 4, 6, 7, *range(18, 28)])
  for centre, radius, depth in (
    (trunk.head, 0.085 * trunk.body.head, 0.02),
    (middle, 0.15 * trunk.body.girth, 0.03),
  ):
    at, front = camera.project(centre)
    distance = np.linalg.norm(pixels - at[:, None], axis=-1) / camera.zoom
    hidden |= (distance < radius) & (near < front[:, None] - depth) & arms
  # An ear is hidden when the head turns away from it.
  look = trunk.head_turn @ np.array([1.0, 0.0, 0.0])
  towards = look @ camera.turn[2]
  hidden[:, 16] |= towards > 0.35
  hidden[:, 17] |= towards < -0.35
  return hidden


def detect(
  performance: Performance, camera: Camera, rng: np.random.Generator
) -> tuple[Float[Array, "t 28 2"], Float[Array, "t 28"]]:
  """Keypoints in pixels with errors, and scores.

  Errors are white and slowly changing jitter of a few millimetres, larger for fingertips and hidden
  points; a lost point has score 0 and lies at (0, 0).
  """
  pixels, _ = camera.project(performance.keypoints)
  num_frames = len(pixels)
  hidden = _hidden(performance, camera)
  skill = rng.uniform(0.7, 1.4)
  size = np.full(NUM_KEYPOINTS, 0.0028)
  size[[0, 14, 15, 16, 17]] = 0.0018
  size[[8, 11]] = 0.005
  size[_FINGERS] = 0.0045
  size = size * skill * (1 + 2.5 * hidden)
  white = rng.normal(size=(num_frames, NUM_KEYPOINTS, 2))
  knots = rng.normal(size=(num_frames // 12 + 3, NUM_KEYPOINTS, 2))
  at = np.arange(num_frames) / 12
  slow = (
    knots[at.astype(int)] * (1 - at % 1)[:, None, None]
    + knots[at.astype(int) + 1] * (at % 1)[:, None, None]
  )
  noisy = pixels + camera.zoom * size[..., None] * (0.7 * white + 1.2 * slow)

  level = np.full(NUM_KEYPOINTS, 0.88)
  level[[8, 11]] = 0.78
  level[_FINGERS] = 0.66
  level = np.where(hidden, 0.45, level) + rng.normal(0, 0.04, NUM_KEYPOINTS)
  scores = np.clip(level + rng.normal(0, 0.04, hidden.shape), 0.06, 0.99)
  # Points are lost for short runs of frames.
  lost = rng.random(hidden.shape) < np.where(hidden, 0.05, 0.002) * np.where(
    np.arange(NUM_KEYPOINTS) >= 18, 3.0, 1.0
  )
  length = int(rng.integers(2, 6))
  for _ in range(length - 1):
    lost[1:] |= lost[:-1].copy() & (rng.random(lost[1:].shape) < 0.8)
  inside = ((noisy >= 0) & (noisy <= np.array([camera.width - 1, camera.height - 1]))).all(-1)
  found = ~lost & inside
  return noisy * found[..., None], scores * found

"""A camera in front of the chair: perspective, and a framing that keeps the whole body in view."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from .skeleton import rotation

Array = np.ndarray
_TARGET = np.array([0.0, 0.62, 0.15])
_FIGURE_HEIGHT = 1.3  # metres, of an average seated figure


@dataclasses.dataclass(frozen=True)
class Camera:
  """Projects the world into an image; pixel centres are at integer coordinates.

  Attributes:
    height, width: of the image, in pixels.
    yaw, pitch, roll: radians; a positive pitch looks down.
    distance: from the chair, in metres.
    zoom: pixels per metre at the chair.
    centre: where the chair is in the image (x, y).
  """

  height: int
  width: int
  yaw: float
  pitch: float
  roll: float
  distance: float
  zoom: float
  centre: tuple[float, float]

  @functools.cached_property
  def turn(self) -> Float[Array, "3 3"]:
    """World to camera axes: x right, y up, z towards the camera."""
    return rotation(np.array([self.pitch, self.yaw, self.roll]))

  def project(
    self, points: Float[Array, "*n 3"]
  ) -> tuple[Float[Array, "*n 2"], Float[Array, "*n"]]:
    """Pixels (x, y), and nearness in metres (larger is nearer to the camera)."""
    seen = (np.asarray(points, float) - _TARGET) @ self.turn.T
    near = seen[..., 2]
    scale = self.zoom * self.distance / np.maximum(self.distance - near, 0.1)
    x = self.centre[0] + scale * seen[..., 0]
    y = self.centre[1] - scale * seen[..., 1]
    return np.stack([x, y], -1), near

  def framed(self, points: Float[Array, "*n 3"], margin: float = 0.03) -> "Camera":
    """This camera, shifted and if necessary zoomed out so that all points are in the image."""
    pixels = self.project(points)[0].reshape(-1, 2)
    low, high = pixels.min(0), pixels.max(0)
    room = np.array([self.width, self.height]) * (1 - 2 * margin)
    shrink = min(1.0, float((room / (high - low)).min()))
    centre = np.array(self.centre)
    low, high = centre + (low - centre) * shrink, centre + (high - centre) * shrink
    edge = np.array([self.width, self.height]) * margin
    shift = np.maximum(edge - low, 0) + np.minimum(edge + room - high, 0)
    return dataclasses.replace(self, zoom=self.zoom * shrink, centre=tuple(centre + shift))


def sample_camera(
  rng: np.random.Generator, setting: np.random.Generator, height: int, width: int
) -> Camera:
  """A camera for a figure's `setting`, with a slightly different position per clip (`rng`)."""
  yaw, pitch = setting.uniform(-13, 13), setting.uniform(0, 10)
  fill, distance = setting.uniform(0.72, 0.86), setting.uniform(2.6, 4.0)
  offset = setting.uniform(-0.05, 0.05, 2)
  yaw, pitch, roll = np.radians([yaw, pitch, 0.0] + rng.normal(0, (2.0, 1.2, 0.8)))
  zoom = fill * height / _FIGURE_HEIGHT * rng.uniform(0.95, 1.04)
  offset = offset + rng.normal(0, 0.015, 2)
  centre = ((0.5 + offset[0]) * width, (0.53 + 0.5 * offset[1]) * height)
  return Camera(height, width, yaw, pitch, roll, distance, zoom, centre)

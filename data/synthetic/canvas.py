"""Drawing with OpenCV: shapes that move over time, ordered by depth, and shaded parts of a body."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Array = np.ndarray
Colour = tuple[float, float, float]
_SHIFT = 4  # fractional bits of coordinates
LIGHT = np.array([-0.55, -0.83])  # direction of the light source, in the image


@dataclasses.dataclass
class Part:
  """Shapes drawn together: `near` orders parts within a frame, nearer ones later.

  A shape is (polygon [t, n, 2] in pixels, colour, line width in pixels or 0 if filled,
  visible [t] or None).
  """

  near: Float[Array, "t"]
  shapes: list[tuple[Array, Colour, float, Array | None]] = dataclasses.field(default_factory=list)

  def fill(
    self, polygon: Float[Array, "t n 2"], colour: Colour, visible: Array | None = None
  ) -> None:
    """Adds a filled polygon."""
    self.shapes.append((polygon, colour, 0, visible))

  def line(
    self,
    polyline: Float[Array, "t n 2"],
    colour: Colour,
    width: float,
    visible: Array | None = None,
  ) -> None:
    """Adds an open line."""
    self.shapes.append((polyline, colour, max(width, 1.0), visible))


def tint(colour: Colour, factor: float, shift: float = 0.0) -> Colour:
  """A colour made lighter or darker."""
  return tuple(float(np.clip(c * factor + shift, 0, 255)) for c in colour)


def capsule(
  start: Float[Array, "t 2"],
  end: Float[Array, "t 2"],
  radius: Array | float,
  end_radius: Array | float,
) -> Float[Array, "t n 2"]:
  """Outline of a limb with two round ends."""
  radius, end_radius = (np.broadcast_to(r, (len(start),)) for r in (radius, end_radius))
  corners = int(np.clip(np.ceil(np.sqrt(max(radius.max(), end_radius.max())) * 1.7), 3, 14))
  span = end - start
  heading = np.arctan2(span[:, 1], span[:, 0])[:, None]
  arc = np.linspace(-np.pi / 2, np.pi / 2, corners)
  front, back = heading + arc, heading + np.pi + arc
  around = [
    centre[:, None] + r[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    for centre, r, angle in ((end, end_radius, front), (start, radius, back))
  ]
  return np.concatenate(around, 1)


def limb(
  part: Part,
  start: Float[Array, "t 2"],
  end: Float[Array, "t 2"],
  radius: Array,
  end_radius: Array,
  colour: Colour,
) -> None:
  """A shaded limb: dark rim, body colour, and a highlight on the lit side."""
  for size, towards, shade in ((1.0, 0.0, 0.74), (0.86, 0.12, 0.93), (0.5, 0.3, 1.05)):
    offset = (np.maximum(radius, end_radius) * towards)[:, None] * LIGHT
    part.fill(
      capsule(start + offset, end + offset, radius * size, end_radius * size), tint(colour, shade)
    )


def lerp(a: Array, b: Array, x: float) -> Array:
  """The point at `x` between a (0) and b (1)."""
  return (1 - x) * a + x * b


def draw(
  background: UInt8[Array, "h w 3"], parts: list[Part], num_frames: int
) -> list[UInt8[Array, "h w 3"]]:
  """Draws the parts of all frames on copies of the background."""
  order = np.argsort(np.stack([part.near for part in parts], 1), 1, kind="stable")
  ready = [
    [
      (np.round(polygon * (1 << _SHIFT)).astype(np.int32), colour, round(width), visible)
      for polygon, colour, width, visible in part.shapes
    ]
    for part in parts
  ]
  frames = []
  for t in range(num_frames):
    image = background.copy()
    for index in order[t]:
      for polygon, colour, width, visible in ready[index]:
        if visible is not None and not visible[t]:
          continue
        if width:
          cv2.polylines(image, polygon[t : t + 1], False, colour, width, cv2.LINE_AA, _SHIFT)
        else:
          cv2.fillPoly(image, polygon[t : t + 1], colour, cv2.LINE_AA, _SHIFT)
    frames.append(image)
  return frames

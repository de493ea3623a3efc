"""The head: an ellipsoid of hair with a face in front, ears, eyes, mouth, glasses."""

import numpy as np
from jaxtyping import Float

from .camera import Camera
from .canvas import Part, limb, tint
from .figure import Looks
from .skeleton import HEAD_RADII, Trunk, apply

Array = np.ndarray
_FACE = np.array([0.0, -0.36, 0.93])  # direction of the face's centre from the head's centre


class _Ellipsoid:
  """An ellipsoid over time in the image; points of its surface may face away."""

  def __init__(self, camera: Camera, centre: Array, turn: Array, radii: Array) -> None:
    seen = np.einsum("ij,tjk->tik", camera.turn, turn) * radii
    pixels, near = camera.project(centre)
    self.centre, self.near = pixels, near
    self.scale = camera.zoom * camera.distance / (camera.distance - near)
    self.matrix = seen[:, :2] * np.array([1.0, -1.0])[:, None] * self.scale[:, None, None]
    # Surface normals of the unit sphere facing the camera have a positive product with this.
    facing = np.linalg.inv(seen)[:, :, 2]
    self.facing = facing / np.linalg.norm(facing, axis=-1, keepdims=True)

  def silhouette(self, corners: int = 28) -> Float[Array, "t n 2"]:
    spread = np.linalg.cholesky(self.matrix @ self.matrix.transpose(0, 2, 1))
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    return self.centre[:, None] + (spread @ circle).transpose(0, 2, 1)

  def points(self, directions: Float[Array, "n 3"], clamp: bool = True) -> Float[Array, "t n 2"]:
    """Surface points; those facing away move to the silhouette if `clamp`."""
    directions = np.broadcast_to(directions, (len(self.centre), *np.shape(directions)))
    if clamp:
      towards = np.einsum("tnj,tj->tn", directions, self.facing)
      hidden = np.minimum(towards, 0)[..., None] * self.facing[:, None]
      directions = directions - hidden
      directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    return self.centre[:, None] + np.einsum("tij,tnj->tni", self.matrix, directions)

  def visible(self, direction: Array, least: float = 0.1) -> Array:
    direction = np.asarray(direction, float)
    return self.facing @ (direction / np.linalg.norm(direction)) > least


def _cap(centre: Array, radius: Array, corners: int = 24) -> Array:
  """Directions on a circle of this angular radius (one per corner) around a direction."""
  centre = centre / np.linalg.norm(centre)
  right = np.array([1.0, 0.0, 0.0])
  up = np.cross(centre, right)
  angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)[:, None]
  radius = np.broadcast_to(np.asarray(radius, float), (corners,))[:, None]
  around = np.cos(angle) * right + np.sin(angle) * up
  return np.cos(radius) * centre + np.sin(radius) * around


def _oval(x: float, y: float, wide: float, high: float, corners: int = 8) -> Array:
  """Directions of an oval on the front of the face around (x, y), in radii."""
  angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
  px, py = x + wide * np.cos(angle), y + high * np.sin(angle)
  return np.stack([px, py, np.sqrt(np.maximum(1 - px**2 - py**2, 0.05))], -1)


def head_parts(trunk: Trunk, camera: Camera, looks: Looks, glasses: bool) -> list[Part]:
  """The head with hair, face and glasses."""
  size = trunk.body.head
  skull = _Ellipsoid(camera, trunk.head, trunk.head_turn, HEAD_RADII * size)
  # Hair grows upwards and sideways, not under the chin.
  volume = np.array([looks.hair_volume, 0.5 + 0.5 * looks.hair_volume, looks.hair_volume])
  lift = HEAD_RADII[1] * (volume[1] - 1) + 0.012
  hair_centre = trunk.head + apply(trunk.head_turn, np.array([0, lift, -0.012]) * size)
  hair = _Ellipsoid(camera, hair_centre, trunk.head_turn, HEAD_RADII * size * volume)
  jaw_centre = trunk.head + apply(trunk.head_turn, np.array([0, -0.042, 0.022]) * size)
  jaw = _Ellipsoid(camera, jaw_centre, trunk.head_turn, np.array([0.064, 0.08, 0.076]) * size)
  part = Part(skull.near + 0.03)
  skin, colour = looks.skin, looks.hair_colour
  unit = size * skull.scale

  parts = [part]
  if looks.hair in ("bob", "long"):
    parts.append(_long_hair(trunk, camera, looks, skull.near))
  if looks.hair == "bun":
    bun = trunk.head + apply(trunk.head_turn, np.array([0, 0.125, -0.05]) * size)
    ball = _Ellipsoid(camera, bun, trunk.head_turn, np.array([0.045, 0.04, 0.045]) * size)
    part.fill(ball.silhouette(14), tint(colour, 0.9, 6))
  part.fill(hair.silhouette(), tint(colour, 0.84))
  part.fill(hair.points(_cap(np.array([-0.3, 0.8, 0.4]), 0.6)), tint(colour, 0.98, 5))
  ears = looks.hair in ("short", "bun")
  if ears:
    for x in (-1.0, 1.0):
      place = trunk.head + apply(trunk.head_turn, np.array([x * 0.078, 0.0, -0.004]) * size)
      ear = _Ellipsoid(camera, place, trunk.head_turn, np.array([0.012, 0.03, 0.02]) * size)
      part.fill(ear.silhouette(10), tint(skin, 0.82), skull.visible([x, 0, -0.1], -0.45))
  angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
  radius = looks.hair_line + 0.07 * np.cos(2 * angle) - 0.05 * np.maximum(np.sin(angle), 0)
  face = _cap(_FACE, radius)
  part.fill(jaw.silhouette(20), tint(skin, 0.8))
  part.fill(skull.points(face), tint(skin, 0.8))
  part.fill(skull.points(_cap(_FACE + [-0.05, 0.02, 0], radius * 0.86)), tint(skin, 0.94))
  part.fill(skull.points(_cap(_FACE + [-0.2, 0.1, 0], radius * 0.55)), tint(skin, 1.03))
  if looks.beard:
    around = np.linspace(np.pi, 2 * np.pi, 10)
    lower = np.stack([0.72 * np.cos(around), -0.45 + 0.52 * np.sin(around)], -1)
    upper = np.array([(0.45, -0.38), (0.2, -0.33), (-0.2, -0.33), (-0.45, -0.38)])
    xy = np.concatenate([lower, upper])
    z = np.sqrt(np.maximum(1 - (xy**2).sum(1), 0.04))
    part.fill(skull.points(np.concatenate([xy, z[:, None]], 1)), tint(colour, 0.8, 18))

  front = skull.visible([0, 0, 1], 0.0)
  for x in (-0.4, 0.4):
    seen = skull.visible([x, 0.1, 0.9], 0.15)
    part.fill(skull.points(_oval(x, 0.13, 0.17, 0.075), False), (236, 234, 230), seen)
    part.fill(skull.points(_oval(x, 0.13, 0.085, 0.078), False), (34, 24, 20), seen)
    brow = np.array([(x - 0.2, 0.31), (x, 0.36), (x + 0.2, 0.31)])
    z = np.sqrt(np.maximum(1 - (brow**2).sum(1), 0.05))
    part.line(
      skull.points(np.concatenate([brow, z[:, None]], 1), False),
      tint(colour, 0.9),
      float(unit.mean()) * 0.010,
      seen,
    )
  lips = tint((176, 84, 80), 0.55 + skin[0] / 500)
  nose = np.array([(0.0, 0.1, 1.0), (0.13, -0.2, 1.04), (0.0, -0.26, 1.02), (-0.13, -0.2, 1.04)])
  part.fill(skull.points(nose, False), tint(skin, 0.86), front)
  bridge = np.array([(-0.02, 0.1, 1.02), (0.04, -0.14, 1.15), (-0.06, -0.14, 1.15)])
  part.fill(skull.points(bridge, False), tint(skin, 1.08), front)
  part.fill(skull.points(_oval(0, -0.52, 0.25, 0.06), False), lips, front)
  if glasses:
    _glasses(part, skull, float(unit.mean()))
  return parts


def _glasses(part: Part, skull: _Ellipsoid, unit: float) -> None:
  width, colour = unit * 0.007, (28, 26, 30)
  for x in (-0.42, 0.42):
    seen = skull.visible([x, 0.1, 0.9], 0.0)
    rim = _oval(x, 0.12, 0.3, 0.19, 12)
    rim[:, 2] = np.maximum(rim[:, 2], 0.75) + 0.08
    part.line(skull.points(np.concatenate([rim, rim[:1]]), False), colour, width, seen)
    temple = np.array([(np.sign(x) * 0.72, 0.16, 0.83), (np.sign(x) * 1.02, 0.14, 0.0)])
    part.line(skull.points(temple, False), colour, width, skull.visible([np.sign(x), 0, 0.2], 0.05))
  bridge = np.array([(-0.12, 0.15, 1.08), (0.12, 0.15, 1.08)])
  part.line(skull.points(bridge, False), colour, width, skull.visible([0, 0, 1], 0.0))


def _long_hair(trunk: Trunk, camera: Camera, looks: Looks, near: Array) -> Part:
  """Hair that falls behind the neck, to the jaw (bob) or the shoulders (long)."""
  size, length = trunk.body.head, 0.11 if looks.hair == "bob" else 0.2
  # Behind the shoulders, too, even if the head is far in front of them.
  part = Part(np.minimum(near, camera.project(trunk.neck_base)[1]) - 0.15)
  top = trunk.head + apply(trunk.head_turn, np.array([0, 0.02, -0.03]) * size)
  hanging = 0.5 * (trunk.head_turn + trunk.chest_turn)
  end = trunk.head + apply(hanging, np.array([0, -length, -0.05]) * size)
  scale = camera.zoom * camera.distance / (camera.distance - near)
  limb(
    part,
    camera.project(top)[0],
    camera.project(end)[0],
    0.088 * size * scale,
    0.082 * size * scale,
    looks.hair_colour,
  )
  return part

"""The room and the chair, drawn once per clip as the background of its frames."""

import cv2
import numpy as np
from jaxtyping import UInt8

from .camera import Camera

Array = np.ndarray
_BACK_WALL = -1.3  # z, in metres


def _paint(image: Array, camera: Camera, corners: Array, colour: Array) -> None:
  pixels = np.clip(camera.project(corners)[0], -4000, 8000)
  cv2.fillPoly(image, [np.round(pixels * 16).astype(np.int32)], colour.tolist(), cv2.LINE_AA, 4)


def _box(image: Array, camera: Camera, low: Array, high: Array, colour: Array) -> None:
  """The visible faces of an upright box, farthest first."""
  (x0, y0, z0), (x1, y1, z1) = low, high
  faces = (
    ([(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)], 0.72),
    ([(x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)], 0.62),
    ([(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)], 1.12),
    ([(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)], 0.92),
  )
  for corners, shade in faces:
    _paint(image, camera, np.array(corners), np.clip(colour * shade, 0, 255))


def _chair(image: Array, camera: Camera, rng: np.random.Generator, seat: float) -> None:
  cloth = np.array([rng.uniform(30, 150)] * 3) + rng.normal(0, 18, 3)
  frame = np.array([rng.uniform(40, 140)] * 3) + rng.normal(0, 6, 3)
  half, top = rng.uniform(0.23, 0.28), seat - 0.075
  back = top + rng.uniform(0.35, 0.55)
  for z in (-0.2, 0.22):
    for x in (-half, half - 0.035):
      _box(image, camera, (x, 0, z), (x + 0.035, top - 0.05, z + 0.035), frame)
  _box(image, camera, (-half, top + 0.12, -0.24), (half, back, -0.19), cloth)
  _box(image, camera, (-half, top - 0.07, -0.22), (half, top, 0.26), cloth)


def _wall(image: Array, camera: Camera, rng: np.random.Generator) -> None:
  """Pictures, a door, a curtain or a window on the back wall."""
  z = _BACK_WALL
  for _ in range(int(rng.integers(0, 4))):
    kind = rng.choice(["picture", "door", "curtain", "window"])
    x = rng.uniform(-1.6, 1.6)
    colour = rng.uniform(40, 220) + rng.normal(0, 30, 3)
    if kind == "picture":
      w, h, y = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.4), rng.uniform(1.1, 1.5)
      rims = ((0.0, colour * 0.5), (0.03, colour))
    elif kind == "door":
      w, h, y, rims = 0.8, 2.1, 0.0, ((0.0, colour * 0.7), (0.06, colour))
    elif kind == "window":
      w, h, y = rng.uniform(0.7, 1.2), 1.0, 0.9
      rims = ((0.0, colour * 0.4 + 120), (0.05, np.array([205, 222, 235.0])))
    else:
      w, h, y = rng.uniform(0.5, 0.9), 2.3, 0.05
      rims = tuple((i * w / 16, colour * (0.8 + 0.2 * (i % 2))) for i in range(8))
    for rim, shade in rims:
      x0, x1, y0, y1 = x + rim, x + w - rim, y + rim * (kind != "curtain"), y + h - rim
      corners = np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)])
      _paint(image, camera, corners, np.clip(shade, 5, 250))


def draw_room(
  camera: Camera, setting: np.random.Generator, light: np.random.Generator, seat: float
) -> UInt8[Array, "h w 3"]:
  """Wall, floor and chair of a figure's setting, in the light of one clip."""
  height, width = camera.height, camera.width
  image = np.empty((height, width, 3), np.uint8)
  image[:] = np.clip(setting.uniform(95, 225) + setting.normal(0, 12, 3), 20, 245).astype(np.uint8)
  _wall(image, camera, setting)
  floor = np.clip(setting.uniform(70, 170) + setting.normal(0, 14, 3), 20, 235)
  skirting = np.clip(floor * setting.uniform(0.5, 1.4), 10, 250)
  z = _BACK_WALL
  _paint(image, camera, np.array([(-9, 0, z), (9, 0, z), (9, 0.09, z), (-9, 0.09, z)]), skirting)
  _paint(image, camera, np.array([(-9, 0, z), (9, 0, z), (6, 0, 1.4), (-6, 0, 1.4)]), floor)
  if setting.random() < 0.5:
    for x in np.arange(-3, 3.01, setting.uniform(0.15, 0.5)):
      edge = np.array([(x, 0, z), (x + 0.012, 0, z), (x + 0.012, 0, 1.4), (x, 0, 1.4)])
      _paint(image, camera, edge, floor * 0.86)
  shadow = image.copy()
  for radius in (0.62, 0.5, 0.38):
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([radius * np.cos(angle), 0 * angle, 0.15 + radius * np.sin(angle)], -1)
    _paint(shadow, camera, ring, floor * (0.62 + 0.3 * radius))
  image = cv2.addWeighted(image, 0.35, cv2.GaussianBlur(shadow, (0, 0), height / 60), 0.65, 0)
  _chair(image, camera, setting, seat)

  y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
  slope = light.normal(0, 0.06, 2)
  gain = light.uniform(0.88, 1.1) * (1 + slope[0] * x + slope[1] * y - 0.08 * (x**2 + y**2))
  texture = cv2.resize(light.normal(0, 2.5, (height // 6 + 1, width // 6 + 1)), (width, height))
  lit = image * gain[..., None] + texture[..., None] + light.normal(0, 3, 3)
  return np.clip(lit, 0, 255).astype(np.uint8)

"""Draws a performing figure: clothes, head and face, hands with fingers, held objects.

All shapes are computed for the whole clip at once and then drawn frame by frame (`canvas`).
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from . import canvas
from .camera import Camera
from .canvas import Colour, Part, lerp, limb, tint
from .figure import Figure
from .head import head_parts
from .skeleton import LEFT, RIGHT, SIGN, apply
from .take import Performance

Array = np.ndarray


class _View:
  """A performance seen by a camera."""

  def __init__(self, performance: Performance, camera: Camera, figure: Figure) -> None:
    self.performance, self.camera, self.figure = performance, camera, figure
    self.trunk, self.looks, self.body = performance.trunk, figure.looks, figure.body
    self.num_frames = len(performance.keypoints)

  def pixels(self, points: Float[Array, "*n 3"]) -> Float[Array, "*n 2"]:
    return self.camera.project(points)[0]

  def near(self, points: Float[Array, "t 3"]) -> Float[Array, "t"]:
    return self.camera.project(points)[1]

  def size(self, metres: float, points: Float[Array, "t 3"]) -> Float[Array, "t"]:
    """Length in pixels of a length in metres at these points."""
    camera = self.camera
    return metres * camera.zoom * camera.distance / (camera.distance - self.near(points))

  def limb(
    self, part: Part, start: Array, end: Array, radius: float, end_radius: float, colour: Colour
  ) -> None:
    limb(
      part,
      self.pixels(start),
      self.pixels(end),
      self.size(radius, start),
      self.size(end_radius, end),
      colour,
    )


def _ring(
  view: _View, centre: Array, turn: Array, wide: float, deep: float, across: Array
) -> Array:
  """Left and right edge `[t, 2, 2]` of an elliptical cross-section of the torso."""
  axes = np.einsum("ij,tjk->tik", view.camera.turn, turn)
  reach = np.sqrt(
    (wide * np.einsum("tk,tk->t", axes[:, :2, 0] * [1, -1], across)) ** 2
    + (deep * np.einsum("tk,tk->t", axes[:, :2, 2] * [1, -1], across)) ** 2
  )
  edge = (reach * view.size(1.0, centre))[:, None] * across
  middle = view.pixels(centre)
  return np.stack([middle - edge, middle + edge], 1)


def _torso(view: _View) -> list[Part]:
  trunk, body, looks = view.trunk, view.body, view.looks
  girth, wide = body.girth, body.shoulder / 0.185
  low = trunk.pelvis + apply(trunk.lower_turn, [0, 0.0, 0])
  spine = view.pixels(trunk.neck_base) - view.pixels(low)
  spine /= np.maximum(np.linalg.norm(spine, axis=-1, keepdims=True), 1e-6)
  across = np.stack([-spine[:, 1], spine[:, 0]], -1)
  shrug = trunk.shoulders.mean(1) - trunk.neck_base + apply(trunk.chest_turn, [0, 0.035, 0])
  top = trunk.neck_base + shrug * 0.9
  rings = [
    (low, trunk.lower_turn, 0.165 * girth, 0.12 * girth),
    (lerp(trunk.pelvis, trunk.waist, 0.5), trunk.lower_turn, 0.155 * girth, 0.115 * girth),
    (trunk.waist, trunk.chest_turn, 0.148 * (girth + wide) / 2, 0.11 * girth),
    (lerp(trunk.waist, top, 0.6), trunk.chest_turn, 0.172 * (girth + wide) / 2, 0.115 * girth),
    (lerp(trunk.waist, top, 0.86), trunk.chest_turn, 0.19 * wide, 0.095 * girth),
    (lerp(trunk.waist, top, 0.97), trunk.chest_turn, 0.15 * wide, 0.08),
    (top + apply(trunk.chest_turn, [0, 0.025, 0]), trunk.chest_turn, 0.06, 0.055),
  ]
  edges = np.stack([_ring(view, *ring, across) for ring in rings], 1)
  middle = edges.mean(2, keepdims=True)

  def outline(share: float, shift: float) -> Array:
    moved = middle + share * (edges - middle) + shift * (edges[:, :, :1] - middle)
    return np.concatenate([moved[:, :, 0], moved[:, ::-1, 1]], 1)

  near = view.near(lerp(trunk.waist, trunk.neck_base, 0.6)) + 0.02
  part = Part(near)
  layers = ((1.0, 0, 0.7), (0.88, 0.08, 0.86), (0.68, 0.14, 0.96), (0.36, 0.2, 1.05))
  for share, shift, shade in layers:
    part.fill(outline(share, shift), tint(looks.shirt, shade))
  _pattern(view, part)
  neck = Part(near + 0.01)
  throat = lerp(trunk.neck_base, trunk.head, 0.62)
  view.limb(neck, trunk.neck_base, throat, 0.058, 0.05, tint(looks.skin, 0.84))
  hips = Part(view.near(trunk.pelvis) + 0.08)
  view.limb(
    hips,
    trunk.hips[:, 0],
    trunk.hips[:, 1],
    0.085 * girth,
    0.085 * girth,
    tint(looks.trousers, 0.85),
  )
  return [hips, part, neck]


def _pattern(view: _View, part: Part) -> None:
  """The pattern on the front of the shirt."""
  trunk, looks, girth = view.trunk, view.looks, view.body.girth
  torso = view.body.upper_spine + view.body.lower_spine

  def front(x: Array | float, down: Array | float) -> Array:
    """Points `[t, n, 2]` on the front, `down` from the neck (0) to the belt (1)."""
    x, down = np.broadcast_arrays(np.asarray(x, float), np.asarray(down, float))
    bulge = 0.115 * girth * np.minimum(1, 0.45 + 2 * down)
    out = bulge * np.sqrt(np.clip(1 - (x / 0.2) ** 2, 0, 1))
    points = np.stack([x, -down * torso, out], -1)
    # The upper half follows the chest, the lower half the hips.
    upper = trunk.neck_base[:, None] + np.einsum("tij,nj->tni", trunk.chest_turn, points)
    points = points + np.array([0, torso, 0])
    lower = trunk.pelvis[:, None] + np.einsum("tij,nj->tni", trunk.lower_turn, points)
    return view.pixels(np.where((down < 0.55)[:, None], upper, lower))

  width = 0.012 * view.camera.zoom
  if looks.pattern == "stripes":
    for down in (0.3, 0.45, 0.62, 0.78):
      part.line(front(np.linspace(-0.15, 0.15, 7) * girth, down), looks.shirt_accent, 1.6 * width)
  elif looks.pattern == "placket":
    part.line(front(0.0, np.linspace(0.1, 0.95, 6)), tint(looks.shirt, 0.7), 0.6 * width)
    for x in (-1, 1):
      part.line(
        front(np.array([0.06, 0.02, 0.0]) * x, np.array([-0.02, 0.1, 0.17])),
        looks.shirt_accent,
        1.2 * width,
      )
  elif looks.pattern == "print":
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    part.fill(front(0.06 * np.cos(angle), 0.36 + 0.13 * np.sin(angle)), looks.shirt_accent)
  elif looks.pattern == "jacket":
    down = np.array([-0.02, 0.25, 0.6, 0.95])
    left, right = front(-0.045 - 0.02 * down, down), front(0.045 + 0.02 * down, down)
    part.fill(np.concatenate([left, right[:, ::-1]], 1), looks.shirt_accent)
  else:
    angle = np.linspace(0, np.pi, 7)
    collar = front(0.06 * np.cos(angle), -0.03 + 0.1 * np.sin(angle))
    part.line(collar, tint(looks.shirt, 0.72), width)


def _legs(view: _View) -> list[Part]:
  trunk, looks, girth = view.trunk, view.looks, np.sqrt(view.body.girth)
  parts = []
  for side in (RIGHT, LEFT):
    hip, knee, ankle, ball = (
      x[:, side] for x in (trunk.hips, trunk.knees, trunk.ankles, trunk.balls)
    )
    raised = 0.5 * (knee[:, 1] - view.body.seat)
    thigh = Part(view.near(lerp(hip, knee, 0.3)) + raised)
    view.limb(thigh, hip, knee, 0.086 * girth, 0.064 * girth, looks.trousers)
    shin = Part(view.near(lerp(knee, ankle, 0.5)) - 0.05 + raised)
    cloth = looks.skin if looks.shorts else looks.trousers
    view.limb(shin, knee, ankle, 0.060 * girth, 0.040, cloth)
    foot = Part(view.near(ankle) + raised - 0.02)
    toe = ball + 0.28 * (ball - ankle) * np.array([1, 0.2, 1])
    low = np.array([0, -0.012, 0])
    view.limb(foot, ankle + 1.6 * low, ball, 0.043, 0.04, looks.shoes)
    view.limb(foot, ball, toe, 0.04, 0.03, looks.shoes)
    sole = [view.pixels(p + np.array([0, -0.022, 0])) for p in (ball, toe)]
    foot.line(np.stack(sole, 1), tint(looks.shoes, 0.5, 10), 0.012 * view.camera.zoom)
    parts += [thigh, shin, foot]
  return parts


def _hand(view: _View, side: int) -> Part:
  arm, skin = view.performance.arms[side], view.looks.skin
  part = Part(view.near(arm.palm) + 0.1)
  size = view.body.hand
  knuckles, middle, tips = (view.pixels(arm.fingers[:, :, i]) for i in range(3))
  wrist = view.pixels(arm.wrist)
  unit = view.size(size, arm.wrist)
  palm = [wrist, knuckles[:, 1:].mean(1)]
  for rim, shade in ((0.0035, 0.58), (0.0, 1.0)):
    colour = tint(skin, shade)
    part.fill(canvas.capsule(*palm, unit * (0.025 + rim), unit * (0.03 + rim)), colour)
    for finger in range(5):
      thick = 0.0115 if finger == 0 else 0.0098
      root = lerp(wrist, knuckles[:, 0], 0.6) if finger == 0 else knuckles[:, finger]
      part.fill(
        canvas.capsule(root, middle[:, finger], unit * (thick + rim), unit * (thick * 0.95 + rim)),
        colour,
      )
      part.fill(
        canvas.capsule(
          middle[:, finger],
          tips[:, finger],
          unit * (thick * 0.95 + rim),
          unit * (thick * 0.8 + rim),
        ),
        colour,
      )
  for finger in range(2, 5):  # the gaps between fingers
    gap = [
      (knuckles[:, finger] + knuckles[:, finger - 1]) / 2,
      (middle[:, finger] + middle[:, finger - 1]) / 2,
    ]
    part.line(np.stack(gap, 1), tint(skin, 0.72), 0.004 * view.camera.zoom)
  return part


def _arms(view: _View) -> list[Part]:
  looks, trunk, girth = view.looks, view.trunk, np.sqrt(view.body.girth)
  parts = []
  for side in (RIGHT, LEFT):
    arm, shoulder = view.performance.arms[side], trunk.shoulders[:, side]
    inner = shoulder + 0.012 * apply(trunk.chest_turn, [-SIGN[side], -1, 0])
    upper = Part(view.near(lerp(shoulder, arm.elbow, 0.5)) + 0.06)
    fore = Part(view.near(lerp(arm.elbow, arm.wrist, 0.6)) + 0.09)
    sleeve = looks.shirt
    if looks.long_sleeves:
      view.limb(upper, inner, arm.elbow, 0.058 * girth, 0.046 * girth, sleeve)
      view.limb(fore, arm.elbow, lerp(arm.elbow, arm.wrist, 0.94), 0.046 * girth, 0.033, sleeve)
    else:
      view.limb(upper, shoulder, arm.elbow, 0.046 * girth, 0.039 * girth, looks.skin)
      view.limb(upper, inner, lerp(shoulder, arm.elbow, 0.55), 0.056 * girth, 0.052 * girth, sleeve)
      view.limb(fore, arm.elbow, arm.wrist, 0.040 * girth, 0.026, looks.skin)
    parts += [upper, fore, _hand(view, side)]
  return parts


def _prop(view: _View) -> list[Part]:
  """The object between the hands."""
  kind = view.performance.prop
  if not kind:
    return []
  arms = view.performance.arms
  held = [(arm.fingers[:, 0, 2] + arm.fingers[:, 1, 2]) / 2 for arm in arms]
  middle, along = (held[0] + held[1]) / 2, held[1] - held[0]
  along /= np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
  up = np.array([0, 0.8, 0.6]) - along * (along @ np.array([0, 0.8, 0.6]))[:, None]
  wide, high, colour = {
    "phone": (0.04, 0.075, (22, 24, 30)),
    "pen": (0.085, 0.007, (190, 40, 40)),
    "cube": (0.04, 0.04, (230, 190, 40)),
    "paper": (0.08, 0.1, (240, 240, 234)),
  }[kind]
  signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
  corners = [middle + x * wide * along + y * high * up for x, y in signs]
  outline = view.pixels(np.stack(corners, 1))
  part = Part(view.near(middle) + 0.08)
  part.fill(outline, tint(colour, 0.6))
  centre = outline.mean(1, keepdims=True)
  inner = centre + 0.8 * (outline - centre)
  part.fill(inner, (120, 170, 220) if kind == "phone" else colour)
  return [part]


def render(
  performance: Performance,
  camera: Camera,
  figure: Figure,
  room: UInt8[Array, "h w 3"],
  rng: np.random.Generator,
) -> list[UInt8[Array, "h w 3"]]:
  """The frames of a performance (RGB) in front of a room, with the camera's blur and noise."""
  view = _View(performance, camera, figure)
  glasses = figure.looks.glasses or performance.glasses
  parts = _torso(view) + _legs(view) + _arms(view) + _prop(view)
  parts += head_parts(performance.trunk, camera, figure.looks, glasses)
  frames = canvas.draw(room, parts, view.num_frames)
  height, width = room.shape[:2]
  grain = rng.uniform(1.0, 3.0)
  noise = np.clip(rng.normal(2 * grain, grain, (height + 32, width + 32, 1)), 0, 40)
  noise = np.repeat(noise.astype(np.uint8), 3, 2)
  blur = rng.uniform(0.35, 0.6) * max(1.0, height / 240)
  shifts = rng.integers(0, 32, (view.num_frames, 2))
  for frame, (dy, dx) in zip(frames, shifts):
    cv2.GaussianBlur(frame, (0, 0), blur, dst=frame)
    cv2.add(frame, noise[dy : dy + height, dx : dx + width], dst=frame)
  return frames

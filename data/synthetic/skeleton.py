"""A seated body in three dimensions: bones, forward kinematics, two-bone inverse kinematics.

World axes, in metres: x to the image's right (the figure's left), y up, z towards the camera; the
floor is y = 0 and the figure looks along +z. Angles are in radians. Sides: 0 is the figure's right,
1 its left; `SIGN` is the direction of that side on x.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

Array = np.ndarray

RIGHT, LEFT = 0, 1
SIGN = np.array([-1.0, 1.0])
PITCH, YAW, ROLL = 0, 1, 2  # bow forward, turn to one's left, lean to one's right

# Which part of a hand touches its target: weights over these points.
CONTACTS = ("palm", "thumb", "index", "middle", "ring", "little")

_KNUCKLE_X = np.array([0.032, 0.029, 0.009, -0.010, -0.028])  # towards the thumb
_KNUCKLE_Y = np.array([0.030, 0.090, 0.094, 0.089, 0.079])
_FINGER_LENGTH = np.array([0.062, 0.074, 0.082, 0.076, 0.060])


@dataclasses.dataclass(frozen=True)
class Body:
  """Bone lengths and thicknesses in metres (`girth` and `head` are factors)."""

  upper_arm: float = 0.29
  forearm: float = 0.25
  hand: float = 1.0
  thigh: float = 0.43
  shin: float = 0.41
  foot: float = 0.17
  lower_spine: float = 0.24
  upper_spine: float = 0.25
  neck: float = 0.075
  shoulder: float = 0.185
  hip: float = 0.09
  head: float = 1.0
  girth: float = 1.0
  seat: float = 0.50


@dataclasses.dataclass
class Posture:
  """Everything that a motion may move, except for the hands; time first.

  `ball` is the ball of each foot; the ankle follows from it by `foot_pitch` (heel lifted) and
  `foot_yaw` (turned outwards). `knee_out` is how far outwards the knees point; `shrug` moves the
  shoulders up and forward.
  """

  pelvis: Float[Array, "t 3"]
  lower: Float[Array, "t 3"]
  upper: Float[Array, "t 3"]
  head: Float[Array, "t 3"]
  shrug: Float[Array, "t 2 2"]
  ball: Float[Array, "t 2 3"]
  foot_pitch: Float[Array, "t 2"]
  foot_yaw: Float[Array, "t 2"]
  knee_out: Float[Array, "t 2"]


@dataclasses.dataclass
class HandPosture:
  """One hand over time: position of its contact point, orientation, bending of the fingers.

  `fingers` is the direction of the straight fingers and `palm` the direction the palm faces. `curl`
  is 0 for a straight finger and 1 for one in a fist, thumb first. `pole` is the direction in which
  the elbow points.
  """

  point: Float[Array, "t 3"]
  contact: Float[Array, "t 6"]
  fingers: Float[Array, "t 3"]
  palm: Float[Array, "t 3"]
  curl: Float[Array, "t 5"]
  spread: Float[Array, "t"]
  pole: Float[Array, "t 3"]


@dataclasses.dataclass
class Trunk:
  """Positions of everything except the arms; `*_turn` are rotation matrices."""

  body: Body
  pelvis: Float[Array, "t 3"]
  lower_turn: Float[Array, "t 3 3"]
  waist: Float[Array, "t 3"]
  chest_turn: Float[Array, "t 3 3"]
  neck_base: Float[Array, "t 3"]
  head_turn: Float[Array, "t 3 3"]
  head: Float[Array, "t 3"]
  shoulders: Float[Array, "t 2 3"]
  hips: Float[Array, "t 2 3"]
  knees: Float[Array, "t 2 3"]
  ankles: Float[Array, "t 2 3"]
  balls: Float[Array, "t 2 3"]


@dataclasses.dataclass
class Arm:
  """One arm with its hand; fingers are (knuckle, middle joint, tip), thumb first."""

  elbow: Float[Array, "t 3"]
  wrist: Float[Array, "t 3"]
  palm: Float[Array, "t 3"]
  fingers: Float[Array, "t 5 3 3"]


def rotation(angles: Float[Array, "*t 3"]) -> Float[Array, "*t 3 3"]:
  """Matrices that roll, then pitch, then yaw."""
  (cp, cy, cr), (sp, sy, sr) = (np.moveaxis(f(angles), -1, 0) for f in (np.cos, np.sin))
  rows = [
    [cy * cr + sy * sp * sr, -cy * sr + sy * sp * cr, sy * cp],
    [cp * sr, cp * cr, -sp],
    [-sy * cr + cy * sp * sr, sy * sr + cy * sp * cr, cy * cp],
  ]
  return np.stack([np.stack(row, -1) for row in rows], -2)


def unit(vectors: Float[Array, "*t 3"]) -> Float[Array, "*t 3"]:
  """Vectors scaled to length one."""
  return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def apply(turn: Float[Array, "*t 3 3"], point: Float[Array, "*p 3"]) -> Float[Array, "*t 3"]:
  """A rotation, or one per frame, applied to a point, or one per frame."""
  return np.einsum("...ij,...j->...i", turn, np.asarray(point, float))


def bend(
  root: Float[Array, "t 3"],
  end: Float[Array, "t 3"],
  first: float,
  second: float,
  pole: Float[Array, "t 3"],
) -> tuple[Float[Array, "t 3"], Float[Array, "t 3"]]:
  """Two-bone inverse kinematics.

  Returns:
    The middle joint, bent towards `pole`, and the end, moved towards the root if out of reach.
  """
  span = end - root
  distance = np.linalg.norm(span, axis=-1, keepdims=True)
  along = span / np.maximum(distance, 1e-9)
  distance = np.clip(distance, abs(first - second) + 0.02, 0.995 * (first + second))
  projection = (distance**2 + first**2 - second**2) / (2 * distance)
  height = np.sqrt(np.maximum(first**2 - projection**2, 0.0))
  across = unit(pole - along * np.sum(pole * along, -1, keepdims=True))
  return root + along * projection + across * height, root + along * distance


def trunk(body: Body, posture: Posture) -> Trunk:
  """Forward kinematics of pelvis, spine, head and shoulders; inverse kinematics of the legs."""
  lower_turn = rotation(posture.lower)
  waist = posture.pelvis + apply(lower_turn, [0, body.lower_spine, 0])
  chest_turn = lower_turn @ rotation(posture.upper)
  neck_base = waist + apply(chest_turn, [0, body.upper_spine, 0])
  neck_turn = chest_turn @ rotation(0.45 * posture.head)
  head_turn = chest_turn @ rotation(posture.head)
  pivot = neck_base + apply(neck_turn, [0, body.neck, 0.012])
  head = pivot + apply(head_turn, np.array([0, 0.095, 0.02]) * body.head)

  shoulders, hips, knees, ankles = [], [], [], []
  for side in (RIGHT, LEFT):
    offset = np.zeros_like(posture.pelvis)
    offset[:, 0] = SIGN[side] * body.shoulder
    offset[:, 1:] = posture.shrug[:, side] + np.array([-0.035, 0.0])
    shoulders.append(neck_base + apply(chest_turn, offset))
    hip = posture.pelvis + apply(lower_turn, [SIGN[side] * body.hip, 0, 0])
    pitch, yaw = posture.foot_pitch[:, side], SIGN[side] * posture.foot_yaw[:, side]
    back = -body.foot * 0.8 * np.cos(pitch)
    rise = 0.055 + body.foot * 0.8 * np.sin(pitch)
    ankle = posture.ball[:, side] + np.stack([np.sin(yaw) * back, rise, np.cos(yaw) * back], -1)
    outwards = SIGN[side] * posture.knee_out[:, side]
    pole = np.stack([outwards, np.ones_like(outwards), 0.7 * np.ones_like(outwards)], -1)
    knee, ankle = bend(hip, ankle, body.thigh, body.shin, pole)
    for joints, joint in ((hips, hip), (knees, knee), (ankles, ankle)):
      joints.append(joint)
  hips, knees, ankles, shoulders = (np.stack(x, 1) for x in (hips, knees, ankles, shoulders))
  return Trunk(
    body,
    posture.pelvis,
    lower_turn,
    waist,
    chest_turn,
    neck_base,
    head_turn,
    head,
    shoulders,
    hips,
    knees,
    ankles,
    posture.ball,
  )


def _hand_points(
  hand: HandPosture, side: int, size: float
) -> tuple[Float[Array, "t 5 3 3"], Float[Array, "3"]]:
  """Fingers and palm centre in the hand's frame: x away from the other hand, y along, z palm."""
  thumb = -SIGN[side]
  knuckles = np.stack([thumb * _KNUCKLE_X, _KNUCKLE_Y, np.zeros(5)], -1)
  splay = hand.spread[:, None] * np.array([0.0, 0.22, 0.05, -0.12, -0.3]) * thumb
  splay = splay + np.array([thumb * 0.75, 0, 0, 0, 0])
  joints = [np.broadcast_to(knuckles, (len(hand.curl), 5, 3))]
  for share, angle in ((0.55, 1.45), (0.45, 3.1)):
    bent = hand.curl * angle * np.array([0.35, 1, 1, 1, 1])
    sideways = splay * (1 - np.array([0.9, 0.5, 0.5, 0.5, 0.5]) * hand.curl)
    step = np.stack(
      [np.sin(sideways) * np.cos(bent), np.cos(sideways) * np.cos(bent), np.sin(bent)], -1
    )
    joints.append(joints[-1] + step * (share * _FINGER_LENGTH)[:, None])
  return np.stack(joints, 2) * size, np.array([0.0, 0.062, 0.014]) * size


def arm(body: Body, shoulder: Float[Array, "t 3"], hand: HandPosture, side: int) -> Arm:
  """Puts the hand's contact point on its target and bends the arm to it."""
  fingers, palm = _hand_points(hand, side, body.hand)
  along = unit(hand.fingers)
  facing = unit(hand.palm - along * np.sum(hand.palm * along, -1, keepdims=True))
  turn = np.stack([np.cross(along, facing), along, facing], -1)
  points = np.concatenate([np.broadcast_to(palm, (len(fingers), 1, 3)), fingers[:, :, 2]], 1)
  contact = np.einsum("tc,tcx->tx", hand.contact, points)
  elbow, wrist = bend(
    shoulder, hand.point - apply(turn, contact), body.upper_arm, body.forearm, hand.pole
  )
  fingers = wrist[:, None, None] + np.einsum("tij,tfkj->tfki", turn, fingers)
  return Arm(elbow, wrist, wrist + apply(turn, palm), fingers)


# Points of the head in units of its ellipsoid's radii.
HEAD_RADII = np.array([0.076, 0.118, 0.098])
HEAD_POINTS = {
  "nose": (0.0, -0.12, 1.12),
  "right eye": (-0.42, 0.16, 0.88),
  "left eye": (0.42, 0.16, 0.88),
  "right ear": (-1.0, 0.02, -0.05),
  "left ear": (1.0, 0.02, -0.05),
  "mouth": (0.0, -0.5, 0.92),
}


def head_points(figure: Trunk, points: Float[Array, "*n 3"]) -> Float[Array, "t *n 3"]:
  """Converts points in units of the head's radii to world coordinates."""
  points = np.asarray(points, float) * HEAD_RADII * figure.body.head
  return figure.head.reshape(-1, *(1,) * (points.ndim - 1), 3) + np.einsum(
    "tij,...j->t...i", figure.head_turn, points
  )


def openpose28(figure: Trunk, arms: tuple[Arm, Arm]) -> Float[Array, "t 28 3"]:
  """The 28 keypoints of MA-52: OpenPose-18, left fingertips, right fingertips."""
  names = ("nose", "right eye", "left eye", "right ear", "left ear")
  nose, *rest = np.moveaxis(head_points(figure, [HEAD_POINTS[n] for n in names]), 1, 0)
  joints = [nose, figure.shoulders.mean(1)]
  for side in (RIGHT, LEFT):
    joints += [figure.shoulders[:, side], arms[side].elbow, arms[side].wrist]
  for side in (RIGHT, LEFT):
    joints += [figure.hips[:, side], figure.knees[:, side], figure.ankles[:, side]]
  joints += rest
  for side in (LEFT, RIGHT):
    joints += list(np.moveaxis(arms[side].fingers[:, :, 2], 1, 0))
  return np.stack(joints, 1)

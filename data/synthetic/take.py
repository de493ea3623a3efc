"""One take of a seated figure: idle movements, the timing of movements, and reaching hands.

A motion receives a `Take`, changes its posture and directs its hands; `Take.perform` then computes
all joints. Coordinates given to `reach` are for the left hand: x is positive on the hand's own side
and is mirrored for the right hand.
"""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from . import skeleton
from .skeleton import LEFT, RIGHT, SIGN, Arm, Body, HandPosture, Posture, Trunk

Array = np.ndarray
FPS = 30
TO_HEAD = (0.03, 0.0, 0.12)  # the arc that keeps a hand clear of chest and chin
THIGH_RADIUS, SHIN_RADIUS, ARM_RADIUS = 0.075, 0.05, 0.038


@dataclasses.dataclass
class Reach:
  """A hand's movement to a target.

  Attributes:
    weight: 0 while the hand is at its previous position, 1 once it has arrived.
    frame: the part of the body whose frame `at`, `fingers` and `palm` refer to (see `_frame`).
    at: target of the contact point, fixed or one per frame.
    contact: the points of the hand whose mean goes there.
    fingers, palm: directions.
    curl: of all fingers, or of each.
    pole: direction of the elbow, in the frame of the chest.
    arc: how far the path bulges, in world axes (x mirrored).
  """

  weight: Float[Array, "t"]
  frame: str
  at: Float[Array, "*t 3"]
  contact: Sequence[str]
  fingers: Float[Array, "*t 3"]
  palm: Float[Array, "*t 3"]
  curl: Float[Array, "*t 5"]
  spread: float
  pole: Sequence[float]
  arc: Sequence[float]


@dataclasses.dataclass
class Performance:
  """All joints of a take, and the held object (`prop` is its kind, or empty)."""

  trunk: Trunk
  arms: tuple[Arm, Arm]
  keypoints: Float[Array, "t 28 3"]
  prop: str
  glasses: bool

  def outermost(self) -> Float[Array, "t n 3"]:
    """Points that enclose the whole drawn figure."""
    hair = self.trunk.head[:, None] + np.array([0, 0.17, 0])
    soles = self.trunk.balls * np.array([1, 0, 1]) + np.array([0, -0.02, 0.06])
    return np.concatenate([self.keypoints, hair, soles], 1)

  def excerpt(self, first: int, stop: int) -> "Performance":
    """Some frames of it, with the same object."""

    def cut(part: Trunk | Arm) -> Trunk | Arm:
      arrays = {name: value for name, value in vars(part).items() if isinstance(value, Array)}
      return dataclasses.replace(part, **{k: v[first:stop] for k, v in arrays.items()})

    right, left = self.arms
    return dataclasses.replace(
      self,
      trunk=cut(self.trunk),
      arms=(cut(right), cut(left)),
      keypoints=self.keypoints[first:stop],
    )


def ease(x: Float[Array, "t"]) -> Float[Array, "t"]:
  """From 0 to 1 with zero velocity and acceleration at both ends."""
  x = np.clip(x, 0.0, 1.0)
  return x**3 * (x * (6 * x - 15) + 10)


class Take:
  """A seated figure over time, initially idle.

  Attributes:
    posture: the joint angles and feet, changed in place by motions.
    side, other: the acting limb, drawn at random, and the opposite one.
    t: time of each frame in seconds.
    prop, glasses: the object in the hands; whether the motion requires glasses.
  """

  def __init__(self, body: Body, rng: np.random.Generator, num_frames: int) -> None:
    self.body, self.rng, self.num_frames = body, rng, num_frames
    self.t = np.arange(num_frames) / FPS
    self.seconds = num_frames / FPS
    self.side = int(rng.integers(2))
    self.other = 1 - self.side
    self.prop, self.glasses = "", False
    zeros = np.zeros((num_frames, 3))
    feet = np.zeros((num_frames, 2))
    width, forward = self.uniform(0.08, 0.14), self.uniform(0.50, 0.58)
    ball = np.zeros((num_frames, 2, 3))
    for side in (RIGHT, LEFT):
      ball[:, side] = (
        SIGN[side] * (width + self.uniform(0, 0.03)),
        0.02,
        forward + self.uniform(-0.03, 0.03),
      )
    self.posture = Posture(
      zeros + np.array([0, body.seat, 0]),
      zeros.copy(),
      zeros.copy(),
      zeros.copy(),
      np.zeros((num_frames, 2, 2)),
      ball,
      feet.copy(),
      feet + self.uniform(0.1, 0.4),
      feet + self.uniform(0.1, 0.35),
    )
    self.reaches: tuple[list[Reach], list[Reach]] = ([], [])
    self._idle()
    self._rest()

  # Random draws and timing.

  def uniform(self, low: float, high: float) -> float:
    """A random number between the two."""
    return float(self.rng.uniform(low, high))

  def degrees(self, low: float, high: float) -> float:
    """A random angle between the two (degrees), in radians."""
    return float(np.radians(self.rng.uniform(low, high)))

  def chance(self, probability: float) -> bool:
    """True with this probability."""
    return bool(self.rng.random() < probability)

  def sign(self) -> float:
    """-1 or 1, at random."""
    return 1.0 if self.chance(0.5) else -1.0

  def wander(self, size: float, hz: float = 0.5) -> Float[Array, "t"]:
    """A slow, smooth random walk of about this size."""
    rates = hz * self.rng.uniform(0.4, 1.6, 3)
    phases = self.rng.uniform(0, 2 * np.pi, 3)
    return size * np.sin(2 * np.pi * rates * self.t[:, None] + phases).sum(1) / np.sqrt(3)

  def once(self, low: float = 0.4, high: float = 0.8) -> Float[Array, "t"]:
    """Rises from 0 to 1 in a time between the two (seconds), then stays at 1."""
    duration = min(self.uniform(low, high), 0.7 * self.seconds)
    start = self.uniform(0.05, min(0.45, 0.9 * self.seconds - duration))
    return ease((self.t - start) / duration)

  def there_and_back(
    self, low: float = 0.4, high: float = 0.7, back: float = 0.35
  ) -> Float[Array, "t"]:
    """Like `once`, but returns to 0 before the end with probability `back`."""
    course = self.once(low, high)
    if self.chance(back):
      duration = self.uniform(low, high)
      end = self.seconds - self.uniform(0.0, 0.15)
      course = np.minimum(course, 1 - ease((self.t - end + duration) / duration))
    return course

  def swing(
    self, hz: tuple[float, float], after: Float[Array, "t"] | None = None
  ) -> Float[Array, "t"]:
    """A sine of this frequency between -1 and 1, starting when `after` is close to 1."""
    rate = self.uniform(*hz)
    if after is None:
      start = self.uniform(0.0, 0.25)
      envelope = ease((self.t - start) / 0.25)
    else:
      start = self.t[int(np.argmax(after > 0.7))] if after.max() > 0.7 else 0.0
      envelope = ease((after - 0.7) / 0.3)
    return np.sin(2 * np.pi * rate * (self.t - start)) * envelope

  def scratch(
    self,
    at: Sequence[float],
    course: Float[Array, "t"],
    along: Sequence[float],
    likely: float = 0.6,
    hz: tuple[float, float] = (2.0, 3.6),
  ) -> Float[Array, "t 3"]:
    """A point to touch: still, or (with probability `likely`) scratched `along` a direction."""
    to_and_fro = self.swing(hz, course) if self.chance(likely) else np.zeros(self.num_frames)
    return np.asarray(at) + to_and_fro[:, None] * np.asarray(along)

  # Hands.

  def reach(
    self,
    side: int,
    weight: Float[Array, "t"] | float,
    frame: str,
    at: Sequence[float] | Array,
    fingers: Sequence[float] | Array,
    palm: Sequence[float] | Array,
    contact: Sequence[str] = ("palm",),
    curl: float | Sequence[float] | Array = 0.15,
    spread: float = 0.3,
    pole: Sequence[float] = (0.7, -0.8, -0.35),
    arc: Sequence[float] = (0.0, 0.0, 0.06),
  ) -> None:
    """Adds a movement of one hand from its previous position to a target; see `Reach`."""
    weight = np.broadcast_to(np.asarray(weight, float), (self.num_frames,))
    curl = np.asarray(curl, float)
    curl = np.broadcast_to(
      curl[:, None] if curl.shape == (self.num_frames,) else curl, (self.num_frames, 5)
    )
    self.reaches[side].append(
      Reach(
        weight,
        frame,
        np.asarray(at, float),
        contact,
        np.asarray(fingers, float),
        np.asarray(palm, float),
        curl,
        spread,
        pole,
        arc,
      )
    )

  def rest(self, side: int, kind: str, weight: Float[Array, "t"] | float = 1.0) -> None:
    """Lays a hand on its own thigh or in the lap."""
    if kind == "thigh":
      at = np.array([self.uniform(-0.3, 0.3), self.uniform(0.5, 0.72), 1.12])
      at = at + self.wander(1.0, 0.4)[:, None] * (0.03, 0.008, 0)
      fingers, palm = (self.uniform(-0.6, 0.0), 1.0, -0.1), (0.0, -0.1, -1.0)
      self.reach(side, weight, "thigh", at, fingers, palm, curl=self.uniform(0.1, 0.3))
    else:
      at = (self.uniform(0.0, 0.04), 0.115 + 0.02 * side, self.uniform(0.17, 0.22))
      self.reach(
        side,
        weight,
        "hips",
        at,
        (-0.9, -0.25, 0.35),
        (-0.1, -0.7, -0.6),
        curl=self.uniform(0.15, 0.35),
      )

  def _rest(self) -> None:
    kinds = ("thigh", "thigh") if self.chance(0.65) else ("lap", "lap")
    if self.chance(0.12):
      kinds = ("thigh", "lap") if self.chance(0.5) else ("lap", "thigh")
    for side in (RIGHT, LEFT):
      self.rest(side, kinds[side])

  def _idle(self) -> None:
    posture, breath = self.posture, np.sin(2 * np.pi * (0.3 * self.t + self.uniform(0, 1)))
    posture.upper[:, 0] += np.radians(0.5) * breath + self.degrees(0, 7)
    posture.lower[:, 0] += self.degrees(-7, 2)
    posture.shrug[:, :, 0] += 0.003 * breath[:, None]
    for channel, size in ((posture.lower, 0.5), (posture.upper, 0.5), (posture.head, 1.1)):
      for axis in range(3):
        channel[:, axis] += self.wander(np.radians(size), 0.35)
    posture.head += np.radians(self.rng.normal(0, (3.0, 4.0, 2.0)))
    # Nobody sits perfectly still: the gaze shifts a little now and then, during any action.
    if self.chance(0.3):
      glance = np.radians(self.rng.normal(0, (3.0, 5.0, 1.5)))
      posture.head += self.once(0.4, 0.9)[:, None] * glance
    for side in (RIGHT, LEFT):
      posture.knee_out[:, side] += self.wander(0.015, 0.3)

  # Computing the joints.

  def _frame(
    self, name: str, side: int, trunk: Trunk, other_arm: Arm | None
  ) -> tuple[Float[Array, "t 3"], Float[Array, "t 3 3"], Array]:
    """Origin, axes (columns) and units of a frame of the body.

    chest (base of the neck, metres of an average body), hips (likewise), head (its centre, radii),
    thigh, shin, foot, forearm, upper arm (the upper end; x and z in radii, y in lengths; z is the
    outer or upper face). The prefix `other` selects the opposite limb.
    """
    body = self.body
    torso = (body.lower_spine + body.upper_spine) / 0.49
    if name == "chest":
      return trunk.neck_base, trunk.chest_turn, np.array([body.shoulder / 0.185, torso, body.girth])
    if name == "hips":
      return trunk.pelvis, trunk.lower_turn, np.array([body.girth, torso, body.girth])
    if name == "head":
      return trunk.head, trunk.head_turn, skeleton.HEAD_RADII * body.head
    limb = 1 - side if name.startswith("other ") else side
    name = name.removeprefix("other ")
    if name == "thigh":
      start, end, radius, face = trunk.hips, trunk.knees, THIGH_RADIUS * body.girth, (0, 1, 0.2)
    elif name == "shin":
      start, end, radius, face = trunk.knees, trunk.ankles, SHIN_RADIUS, (0, 0.2, 1)
    elif name == "foot":
      start, end, radius, face = trunk.ankles, trunk.balls, SHIN_RADIUS, (0, 1, 0.4)
    elif name in ("forearm", "upper arm"):
      if limb == side or other_arm is None:
        raise ValueError(f"a hand cannot reach for {name!r} of its own arm")
      elbow, wrist = other_arm.elbow[:, None], other_arm.wrist[:, None]
      shoulder = trunk.shoulders[:, limb][:, None]
      start, end = (elbow, wrist) if name == "forearm" else (shoulder, elbow)
      limb, radius, face = 0, ARM_RADIUS, (0, 0.3, 1)
    else:
      raise ValueError(f"unknown frame {name!r}")
    origin, span = start[:, limb], end[:, limb] - start[:, limb]
    along = skeleton.unit(span)
    outer = np.asarray(face, float) - along * (along @ np.asarray(face, float))[:, None]
    outer = skeleton.unit(outer)
    axes = np.stack([np.cross(outer, along), along, outer], -1)
    length = float(np.linalg.norm(span, axis=-1).mean())
    return origin, axes, np.array([radius, length, radius])

  def _hand(self, side: int, trunk: Trunk, other_arm: Arm | None) -> HandPosture:
    mirror = np.array([SIGN[side], 1.0, 1.0])
    shape = (self.num_frames, 3)
    state: list[Array] = []
    for reach in self.reaches[side]:
      origin, axes, units = self._frame(reach.frame, side, trunk, other_arm)
      contact = np.array([c in reach.contact for c in skeleton.CONTACTS], float)
      target = [
        origin + skeleton.apply(axes, reach.at * mirror * units),
        np.broadcast_to(contact / contact.sum(), (self.num_frames, 6)),
        np.broadcast_to(skeleton.unit(skeleton.apply(axes, reach.fingers * mirror)), shape),
        np.broadcast_to(skeleton.unit(skeleton.apply(axes, reach.palm * mirror)), shape),
        reach.curl,
        np.full((self.num_frames, 1), reach.spread),
        skeleton.apply(trunk.chest_turn, np.asarray(reach.pole) * mirror),
      ]
      if state:
        w = reach.weight[:, None]
        target = [(1 - w) * before + w * after for before, after in zip(state, target)]
        target[0] = target[0] + 4 * w * (1 - w) * np.asarray(reach.arc) * mirror
      state = target
    point, contact, fingers, palm, curl, spread, pole = state
    return HandPosture(point, contact, fingers, palm, curl, spread[:, 0], pole)

  def hands(self, trunk: Trunk) -> tuple[HandPosture, HandPosture]:
    """Where both hands are, given the trunk; first the one on which the other leans."""
    arms: list[Arm | None] = [None, None]
    hands: list[HandPosture | None] = [None, None]
    leans = [any("arm" in r.frame for r in self.reaches[side]) for side in (RIGHT, LEFT)]
    for side in sorted((RIGHT, LEFT), key=lambda side: leans[side]):
      hands[side] = self._hand(side, trunk, arms[1 - side])
      arms[side] = skeleton.arm(self.body, trunk.shoulders[:, side], hands[side], side)
    return tuple(hands)

  def perform(self) -> Performance:
    """Computes all joints."""
    trunk = skeleton.trunk(self.body, self.posture)
    return perform(trunk, self.hands(trunk), self.prop, self.glasses)

  def excerpt(self, first: int, stop: int, rng: np.random.Generator) -> "Take":
    """Some frames as a take of their own, with its own random draws and acting limb."""

    def cut(values: Array) -> Array:
      return values[first:stop] if values.ndim > 1 else values  # one for all frames

    def excerpt(reach: Reach) -> Reach:
      return dataclasses.replace(
        reach,
        weight=reach.weight[first:stop],
        at=cut(reach.at),
        fingers=cut(reach.fingers),
        palm=cut(reach.palm),
        curl=reach.curl[first:stop],
      )

    part = copy.copy(self)
    part.rng, part.num_frames = rng, stop - first
    part.t = np.arange(part.num_frames) / FPS
    part.seconds = part.num_frames / FPS
    part.side = int(rng.integers(2))
    part.other = 1 - part.side
    part.posture = Posture(
      *(getattr(self.posture, f.name)[first:stop].copy() for f in dataclasses.fields(Posture))
    )
    right, left = self.reaches
    part.reaches = [excerpt(reach) for reach in right], [excerpt(reach) for reach in left]
    return part


def perform(
  trunk: Trunk, hands: tuple[HandPosture, HandPosture], prop: str, glasses: bool
) -> Performance:
  """Computes all joints from the trunk and the hands."""
  arms = tuple(
    skeleton.arm(trunk.body, trunk.shoulders[:, side], hands[side], side) for side in (RIGHT, LEFT)
  )
  return Performance(trunk, arms, skeleton.openpose28(trunk, arms), prop, glasses)

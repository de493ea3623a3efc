"""Movements of body, head and legs (actions 0-10 and 24-31 of MA-52).

Each function performs one action on a `Take`, in a randomly drawn variant. Angles are small because
these are micro-actions. Docstrings note what distinguishes similar actions if it is not obvious.
"""

import numpy as np

from .skeleton import LEFT, PITCH, RIGHT, ROLL, SIGN, YAW
from .take import Take

# Body.


def shaking_body(take: Take) -> None:
  """Sways from side to side; the head stays roughly upright."""
  sway = take.degrees(5, 10) * take.sign() * take.swing((0.9, 1.7))
  take.posture.lower[:, ROLL] += sway
  take.posture.head[:, ROLL] -= 0.5 * sway
  take.posture.pelvis[:, 0] -= 0.1 * sway


def sitting_straightly(take: Take) -> None:
  """Straightens from a slump."""
  slump = 1 - take.once(0.5, 0.9)
  size = take.uniform(0.8, 1.2)
  take.posture.lower[:, PITCH] -= np.radians(11) * size * slump
  take.posture.upper[:, PITCH] += np.radians(32) * size * slump
  take.posture.head[:, PITCH] -= np.radians(10) * size * slump
  take.posture.pelvis[:, 2] += 0.05 * size * slump
  take.posture.shrug[:, :, 0] -= 0.02 * slump[:, None]


def shrugging(take: Take) -> None:
  """Shoulders move up or back and forth; nothing else moves."""
  times = 1 if take.chance(0.6) else 2
  length = take.uniform(0.7, 0.95) * min(take.seconds, 0.9 * times)
  start = take.uniform(0.05, take.seconds - length)
  lift = np.sin(np.pi * times * np.clip((take.t - start) / length, 0, 1)) ** 2
  forward = take.uniform(0.0, 0.02) if take.chance(0.7) else take.uniform(0.04, 0.06)
  take.posture.shrug[:, :, 0] += take.uniform(0.045, 0.07) * lift[:, None]
  take.posture.shrug[:, :, 1] += forward * lift[:, None]


def turning_around(take: Take) -> None:
  """The whole upper body changes its facing angle."""
  turn = take.sign() * take.degrees(28, 50) * take.there_and_back(0.6, 1.0, back=0.25)
  take.posture.lower[:, YAW] += 0.35 * turn
  take.posture.upper[:, YAW] += 0.65 * turn
  take.posture.head[:, YAW] += 0.15 * turn


def rising_up(take: Take) -> None:
  """Leans forward and lifts the hips, hands pushing on the thighs."""
  course = take.once(0.7, 1.1)
  lift = np.clip(course * 1.5 - 0.5, 0, 1)
  take.posture.lower[:, PITCH] += take.degrees(28, 42) * course
  take.posture.head[:, PITCH] -= take.degrees(10, 20) * course
  take.posture.pelvis[:, 1] += take.uniform(0.08, 0.16) * lift
  take.posture.pelvis[:, 2] += take.uniform(0.10, 0.16) * course
  take.posture.ball[:, :, 2] -= take.uniform(0.03, 0.1) * course[:, None]
  for side in (RIGHT, LEFT):
    take.rest(side, "thigh", course)


# Head.


def bowing_head(take: Take) -> None:
  """Lowered once; it usually stays down."""
  speed = (0.3, 0.5) if take.chance(0.5) else (0.7, 1.1)
  take.posture.head[:, PITCH] += take.degrees(20, 38) * take.there_and_back(*speed, back=0.2)


def head_up(take: Take) -> None:
  """Raised once, from level or from a bow."""
  speed = (0.3, 0.5) if take.chance(0.5) else (0.7, 1.1)
  course = take.there_and_back(*speed, back=0.15)
  amount = take.degrees(20, 36)
  take.posture.head[:, PITCH] += take.uniform(0.0, 0.7) * amount - amount * course


def tilting_head(take: Take) -> None:
  """Leans towards a shoulder."""
  tilt = take.sign() * take.degrees(14, 28) * take.there_and_back(0.35, 0.8)
  take.posture.head[:, ROLL] += tilt
  take.posture.upper[:, ROLL] += 0.08 * tilt


def turning_head(take: Take) -> None:
  """Turns aside once."""
  turn = take.sign() * take.degrees(26, 52) * take.there_and_back(0.3, 0.8, back=0.3)
  take.posture.head[:, YAW] += turn
  take.posture.upper[:, YAW] += 0.08 * turn


def nodding(take: Take) -> None:
  """Up and down below the level pose, repeated at least twice."""
  nod = take.swing((1.6, 2.6))
  take.posture.head[:, PITCH] += take.degrees(8, 15) * (nod + 0.4 * np.abs(nod))


def shaking_head(take: Take) -> None:
  """Left and right, repeated."""
  take.posture.head[:, YAW] += take.sign() * take.degrees(13, 26) * take.swing((1.3, 2.4))


# Legs.


def shaking_legs(take: Take) -> None:
  """The heel bounces, and the knee with it."""
  sides = (RIGHT, LEFT) if take.chance(0.2) else (take.side,)
  lift, rate = take.degrees(12, 20), take.uniform(3.0, 5.0)
  for side in sides:
    phase = take.uniform(0, 1)
    bounce = 0.5 - 0.5 * np.cos(2 * np.pi * (rate * take.t + phase))
    take.posture.foot_pitch[:, side] += np.radians(6) + lift * bounce


def _move_foot(
  take: Take, side: int, course: np.ndarray, to: tuple[float, float, float], lift: float
) -> None:
  """Moves the ball of a foot along a path (x outwards), lifted on the way."""
  way = np.array(to) * (SIGN[side], 1, 1)
  take.posture.ball[:, side] += course[:, None] * way
  take.posture.ball[:, side, 1] += 4 * lift * course * (1 - course)


def curling_legs(take: Take) -> None:
  """One leg is laid over the other: the foot ends in the air beyond the other knee."""
  course, side = take.once(0.7, 1.1), take.side
  target = np.array(
    [-SIGN[side] * take.uniform(0.16, 0.24), take.uniform(0.24, 0.32), take.uniform(0.62, 0.70)]
  )
  ball = take.posture.ball[:, side]
  _move_foot(take, side, course, tuple((target - ball[0]) * (SIGN[side], 1, 1)), 0.12)
  take.posture.knee_out[:, side] += course * take.uniform(-0.35, -0.15)
  take.posture.foot_pitch[:, side] += course * take.degrees(5, 30)
  take.posture.lower[:, PITCH] -= np.radians(5) * course


def _knees(take: Take, apart: np.ndarray) -> None:
  """Knees and feet `apart` (0 together, 1 wide), the same on both sides."""
  width, out = take.uniform(0.09, 0.15), take.uniform(0.45, 0.75)
  for side in (RIGHT, LEFT):
    _move_foot(take, side, apart, (width, 0, 0), 0)
    take.posture.knee_out[:, side] += out * apart - 0.1


def spread_legs(take: Take) -> None:
  """Knees move apart."""
  _knees(take, take.once(0.4, 0.9))


def closing_legs(take: Take) -> None:
  """Knees move together."""
  _knees(take, 1 - take.once(0.4, 0.9))


def crossing_legs(take: Take) -> None:
  """Shins cross near the floor, feet changing sides; sometimes they uncross again."""
  course = take.there_and_back(0.5, 0.8, back=0.3)
  for side, forward, lift in ((take.side, take.uniform(0.1, 0.18), 0.05), (take.other, -0.03, 0)):
    across = -take.posture.ball[0, side, 0] * SIGN[side] - take.uniform(0.06, 0.11)
    _move_foot(take, side, course, (across, 0.0, forward), lift)
    take.posture.knee_out[:, side] += course * take.uniform(0.15, 0.4)


def stretching_feet(take: Take, course: np.ndarray | None = None) -> None:
  """A foot slides forward or sideways, often with a lean."""
  course = take.once(0.5, 0.9) if course is None else course
  for side in (RIGHT, LEFT) if take.chance(0.25) else (take.side,):
    sideways = take.uniform(0.1, 0.18) if take.chance(0.35) else take.uniform(-0.02, 0.04)
    _move_foot(take, side, course, (sideways, 0.0, take.uniform(0.16, 0.24)), 0.015)
    take.posture.foot_pitch[:, side] -= np.radians(14) * course
  if take.chance(0.5):
    take.posture.lower[:, PITCH] -= take.degrees(3, 8) * course


def retracting_feet(take: Take) -> None:
  """A stretched foot is drawn back, or a foot moves from the floor to under the chair."""
  if take.chance(0.5):
    stretching_feet(take, 1 - take.once(0.5, 0.9))
    return
  course = take.once(0.5, 0.9)
  for side in (RIGHT, LEFT) if take.chance(0.25) else (take.side,):
    _move_foot(take, side, course, (take.uniform(-0.03, 0.02), 0, -take.uniform(0.16, 0.26)), 0.015)
    take.posture.foot_pitch[:, side] += take.degrees(10, 28) * course


def tiptoe(take: Take) -> None:
  """Heels lift or come down once, toes on the ground."""
  course = take.once(0.35, 0.8)
  if take.chance(0.3):
    course = 1 - course
  for side in (RIGHT, LEFT) if take.chance(0.5) else (take.side,):
    take.posture.foot_pitch[:, side] += take.degrees(28, 45) * course

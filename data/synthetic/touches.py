"""Hands touching the body and the legs (actions 32-37 and 48-51 of MA-52); see `motions`.

Targets on limbs are in radii and lengths, so that hands reach them on any body.
"""

import numpy as np

from .skeleton import LEFT, PITCH, RIGHT, ROLL, SIGN
from .take import TO_HEAD, Take

_TIPS = ("index", "middle", "ring")


def touching_neck(take: Take) -> None:
  """Side, nape or throat."""
  course = take.there_and_back()
  kind = int(take.rng.integers(3))
  at = [(0.06, 0.04, 0.035), (0.035, 0.045, -0.06), (0.015, 0.025, 0.085)][kind]
  fingers = [(-0.5, 0.75, -0.45), (-0.55, 0.35, -0.6), (-0.8, 0.55, -0.2)][kind]
  palm = [(-0.8, -0.2, -0.4), (-0.5, -0.2, 0.6), (0, -0.1, -1)][kind]
  at = take.scratch(at, course, (0, 0.022, 0.008))
  take.reach(
    take.side,
    course,
    "chest",
    at,
    fingers,
    palm,
    _TIPS,
    curl=0.25,
    pole=(1, -0.5, 0.1),
    arc=TO_HEAD,
  )
  take.posture.head[:, ROLL] += SIGN[take.other] * take.degrees(-2, 6) * course


def touching_chest(take: Take) -> None:
  """The flat hand lies on the chest."""
  course = take.there_and_back()
  at = (take.uniform(-0.08, 0.05), take.uniform(-0.2, -0.12), 0.145)
  at = take.scratch(at, course, (0.015, 0.03, 0))
  take.reach(
    take.side,
    course,
    "chest",
    at,
    (-1, 0.3, -0.05),
    (0, 0, -1),
    ("palm", *_TIPS),
    curl=0.1,
    pole=(0.9, -0.7, -0.1),
    arc=(0, 0, 0.1),
  )


def touching_back(take: Take) -> None:
  """Behind the waist, or over the same-side shoulder."""
  course = take.there_and_back(0.5, 0.8)
  if take.chance(0.6):
    at = take.scratch((0.04, take.uniform(0.14, 0.24), -0.13), course, (0.01, 0.03, 0))
    take.reach(
      take.side,
      course,
      "hips",
      at,
      (-1, 0.15, -0.1),
      (0, 0, 1),
      _TIPS,
      curl=0.25,
      pole=(1, 0, -0.9),
      arc=(0.28, 0.02, 0.02),
    )
  else:
    at = take.scratch((0.09, -0.06, -0.12), course, (0, 0.03, 0))
    take.reach(
      take.side,
      course,
      "chest",
      at,
      (-0.25, -0.8, -0.6),
      (0, -0.4, 1),
      _TIPS,
      curl=0.2,
      pole=(0.6, 1, 0.6),
      arc=(0.12, 0.1, 0.12),
    )
  take.posture.upper[:, PITCH] += np.radians(6) * course


def touching_shoulder(take: Take) -> None:
  """Usually the opposite shoulder, otherwise the same-side one."""
  course = take.there_and_back()
  if take.chance(0.7):
    at = take.scratch((-0.165, 0.015, 0.05), course, (0.025, 0.008, 0))
    take.reach(
      take.side,
      course,
      "chest",
      at,
      (-0.85, 0.35, -0.5),
      (-0.1, -0.7, -0.7),
      _TIPS,
      curl=0.25,
      pole=(0.5, -0.8, 0.6),
      arc=(0, 0, 0.14),
    )
  else:
    at = take.scratch((0.165, 0.03, 0.02), course, (0.02, 0, 0.02))
    take.reach(
      take.side,
      course,
      "chest",
      at,
      (-0.35, 0.1, -1),
      (-0.2, -1, 0),
      _TIPS,
      curl=0.2,
      pole=(1, -0.4, 0.4),
      arc=(0.1, 0, 0.12),
    )


def arms_akimbo(take: Take) -> None:
  """One or both hands on the hips, elbows out."""
  course = take.once(0.4, 0.8)
  for side in (RIGHT, LEFT) if take.chance(0.6) else (take.side,):
    take.reach(
      side,
      course,
      "hips",
      (0.165, take.uniform(0.1, 0.15), 0.02),
      (-0.35, -0.35, 0.85),
      (-1, 0, -0.3),
      curl=0.2,
      pole=(1, 0.05, -0.35),
      arc=(0.14, 0.03, 0.03),
    )


def crossing_arms(take: Take) -> None:
  """Forearms cross over the chest, one hand over and one under the other arm."""
  course = take.once(0.5, 0.9)
  height = take.uniform(-0.27, -0.21)
  for side, dy, dz in ((take.side, 0.035, 0.19), (take.other, -0.015, 0.13)):
    take.reach(
      side,
      course,
      "chest",
      (-0.15, height + dy, dz),
      (-1, 0.3 * (dy > 0), -0.25),
      (0, -0.2, -1),
      _TIPS,
      curl=0.2,
      pole=(0.75, -0.9, 0.2),
      arc=(0.03, 0, 0.12),
    )


def patting_legs(take: Take) -> None:
  """The flat hand pats the thigh repeatedly."""
  beat = np.abs(take.swing((0.9, 1.6)))
  for side in (RIGHT, LEFT) if take.chance(0.35) else (take.side,):
    at = np.zeros((take.num_frames, 3)) + (take.uniform(-0.3, 0.3), take.uniform(0.55, 0.75), 1.15)
    at[:, 2] += take.uniform(1.0, 1.7) * beat
    fingers = np.stack([-0.3 + 0 * beat, np.ones_like(beat), 0.5 * beat], -1)
    take.reach(side, 1.0, "thigh", at, fingers, (0, -0.1, -1), curl=0.08)


def touching_legs(take: Take) -> None:
  """A hand moves to the thigh and rests there, or strokes along it."""
  frame = "thigh" if take.chance(0.75) else "other thigh"
  side = take.side
  if take.chance(0.6):
    take.reach(
      side,
      1.0,
      "chest",
      (take.uniform(0.02, 0.16), take.uniform(-0.34, -0.2), 0.22),
      (-0.7, 0.3, 0.5),
      (-0.5, -0.6, -0.4),
      curl=0.25,
    )
    course = take.once(0.35, 0.7)
    stroke = 0.14 * take.swing((0.6, 1.1), course) * take.chance(0.5)
  else:
    course = take.once(0.3, 0.5)
    stroke = take.uniform(0.16, 0.22) * take.swing((0.5, 1.0))
  at = np.zeros((take.num_frames, 3)) + (take.uniform(-0.3, 0.4), take.uniform(0.55, 0.7), 1.15)
  at[:, 1] += stroke
  take.reach(
    side, course, frame, at, (-0.25, 1, -0.1), (0, -0.1, -1), curl=0.1, arc=(0, 0.05, 0.04)
  )


def scratching_legs(take: Take) -> None:
  """Bends down to scratch a shin or calf."""
  course = take.once(0.5, 0.8)
  lean = take.degrees(30, 42)
  take.posture.lower[:, PITCH] += lean * course
  take.posture.upper[:, PITCH] += 0.4 * lean * course
  take.posture.lower[:, ROLL] += SIGN[take.other] * np.radians(5) * course
  at = (take.uniform(-0.2, 0.8), take.uniform(0.25, 0.5), 1.1)
  at = take.scratch(at, course, (0, 0.09, 0), 1.0)
  take.reach(
    take.side,
    course,
    "shin",
    at,
    (-0.2, 1, -0.1),
    (0, 0, -1),
    _TIPS,
    curl=0.35,
    pole=(0.9, 0.2, 0.2),
    arc=(0.03, 0, 0.1),
  )


def scratching_feet(take: Take) -> None:
  """A foot rests on the other knee, and a hand scratches it."""
  side = take.side
  target = np.array([-SIGN[side] * take.uniform(0.12, 0.18), take.body.seat + 0.06, 0.47])
  take.posture.ball[:, side] = target + take.wander(0.004)[:, None]
  take.posture.foot_yaw[:, side] = np.radians(-75)
  take.posture.knee_out[:, side] = 2.5
  course = take.once(0.4, 0.7)
  take.posture.lower[:, PITCH] += take.degrees(12, 22) * course
  hand = take.other if take.chance(0.6) else side
  frame = "foot" if hand == side else "other foot"
  at = take.scratch((0.2, 0.6, 1.0), course, (0.2, 0.18, 0.1), 1.0)
  take.reach(
    hand,
    course,
    frame,
    at,
    (-0.3, 0.2, -0.9),
    (-0.3, -0.6, -0.5),
    _TIPS,
    curl=0.4,
    pole=(0.9, -0.3, 0),
    arc=(0, 0.05, 0.08),
  )

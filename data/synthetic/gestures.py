"""Gestures of arms and hands, and touching hands (actions 11-23 of MA-52); see `motions`."""

import numpy as np

from .skeleton import LEFT, PITCH, RIGHT, SIGN, YAW
from .take import Take


def scratching_arms(take: Take) -> None:
  """One hand scratches the other arm, which rests."""
  take.reach(
    take.other, 1.0, "chest", (0.13, -0.38, 0.2), (-0.75, 0.0, 0.65), (0, -1, 0.1), curl=0.25
  )
  frame, low, high = ("other forearm", 0.25, 0.7)
  if take.chance(0.4):
    frame, low, high = ("other upper arm", 0.45, 0.8)
  course = take.once(0.35, 0.6)
  at = np.zeros((take.num_frames, 3)) + (0, take.uniform(low, high), 1.2)
  at[:, 1] += 0.13 * take.swing((2.2, 3.8), course)
  take.reach(
    take.side,
    course,
    frame,
    at,
    (0.6, 0.5, -0.5),
    (0, 0, -1),
    ("index", "middle", "ring"),
    curl=0.4,
    pole=(0.5, -1, 0.3),
    arc=(0, 0.02, 0.1),
  )


def playing_objects(take: Take) -> None:
  """Both hands fiddle with an object that they hold throughout."""
  take.prop = ("phone", "pen", "cube", "paper")[int(take.rng.integers(4))]
  height, depth = take.uniform(-0.36, -0.28), take.uniform(0.24, 0.3)
  for side in (RIGHT, LEFT):
    at = np.stack(
      [
        0.045 + take.wander(0.018, 2.0),
        height + take.wander(0.025, 1.8),
        depth + take.wander(0.01, 1.5),
      ],
      -1,
    )
    curl = 0.45 + 0.25 * np.sin(2 * np.pi * (take.uniform(1, 2.2) * take.t + take.uniform(0, 1)))
    take.reach(
      side,
      1.0,
      "chest",
      at,
      (-0.55, 0.35, 0.75),
      (-0.8, 0.1, -0.5),
      ("thumb", "index"),
      curl=curl,
      pole=(0.8, -0.8, -0.2),
    )
  take.posture.head[:, PITCH] += take.degrees(5, 18)


def _before_chest(take: Take, height: float) -> None:
  """Both hands apart in front of the belly, the start of a two-handed movement."""
  apart = take.uniform(0.15, 0.24)
  for side in (RIGHT, LEFT):
    take.reach(
      side, 1.0, "chest", (apart, height - 0.04, 0.24), (-0.25, 0.3, 0.9), (-1, 0, 0), curl=0.2
    )


def putting_hands_together(take: Take) -> None:
  """Both hands approach until the palms meet, and stay there, fingers straight."""
  height = take.uniform(-0.32, -0.22)
  if take.chance(0.6):
    _before_chest(take, height)
  course = take.once(0.4, 0.8)
  upward = take.uniform(0.5, 1.2)
  for side in (RIGHT, LEFT):
    take.reach(
      side,
      course,
      "chest",
      (0.014, height, 0.25),
      (-0.05, upward, 0.7),
      (-1, 0, 0),
      curl=0.03,
      spread=0.1,
      arc=(0.1, 0.02, 0.06),
    )


def rubbing_hands(take: Take) -> None:
  """Palms slide on each other in opposite directions."""
  height = take.uniform(-0.36, -0.26)
  course = take.once(0.2, 0.35) if take.chance(0.5) else np.ones(take.num_frames)
  rub = take.uniform(0.035, 0.055) * take.swing((2.0, 3.4), course)
  for side in (RIGHT, LEFT):
    at = np.zeros((take.num_frames, 3)) + (0.016, height, 0.25)
    at[:, 1] += 0.6 * SIGN[side] * rub
    at[:, 2] += 0.8 * SIGN[side] * rub
    take.reach(
      side,
      course,
      "chest",
      at,
      (-0.25, 0.5, 0.8),
      (-1, 0.1 * SIGN[side], 0),
      curl=0.15,
      arc=(0.08, 0, 0.05),
    )


def pointing_oneself(take: Take) -> None:
  """The index finger, the others bent, points at the chest without lying flat on it."""
  at = np.zeros((take.num_frames, 3)) + (
    take.uniform(-0.06, 0.06),
    take.uniform(-0.2, -0.1),
    take.uniform(0.16, 0.19),
  )
  course = take.there_and_back(0.35, 0.6, back=0.4)
  at[:, 2] += 0.03 * take.swing((1.5, 2.5), course)
  take.reach(
    take.side,
    course,
    "chest",
    at,
    (-0.75, 0.1, -0.6),
    (-0.5, 0.1, 0.8),
    ("index",),
    curl=(0.5, 0.0, 0.85, 0.95, 0.95),
    pole=(0.8, -0.9, 0.2),
    arc=(0.04, 0, 0.1),
  )


def clenching_fist(take: Take) -> None:
  """Fingers bend into a fist and perhaps open again; the hand hardly moves."""
  close = take.there_and_back(0.3, 0.6, back=0.4)
  if take.chance(0.35):
    close = 0.5 + 0.5 * take.swing((0.9, 1.4))
  sides = (RIGHT, LEFT) if take.chance(0.3) else (take.side,)
  for side in sides:
    curl = 0.05 + take.uniform(0.8, 0.95) * close
    at = (take.uniform(0.02, 0.12), take.uniform(-0.36, -0.26), take.uniform(0.26, 0.34))
    up = take.uniform(0.2, 0.9)
    take.reach(side, 1.0, "chest", at, (-0.15, up, 0.6), (-0.5, 0.2, -0.9), curl=curl, spread=0.5)


def _extended(take: Take) -> tuple[tuple[float, float, float], tuple[float, ...]]:
  """The palm's position for a stretched arm (frame of the chest), and the arm's direction."""
  kind = int(take.rng.integers(3))
  direction = np.array([(0.35, -0.15, 0.9), (0.95, -0.15, 0.3), (0.5, 0.75, 0.35)][kind])
  direction += take.rng.normal(0, 0.08, 3)
  direction /= np.linalg.norm(direction)
  length = take.uniform(0.85, 0.98) * (take.body.upper_arm + take.body.forearm) + 0.06
  at = np.array([take.body.shoulder, -0.03, 0.0]) + direction * length
  return tuple(at), tuple(direction)


def stretching_arms(take: Take) -> None:
  """An arm is raised or extended, forward or sideways."""
  course = take.once(0.5, 0.9)
  for side in (RIGHT, LEFT) if take.chance(0.25) else (take.side,):
    at, direction = _extended(take)
    take.reach(
      side,
      course,
      "chest",
      at,
      direction,
      (-0.3, -1, 0.2),
      curl=0.1,
      spread=0.5,
      pole=(0.6, -0.9, -0.3),
      arc=(0.05, 0, 0.08),
    )


def retracting_arms(take: Take) -> None:
  """An extended arm is drawn back to the thigh or the belly."""
  course = take.once(0.5, 0.9)
  for side in (RIGHT, LEFT) if take.chance(0.25) else (take.side,):
    at, direction = _extended(take)
    take.reach(
      side,
      1.0,
      "chest",
      at,
      direction,
      (-0.3, -1, 0.2),
      curl=0.1,
      spread=0.5,
      pole=(0.6, -0.9, -0.3),
    )
    if take.chance(0.5):
      take.rest(side, "thigh", course)
    else:
      take.reach(
        side, course, "chest", (0.1, -0.3, 0.2), (-0.7, 0.1, 0.6), (-0.5, -0.6, -0.4), curl=0.3
      )


def waving(take: Take) -> None:
  """An open hand waves at shoulder height, often with a headshake."""
  course = take.once(0.3, 0.5)
  wave = take.swing((1.7, 2.8), course)
  at = np.zeros((take.num_frames, 3)) + (
    take.uniform(0.26, 0.36),
    take.uniform(-0.08, 0.1),
    take.uniform(0.16, 0.26),
  )
  at[:, 0] += take.uniform(0.05, 0.09) * wave
  fingers = np.stack([0.5 * wave, np.ones_like(wave), 0.15 + 0 * wave], -1)
  take.reach(
    take.side,
    course,
    "chest",
    at,
    fingers,
    (-0.1, 0, 1),
    curl=0.05,
    spread=0.7,
    pole=(0.5, -1, -0.1),
    arc=(0.05, 0, 0.1),
  )
  if take.chance(0.5):
    take.posture.head[:, YAW] += take.degrees(8, 16) * take.swing((1.3, 2.2), course)


def spreading_hands(take: Take) -> None:
  """Hands open outwards, palms up."""
  course = take.there_and_back(0.35, 0.6, back=0.3)
  for side in (take.side,) if take.chance(0.35) else (RIGHT, LEFT):
    at = (take.uniform(0.26, 0.36), take.uniform(-0.36, -0.26), take.uniform(0.26, 0.34))
    take.reach(
      side,
      course,
      "chest",
      at,
      (0.6, 0.05, 0.8),
      (0.05, 1, 0.25),
      curl=0.3 - 0.25 * course,
      spread=0.8,
      pole=(0.6, -1, -0.3),
    )


def hands_touching_fingers(take: Take) -> None:
  """Fingers of both hands, pointing at each other, go from free to interlaced."""
  height = take.uniform(-0.4, -0.3)
  if take.chance(0.5):
    _before_chest(take, height)
  course = take.once(0.5, 0.9)
  fumble = 0.12 * take.swing((1.2, 2.2), course)
  for side in (RIGHT, LEFT):
    curl = 0.08 + 0.42 * course + SIGN[side] * fumble
    at = np.zeros((take.num_frames, 3)) + (-0.025, height + 0.008 * SIGN[side], 0.24)
    at[:, 1] += 0.08 * SIGN[side] * fumble
    take.reach(
      side,
      course,
      "chest",
      at,
      (-0.9, 0.15, 0.35),
      (-0.2, 0.1 * SIGN[side], -1),
      ("index", "middle", "ring", "little"),
      curl=curl,
      spread=0.7,
      arc=(0.06, 0, 0.05),
    )


def other_finger_movements(take: Take) -> None:
  """Single fingers lift and bend, each with its own timing; the hand rests."""
  sides = (RIGHT, LEFT) if take.chance(0.5) else (take.side,)
  for side in sides:
    rate = take.uniform(1.4, 2.6)
    phase = np.arange(5) * take.uniform(0.1, 0.35) + take.uniform(0, 1)
    curl = 0.32 + 0.32 * np.sin(2 * np.pi * (rate * take.t[:, None] + phase))
    if take.chance(0.5):
      at = (take.uniform(-0.2, 0.2), take.uniform(0.55, 0.75), 1.35)
      take.reach(side, 1.0, "thigh", at, (-0.4, 1, 0.1), (0, -0.1, -1), curl=curl, spread=0.6)
    else:
      at = (take.uniform(0.03, 0.1), take.uniform(-0.38, -0.3), take.uniform(0.24, 0.3))
      take.reach(
        side, 1.0, "chest", at, (-0.6, 0.35, 0.7), (-0.3, -0.6, -0.7), curl=curl, spread=0.6
      )


def illustrative_gestures(take: Take) -> None:
  """An arm beats along with speech, the open hand moving in front of the body."""
  beats = take.swing((1.1, 2.0))
  for side in (RIGHT, LEFT) if take.chance(0.4) else (take.side,):
    at = np.stack(
      [
        take.uniform(0.12, 0.24) + take.wander(0.07, 0.8),
        take.uniform(-0.26, -0.14) + take.uniform(0.05, 0.09) * beats + take.wander(0.03, 0.8),
        take.uniform(0.26, 0.34) + take.wander(0.04, 0.8),
      ],
      -1,
    )
    fingers = np.stack([-0.3 + take.wander(0.3, 0.7), 0.5 + 0.4 * beats, 0.8 + 0 * beats], -1)
    curl = 0.25 + take.wander(0.12, 0.8)
    start = np.ones(take.num_frames) if take.chance(0.6) else take.once(0.25, 0.4)
    take.reach(side, start, "chest", at, fingers, (-0.8, 0.5, 0.1), curl=curl, spread=0.5)
  take.posture.head[:, PITCH] += np.radians(2.5) * beats

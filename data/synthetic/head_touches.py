"""Hands touching the head (actions 38-47 of MA-52); see `motions`.

Targets on the head are in radii of its ellipsoid, so that hands reach them on any body.
"""

import numpy as np

from .skeleton import LEFT, PITCH, RIGHT
from .take import TO_HEAD, Take

_TIPS = ("index", "middle", "ring")


def tidying_hair(take: Take) -> None:
  """The hand strokes or twirls hair at the side or the top of the head, always moving."""
  course = take.there_and_back(0.35, 0.6, back=0.2)
  if take.chance(0.5):
    at = take.scratch((0.95, 0.75, 0.15), course, (0.12, -0.25, -0.3), 1.0, (1.0, 2.2))
    fingers, palm = (-0.35, 0.9, -0.3), (-0.9, -0.3, 0)
  else:
    at = take.scratch((0.35, 1.12, 0.35), course, (0.15, 0.05, -0.35), 1.0, (1.0, 2.2))
    fingers, palm = (-0.6, 0.45, -0.7), (-0.2, -1, -0.3)
  take.reach(
    take.side,
    course,
    "head",
    at,
    fingers,
    palm,
    _TIPS,
    curl=0.3,
    spread=0.6,
    pole=(1, -0.35, 0.3),
    arc=(0.08, 0, 0.12),
  )


def touching_hindbrain(take: Take) -> None:
  """The hand goes behind the head."""
  course = take.there_and_back(0.4, 0.7)
  at = take.scratch((0.3, take.uniform(-0.1, 0.35), -1.1), course, (0.15, 0.15, 0))
  take.reach(
    take.side,
    course,
    "head",
    at,
    (-0.9, 0.25, -0.3),
    (-0.2, 0, 1),
    _TIPS,
    curl=0.2,
    pole=(1, 0.15, 0.15),
    arc=(0.22, 0, 0.1),
  )
  take.posture.head[:, PITCH] += take.degrees(2, 12) * course


def touching_forehead(take: Take) -> None:
  """Finger tips on the forehead."""
  course = take.there_and_back()
  at = take.scratch((take.uniform(0.05, 0.3), 0.62, 0.9), course, (0.16, 0.02, 0))
  take.reach(
    take.side,
    course,
    "head",
    at,
    (-0.6, 0.65, -0.2),
    (-0.2, -0.1, -1),
    _TIPS,
    curl=0.2,
    pole=(0.7, -1, 0.2),
    arc=TO_HEAD,
  )


def touching_face(take: Take) -> None:
  """The cheek, with flat fingers."""
  course = take.there_and_back()
  at = take.scratch((0.8, take.uniform(-0.6, -0.38), 0.62), course, (0.03, 0.12, 0))
  take.reach(
    take.side,
    course,
    "head",
    at,
    (-0.1, 1, -0.25),
    (-0.8, 0, -0.6),
    ("palm", "index", "middle"),
    curl=0.12,
    pole=(0.6, -1, 0.3),
    arc=TO_HEAD,
  )


def rubbing_eyes(take: Take) -> None:
  """A knuckle or two fingers rub an eye in small circles, with eyes closed."""
  course = take.there_and_back()
  rub = take.swing((2.0, 3.4), course)
  circle = np.stack([0.13 * rub, 0.08 * np.roll(rub, 3), 0 * rub], -1)
  both = take.chance(0.25)
  for side in (RIGHT, LEFT) if both else (take.side,):
    take.reach(
      side,
      course,
      "head",
      np.array([0.42, 0.18, 0.98]) + circle,
      (-0.75, 0.6, -0.45),
      (-0.4, -0.3, -0.9),
      ("index",),
      curl=(0.6, 0.42, 0.75, 0.85, 0.9),
      pole=(0.6, -1, 0.3),
      arc=TO_HEAD,
    )
  take.posture.head[:, PITCH] += take.degrees(3, 10) * course


def touching_nose(take: Take) -> None:
  """Index finger and thumb at the tip of the nose."""
  course = take.there_and_back()
  at = take.scratch((0.05, -0.2, 1.14), course, (0.07, 0.05, 0), 0.7)
  take.reach(
    take.side,
    course,
    "head",
    at,
    (-0.55, 0.75, -0.35),
    (-0.5, -0.2, -0.8),
    ("index", "thumb"),
    curl=(0.3, 0.2, 0.7, 0.8, 0.85),
    pole=(0.5, -1, 0.3),
    arc=TO_HEAD,
  )


def touching_ears(take: Take) -> None:
  """Thumb and index finger pull or rub an ear."""
  course = take.there_and_back()
  at = take.scratch((1.06, take.uniform(-0.12, 0.05), 0.0), course, (0.06, 0.13, 0))
  take.reach(
    take.side,
    course,
    "head",
    at,
    (-0.45, 0.75, -0.5),
    (-0.7, 0, -0.6),
    ("index", "thumb"),
    curl=(0.3, 0.35, 0.5, 0.55, 0.6),
    pole=(1, -0.6, 0.1),
    arc=(0.1, 0, 0.1),
  )


def covering_face(take: Take) -> None:
  """One or both open hands over eyes and cheeks; the mouth stays free."""
  course = take.there_and_back()
  both = take.chance(0.6)
  for side in (RIGHT, LEFT) if both else (take.side,):
    at = (0.4 if both else 0.1, take.uniform(0.0, 0.12), 1.1)
    fingers = (-0.2, 1, -0.1) if both else (-0.75, 0.7, -0.1)
    take.reach(
      side,
      course,
      "head",
      at,
      fingers,
      (0, 0, -1),
      ("palm", "middle"),
      curl=0.08,
      spread=0.4,
      pole=(0.6, -1, 0.2),
      arc=TO_HEAD,
    )
  take.posture.head[:, PITCH] += take.degrees(4, 16) * course


def covering_mouth(take: Take) -> None:
  """A hand lies across the mouth."""
  course = take.there_and_back()
  at = (0.05, -0.55, 1.08)
  take.reach(
    take.side,
    course,
    "head",
    at,
    (-0.95, 0.4, -0.15),
    (-0.1, 0, -1),
    ("palm", "middle"),
    curl=0.12,
    spread=0.1,
    pole=(0.45, -1, 0.3),
    arc=TO_HEAD,
  )
  take.posture.head[:, PITCH] += take.degrees(0, 7) * course


def pushing_glasses(take: Take) -> None:
  """A finger at the bridge, or finger and thumb at the temple, push once and withdraw."""
  take.glasses = True
  up = take.once(0.35, 0.5)
  leave = take.uniform(0.4, 0.55)
  end = take.seconds - take.uniform(0.0, 0.25)
  course = np.minimum(up, 1 - np.clip((take.t - end + leave) / leave, 0, 1) ** 2)
  push = 0.12 * np.clip((up - 0.8) / 0.2, 0, 1)
  if take.chance(0.6):
    at, fingers, contact = (0.02, 0.08, 1.08), (-0.35, 0.85, -0.45), ("index",)
    curl, palm = (0.5, 0.02, 0.8, 0.9, 0.9), (-0.4, -0.3, -0.85)
  else:
    at, fingers, contact = (0.88, 0.1, 0.5), (-0.35, 0.75, -0.3), ("index", "thumb")
    curl, palm = (0.2, 0.25, 0.6, 0.7, 0.7), (-0.8, -0.1, -0.6)
  at = np.asarray(at) + push[:, None] * np.array([0, 1, 0])
  take.reach(
    take.side,
    course,
    "head",
    at,
    fingers,
    palm,
    contact,
    curl=curl,
    pole=(0.6, -1, 0.2),
    arc=TO_HEAD,
  )

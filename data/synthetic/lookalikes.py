"""Performances that lie between two actions of one body part, and what a person calls them.

Such a performance has a position from 0, the one action, to 1, the other. Any position that is not
too near to either is as likely as any other, and whoever labels it names the nearer action, with
some doubt around the middle. So pairs of actions truly overlap, and some labels are wrong, mostly
where anybody would hesitate.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from . import gestures, head_touches, motions, touches
from .take import Take

Motion = Callable[[Take], None]

PAIRS = (
  (motions.shaking_body, motions.turning_around),
  (motions.sitting_straightly, motions.rising_up),
  (motions.sitting_straightly, motions.shrugging),
  (motions.bowing_head, motions.nodding),
  (motions.head_up, motions.nodding),
  (motions.tilting_head, motions.turning_head),
  (motions.turning_head, motions.shaking_head),
  (gestures.putting_hands_together, gestures.rubbing_hands),
  (gestures.rubbing_hands, gestures.hands_touching_fingers),
  (gestures.clenching_fist, gestures.other_finger_movements),
  (gestures.hands_touching_fingers, gestures.other_finger_movements),
  (gestures.stretching_arms, gestures.spreading_hands),
  (gestures.spreading_hands, gestures.illustrative_gestures),
  (gestures.waving, gestures.illustrative_gestures),
  (gestures.pointing_oneself, gestures.illustrative_gestures),
  (motions.shaking_legs, motions.tiptoe),
  (motions.stretching_feet, motions.tiptoe),
  (motions.spread_legs, motions.stretching_feet),
  (motions.closing_legs, motions.retracting_feet),
  (motions.curling_legs, motions.crossing_legs),
  (touches.touching_neck, touches.touching_shoulder),
  (touches.touching_neck, touches.touching_chest),
  (touches.touching_back, touches.arms_akimbo),
  (head_touches.tidying_hair, head_touches.touching_hindbrain),
  (head_touches.tidying_hair, head_touches.touching_ears),
  (head_touches.touching_forehead, head_touches.rubbing_eyes),
  (head_touches.touching_forehead, head_touches.covering_face),
  (head_touches.touching_face, head_touches.touching_nose),
  (head_touches.touching_face, head_touches.covering_mouth),
  (head_touches.touching_nose, head_touches.covering_mouth),
  (head_touches.touching_nose, head_touches.rubbing_eyes),
  (head_touches.rubbing_eyes, head_touches.pushing_glasses),
  (touches.patting_legs, touches.touching_legs),
  (touches.touching_legs, touches.scratching_legs),
  (touches.scratching_legs, touches.scratching_feet),
)
"""Motions of actions that have performances between them."""

NEAREST = 0.2
"""The least distance of a position to 0 and 1: with 0, a narrow baseline is right in 79 %."""

DOUBT = 0.06
"""The scale of a logistic function: at this distance from the middle, a person errs with 27 %."""


def siblings(motion: Motion) -> list[Motion]:
  """The motions that have performances in common with this one; none for a few actions."""
  return [other for pair in PAIRS if motion in pair for other in pair if other is not motion]


def draw_position(rng: np.random.Generator) -> float:
  """The position of a performance that a person gave the label of position 0.

  Mostly below 0.5; above it the label is wrong.
  """
  while True:
    position = rng.uniform(NEAREST, 1 - NEAREST)
    if rng.random() < 1 / (1 + np.exp((position - 0.5) / DOUBT)):
      return float(position)


def move_towards(take: Take, sibling: Take, position: float) -> None:
  """Moves a take to a position between itself (0) and a take of another action (1), in place.

  Both takes are of the same body and have the same idle movements.
  """
  for field in dataclasses.fields(take.posture):
    own, other = (getattr(one.posture, field.name) for one in (take, sibling))
    own += position * (other - own)
  for own, other in zip(take.reaches, sibling.reaches):
    # The first is where the hand rests, which both have in common. A hand that stays halfway would
    # keep the bulge of its path.
    own += [
      dataclasses.replace(reach, weight=position * reach.weight, arc=(0.0, 0.0, 0.0))
      for reach in other[1:]
    ]
  take.glasses |= sibling.glasses

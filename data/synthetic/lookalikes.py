"""Performances that lie between two actions of one body part, and what a person calls them.

Such a performance has a position from 0, the one action, to 1, the other. Any position is as likely
as any other, and whoever labels it names the nearer action, with some doubt around the middle. So
pairs of actions truly overlap, and some labels are wrong, mostly where anybody would hesitate.
"""

import dataclasses

import numpy as np

from .take import Take

PAIRS = (
  ("shaking_body", "turning_around"),
  ("sitting_straightly", "rising_up"),
  ("sitting_straightly", "shrugging"),
  ("bowing_head", "nodding"),
  ("head_up", "nodding"),
  ("tilting_head", "turning_head"),
  ("turning_head", "shaking_head"),
  ("putting_hands_together", "rubbing_hands"),
  ("rubbing_hands", "hands_touching_fingers"),
  ("clenching_fist", "other_finger_movements"),
  ("hands_touching_fingers", "other_finger_movements"),
  ("stretching_arms", "spreading_hands"),
  ("spreading_hands", "illustrative_gestures"),
  ("waving", "illustrative_gestures"),
  ("pointing_oneself", "illustrative_gestures"),
  ("shaking_legs", "tiptoe"),
  ("stretching_feet", "tiptoe"),
  ("spread_legs", "stretching_feet"),
  ("closing_legs", "retracting_feet"),
  ("curling_legs", "crossing_legs"),
  ("touching_neck", "touching_shoulder"),
  ("touching_neck", "touching_chest"),
  ("touching_back", "arms_akimbo"),
  ("tidying_hair", "touching_hindbrain"),
  ("tidying_hair", "touching_ears"),
  ("touching_forehead", "rubbing_eyes"),
  ("touching_forehead", "covering_face"),
  ("touching_face", "touching_nose"),
  ("touching_face", "covering_mouth"),
  ("touching_nose", "covering_mouth"),
  ("touching_nose", "rubbing_eyes"),
  ("rubbing_eyes", "pushing_glasses"),
  ("patting_legs", "touching_legs"),
  ("touching_legs", "scratching_legs"),
  ("scratching_legs", "scratching_feet"),
)
"""Actions, by the names of their motions, that have performances between them."""

DOUBT = 0.06
"""The scale of a logistic function: at this distance from the middle, a person errs with 27 %."""


def siblings(name: str) -> list[str]:
  """The actions that have performances in common with this one; none for a few actions."""
  return [other for pair in PAIRS if name in pair for other in pair if other != name]


def draw_position(rng: np.random.Generator) -> float:
  """The position of a performance that a person gave the label of position 0.

  Mostly below 0.5; above it the label is wrong.
  """
  while True:
    position = rng.random()
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

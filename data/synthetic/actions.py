"""The 52 actions of MA-52 in the order of their ids, each with a motion and its training count."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import gestures, head_touches, motions, touches
from .take import Take


class Action(NamedTuple):
  """A motion, and its number of training clips in MA-52."""

  perform: Callable[[Take], None]
  train_clips: int


ACTIONS = (
  Action(motions.shaking_body, 309),
  Action(motions.sitting_straightly, 150),
  Action(motions.shrugging, 20),
  Action(motions.turning_around, 9),
  Action(motions.rising_up, 156),
  Action(motions.bowing_head, 337),
  Action(motions.head_up, 242),
  Action(motions.tilting_head, 456),
  Action(motions.turning_head, 962),
  Action(motions.nodding, 1283),
  Action(motions.shaking_head, 1193),
  Action(gestures.scratching_arms, 227),
  Action(gestures.playing_objects, 112),
  Action(gestures.putting_hands_together, 95),
  Action(gestures.rubbing_hands, 42),
  Action(gestures.pointing_oneself, 82),
  Action(gestures.clenching_fist, 76),
  Action(gestures.stretching_arms, 355),
  Action(gestures.retracting_arms, 87),
  Action(gestures.waving, 277),
  Action(gestures.spreading_hands, 147),
  Action(gestures.hands_touching_fingers, 356),
  Action(gestures.other_finger_movements, 373),
  Action(gestures.illustrative_gestures, 397),
  Action(motions.shaking_legs, 238),
  Action(motions.curling_legs, 66),
  Action(motions.spread_legs, 92),
  Action(motions.closing_legs, 97),
  Action(motions.crossing_legs, 60),
  Action(motions.stretching_feet, 231),
  Action(motions.retracting_feet, 259),
  Action(motions.tiptoe, 398),
  Action(touches.touching_neck, 63),
  Action(touches.touching_chest, 82),
  Action(touches.touching_back, 53),
  Action(touches.touching_shoulder, 33),
  Action(touches.arms_akimbo, 43),
  Action(touches.crossing_arms, 43),
  Action(head_touches.tidying_hair, 89),
  Action(head_touches.touching_hindbrain, 82),
  Action(head_touches.touching_forehead, 58),
  Action(head_touches.touching_face, 126),
  Action(head_touches.rubbing_eyes, 66),
  Action(head_touches.touching_nose, 147),
  Action(head_touches.touching_ears, 52),
  Action(head_touches.covering_face, 6),
  Action(head_touches.covering_mouth, 25),
  Action(head_touches.pushing_glasses, 68),
  Action(touches.patting_legs, 421),
  Action(touches.touching_legs, 497),
  Action(touches.scratching_legs, 92),
  Action(touches.scratching_feet, 20),
)


def long_tail(total: int, least: int) -> np.ndarray:
  """The number of clips of each action in a split of `total` clips.

  Every action first gets `least` clips (or `total // 52`, if that is fewer); the rest is allocated
  in proportion to MA-52's training counts, by largest remainder, so that the sum is exact.
  """
  counts = np.array([action.train_clips for action in ACTIONS], float)
  least = min(least, total // len(ACTIONS))
  share = (total - least * len(ACTIONS)) * counts / counts.sum()
  clips = np.floor(share).astype(int)
  missing = total - least * len(ACTIONS) - clips.sum()
  clips[np.argsort(clips - share, kind="stable")[:missing]] += 1
  return clips + least

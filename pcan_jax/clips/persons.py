"""Which persons of a clip a network is shown."""

from types import ModuleType
from typing import Any

import numpy as np


def strongest_persons(
  keypoints: Any, scores: Any, max_persons: int, xp: ModuleType = np
) -> tuple[Any, Any]:
  """Exactly `max_persons` of any number of persons, those with the highest scores first.

  Args:
    keypoints: [M, T, V, 2].
    scores: [M, T, V]; persons are ranked by the sum, of equal ones the first comes first.
    max_persons: how many; where there are fewer, the rest has the score 0.
    xp: whose arrays these are: NumPy, or TensorFlow's `tensorflow.experimental.numpy`.

  Returns:
    Keypoints [T, max_persons, V, 2] and scores [T, max_persons, V].
  """
  # Persons added have the lowest sum and the last places, so they lose to all that are there.
  scores = xp.pad(scores, [(0, max_persons), (0, 0), (0, 0)], mode="constant")
  keypoints = xp.pad(keypoints, [(0, max_persons), (0, 0), (0, 0), (0, 0)], mode="constant")
  order = xp.argsort(-xp.sum(scores, axis=(1, 2)), kind="stable")[:max_persons]
  return (
    xp.swapaxes(xp.take(keypoints, order, axis=0), 0, 1),
    xp.swapaxes(xp.take(scores, order, axis=0), 0, 1),
  )

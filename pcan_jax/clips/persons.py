"""Selects the persons of a clip that the network sees."""

from types import ModuleType
from typing import Any

import numpy as np


def strongest_persons(
  keypoints: Any, scores: Any, max_persons: int, xp: ModuleType = np
) -> tuple[Any, Any]:
  """Selects exactly `max_persons` persons, those with the highest scores first.

  Args:
    keypoints: [M, T, V, 2].
    scores: [M, T, V]; persons are ranked by their sum, ties by their order.
    max_persons: number of persons; missing ones are added with score 0.
    xp: module of the arrays: `numpy` or `tensorflow.experimental.numpy`.

  Returns:
    Keypoints [T, max_persons, V, 2] and scores [T, max_persons, V].
  """
  # The padding has the lowest sum and comes last, so every given person is ranked before it.
  scores = xp.pad(scores, [(0, max_persons), (0, 0), (0, 0)], mode="constant")
  keypoints = xp.pad(keypoints, [(0, max_persons), (0, 0), (0, 0), (0, 0)], mode="constant")
  order = xp.argsort(-xp.sum(scores, axis=(1, 2)), kind="stable")[:max_persons]
  return (
    xp.swapaxes(xp.take(keypoints, order, axis=0), 0, 1),
    xp.swapaxes(xp.take(scores, order, axis=0), 0, 1),
  )

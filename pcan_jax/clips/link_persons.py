"""Links persons across frames, for pose estimators that process each frame on its own."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32

Persons = Float[np.ndarray, "_m _v 3"]
"""The M persons of one frame: (x, y, score) of V keypoints; M and V vary."""


def link_persons(
  frames: Mapping[int, Persons], num_frames: int, num_keypoints: int
) -> Float32[np.ndarray, "m t v 3"]:
  """Assigns every person a fixed slot along the M axis.

  Persons of consecutive frames are matched so that the sum of the mean distances between their
  keypoints is minimal. A person farther from every earlier one than their own size counts as a new
  person and gets an unused slot, if one is left.

  Args:
    frames: persons by frame, 0 to T - 1; frames that are missing have no persons.
    num_frames: T.
    num_keypoints: V.

  Returns:
    (x, y, score). M is the largest number of persons in one frame; a person who is not detected in
    a frame has zeros there.
  """
  from scipy.optimize import linear_sum_assignment  # slow to import and seldom needed

  places = max((len(frame) for frame in frames.values()), default=0)
  linked = np.zeros((places, num_frames, num_keypoints, 3), np.float32)
  last_seen: dict[int, Float[np.ndarray, "v 3"]] = {}
  for number in sorted(frames):
    persons = frames[number]
    costs = np.repeat(_sizes(persons)[:, None], places, axis=1)
    for place, before in last_seen.items():
      costs[:, place] = _distances(persons, before, otherwise=costs[:, place])
    for person, place in zip(*linear_sum_assignment(costs)):
      linked[place, number] = persons[person]
      last_seen[int(place)] = persons[person]
  return linked


def _sizes(persons: Persons) -> Float[np.ndarray, " m"]:
  """The longer side of the box around the keypoints of each person, in pixels."""
  seen = persons[..., 2:] > 0
  low = np.where(seen, persons[..., :2], np.inf).min(axis=1)
  high = np.where(seen, persons[..., :2], -np.inf).max(axis=1)
  return np.maximum(high - low, 0).max(axis=1)


def _distances(
  persons: Persons, before: Float[np.ndarray, "v 3"], otherwise: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
  """Mean distance of the keypoints detected in both, `otherwise` where there are none."""
  seen = (persons[..., 2] > 0) & (before[:, 2] > 0)
  distances = np.linalg.norm(persons[..., :2] - before[:, :2], axis=-1)
  counts = seen.sum(axis=1)
  return np.where(counts, (distances * seen).sum(axis=1) / np.maximum(counts, 1), otherwise)

"""Draws the validation split: the same share of the clips of every action."""

import collections
import random
from collections.abc import Sequence


def draw_split(
  actions: Sequence[int], persons: Sequence[str] | None, val_share: float, seed: int
) -> list[bool]:
  """Chooses the clips for validation.

  Args:
    actions: id of the action of every clip.
    persons: the person in every clip. No person is then in both parts: persons are added greedily,
      each time the one who brings the counts per action closest to the share, until nobody brings
      them closer. None draws single clips; every action with two or more clips gets at least one
      in each part, and one with a single clip none for validation.
    val_share: share of the clips for validation, between 0 and 1.
    seed: breaks ties.

  Returns:
    For every clip, whether it is for validation.

  Raises:
    ValueError: the share is not between 0 and 1, or there is one person alone.
  """
  if not 0 < val_share < 1:
    raise ValueError(f"the share for validation is {val_share}; choose one between 0 and 1")
  rng = random.Random(seed)
  if persons is None:
    return _draw_clips(actions, val_share, rng)
  people = _draw_people(actions, persons, val_share, rng)
  return [person in people for person in persons]


def _draw_clips(actions: Sequence[int], val_share: float, rng: random.Random) -> list[bool]:
  chosen = [False] * len(actions)
  for action in sorted(set(actions)):
    clips = [index for index, other in enumerate(actions) if other == action]
    count = min(max(round(val_share * len(clips)), 1), len(clips) - 1)
    for index in rng.sample(clips, count):
      chosen[index] = True
  return chosen


def _draw_people(
  actions: Sequence[int], persons: Sequence[str], val_share: float, rng: random.Random
) -> set[str]:
  clips_of: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
  for action, person in zip(actions, persons):
    clips_of[person][action] += 1
  if len(clips_of) < 2:
    raise ValueError("all clips show the same person; assign them in a column 'split'")
  missing = {action: val_share * count for action, count in collections.Counter(actions).items()}
  waiting = sorted(clips_of)
  rng.shuffle(waiting)
  people: set[str] = set()

  def distance_with(person: str) -> float:
    return sum((count - clips_of[person][action]) ** 2 for action, count in missing.items())

  while len(waiting) > 1:
    best = min(waiting, key=distance_with)
    if people and distance_with(best) >= sum(count**2 for count in missing.values()):
      break
    people.add(best)
    waiting.remove(best)
    for action, count in clips_of[best].items():
      missing[action] -= count
  return people

"""Draws clips for validation, of every action the same share."""

import collections
import random
from collections.abc import Sequence


def draw_split(
  actions: Sequence[int], persons: Sequence[str] | None, val_share: float, seed: int
) -> list[bool]:
  """Chooses the clips for validation.

  Args:
    actions: id of the action of every clip.
    persons: who is to be seen in every clip. Nobody is then in both parts: people are drawn one
      after the other, whoever brings the counts per action closest to the share, until nobody
      brings them closer. None draws clip by clip, and of every action with two clips or more at
      least one for each part.
    val_share: of the clips, between 0 and 1.
    seed: decides between equals.

  Returns:
    For every clip, whether it is for validation.

  Raises:
    ValueError: the share is not between 0 and 1, or there are not enough clips or people.
  """
  if not 0 < val_share < 1:
    raise ValueError(f"the share for validation is {val_share}; choose one between 0 and 1")
  rng = random.Random(seed)
  if persons is None:
    chosen = _draw_clips(actions, val_share, rng)
    if not any(chosen):
      raise ValueError("no action has two clips, so that none can be drawn for validation")
    return chosen
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
    raise ValueError("the clips show one person only; say in a column 'split' which go where")
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

"""Divides persons into folds of about as many clips each."""

import collections
from collections.abc import Sequence


def person_folds(persons: Sequence[str], max_folds: int) -> list[list[str]]:
  """The persons of every fold; the folds are as many as persons, or `max_folds`.

  Persons with the most clips are placed first, each where there are the fewest clips so far.

  Args:
    persons: who is in each clip.
    max_folds: at least 2.

  Raises:
    ValueError: there is only one person.
  """
  clips = collections.Counter(persons)
  if len(clips) < 2:
    raise ValueError("all clips show the same person; folds by person need two")
  folds: list[list[str]] = [[] for _ in range(min(max_folds, len(clips)))]
  counts = [0] * len(folds)
  for person in sorted(clips, key=lambda person: (-clips[person], person)):
    smallest = counts.index(min(counts))
    folds[smallest].append(person)
    counts[smallest] += clips[person]
  return [sorted(fold) for fold in folds]

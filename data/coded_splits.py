"""Draws the splits of clips that were cut out of coded recordings."""

import collections
from collections.abc import Sequence

from .draw_split import draw_split
from .stretches import Stretch

SPLIT_BY = ("person", "session", "clip")
"""What is not in both splits."""


def group_by(stretches: Sequence[Stretch], split_by: str | None) -> str:
  """By what clips are kept together in a split.

  Raises:
    ValueError: there are not two of what was asked for.
  """
  persons = {stretch.person for stretch in stretches}
  sessions = {stretch.session for stretch in stretches}
  if split_by is None:
    if "" not in persons and len(persons) > 1 and not shared_pictures(stretches):
      return "person"
    return "session" if len(sessions) > 1 else "clip"
  if split_by == "person" and "" in persons:
    raise ValueError(
      "--split_by=person: some codings name no subject (ELAN: the tier's participant; BORIS: the "
      "subject; CSV: the column 'subject'); name them, or give --split_by=session"
    )
  count = {"person": len(persons), "session": len(sessions), "clip": len(stretches)}[split_by]
  if count < 2:
    raise ValueError(f"--split_by={split_by}: there is only one {split_by}")
  return split_by


def shared_pictures(stretches: Sequence[Stretch]) -> list[str]:
  """Names of the sessions in which several people were coded."""
  people: dict[str, set[str]] = collections.defaultdict(set)
  for stretch in stretches:
    people[stretch.session] |= {stretch.person} - {""}
  return sorted(session for session, names in people.items() if len(names) > 1)


def draw_splits(
  stretches: Sequence[Stretch], split_by: str, val_share: float, seed: int
) -> tuple[list[str], list[str]]:
  """Draws the split of every stretch; returns it, and notes on it."""
  numbers = {action: index for index, action in enumerate(sorted({s.action for s in stretches}))}
  actions = [numbers[stretch.action] for stretch in stretches]
  groups = {
    "person": [stretch.person for stretch in stretches],
    "session": [stretch.session for stretch in stretches],
    "clip": None,
  }[split_by]
  chosen = draw_split(actions, groups, val_share, seed)
  if groups is None:
    chosen = _frames_together(stretches, chosen)
  note = (
    f"split drawn with seed {seed} by {split_by}, about {val_share:.0%} of every action for val"
  )
  if groups:
    names = sorted({name for name, is_val in zip(groups, chosen) if is_val})
    note += f"; in val: {', '.join(names)}"
  elif any(chosen):
    note += "; neighbouring clips of one recording are in both parts, which makes scores too high"
  else:
    note += "; no action has two clips, so nothing is in val"
  notes = [note]
  of_person: dict[str, set[bool]] = collections.defaultdict(set)
  sessions: dict[str, set[str]] = collections.defaultdict(set)
  for stretch, is_val in zip(stretches, chosen):
    of_person[stretch.person].add(is_val)
    sessions[stretch.person].add(stretch.session)
  shared = sorted(person for person, parts in of_person.items() if person and len(parts) > 1)
  if split_by == "person" and shared_pictures(stretches):
    notes.append(
      "several people were coded in one picture, which is then in train and val: "
      f"{', '.join(shared_pictures(stretches))}; give --split_by=session"
    )
  if shared:
    notes.append(f"people in train and val: {', '.join(shared)}")
  if split_by == "person":
    again = [f"{name} ({len(found)})" for name, found in sorted(sessions.items()) if len(found) > 1]
    if again:
      notes.append(
        f"taken for the same person in several sessions: {', '.join(again)}; if these are roles, "
        "give --split_by=session"
      )
  return ["val" if is_val else "train" for is_val in chosen], notes


def _frames_together(stretches: Sequence[Stretch], chosen: Sequence[bool]) -> list[bool]:
  """Stretches that share frames follow the first of them, so that no frame is in both splits."""
  together = list(chosen)
  first, stop = -1, 0
  for index in sorted(
    range(len(stretches)), key=lambda i: (stretches[i].session, stretches[i].first)
  ):
    stretch = stretches[index]
    if first >= 0 and stretch.session == stretches[first].session and stretch.first < stop:
      together[index] = together[first]
      stop = max(stop, stretch.stop)
    else:
      first, stop = index, stretch.stop
  return together

"""Which coded clips go to which split."""

import dataclasses

import numpy as np
import pytest

from data.coded_splits import draw_splits, group_by
from data.stretches import Stretch


def drawn(stretches, split_by=None):
  """What is kept together, the splits, and the notes of a draw."""
  split_by = group_by(stretches, split_by)
  return split_by, *draw_splits(stretches, split_by, 0.2, seed=0)


def test_splits_are_drawn_by_session_where_people_share_a_picture():
  stretches = [
    Stretch(f"talk {index}", first, first + 9, "head", action, person)
    for index in range(3)
    for first, action in ((0, "nod"), (10, "shake"), (20, "nod"))
    for person in ("mother", "child")
  ]
  split_by, splits, notes = drawn(stretches)
  sessions = {s: {x.session for x, y in zip(stretches, splits) if y == s} for s in ("train", "val")}
  assert split_by == "session" and len(sessions["val"]) == 1
  assert not sessions["val"] & sessions["train"]
  assert notes[1] == "people in train and val: child, mother"
  _, _, notes = drawn(stretches, "person")
  assert "several people were coded in one picture, which is then in train and val" in notes[1]
  assert notes[-1].endswith("child (3), mother (3); if these are roles, give --split_by=session")
  one_each = [dataclasses.replace(s, person=s.session) for s in stretches]
  assert drawn(one_each)[0] == "person"
  nobody = [dataclasses.replace(s, person="") for s in stretches]
  assert drawn(nobody)[0] == "session"
  with pytest.raises(ValueError, match="--split_by=person: some codings name no subject"):
    drawn(nobody, "person")
  with pytest.raises(ValueError, match="there is only one session"):
    drawn(stretches[:6], "session")


@pytest.mark.parametrize("seed", range(5))
def test_no_frame_is_in_two_splits_of_single_clips(seed):
  rng = np.random.default_rng(seed)
  stretches = []
  for _ in range(60):
    first = int(rng.integers(0, 500))
    length, action = int(rng.integers(1, 12)), "abc"[rng.integers(0, 3)]
    stretches.append(Stretch(f"talk {rng.integers(2)}", first, first + length, "head", action, ""))
  splits = draw_splits(stretches, "clip", 0.3, seed)[0]
  frames = {
    split: {
      (x.session, f)
      for x, y in zip(stretches, splits)
      if y == split
      for f in range(x.first, x.stop)
    }
    for split in ("train", "val")
  }
  assert frames["train"] and frames["val"] and not frames["train"] & frames["val"]

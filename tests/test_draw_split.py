import collections

import pytest

from data.draw_split import draw_split

ACTIONS = [0] * 20 + [1] * 10 + [2] * 2 + [3]


def test_of_every_action_the_same_share_is_drawn():
  chosen = draw_split(ACTIONS, None, 0.2, seed=0)
  counts = collections.Counter(action for action, is_chosen in zip(ACTIONS, chosen) if is_chosen)
  assert counts == {0: 4, 1: 2, 2: 1}  # one of two at least, and none of one


def test_the_seed_decides():
  assert draw_split(ACTIONS, None, 0.5, 1) == draw_split(ACTIONS, None, 0.5, 1)
  assert draw_split(ACTIONS, None, 0.5, 1) != draw_split(ACTIONS, None, 0.5, 2)


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_in_both_parts_and_the_actions_are_balanced(seed):
  # Ten people; two of them, p0 and p5, perform twice as many actions of one kind.
  clips = [(action, f"p{p}") for p in range(10) for action in (0, 1, 2)] + [(0, "p0"), (1, "p5")]
  actions, persons = zip(*clips)
  chosen = draw_split(actions, persons, 0.3, seed)
  people = {person for person, is_chosen in zip(persons, chosen) if is_chosen}
  assert len(people) == 3
  assert people.isdisjoint(p for p, is_chosen in zip(persons, chosen) if not is_chosen)


def test_rare_actions_decide_who_is_drawn():
  # Only a and b perform action 1; one of the two must be drawn, whatever the seed.
  clips = [(0, person) for person in "abcdef"] + [(1, "a"), (1, "b")]
  actions, persons = zip(*clips)
  for seed in range(10):
    chosen = draw_split(actions, persons, 0.5, seed)
    drawn = [persons[i] for i in range(len(clips)) if chosen[i] and actions[i] == 1]
    assert drawn in (["a"], ["b"])


def test_two_people_are_enough_and_one_is_not():
  assert sorted(draw_split([0, 0], ["a", "b"], 0.9, 0)) == [False, True]
  with pytest.raises(ValueError, match="the same person"):
    draw_split([0, 0], ["a", "a"], 0.5, 0)
  assert draw_split([0, 1], None, 0.5, 0) == [False, False]
  for share in (0.0, 1.0, -1.0):
    with pytest.raises(ValueError, match="choose one between 0 and 1"):
      draw_split([0, 0], None, share, 0)

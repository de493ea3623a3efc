"""Synthetic clips that lie between two actions of one body part."""

import collections
import dataclasses

import numpy as np
import pytest

from data.synthetic import actions, generate, lookalikes
from data.synthetic.take import Take
from pcan_jax.labels import get_tree

TREE = get_tree("ma52")
MOTIONS = [action.perform for action in actions.ACTIONS]


def take_of(motion, seed):
  take = Take(generate.figure_of(generate.Settings(), "train", 0).body, rng(seed), 50)
  motion(take)
  return take


def rng(seed):
  return np.random.default_rng(seed)


def test_pairs_are_siblings_and_most_actions_have_one():
  bodies = [[TREE.parents[MOTIONS.index(name)] for name in pair] for pair in lookalikes.PAIRS]
  assert all(first == second for first, second in bodies)
  assert len(set(map(frozenset, lookalikes.PAIRS))) == len(lookalikes.PAIRS)
  assert set(range(TREE.num_bodies)) == {first for first, _ in bodies}
  assert sum(bool(lookalikes.siblings(motion)) for motion in MOTIONS) > 45


def test_labels_are_mostly_right_and_doubtful_around_the_middle():
  random = rng(0)
  positions = np.array([lookalikes.draw_position(random) for _ in range(4000)])
  # The integral of the logistic function beyond the middle, of that over all positions.
  wrong = lookalikes.DOUBT * np.log(2) / (0.5 - lookalikes.NEAREST)
  assert (positions > 0.5).mean() == pytest.approx(wrong, abs=0.02)
  near, far = (np.abs(positions - 0.5) < width for width in (0.05, 0.25))
  assert (positions[near] > 0.5).mean() > 2 * (positions[far] > 0.5).mean()


@pytest.mark.parametrize(
  "pair", lookalikes.PAIRS, ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}"
)
def test_the_ends_are_the_actions_and_the_way_is_smooth(pair):
  motion, other = pair
  start = take_of(motion, 1).perform().keypoints
  halfway = []
  for position in (0.0, 0.5, 1.0):
    take = take_of(motion, 1)
    lookalikes.move_towards(take, take_of(other, 1), position)
    points = take.perform().keypoints
    assert np.isfinite(points).all()
    assert np.abs(np.diff(points, axis=0)).max() < 0.25
    halfway.append(np.abs(points - start).max())
  assert halfway[0] < 1e-6
  assert halfway[1] > 0.005
  assert halfway[2] > halfway[1]


def test_only_the_share_that_was_asked_for_lies_between():
  settings = dataclasses.replace(generate.PRESETS["lookalikes"], train=120)
  pure = dataclasses.replace(settings, between=0.0)
  moved = collections.Counter()
  for clip in generate.plan(settings, "train"):
    points, plain = (generate.perform(one, clip)[0].keypoints for one in (settings, pure))
    moved[bool(lookalikes.siblings(MOTIONS[clip.label])), not np.array_equal(points, plain)] += 1
  assert moved[False, True] == 0
  assert 0.65 < moved[True, True] / (moved[True, True] + moved[True, False]) < 0.95


def test_options_name_the_preset_and_keep_those_of_earlier_clips():
  assert generate.Settings().options == "--seed 0 --train 1200 --val 400 --height 180 --figures 90"
  assert generate.PRESETS["lookalikes"].options.endswith("--figures 240 --between 0.8")
  with pytest.raises(ValueError, match="share"):
    generate.Settings(between=1.5)

import numpy as np
import pytest
import tensorflow as tf

from pcan_jax.feed.epochs import ClassSampling, labelled_share, order_by_action, uniform_order

# A long tail with a gap: nobody performs action 2.
COUNTS = {0: 60, 1: 20, 3: 5, 4: 1}
ACTIONS = np.random.default_rng(0).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))


def epochs(order, count, seed=0):
  """Clips of the first epochs [count, clips]."""
  positions = tf.data.Dataset.range(count * order.num_clips)
  clips = list(positions.map(lambda position: order.clip_at(position, seed)).as_numpy_iterator())
  return np.array(clips).reshape(count, order.num_clips)


def uses(clips):
  return np.bincount(ACTIONS[clips.ravel()], minlength=5)


def test_uniform_takes_every_clip_once_per_epoch():
  order = uniform_order(86)
  clips = epochs(order, 3)
  np.testing.assert_array_equal(np.sort(clips, axis=1), np.tile(np.arange(86), (3, 1)))
  # Neither as stored nor twice the same: of 86 clips about one stays where it is.
  assert (clips[0] == np.arange(86)).sum() < 10
  assert (clips[0] == clips[1]).sum() < 10
  assert abs(np.corrcoef(clips[0], clips[1])[0, 1]) < 0.4


def test_class_balanced_takes_every_class_equally_often():
  order = order_by_action(ACTIONS, ClassSampling("class_balanced"))
  assert order.num_clips == 86
  clips = epochs(order, 3)
  assert sorted(uses(clips[0])) == [0, 21, 21, 22, 22]
  # Frequent classes: 3 * 22 draws show all 60 clips. Rare ones: all equally often, up to one.
  for action, count in COUNTS.items():
    of_class = np.bincount(clips.ravel(), minlength=86)[ACTIONS == action]
    assert of_class.max() - of_class.min() <= 1, count


def test_repeat_follows_the_formula_of_lvis():
  """r = max(1, sqrt(t / f)), by hand for t = 0.2."""
  order = order_by_action(ACTIONS, ClassSampling("repeat", 0.2))
  # f = 60/86, 20/86, 5/86, 1/86; r = 1, 1, 1.85472, 4.14729
  assert order.draws.tolist() == [60, 20, 9, 4]
  assert uses(epochs(order, 1)).tolist() == [60, 20, 0, 9, 4]
  assert order.num_clips == 93


def test_repeat_below_the_threshold_is_uniform():
  order = order_by_action(ACTIONS, ClassSampling("repeat", 0.0))
  np.testing.assert_array_equal(np.sort(epochs(order, 1)[0]), np.arange(86))


@pytest.mark.parametrize("name", ["class_balanced", "repeat"])
def test_order_depends_on_the_seed(name):
  order = order_by_action(ACTIONS, ClassSampling(name, 0.1))
  np.testing.assert_array_equal(epochs(order, 1), epochs(order, 1))
  assert not np.array_equal(epochs(order, 1), epochs(order, 1, seed=1))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_few_clips_are_all_taken(size):
  clips = epochs(uniform_order(size), 2)
  np.testing.assert_array_equal(np.sort(clips, axis=1), np.tile(np.arange(size), (2, 1)))


def test_bad_values_are_named():
  with pytest.raises(ValueError, match="data.sampling must be one of uniform.*not 'balanced'"):
    ClassSampling("balanced")
  with pytest.raises(ValueError, match="data.repeat_threshold must be 0 to 1, not 2"):
    ClassSampling("repeat", 2.0)


def test_few_labels_are_used_as_often_as_all_would_be():
  used = labelled_share(ACTIONS, 0.25)
  for action, count in zip(*np.unique(ACTIONS, return_counts=True)):
    assert np.sum(ACTIONS[used] == action) == max(round(0.25 * count), 1)
  order = uniform_order(len(used)).over(used, len(ACTIONS))
  clips = order.clips_between(0, order.num_clips, seed=0)
  assert set(clips) == set(used)
  assert abs(order.num_clips - len(ACTIONS)) < len(used)
  np.testing.assert_array_equal(labelled_share(ACTIONS, 1.0), np.arange(len(ACTIONS)))
  with pytest.raises(ValueError, match=r"data\.label_share must be above 0"):
    labelled_share(ACTIONS, 0.0)

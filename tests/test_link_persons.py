import numpy as np
import pytest

from pcan_jax.clips.link_persons import link_persons

V = 5


def walk(start, step, num_frames=8, seed=0):
  """A person, [T, V, 3], about 20 pixels large."""
  offsets = np.random.default_rng(seed).uniform(-10, 10, (V, 2))
  places = np.array(start) + np.outer(np.arange(num_frames), step)
  points = places[:, None] + offsets
  return np.concatenate([points, np.full((num_frames, V, 1), 0.5)], axis=-1)


LEFT, RIGHT = walk((30, 50), (1, 0)), walk((90, 50), (-1, 0.5), seed=1)


def test_people_keep_their_places_whatever_their_order():
  frames = {t: np.stack([LEFT[t], RIGHT[t]][:: -1 if t % 2 else 1]) for t in range(8)}
  np.testing.assert_allclose(link_persons(frames, 8, V), [LEFT, RIGHT], rtol=1e-6)


def test_somebody_who_is_hidden_for_a_while_comes_back_to_their_place():
  frames = {t: np.stack([LEFT[t], RIGHT[t]]) for t in range(8)}
  frames[3], frames[4] = RIGHT[3:4], RIGHT[4:5]
  del frames[6]
  linked = link_persons(frames, 8, V)
  np.testing.assert_array_equal((linked[..., 2] > 0).all(axis=2).astype(int), [
    [1, 1, 1, 0, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1, 0, 1]
  ])  # fmt: skip
  np.testing.assert_allclose(linked[1, :6], RIGHT[:6], rtol=1e-6)


def test_somebody_far_away_is_somebody_else():
  frames = {0: LEFT[:1], 1: RIGHT[1:2], 2: np.stack([RIGHT[2], LEFT[2]])}
  linked = link_persons(frames, 3, V)
  np.testing.assert_array_equal(linked[..., 0, 2] > 0, [[True, False, True], [False, True, True]])
  np.testing.assert_allclose(linked[1, 1:], RIGHT[1:3], rtol=1e-6)


def test_keypoints_that_are_not_seen_do_not_count():
  frames = {t: np.stack([LEFT[t], RIGHT[t]]) for t in range(3)}
  frames[1] = frames[1][::-1].copy()
  frames[1][:, 1:] = 0
  frames[2][0] = 0  # listed, but nothing of them is seen
  linked = link_persons(frames, 3, V)
  np.testing.assert_allclose(linked[:, 1, 0], [LEFT[1, 0], RIGHT[1, 0]], rtol=1e-6)
  np.testing.assert_allclose(linked[1, 2], RIGHT[2], rtol=1e-6)


@pytest.mark.parametrize("frames", [{}, {1: np.zeros((0, V, 3))}])
def test_nobody_is_an_empty_array(frames):
  assert link_persons(frames, 4, V).shape == (0, 4, V, 3)

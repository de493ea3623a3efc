import numpy as np
import pytest
import tensorflow as tf

from pcan_jax.clips import sampling
from pcan_jax.feed.sampling import training_clip

# A graph, as in the input pipeline, which is also faster than operation by operation.
in_graph = tf.function(training_clip)


def draw(num_frames, clip_len, seed=0):
  return in_graph(tf.constant(num_frames), clip_len, tf.constant([0, seed])).numpy()


@pytest.mark.parametrize("clip_len", [1, 8, 32])
def test_long_videos_give_one_frame_per_segment(clip_len):
  for num_frames in (2 * clip_len, 2 * clip_len + 1, 3 * clip_len - 1, 75 * clip_len):
    clip = draw(num_frames, clip_len, seed=num_frames)
    edges = [i * num_frames // clip_len for i in range(clip_len + 1)]
    assert clip.shape == (clip_len,)
    assert clip.dtype == np.int64
    for frame, low, high in zip(clip, edges, edges[1:]):
      assert low <= frame < high


def test_videos_shorter_than_two_clips_skip_single_frames():
  for num_frames in range(8, 16):
    clip = draw(num_frames, 8, seed=num_frames)
    assert set(np.diff(clip)) <= {1, 2}
    assert clip[0] in (0, 1)
    assert clip[-1] < num_frames


def test_videos_shorter_than_the_clip_are_repeated():
  starts = set()
  for seed in range(60):
    clip = draw(5, 8, seed)
    np.testing.assert_array_equal(np.diff(clip) % 5, 1)
    starts.add(int(clip[0]))
  assert starts == set(range(5))
  np.testing.assert_array_equal(draw(1, 8), 0)


@pytest.mark.parametrize("num_frames", [5, 12, 45])
def test_every_frame_can_be_drawn(num_frames):
  seen = {int(i) for seed in range(200) for i in draw(num_frames, 8, seed)}
  assert seen == set(range(num_frames))


def test_training_draws_differ_and_follow_their_seed():
  np.testing.assert_array_equal(draw(75, 32, 1), draw(75, 32, 1))
  assert (draw(75, 32, 1) != draw(75, 32, 2)).any()


def test_test_clips_ignore_and_keep_the_global_generator():
  np.random.seed(0)  # noqa: NPY002
  first = sampling.test_clips(75, 8, 10)
  after = np.random.random()  # noqa: NPY002
  np.random.seed(0)  # noqa: NPY002
  assert np.random.random() == after  # noqa: NPY002
  np.testing.assert_array_equal(first, sampling.test_clips(75, 8, 10))
  assert len({tuple(clip) for clip in first}) == 10


def test_first_test_clip_does_not_depend_on_their_number():
  for num_frames in (5, 12, 75):
    one = sampling.test_clips(num_frames, 8, 1)
    np.testing.assert_array_equal(one, sampling.test_clips(num_frames, 8, 10)[:1])


@pytest.mark.parametrize("num_frames, clip_len, num_clips", [(0, 8, 1), (9, 0, 1), (9, 8, 0)])
def test_impossible_requests_are_refused(num_frames, clip_len, num_clips):
  with pytest.raises(ValueError, match=r"frames|clip_len"):
    sampling.test_clips(num_frames, clip_len, num_clips)

import numpy as np
import pytest

from pcan_jax import sampling

GENERATORS = [np.random.default_rng, np.random.RandomState]


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("clip_len", [1, 8, 32])
def test_long_videos_give_one_frame_per_segment(generator, clip_len):
  rng = generator(0)
  for num_frames in range(2 * clip_len, 4 * clip_len + 3):
    clip = sampling.uniform_segments(num_frames, clip_len, rng)
    edges = [i * num_frames // clip_len for i in range(clip_len + 1)]
    assert clip.shape == (clip_len,)
    assert clip.dtype == np.int64
    for frame, low, high in zip(clip, edges, edges[1:]):
      assert low <= frame < high


@pytest.mark.parametrize("generator", GENERATORS)
def test_videos_shorter_than_two_clips_skip_single_frames(generator):
  rng = generator(0)
  for num_frames in range(8, 16):
    clip = sampling.uniform_segments(num_frames, 8, rng)
    assert set(np.diff(clip)) <= {1, 2}
    assert clip[0] in (0, 1)
    assert clip[-1] < num_frames


@pytest.mark.parametrize("generator", GENERATORS)
def test_videos_shorter_than_the_clip_are_repeated(generator):
  rng = generator(0)
  starts = set()
  for _ in range(100):
    clip = sampling.uniform_segments(5, 8, rng)
    np.testing.assert_array_equal(np.diff(clip) % 5, 1)
    starts.add(int(clip[0]))
  assert starts == set(range(5))
  np.testing.assert_array_equal(sampling.uniform_segments(1, 8, rng), 0)


@pytest.mark.parametrize("num_frames", [5, 12, 45])
def test_every_frame_can_be_drawn(num_frames):
  rng = np.random.default_rng(0)
  seen = {int(i) for _ in range(300) for i in sampling.uniform_segments(num_frames, 8, rng)}
  assert seen == set(range(num_frames))


def test_training_draws_differ_and_follow_their_seed():
  draws = [
    sampling.uniform_segments(75, 32, rng)
    for rng in (np.random.default_rng(1), np.random.default_rng(1), np.random.default_rng(2))
  ]
  np.testing.assert_array_equal(draws[0], draws[1])
  assert (draws[0] != draws[2]).any()


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


def test_training_from_no_frames_is_refused():
  with pytest.raises(ValueError, match="0 frames"):
    sampling.uniform_segments(0, 8, np.random.default_rng(0))

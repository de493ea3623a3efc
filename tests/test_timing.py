import numpy as np
import pytest

from pcan_jax.clips.timing import Clock, evenly_in_time, frame_rate, frame_times

MILLISECONDS = Clock((30.0,), 1e-3)


def test_rounded_timestamps_of_the_stated_rate_are_that_rate():
  stamps = (np.arange(40) / 30 + 7.5).round(3).tolist()
  times, wrong = frame_times(stamps, MILLISECONDS)
  np.testing.assert_array_equal(times, np.arange(41) / 30)
  assert not wrong and frame_rate(times) == 30


def test_timestamps_count_more_than_a_stated_rate():
  times, wrong = frame_times([0.0, 0.1, 0.2, 0.35], Clock((1000.0,), 1e-3))
  np.testing.assert_allclose(times, [0, 0.1, 0.2, 0.35, 0.5])
  assert not wrong and frame_rate(times) == 8


def test_one_missing_frame_shows():
  stamps = np.delete(np.arange(10) / 30, 4).round(3)
  times, _ = frame_times(stamps.tolist(), MILLISECONDS)
  np.testing.assert_allclose(times[:-1], stamps)


@pytest.mark.parametrize(
  ("stamps", "wrong"),
  [
    ([0.0, 0.1, None], ""),
    ([0.4], ""),
    ([0.0, 0.0, 0.0], "do not increase"),
    ([0.0, 0.2, 0.1], "do not increase"),
    ([0.0, 0.03, 90.0, 90.03], "jump by 90.0 s at frame 2"),
  ],
)
def test_timestamps_that_cannot_be_true_are_replaced_by_the_stated_rate(stamps, wrong):
  times, said = frame_times(stamps, MILLISECONDS)
  np.testing.assert_array_equal(times, np.arange(len(stamps) + 1) / 30)
  assert wrong in said and bool(wrong) == bool(said)


@pytest.mark.parametrize("count", [1, 2, 7, 75, 1001])
@pytest.mark.parametrize("rate", [12.5, 24000 / 1001, 30.0, 59.94])
def test_evenly_spaced_frames_stay_as_they_are(count, rate):
  times = np.arange(count + 1) / rate
  np.testing.assert_array_equal(evenly_in_time(times), np.arange(count))
  jitter = np.random.default_rng(0).uniform(-0.4, 0.4, count + 1) / rate
  jitter[[0, -1]] = 0
  np.testing.assert_array_equal(evenly_in_time(times + jitter), np.arange(count))


def test_frames_that_stand_long_are_repeated_and_quick_ones_left_out():
  np.testing.assert_array_equal(evenly_in_time(np.array([0.0, 1, 4, 4.5, 5])), [0, 1, 1, 2])
  times = np.append(0, np.cumsum(np.random.default_rng(1).exponential(1, 50)))
  order = evenly_in_time(times)
  middles = (np.arange(50) + 0.5) * times[-1] / 50
  assert (times[order] <= middles).all() and (middles < times[order + 1]).all()

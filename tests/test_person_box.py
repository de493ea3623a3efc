import numpy as np
import pytest

from pcan_jax.clips.person_box import crop_box, person_box

SHAPE = (100, 200)


def persons(*points):
  """Keypoints [1, 1, V, 2]."""
  return np.array(points, np.float32)[None, None]


def test_box_is_padded_and_squared():
  # 40 wide, 80 high, grown to 100 high about (50, 60), then square.
  assert person_box(persons((30, 20), (70, 100)), SHAPE) == (0, 10, 100, 110)


def test_box_may_leave_the_image_and_truncates_towards_zero():
  # Half of 80 * 1.25 is 50 about (45.5, 45.5): -4.5 becomes -4.
  assert person_box(persons((5.5, 5.5), (85.5, 85.5)), SHAPE) == (-4, -4, 95, 95)


def test_undetected_coordinates_do_not_count():
  box = person_box(persons((30, 20), (70, 100)), SHAPE)
  nan = np.nan
  assert person_box(persons((30, 20), (0, 0), (nan, nan), (70, 100)), SHAPE) == box
  # x and y stand for themselves, as in the release.
  assert person_box(persons((30, 0), (0, 20), (70, 100)), SHAPE) == box


@pytest.mark.parametrize("place", [(0, 0), (-1, -1), (180, 90), (np.nan, np.inf), (3e38, -3e38)])
@pytest.mark.parametrize("score", [0.0, -1.0])
def test_keypoints_without_a_score_do_not_count_wherever_they_lie(place, score):
  keypoints = persons((30, 20), place, (70, 100))
  scores = np.array([[[0.9, score, 0.1]]], np.float32)
  assert crop_box(keypoints, scores, SHAPE, "a") == (0, 10, 100, 110)


def test_all_persons_and_frames_count():
  keypoints = np.random.default_rng(0).uniform(10, 90, (2, 3, 4, 2))
  assert person_box(keypoints, SHAPE) == person_box(keypoints.reshape(1, 1, -1, 2), SHAPE)


@pytest.mark.parametrize(
  "keypoints",
  [
    persons((50, 20), (59.9, 90)),
    persons((20, 50), (90, 59.9)),
    persons((50, 50)),
    persons((0, 0), (0, 0)),
    persons((np.nan, np.nan)),
    np.zeros((0, 5, 28, 2)),
  ],
  ids=["narrow", "flat", "point", "nobody", "nan", "no person"],
)
def test_whole_image_without_a_proper_person(keypoints):
  assert person_box(keypoints, SHAPE) == (0, 0, 200, 100)


def test_ten_pixels_are_enough():
  assert person_box(persons((50, 20), (60, 90)), SHAPE) != (0, 0, 200, 100)


def test_half_precision_is_computed_in_single():
  keypoints = np.random.default_rng(0).uniform(500, 1500, (1, 9, 28, 2)).astype(np.float16)
  assert person_box(keypoints, SHAPE) == person_box(keypoints.astype(np.float32), SHAPE)


def test_infinite_keypoints_are_refused():
  with pytest.raises(ValueError, match="infinite"):
    person_box(persons((30, 20), (np.inf, 100)), SHAPE)

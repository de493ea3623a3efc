import numpy as np
import pytest

from pcan_jax.report.label_places import place_labels

AREA = np.array([[10.0, 20.0], [500.0, 480.0]])


def overlapping(places, sizes):
  """Pairs of boxes that intersect."""
  near = np.abs(places[:, None] - places) < (sizes[:, None] + sizes) / 2 - 1e-9
  return np.argwhere(np.triu(near.all(axis=-1), 1)).tolist()


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("widths", [(14, 24), (60, 290)], ids=["numbers", "names"])
@pytest.mark.parametrize("seed", range(4))
def test_no_two_labels_overlap_and_all_lie_within_the_area(spread, widths, seed):
  rng = np.random.default_rng(seed)
  number = 52 if widths[1] < 30 else 12
  corner = rng.uniform(0, 1 - spread, 2)
  points = AREA[0] + (corner + spread * rng.random((number, 2))) * (AREA[1] - AREA[0])
  sizes = np.stack([rng.uniform(*widths, number), np.full(number, 19.0)], axis=1)
  places = place_labels(points, sizes, AREA)
  assert not overlapping(places, sizes)
  assert (places - sizes / 2 >= AREA[0] - 1e-9).all()
  assert (places + sizes / 2 <= AREA[1] + 1e-9).all()
  np.testing.assert_array_equal(places, place_labels(points, sizes, AREA))


def test_labels_stay_on_their_points_where_they_can():
  points = np.array([[100.0, 100.0], [110.0, 104.0], [300.0, 300.0], [12.0, 300.0]])
  sizes = np.full((4, 2), 20.0)
  places = place_labels(points, sizes, AREA)
  np.testing.assert_allclose(places[2], points[2], atol=0.05)
  np.testing.assert_allclose(places[3], [20.0, 300.0], atol=0.05)  # within the area
  assert np.linalg.norm(places - points, axis=1).max() < 20
  assert places[0, 0] < points[0, 0] and places[1, 0] > points[1, 0]  # neighbours stay neighbours


def test_an_area_that_is_too_small_keeps_all_labels_in_it():
  points = np.full((9, 2), 50.0)
  sizes = np.tile([30.0, 20.0], (9, 1))
  places = place_labels(points, sizes, np.array([[0.0, 0.0], [60.0, 50.0]]))
  assert (places >= sizes / 2 - 1e-9).all() and (places <= [45.0, 40.0]).all()

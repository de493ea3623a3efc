"""Places for the labels of a map: near their points, and none on another one."""

import numpy as np
from jaxtyping import Bool, Float

_ROUNDS = 300
"""Times that labels push each other; 52 labels rarely need as many."""

_STEPS = 4
"""Places tried within the height of a label."""


def place_labels(
  points: Float[np.ndarray, "k 2"],
  sizes: Float[np.ndarray, "k 2"],
  area: Float[np.ndarray, "2 2"],
) -> Float[np.ndarray, "k 2"]:
  """Moves labels off each other.

  Labels that overlap push each other away, so that neighbours stay neighbours. What still overlaps
  then moves to the nearest free place, one after the other. A label that overlaps no other one
  stays on its point. The same input gives the same places.

  Args:
    points: what the labels are of.
    sizes: widths and heights of the labels, in the units of the points.
    area: its lower left and upper right corner; labels stay within it.

  Returns:
    The centres of the labels. Where the area is too small for all, some of them still overlap.
  """
  low = area[0] + sizes / 2
  high = np.maximum(low, area[1] - sizes / 2)
  places = _push_apart(points, sizes, low, high)
  settled = _touching(places[:, None], places, sizes[:, None] + sizes).sum(axis=1) == 1  # itself
  for label in np.flatnonzero(~settled):
    tried = _around(places[label], low[label], high[label], sizes[:, 1].min() / _STEPS)
    reach = sizes[label] + sizes[settled]
    free = ~_touching(tried[:, None], places[settled], reach).any(axis=1)
    if free.any():
      places[label] = tried[free.argmax()]
    settled[label] = True
  return places


def _push_apart(
  points: Float[np.ndarray, "k 2"],
  sizes: Float[np.ndarray, "k 2"],
  low: Float[np.ndarray, "k 2"],
  high: Float[np.ndarray, "k 2"],
) -> Float[np.ndarray, "k 2"]:
  """Moves overlapping boxes away from each other's centres until they only touch."""
  angles = np.arange(len(points)) * np.pi * (3 - 5**0.5)  # golden, so that all differ
  apart = 1e-3 * sizes.min() * np.stack([np.cos(angles), np.sin(angles)], axis=1)
  places = np.clip(points + apart, low, high)  # between equal points there is no direction
  reach = (sizes[:, None] + sizes) / 2
  for _ in range(_ROUNDS):
    way = places[:, None] - places
    depth = reach - np.abs(way)
    overlaps = (depth > 0).all(axis=-1) & ~np.eye(len(points), dtype=bool)
    if not overlaps.any():
      break
    # So much of the way from one centre to the other that the boxes only touch.
    longer = (depth / np.maximum(np.abs(way), 1e-9)).min(axis=-1) + 1e-3
    push = np.where(overlaps, longer, 0)[..., None] * way
    number = np.maximum(overlaps.sum(axis=1), 2)[:, None]
    places = np.clip(places + push.sum(axis=1) / number, low, high)
  return places


def _touching(
  one: Float[np.ndarray, "... 2"],
  other: Float[np.ndarray, "... 2"],
  sizes: Float[np.ndarray, "... 2"],
) -> Bool[np.ndarray, "..."]:
  """Whether boxes intersect, by their centres and the sum of their sizes."""
  near = np.abs(one - other) < sizes / 2
  return near[..., 0] & near[..., 1]


def _around(
  place: Float[np.ndarray, " 2"],
  low: Float[np.ndarray, " 2"],
  high: Float[np.ndarray, " 2"],
  step: float,
) -> Float[np.ndarray, "n 2"]:
  """The places of a lattice around one that lie between two corners, the nearest first."""
  x, y = (
    start + step * np.arange(np.ceil((a - start) / step), np.floor((b - start) / step) + 1)
    for start, a, b in zip(place, low, high)
  )
  lattice = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
  # Rounded, so that equal distances are equal whatever their last bits.
  far = np.round(np.linalg.norm(lattice - place, axis=1) / step, 6)
  return lattice[np.argsort(far, kind="stable")]

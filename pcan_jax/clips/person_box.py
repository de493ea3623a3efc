"""The square crop around the persons of a clip."""

import numpy as np
from jaxtyping import Float

PADDING = 0.25
"""Margin added to the tight box, as a fraction of its width and height."""

MIN_SIZE = 10
"""Pixels; a clip whose tight box is narrower or lower is not cropped."""

MAX_BOX_TO_FRAME = 8
"""A crop wider than this many frames means that the keypoints are not pixels of this video."""


def person_box(
  keypoints: Float[np.ndarray, "m t v 2"], img_shape: tuple[int, int]
) -> tuple[int, int, int, int]:
  """One square around all persons in all frames, as computed by MMAction2's MMCompact.

  The tight box of all keypoints, enlarged by `PADDING` and made square about its centre.
  Coordinates that are zero or NaN count as not detected, separately for x and y.

  Args:
    keypoints: (x, y) in pixels.
    img_shape: (h, w) of the image in pixels.

  Returns:
    (x0, y0, x1, y1) in pixels, end exclusive; it may lie partly outside the image. The whole image
    if the tight box is smaller than `MIN_SIZE` in either direction, or nobody is detected.

  Raises:
    ValueError: a keypoint is infinite.
  """
  keypoints = np.asarray(keypoints, dtype=np.float32)
  if np.isinf(keypoints).any():
    raise ValueError("a keypoint is infinite")
  height, width = img_shape
  whole_image = (0, 0, int(width), int(height))

  flat = np.nan_to_num(keypoints.reshape(-1, 2))
  detected = [axis[axis != 0] for axis in flat.T]
  if any(axis.size == 0 for axis in detected):
    return whole_image
  low = np.array([axis.min() for axis in detected])
  high = np.array([axis.max() for axis in detected])
  if (high - low < MIN_SIZE).any():
    return whole_image
  centre = (high + low) / 2
  half_side = ((high - low) / 2 * (1 + PADDING)).max()
  # int() truncates towards zero, also for negative values; the released models rely on it.
  x0, y0, x1, y1 = (int(edge) for edge in (*(centre - half_side), *(centre + half_side)))
  return x0, y0, x1, y1


def extent(keypoints: Float[np.ndarray, "m t v 2"]) -> tuple[int, int]:
  """(h, w) of the smallest frame that holds all keypoints, for poses of unknown frames."""
  flat = np.asarray(keypoints, np.float32).reshape(-1, 2)
  # Negative coordinates lie outside any frame; their distance only keeps `crop_box` content.
  width, height = (int(np.abs(axis).max(initial=0)) + 1 for axis in flat.T)
  return height, width


def crop_box(
  keypoints: Float[np.ndarray, "m t v 2"],
  scores: Float[np.ndarray, "m t v"],
  size: tuple[int, int],
  clip: str,
) -> tuple[int, int, int, int]:
  """The square around the persons of a clip, (x0, y0, x1, y1) in pixels, see `person_box`.

  Keypoints with a score of 0 or less do not count.

  Raises:
    ValueError: the keypoints cannot be pixels of frames of this size; the message names the clip.
  """
  keypoints = np.where((scores > 0)[..., None], keypoints, 0)
  if np.abs(keypoints).max(initial=0) > 2 * MAX_BOX_TO_FRAME * max(size):
    raise ValueError(
      f"{clip}: the keypoints lie far beyond the frame of {size[1]} x {size[0]}; "
      "they must be pixels of this video"
    )
  x0, y0, x1, y1 = (int(edge) for edge in person_box(keypoints, size))
  if max(x1 - x0, y1 - y0) > MAX_BOX_TO_FRAME * max(size):
    raise ValueError(
      f"{clip}: the keypoints span {x1 - x0} x {y1 - y0} pixels, far more than the frame "
      f"of {size[1]} x {size[0]}; they must be pixels of this video"
    )
  return x0, y0, x1, y1

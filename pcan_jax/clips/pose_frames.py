"""Shared by the readers of JSON files with one record per person and frame."""

import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from pcan_jax.clips.link_persons import Persons, link_persons
from pcan_jax.clips.pose import FRAME_COUNT_TOLERANCE, Pose
from pcan_jax.keypoints import KeypointLayout

MAX_PERSONS = 64
"""Limit for one frame."""

MAX_FRAMES = 1 << 20
"""Limit for a clip whose length no video tells; nine hours."""

MAX_FILE_BYTES = 1 << 28
"""Parsed JSON takes up to twenty times this size in memory."""

_MAX_NUMBER = 1e9


def read_json(path: pathlib.Path) -> Any:
  """Parses a file.

  Raises:
    ValueError: it is too large, or not JSON.
  """
  if path.stat().st_size > MAX_FILE_BYTES:
    raise ValueError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; split it by clips")
  try:
    return json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path}: not JSON, or damaged ({str(error)[:200]})") from error


def triples(values: Any, where: str) -> Float[np.ndarray, "n 3"]:
  """Parses a flat list x, y, score, x, y, score and so on; points with a score <= 0 become 0.

  Raises:
    ValueError: it is not such a list.
  """
  if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
    raise ValueError(f"{where} is missing, or not a list of numbers")
  if len(values) % 3:
    raise ValueError(f"{where} has {len(values)} numbers, not x, y, score for every keypoint")
  points = zip(values[::3], values[1::3], values[2::3])
  points = [(0, 0, 0) if point[2] <= 0 else point for point in points]
  # JSON integers are unbounded.
  if not all(-_MAX_NUMBER < number < _MAX_NUMBER for point in points for number in point):
    raise ValueError(f"{where} holds NaN, infinity, or a number too large for a pixel")
  return np.array(points, np.float64).reshape(-1, 3)


def first_frame(
  numbers: Collection[int], num_frames: int | None, where: str, *, as_alphapose: bool = False
) -> int:
  """The number of the first frame of a clip, 0 or 1.

  Args:
    numbers: of the frames in the file.
    num_frames: of the video; None if there is none, and numbers without a 0 count from 1.
    where: file and clip, for error messages.
    as_alphapose: assume 0 if the numbers leave it open.

  Raises:
    ValueError: it is not clear.
  """
  if not numbers or min(numbers) == 0:
    return 0
  if max(numbers) == num_frames:
    return 1
  if as_alphapose:
    return 0
  if num_frames is None:
    return 1
  raise ValueError(
    f"{where}: the frame numbers run from {min(numbers)} to {max(numbers)}, and its video has "
    f"{num_frames} frames: neither 0 nor {num_frames} occurs, so it is not clear whether "
    "they count from 0 or 1. Estimate the poses of this video again, or list every frame"
  )


def link_frames(
  frames: Mapping[int, Persons],
  num_frames: int | None,
  layout: KeypointLayout,
  img_shape: tuple[int, int] | None,
  where: str,
) -> Pose:
  """Links the persons of all frames, 0 to T - 1, into one array; without a T, to the last frame.

  Raises:
    ValueError: there are more frames than in the video, or far more than a file can mean.
  """
  if num_frames is None:
    num_frames = max(frames, default=-1) + 1
    if num_frames > MAX_FRAMES:
      raise ValueError(
        f"{where}: its frames are numbered up to {num_frames - 1}; number them from 0"
      )
  if max(frames, default=0) >= num_frames + FRAME_COUNT_TOLERANCE:
    raise ValueError(
      f"{where} has a pose for frame {max(frames)}, but its video has {num_frames} frames, "
      "the first is 0; estimate the poses again from this video"
    )
  within = {number: frame for number, frame in frames.items() if number < num_frames}
  points = link_persons(within, num_frames, layout.num_keypoints)
  return Pose(points[..., :2], points[..., 2], img_shape, where)

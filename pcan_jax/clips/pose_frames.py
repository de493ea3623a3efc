"""What readers of poses have in common that come frame by frame, in JSON files."""

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
"""In one frame."""

MAX_FILE_BYTES = 1 << 28
"""JSON takes up to twenty times its size in memory."""

_MAX_NUMBER = 1e9


def read_json(path: pathlib.Path) -> Any:
  """The content of a file.

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
  """A flat list x, y, score, x, y, score and so on; points with a score of 0 or less become 0.

  Raises:
    ValueError: it is something else.
  """
  if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
    raise ValueError(f"{where} is missing, or not a list of numbers")
  if len(values) % 3:
    raise ValueError(f"{where} has {len(values)} numbers, not x, y, score for every keypoint")
  points = zip(values[::3], values[1::3], values[2::3])
  points = [(0, 0, 0) if point[2] <= 0 else point for point in points]
  # Integers of JSON have no bounds.
  if not all(-_MAX_NUMBER < number < _MAX_NUMBER for point in points for number in point):
    raise ValueError(f"{where} holds NaN, infinity, or a number that is no pixel")
  return np.array(points, np.float64).reshape(-1, 3)


def first_frame(
  numbers: Collection[int], num_frames: int, where: str, *, as_alphapose: bool = False
) -> int:
  """The number, 0 or 1, with which the frames of a clip begin.

  Args:
    numbers: of the frames that a file has.
    num_frames: of the video.
    where: names the file and the clip in errors.
    as_alphapose: whether they count from 0 where the numbers do not tell.

  Raises:
    ValueError: it cannot be told.
  """
  if not numbers or min(numbers) == 0:
    return 0
  if max(numbers) == num_frames:
    return 1
  if as_alphapose:
    return 0
  raise ValueError(
    f"{where}: the frame numbers run from {min(numbers)} to {max(numbers)}, and its video has "
    f"{num_frames} frames: neither 0 nor {num_frames} is there, so that it cannot be told "
    "whether they count from 0 or 1. Estimate the poses of this video again, or list every frame"
  )


def link_frames(
  frames: Mapping[int, Persons],
  num_frames: int,
  layout: KeypointLayout,
  img_shape: tuple[int, int] | None,
  where: str,
) -> Pose:
  """Persons by frame, 0 to T - 1, as one array.

  Raises:
    ValueError: there are frames that the video does not have, or too many persons in one.
  """
  if max(frames, default=0) >= num_frames + FRAME_COUNT_TOLERANCE:
    raise ValueError(
      f"{where} has a pose for frame {max(frames)}, but its video has {num_frames} frames, "
      "the first is 0; estimate the poses again from this video"
    )
  within = {number: frame for number, frame in frames.items() if number < num_frames}
  points = link_persons(within, num_frames, layout.num_keypoints)
  return Pose(points[..., :2], points[..., 2], img_shape, where)

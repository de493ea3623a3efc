"""The pose of one clip as stored in a file, and the validation of its arrays."""

import dataclasses
from typing import Any

import numpy as np

from pcan_jax.keypoints import KeypointLayout

FRAME_COUNT_TOLERANCE = 1
"""Number of frames by which video and poses may differ; the longer one is cut at its end."""


@dataclasses.dataclass(frozen=True)
class Pose:
  """The pose of one clip as stored in a file.

  Attributes:
    keypoints: [M, T, V, 2], (x, y) in pixels; `check` confirms it.
    scores: [M, T, V]; `check` confirms it.
    img_shape: (h, w) in pixels of the frames used for pose estimation, if the file says so.
    where: file and clip, for error messages.
    names: names of keypoints and scores in the file.
  """

  keypoints: Any
  scores: Any
  img_shape: tuple[int, int] | None
  where: str
  names: tuple[str, str] = ("keypoints", "scores")

  def check(self, layout: KeypointLayout) -> None:
    """Checks that both are arrays of finite numbers with the documented shapes.

    Raises:
      ValueError: they are not, or do not have the keypoints of the layout.
    """
    arrays = dict(zip(self.names, (self.keypoints, self.scores)))
    for name, array in arrays.items():
      if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"{self.where}: {name!r} is missing, or not an array of numbers")
    name, scores_name = self.names
    shape = self.keypoints.shape
    if len(shape) != 4 or shape[2:] != (layout.num_keypoints, 2):
      raise ValueError(
        f"{self.where}: {name!r} has the shape {list(shape)}, expected "
        f"[M, T, {layout.num_keypoints}, 2] for the layout {layout.name}"
      )
    if self.scores.shape != shape[:3]:
      raise ValueError(
        f"{self.where}: {scores_name!r} has the shape {list(self.scores.shape)}, expected "
        f"{list(shape[:3])} as {name!r}"
      )
    for name, array in arrays.items():
      with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32))
      if not finite.all():
        frame = np.argwhere(~finite)[0][1]
        raise ValueError(
          f"{self.where}: {name!r} holds NaN or infinity in frame {frame}; write 0 with score 0 "
          "for keypoints that were not detected"
        )

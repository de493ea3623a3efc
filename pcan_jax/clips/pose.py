"""The pose of one clip as a file has it, and what must be true of its arrays."""

import dataclasses
from typing import Any

import numpy as np

from pcan_jax.keypoints import KeypointLayout

FRAME_COUNT_TOLERANCE = 1
"""Frames by which video and poses may differ; the longer one is cut at its end."""


@dataclasses.dataclass(frozen=True)
class Pose:
  """The pose of one clip as a file has it.

  Attributes:
    keypoints: [M, T, V, 2], (x, y) in pixels, if all is well with the file.
    scores: [M, T, V].
    img_shape: (h, w) in pixels for which the pose was made, if the file says so.
    where: names the file and the clip in errors.
    names: what the file calls keypoints and scores.
  """

  keypoints: Any
  scores: Any
  img_shape: tuple[int, int] | None
  where: str
  names: tuple[str, str] = ("keypoints", "scores")

  def check(self, layout: KeypointLayout) -> None:
    """Checks that both are arrays as described, of finite numbers.

    Raises:
      ValueError: they are not, or have not the keypoints of the layout.
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
          "for what was not found"
        )

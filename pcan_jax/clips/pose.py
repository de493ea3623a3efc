"""The pose of one clip as given by a file or a caller, and the validation of its arrays."""

import dataclasses
from typing import Any

import numpy as np

from pcan_jax.clips.person_box import MAX_BOX_TO_FRAME, person_box
from pcan_jax.keypoints import KeypointLayout

FRAME_COUNT_TOLERANCE = 1
"""Number of frames by which video and poses may differ; the longer one is cut at its end."""

MAX_SCORE = 10
"""Estimators give 0 to 1, some a little more; larger numbers are percentages or damage."""

_OTHER_KEYPOINTS = {
  25: "OpenPose's BODY_25; give its folder of JSON files",
  26: "Halpe-26; its first 17 are those of coco-17, or give AlphaPose's JSON file",
  133: "COCO-WholeBody; its first 17 are those of coco-17, or give a COCO JSON file",
  136: "Halpe-136; its first 17 are those of coco-17, or give AlphaPose's JSON file",
}
"""Common numbers of keypoints without a layout here, and what to do about them."""


_CROWD = 8  # More persons than this and than frames are frames.


@dataclasses.dataclass(frozen=True)
class Pose:
  """The pose of one clip, not yet checked.

  Attributes:
    keypoints: [M, T, V, 2], (x, y) in pixels; `checked` confirms it.
    scores: [M, T, V]; `checked` confirms it.
    img_shape: (h, w) in pixels of the frames used for pose estimation, if known.
    where: file and clip, for error messages.
    names: names of keypoints and scores there.
    fps: frames per second, if the file says so; only used without a video.
  """

  keypoints: Any
  scores: Any
  img_shape: tuple[int, int] | None
  where: str
  names: tuple[str, str] = ("keypoints", "scores")
  fps: float | None = None

  def checked(self, layout: KeypointLayout) -> "Pose":
    """Checks the arrays, and sets keypoints that were not detected to 0.

    A keypoint was not detected if its score is 0 or less, whatever its coordinates, or if it lies
    at exactly (0, 0).

    Raises:
      ValueError: the arrays do not have the keypoints of the layout, or their axes are in another
        order; a number is not finite, a score exceeds `MAX_SCORE`, or coordinates are relative to
        the frame instead of pixels.
    """
    arrays = dict(zip(self.names, (self.keypoints, self.scores)))
    for name, array in arrays.items():
      if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"{self.where}: {name!r} is missing, or not an array of numbers")
    name, scores_name = self.names
    shape = self.keypoints.shape
    if len(shape) != 4 or shape[2:] != (layout.num_keypoints, 2):
      other = _OTHER_KEYPOINTS.get(shape[2]) if len(shape) == 4 else None
      raise ValueError(
        f"{self.where}: {name!r} has the shape {list(shape)}, expected "
        f"[M, T, {layout.num_keypoints}, 2] for the layout {layout.name}"
        + (f"; {shape[2]} keypoints are {other}" if other else "")
      )
    if shape[0] > max(shape[1], _CROWD):
      raise ValueError(
        f"{self.where}: {name!r} has the shape {list(shape)}: {shape[0]} persons in {shape[1]} "
        "frame(s); expected [M, T, V, 2], persons first. Swap the first two axes of an array that "
        "has frames first"
      )
    if self.scores.shape != shape[:3]:
      raise ValueError(
        f"{self.where}: {scores_name!r} has the shape {list(self.scores.shape)}, expected "
        f"{list(shape[:3])} as {name!r}"
      )
    is_score = np.isfinite(self.scores)
    self._require(is_score, scores_name, "holds NaN or infinity")
    is_score = self.scores <= MAX_SCORE
    self._require(is_score, scores_name, f"holds more than {MAX_SCORE}, expected 0 to about 1")
    found = self.scores > 0
    with np.errstate(over="ignore"):
      is_point = np.isfinite(self.keypoints.astype(np.float32)).all(axis=-1)
    self._require(is_point | ~found, name, "holds NaN or infinity")
    found &= (self.keypoints != 0).any(axis=-1)
    if found.any() and np.median(np.abs(self.keypoints[found])) <= 1:
      raise ValueError(
        f"{self.where}: the coordinates lie between -1 and 1; they must be pixels of the video: "
        "multiply x by its width and y by its height"
      )
    keypoints = np.where(found[..., None], self.keypoints, 0).astype(self.keypoints.dtype)
    scores = np.where(found, self.scores, 0).astype(self.scores.dtype)
    return dataclasses.replace(self, keypoints=keypoints, scores=scores)

  def check_fit(self, num_frames: int, size: tuple[int, int]) -> None:
    """Checks that this pose, already `checked`, belongs to a video.

    Args:
      num_frames: T, of the video.
      size: (h, w) of the video in pixels.

    Raises:
      ValueError: it belongs to another video, or to another frame size.
    """
    keypoints = self.keypoints.astype(np.float32)
    if abs(keypoints.shape[1] - num_frames) > FRAME_COUNT_TOLERANCE:
      raise ValueError(
        f"{self.where} has poses for {keypoints.shape[1]} frames, but its video has {num_frames}; "
        "estimate the poses again from this video"
      )
    if self.img_shape not in (None, tuple(size)):
      raise ValueError(
        f"{self.where}: the poses were made for {self.img_shape[1]} x {self.img_shape[0]} pixels, "
        f"but the video has {size[1]} x {size[0]}; estimate the poses again from this video"
      )
    limit = MAX_BOX_TO_FRAME * max(size)
    # The first test keeps the arithmetic of the second one finite.
    is_far = np.abs(keypoints).max(initial=0) > 2 * limit
    x0, y0, x1, y1 = (0, 0, 0, 0) if is_far else person_box(keypoints, size)
    if is_far or max(x1 - x0, y1 - y0) > limit:
      raise ValueError(
        f"{self.where}: its keypoints reach from {keypoints.min():g} to {keypoints.max():g}, far "
        f"beyond the frame of {size[1]} x {size[0]}; they must be pixels of this video"
      )

  def _require(self, good: np.ndarray, name: str, wrong: str) -> None:
    if not good.all():
      frame = np.argwhere(~good)[0][1]
      raise ValueError(
        f"{self.where}: {name!r} {wrong} in frame {frame}; write 0 with score 0 for keypoints "
        "that were not detected"
      )

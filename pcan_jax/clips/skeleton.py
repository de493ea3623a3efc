"""Draws the skeletons of persons on a frame."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from pcan_jax.keypoints import KeypointLayout

# RGB; distinguishable for the colour-blind, too.
_BACKGROUND = 40
_LEFT, _RIGHT, _MIDDLE = (255, 150, 40), (60, 170, 255), (240, 240, 240)


def draw_skeletons(
  image: UInt8[np.ndarray, "h w 3"],
  keypoints: Float[np.ndarray, "m v 2"],
  scores: Float[np.ndarray, "m v"],
  layout: KeypointLayout,
) -> None:
  """Draws the skeletons of one frame, in pixels of the image: left orange, right blue."""
  thickness = max(round(image.shape[0] / 320), 1)
  colours = [_joint_colour(joint) for joint in layout.joints]
  for joints, found in zip(keypoints, (scores > 0) & (keypoints != 0).any(axis=-1)):
    # Joints far outside the image would overflow OpenCV's coordinates.
    points = np.clip(joints, -1e4, 1e4).round().astype(int).tolist()
    for start, end in layout.limbs:
      if found[start] and found[end]:
        cv2.line(image, points[start], points[end], colours[end], thickness, cv2.LINE_AA)
    for joint in np.flatnonzero(found):
      cv2.circle(image, points[joint], thickness + 1, colours[joint], -1, cv2.LINE_AA)


def draw_alone(
  keypoints: Float[np.ndarray, "m t v 2"],
  scores: Float[np.ndarray, "m t v"],
  side: int,
  layout: KeypointLayout,
) -> UInt8[np.ndarray, "t side side 3"]:
  """Square frames that show nothing but the skeletons, for clips without video."""
  frames = np.full((keypoints.shape[1], side, side, 3), _BACKGROUND, np.uint8)
  for time, frame in enumerate(frames):
    draw_skeletons(frame, keypoints[:, time], scores[:, time], layout)
  return frames


def _joint_colour(joint: str) -> tuple[int, int, int]:
  if joint.startswith("left_"):
    return _LEFT
  return _RIGHT if joint.startswith("right_") else _MIDDLE

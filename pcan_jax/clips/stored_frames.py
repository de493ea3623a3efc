"""Crops and compresses frames for storage, and transforms keypoints to match."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

CLIPS_PER_SHARD = 64
"""Default for the maximum number of clips per file."""


@dataclasses.dataclass(frozen=True)
class Encoding:
  """How the frames of a clip are stored.

  Attributes:
    side: of the square frames in pixels.
    jpeg_quality: 1 to 100.
  """

  side: int = 256
  jpeg_quality: int = 90

  def __post_init__(self) -> None:
    if not 16 <= self.side <= 4096:
      raise ValueError(f"side is {self.side}; choose 16 to 4096 pixels")
    if not 1 <= self.jpeg_quality <= 100:
      raise ValueError(f"jpeg_quality is {self.jpeg_quality}; choose 1 to 100")


def encode_frame(
  frame: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int], encoding: Encoding
) -> bytes:
  """Crops, resizes and compresses one frame for storage; returns a JPEG file."""
  image = crop(frame, box)
  shrinks = image.shape[0] * image.shape[1] > encoding.side**2
  interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  image = cv2.resize(image, (encoding.side, encoding.side), interpolation=interpolation)
  options = [cv2.IMWRITE_JPEG_QUALITY, encoding.jpeg_quality]
  done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
  if not done:
    raise RuntimeError("OpenCV cannot write JPEG images")
  return jpeg.tobytes()


def crop(
  image: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
  """Crops an image to (x0, y0, x1, y1), with black where the box extends beyond it."""
  x0, y0, x1, y1 = box
  inside = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
  if inside.shape[:2] == (y1 - y0, x1 - x0):
    return inside
  padded = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
  top, left = max(-y0, 0), max(-x0, 0)
  padded[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
  return padded


def move_keypoints(
  keypoints: Float[np.ndarray, "m t v 2"],
  scores: Float[np.ndarray, "m t v"],
  box: tuple[int, int, int, int],
  side: int,
) -> tuple[Float[np.ndarray, "m t v 2"], Float[np.ndarray, "m t v"]]:
  """Converts source pixels to pixels of the stored frames; see `pcan_jax.feed.records`.

  Returns:
    Keypoints and scores, float32. Keypoints that were not detected, those with score 0 or at
    exactly (0, 0), get the score 0 and the coordinates (0, 0).
  """
  x0, y0, x1, y1 = box
  keypoints = np.asarray(keypoints, np.float32)
  scores = np.asarray(scores, np.float32)
  detected = (scores > 0) & (keypoints != 0).any(axis=-1)
  scale = np.array([side / (x1 - x0), side / (y1 - y0)], np.float32)
  moved = (keypoints - np.array([x0, y0], np.float32)) * scale
  return np.where(detected[..., None], moved, np.float32(0)), np.where(detected, scores, 0)

"""Turns one clip of a source directory into the record that is stored.

Runs in the worker processes of a build, so nothing here imports TensorFlow.
"""

import dataclasses
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data.ma52_layout import ClipSource
from data.person_box import person_box
from data.video import decode_video

FRAME_COUNT_TOLERANCE = 1
"""Frames by which video and poses may differ; the longer one is cut at its end."""

MAX_BOX_TO_FRAME = 8
"""A crop wider than so many frames comes from keypoints that are not pixels of this video."""

MAX_RECORD_BYTES = 1 << 30
"""Half of what a TFRecord example can hold."""


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


def encode_clip(clip: ClipSource, encoding: Encoding) -> dict[str, Any]:
  """Crops the frames of a clip to the persons in it, resizes them, and moves the keypoints along.

  Args:
    clip: the clip.
    encoding: how to store it.

  Returns:
    The fields of `pcan_jax.records.features`, with `frames` a list of JPEG files as bytes, and
    `trimmed`, whether the video or the poses lost a frame at the end.

  Raises:
    FileNotFoundError: the video is gone.
    ValueError: the video is damaged or does not fit the poses; the message names the file.
  """
  frames, fps = decode_video(clip.video)
  images: list[bytes] = []
  box = original_size = None
  count = 0
  stored_bytes = 0
  for count, frame in enumerate(frames, start=1):
    if count == 1:
      original_size = frame.shape[:2]
      _require_size(clip, original_size)
      box = crop_box(clip.keypoints, original_size, str(clip.video))
    if count > clip.num_frames + FRAME_COUNT_TOLERANCE:
      break
    images.append(encode_frame(frame, box, encoding))
    stored_bytes += len(images[-1])
    if stored_bytes > MAX_RECORD_BYTES:
      raise ValueError(f"{clip.video}: too long to be one record; cut it into shorter clips")
  if abs(count - clip.num_frames) > FRAME_COUNT_TOLERANCE:
    more = "or more " if count > clip.num_frames else ""
    raise ValueError(
      f"{clip.video} has {count} {more}frames, but there are poses for {clip.num_frames}; "
      "estimate the poses again from this file"
    )
  num_frames = min(count, clip.num_frames)
  keypoints, scores = move_keypoints(
    clip.keypoints[:, :num_frames], clip.scores[:, :num_frames], box, encoding.side
  )
  return {
    "id": clip.id,
    "action": clip.action,
    "num_frames": num_frames,
    "fps": fps,
    "original_size": np.array(original_size, np.int64),
    "box": np.array(box, np.float32),
    "frames": images[:num_frames],
    "keypoints": keypoints,
    "keypoint_scores": scores,
    "trimmed": count != clip.num_frames,
  }


def crop_box(
  keypoints: Float[np.ndarray, "m t v 2"], size: tuple[int, int], clip: str
) -> tuple[int, int, int, int]:
  """The square around the persons of a clip, (x0, y0, x1, y1) in pixels, see `person_box`.

  Raises:
    ValueError: the keypoints cannot be pixels of frames of this size; the message names the clip.
  """
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


def _require_size(clip: ClipSource, size: tuple[int, int]) -> None:
  if clip.img_shape not in (None, size):
    raise ValueError(
      f"{clip.video} is {size[0]} pixels high and {size[1]} wide, but its poses were made for "
      f"{clip.img_shape[0]} x {clip.img_shape[1]}; estimate them again from this file"
    )


def encode_frame(
  frame: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int], encoding: Encoding
) -> bytes:
  """Crops, resizes and compresses one frame as it is stored; returns a JPEG file."""
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
  """Cuts (x0, y0, x1, y1) out of an image, with black where the box leaves it."""
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
  """Source pixels to pixels of the stored frames; see the note in `pcan_jax.records`.

  Returns:
    Keypoints and scores, float32. Those that were not detected, by score or by lying at exactly
    (0, 0), get the score 0 and the coordinates (0, 0).
  """
  x0, y0, x1, y1 = box
  keypoints = np.asarray(keypoints, np.float32)
  scores = np.asarray(scores, np.float32)
  detected = (scores > 0) & (keypoints != 0).any(axis=-1)
  scale = np.array([side / (x1 - x0), side / (y1 - y0)], np.float32)
  moved = (keypoints - np.array([x0, y0], np.float32)) * scale
  return np.where(detected[..., None], moved, np.float32(0)), np.where(detected, scores, 0)

"""Converts one clip of a source directory to the record that is stored."""

from typing import Any

import numpy as np

from pcan_jax.clips.person_box import crop_box, extent
from pcan_jax.clips.pose import FRAME_COUNT_TOLERANCE
from pcan_jax.clips.source_layout import ClipSource
from pcan_jax.clips.stored_frames import Encoding, encode_frame, move_keypoints
from pcan_jax.clips.timing import evenly_in_time, frame_rate
from pcan_jax.clips.video import decode_video

MAX_RECORD_BYTES = 1 << 30
"""Half of what a TFRecord example can hold."""

UNSTORED_FIELDS = ("trimmed", "order", "damage")
"""Fields of a record that are not stored: `trimmed`, whether the last frame of the video or of the
poses was dropped; `order`, the index in the video of every frame; `damage`, see
`pcan_jax.clips.video.VideoFrames`."""


def encode_clip(clip: ClipSource, encoding: Encoding) -> dict[str, Any]:
  """Crops the frames of a clip to its persons, resizes them and transforms the keypoints to match.

  A video of varying frame rate is stored at a constant rate with the same number of frames: some
  are dropped, others repeated (`pcan_jax.clips.timing.evenly_in_time`).

  Args:
    clip: the clip.
    encoding: how to store it.

  Returns:
    The fields of `pcan_jax.feed.records.features`, with `frames` a list of JPEG files as bytes
    (none for a clip without video), and those of `UNSTORED_FIELDS`.

  Raises:
    FileNotFoundError: the video no longer exists.
    ValueError: the video is damaged or does not fit the poses; the message names the file.
  """
  if clip.video is None:
    return _encode_skeletons(clip, encoding)
  frames = decode_video(clip.video)
  images: list[bytes] = []
  box = original_size = None
  count = 0
  stored_bytes = 0
  for count, frame in enumerate(frames, start=1):
    if count == 1:
      original_size = frame.shape[:2]
      _require_size(clip, original_size)
      box = crop_box(clip.keypoints, clip.scores, original_size, str(clip.video))
    if count > clip.num_frames + FRAME_COUNT_TOLERANCE:
      break
    images.append(encode_frame(frame, box, encoding))
    stored_bytes += len(images[-1])
    if stored_bytes > MAX_RECORD_BYTES:
      raise ValueError(f"{clip.video}: too long for one record; cut it into shorter clips")
  if abs(count - clip.num_frames) > FRAME_COUNT_TOLERANCE:
    more = "or more " if count > clip.num_frames else ""
    damage = f" ({'; '.join(frames.damage)})" if frames.damage else ""
    raise ValueError(
      f"{clip.video} has {count} {more}frames{damage}, but there are poses for {clip.num_frames}; "
      "estimate the poses again from this file"
    )
  num_frames = min(count, clip.num_frames)
  times = frames.times[: num_frames + 1]
  order = evenly_in_time(times)
  keypoints, scores = move_keypoints(
    clip.keypoints[:, order], clip.scores[:, order], box, encoding.side
  )
  return {
    "id": clip.id,
    "action": clip.action,
    "num_frames": num_frames,
    "fps": frame_rate(times),
    "original_size": np.array(original_size, np.int64),
    "box": np.array(box, np.float32),
    "frames": [images[index] for index in order],
    "keypoints": keypoints,
    "keypoint_scores": scores,
    "trimmed": count != clip.num_frames,
    "order": order,
    "damage": frames.damage,
  }


def _encode_skeletons(clip: ClipSource, encoding: Encoding) -> dict[str, Any]:
  """The record of a clip that has only poses."""
  size = clip.img_shape or extent(clip.keypoints)
  box = crop_box(clip.keypoints, clip.scores, size, clip.where)
  keypoints, scores = move_keypoints(clip.keypoints, clip.scores, box, encoding.side)
  return {
    "id": clip.id,
    "action": clip.action,
    "num_frames": clip.num_frames,
    "fps": clip.fps,
    "original_size": np.array(size, np.int64),
    "box": np.array(box, np.float32),
    "keypoints": keypoints,
    "keypoint_scores": scores,
    "trimmed": False,
    "order": np.arange(clip.num_frames),
    "damage": [],
  }


def _require_size(clip: ClipSource, size: tuple[int, int]) -> None:
  if clip.img_shape not in (None, size):
    raise ValueError(
      f"{clip.video} is {size[0]} pixels high and {size[1]} wide, but its poses were made for "
      f"{clip.img_shape[0]} x {clip.img_shape[1]}; estimate them again from this file"
    )

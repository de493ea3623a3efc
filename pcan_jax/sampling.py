"""Which frames of a video make a clip: uniform segments, one frame from each.

Both functions sample as UniformSampleFrames of PySKL and MMAction2 does. Training clips are drawn
inside TensorFlow's input pipeline, where a call into Python would hold up all other threads; test
clips by NumPy's legacy generator, draw by draw as the released PCAN models were tested.
"""

import numpy as np
import tensorflow as tf
from jaxtyping import Int64


def training_clip(num_frames: tf.Tensor, clip_len: int, seed: tf.Tensor) -> tf.Tensor:
  """Draws the frames of one training clip: one random frame from each of `clip_len` segments.

  A video shorter than the clip is started at a random frame and repeated; one shorter than two
  clips gives consecutive frames with random single ones left out.

  Args:
    num_frames: frames in the video, at least 1.
    clip_len: frames in the clip.
    seed: two integers; the clip is a function of them.

  Returns:
    Frame indices int64 [clip_len] in 0..num_frames-1.
  """
  num_frames = tf.cast(num_frames, tf.int64)
  uniform = tf.random.stateless_uniform([2 * clip_len + 1], seed, dtype=tf.float64)
  frames = tf.range(clip_len, dtype=tf.int64)

  def scaled(values: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
    return tf.cast(values * tf.cast(limit, tf.float64), tf.int64)

  edges = tf.range(clip_len + 1, dtype=tf.int64) * num_frames // clip_len
  one_per_segment = edges[:-1] + scaled(uniform[:clip_len], edges[1:] - edges[:-1])
  # Of the clip_len + 1 gaps beside the clip's frames, the last lies behind the clip.
  rank = tf.argsort(tf.argsort(uniform[clip_len:]))
  skipped = tf.cast(tf.cast(rank, tf.int64) < num_frames - clip_len, tf.int64)
  consecutive = frames + tf.cumsum(skipped)[:-1]
  repeated = (scaled(uniform[0], num_frames) + frames) % num_frames
  return tf.where(
    num_frames >= 2 * clip_len,
    one_per_segment,
    tf.where(num_frames >= clip_len, consecutive, repeated),
  )


def test_clips(
  num_frames: int, clip_len: int, num_clips: int, seed: int = 255
) -> Int64[np.ndarray, "num_clips clip_len"]:
  """The frames of every test clip of a video: the same ones whenever and wherever they are drawn.

  Videos shorter than the clip are repeated, the clips starting at evenly spaced frames.

  Args:
    num_frames: frames in the video.
    clip_len: frames in a clip.
    num_clips: clips per video (1 or 10 in the papers).
    seed: of the legacy generator that is made anew for every video.

  Returns:
    Frame indices in 0..num_frames-1.

  Raises:
    ValueError: there are no frames, or none are asked for.
  """
  _check(num_frames, clip_len, num_clips)
  if num_frames < clip_len:
    clip = np.arange(num_clips)
    starts = clip if num_frames < num_clips else clip * num_frames // num_clips
    return (starts[:, None] + np.arange(clip_len)) % num_frames
  rng = np.random.RandomState(seed)
  return np.stack([_draw_test_clip(num_frames, clip_len, rng) for _ in range(num_clips)])


def _draw_test_clip(
  num_frames: int, clip_len: int, rng: np.random.RandomState
) -> Int64[np.ndarray, " clip_len"]:
  """One clip from a video with at least `clip_len` frames."""
  if num_frames < 2 * clip_len:
    # Too short for a choice within segments: consecutive frames, with single frames left out at
    # random places (of the clip_len + 1 gaps, the last lies behind the clip).
    gaps = rng.choice(clip_len + 1, num_frames - clip_len, replace=False)
    skipped = np.zeros(clip_len + 1, dtype=np.int64)
    skipped[gaps] = 1
    return np.arange(clip_len) + np.cumsum(skipped)[:-1]
  edges = np.arange(clip_len + 1) * num_frames // clip_len
  return edges[:-1] + rng.randint(np.diff(edges))


def _check(num_frames: int, clip_len: int, num_clips: int = 1) -> None:
  if num_frames < 1:
    raise ValueError(f"cannot sample from a video of {num_frames} frames")
  if clip_len < 1 or num_clips < 1:
    raise ValueError(f"clip_len and num_clips must be at least 1: {clip_len}, {num_clips}")

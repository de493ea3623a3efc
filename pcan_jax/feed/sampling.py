"""Samples the frames of training clips: uniform segments, one random frame from each.

As UniformSampleFrames of PySKL and MMAction2 does, but in TensorFlow, because a call into Python
would block all other threads of the input pipeline. Test clips: `pcan_jax.clips.sampling`.
"""

import tensorflow as tf


def training_clip(num_frames: tf.Tensor, clip_len: int, seed: tf.Tensor) -> tf.Tensor:
  """Draws the frames of one training clip: one random frame from each of `clip_len` segments.

  A video shorter than the clip is repeated from a random start; one shorter than two clips gives
  consecutive frames with random single ones skipped.

  Args:
    num_frames: frames in the video, at least 1.
    clip_len: frames in the clip.
    seed: two integers, which determine the clip.

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
  # Of the clip_len + 1 gaps around the clip's frames, the last is after the clip.
  rank = tf.argsort(tf.argsort(uniform[clip_len:]))
  skipped = tf.cast(tf.cast(rank, tf.int64) < num_frames - clip_len, tf.int64)
  consecutive = frames + tf.cumsum(skipped)[:-1]
  repeated = (scaled(uniform[0], num_frames) + frames) % num_frames
  return tf.where(
    num_frames >= 2 * clip_len,
    one_per_segment,
    tf.where(num_frames >= clip_len, consecutive, repeated),
  )

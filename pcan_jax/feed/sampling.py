"""Which frames of a video make a training clip: uniform segments, one random frame from each.

As UniformSampleFrames of PySKL and MMAction2 does, but drawn inside TensorFlow's input pipeline,
where a call into Python would hold up all other threads. Test clips: `pcan_jax.clips.sampling`.
"""

import tensorflow as tf


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

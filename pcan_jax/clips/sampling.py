"""Samples the frames of test clips: uniform segments, one frame from each.

As UniformSampleFrames of PySKL and MMAction2 does, with the same draws of NumPy's legacy generator
as in the evaluation of the released PCAN models. Training clips: `pcan_jax.feed.sampling`.
"""

import dataclasses

import numpy as np
from jaxtyping import Int64


@dataclasses.dataclass(frozen=True)
class FrameSampling:
  """What is read of every stored clip.

  Attributes:
    rgb_frames: frames per clip for the RGB stream; 0 reads no images.
    pose_frames: frames per clip for the pose stream; 0 reads no keypoints.
    num_clips: seeded test clips per video; None is one random clip, as in training.
    max_persons: persons per frame; those with the highest scores are kept, missing ones score 0.
    features: stored vectors of another network per clip, sampled as frames are; 0 reads none.
  """

  rgb_frames: int
  pose_frames: int
  num_clips: int | None
  max_persons: int
  features: int = 0

  @property
  def lengths(self) -> dict[str, int]:
    """Frames per clip of the streams that are read."""
    lengths = {"rgb": self.rgb_frames, "pose": self.pose_frames}
    return {stream: length for stream, length in lengths.items() if length}


def test_clips(
  num_frames: int, clip_len: int, num_clips: int, seed: int = 255
) -> Int64[np.ndarray, "num_clips clip_len"]:
  """The frames of every test clip of a video; a function of the arguments alone.

  Videos shorter than a clip are repeated; the clips then start at evenly spaced frames.

  Args:
    num_frames: frames in the video.
    clip_len: frames in a clip.
    num_clips: clips per video (1 or 10 in the papers).
    seed: of the legacy generator, which is created anew for every video.

  Returns:
    Frame indices in 0..num_frames-1.

  Raises:
    ValueError: an argument is less than 1.
  """
  if num_frames < 1:
    raise ValueError(f"cannot sample from a video of {num_frames} frames")
  if clip_len < 1 or num_clips < 1:
    raise ValueError(f"clip_len and num_clips must be at least 1: {clip_len}, {num_clips}")
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
    # Too short to draw within segments: consecutive frames, with single frames skipped at random
    # (of the clip_len + 1 gaps, the last is after the clip).
    gaps = rng.choice(clip_len + 1, num_frames - clip_len, replace=False)
    skipped = np.zeros(clip_len + 1, dtype=np.int64)
    skipped[gaps] = 1
    return np.arange(clip_len) + np.cumsum(skipped)[:-1]
  edges = np.arange(clip_len + 1) * num_frames // clip_len
  return edges[:-1] + rng.randint(np.diff(edges))

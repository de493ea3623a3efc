"""Which frames of a video make a clip: uniform segments, one frame from each.

The draws are those of UniformSampleFrames of PySKL and MMAction2, in their order, so that the
legacy generator with the same seed gives the same clips as the released PCAN models were tested on.
"""

import numpy as np
from jaxtyping import Int64

RandomGenerator = np.random.Generator | np.random.RandomState


def _check(num_frames: int, clip_len: int, num_clips: int = 1) -> None:
  if num_frames < 1:
    raise ValueError(f"cannot sample from a video of {num_frames} frames")
  if clip_len < 1 or num_clips < 1:
    raise ValueError(f"clip_len and num_clips must be at least 1: {clip_len}, {num_clips}")


def _draw_segments(
  num_frames: int, clip_len: int, rng: RandomGenerator
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
  draw = rng.integers if isinstance(rng, np.random.Generator) else rng.randint
  return edges[:-1] + draw(np.diff(edges))


def uniform_segments(
  num_frames: int, clip_len: int, rng: RandomGenerator
) -> Int64[np.ndarray, " clip_len"]:
  """Draws the frames of one training clip: one random frame from each of `clip_len` segments.

  A video shorter than the clip is started at a random frame and repeated; one shorter than two
  clips gives consecutive frames with random single ones left out.

  Args:
    num_frames: frames in the video.
    clip_len: frames in the clip.
    rng: either of NumPy's generators; it is advanced.

  Returns:
    Frame indices in 0..num_frames-1.

  Raises:
    ValueError: there are no frames, or none are asked for.
  """
  _check(num_frames, clip_len)
  if num_frames < clip_len:
    draw = rng.integers if isinstance(rng, np.random.Generator) else rng.randint
    return (draw(num_frames) + np.arange(clip_len)) % num_frames
  return _draw_segments(num_frames, clip_len, rng)


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
  return np.stack([_draw_segments(num_frames, clip_len, rng) for _ in range(num_clips)])

"""Videos with the poses of their persons, and the time windows they are cut into."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

from pcan_jax.clips.pose_files import PoseFiles
from pcan_jax.clips.video_files import clip_id


@dataclasses.dataclass(frozen=True)
class Window:
  """A time window of a video.

  Attributes:
    first: index of its first frame.
    stop: index of the frame after its last one.
    fps: frames per second of the video.
  """

  first: int
  stop: int
  fps: float

  @property
  def start_seconds(self) -> float:
    return self.first / self.fps

  @property
  def end_seconds(self) -> float:
    return self.stop / self.fps


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
  """A readable video.

  Attributes:
    path: of the file.
    num_frames: T.
    fps: frames per second, on average.
    size: (h, w) in pixels.
    keypoints: [M, T, V, 2], (x, y) in pixels of the video; None without poses.
    scores: [M, T, V]; None without poses.
  """

  path: pathlib.Path
  num_frames: int
  fps: float
  size: tuple[int, int]
  keypoints: Float[np.ndarray, "m t v 2"] | None
  scores: Float[np.ndarray, "m t v"] | None

  @classmethod
  def open(cls, path: str | os.PathLike[str], poses: PoseFiles | None = None) -> "Video":
    """Reads a video once to count its frames, and its poses.

    Containers may state a wrong number of frames, and damage is found before any prediction.

    Args:
      path: of the video.
      poses: its poses, under its name without the suffix.

    Raises:
      FileNotFoundError: the video no longer exists, or it has no poses.
      ValueError: it cannot be decoded, or its poses cannot be read or do not fit; the message names
        the file.
    """
    path = pathlib.Path(path)
    frames, fps = _decode(path)
    num_frames, size = 0, (0, 0)
    for frame in frames:
      num_frames, size = num_frames + 1, frame.shape[:2]
    keypoints = scores = None
    if poses is not None:
      keypoints, scores = poses.read(clip_id(path), num_frames, size)
    return cls(path, num_frames, fps, size, keypoints, scores)

  def frames(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Decodes the video again, one RGB frame at a time."""
    return _decode(self.path)[0]

  def windows(self, seconds: float | None = None, stride: float | None = None) -> list[Window]:
    """Cuts the video into windows of equal length; the last one ends with the video.

    Args:
      seconds: length of a window; None or longer than the video is the whole video.
      stride: seconds from the start of a window to that of the next; None is half a window, so that
        an action cut by one window is complete in another.

    Raises:
      ValueError: a length is not positive.
    """
    check_window(seconds, stride)
    length = self.num_frames
    if seconds is not None:
      length = min(max(round(seconds * self.fps), 1), length)
    step = max(round((stride or (seconds or 0) / 2) * self.fps), 1)
    starts = [*range(0, self.num_frames - length + 1, step)]
    if starts[-1] + length < self.num_frames:
      starts.append(self.num_frames - length)
    return [Window(start, start + length, self.fps) for start in starts]

  def has_person(self, window: Window) -> bool:
    """Whether a person was detected in a window."""
    return self.scores is not None and bool((self.scores[:, window.first : window.stop] > 0).any())


def _decode(path: pathlib.Path) -> tuple[Iterator[UInt8[np.ndarray, "h w 3"]], float]:
  from pcan_jax.clips.video import decode_video  # arrays are predicted without PyAV

  return decode_video(path)


def check_window(seconds: float | None, stride: float | None) -> None:
  """Checks a window length and a stride.

  Raises:
    ValueError: one of them is not positive, or there is a stride but no length.
  """
  for name, value in (("window", seconds), ("stride", stride)):
    if value is not None and not (np.isfinite(value) and value > 0):
      raise ValueError(f"the {name} must be a positive number of seconds, not {value}")
  if stride is not None and seconds is None:
    raise ValueError(f"a stride of {stride} s needs a window; give its length in seconds")

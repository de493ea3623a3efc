"""Videos with the poses of their persons or poses alone, and the windows they are cut into."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from pcan_jax.clips.pose_files import PoseFiles
from pcan_jax.clips.timing import Times, frame_rate, frames_between
from pcan_jax.clips.video_files import clip_id


@dataclasses.dataclass(frozen=True)
class Window:
  """A time window of a video.

  Attributes:
    first: index of its first frame.
    stop: index of the frame after its last one.
    start_seconds: time at which its first frame appears.
    end_seconds: time at which its last frame ends.
  """

  first: int
  stop: int
  start_seconds: float
  end_seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
  """A readable video, or poses without one.

  Attributes:
    path: of the file; without a video, the id of the clip.
    times: of T frames, see `pcan_jax.clips.timing`.
    size: (h, w) in pixels.
    damage: of the file, see `pcan_jax.clips.video.VideoFrames`.
    keypoints: [M, T, V, 2], (x, y) in pixels of the video; None without poses.
    scores: [M, T, V]; None without poses.
  """

  path: pathlib.Path
  times: Times
  size: tuple[int, int]
  damage: Sequence[str]
  keypoints: Float[np.ndarray, "m t v 2"] | None
  scores: Float[np.ndarray, "m t v"] | None

  @property
  def num_frames(self) -> int:
    return len(self.times) - 1

  @property
  def fps(self) -> float:
    """Frames per second, on average."""
    return frame_rate(self.times)

  @classmethod
  def open(cls, path: str | os.PathLike[str], poses: PoseFiles | None = None) -> "Video":
    """Reads a video once for the times of its frames, and its poses.

    Containers may state a wrong number of frames, and damage is found before any prediction.

    Args:
      path: of the video.
      poses: its poses, under its name without the suffix.

    Raises:
      FileNotFoundError: the video no longer exists, or it has no poses.
      ValueError: it cannot be decoded, or its poses cannot be read or do not fit; the message names
        the file.
    """
    from pcan_jax.clips.video import measure_video  # arrays are predicted without PyAV

    path = pathlib.Path(path)
    found, keypoints, scores = measure_video(path), None, None
    if poses is not None:
      keypoints, scores = poses.read(clip_id(path), found.num_frames, found.size)
    return cls(path, found.times, found.size, found.damage, keypoints, scores)

  @classmethod
  def of_poses(cls, clip_id: str, poses: PoseFiles, fps: float) -> "Video":
    """A clip of which there are only poses.

    Args:
      clip_id: of the clip.
      poses: which have it.
      fps: frames per second, unless the poses state them.

    Raises:
      FileNotFoundError, ValueError: see `PoseFiles.read_alone`.
    """
    found = poses.read_alone(clip_id, fps)
    times = np.arange(found.keypoints.shape[1] + 1) / found.fps
    return cls(pathlib.Path(clip_id), times, found.size, (), found.keypoints, found.scores)

  def frames(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Decodes the video again, one RGB frame at a time."""
    from pcan_jax.clips.video import decode_video

    return decode_video(self.path)

  def windows(self, seconds: float | None = None, stride: float | None = None) -> list[Window]:
    """Cuts the video into windows of equal length; the last one ends with the video.

    A window starts and ends at the frame boundaries closest to its nominal times. It has at least
    one frame, and no two windows have the same frames.

    Args:
      seconds: length of a window; None or longer than the video is the whole video.
      stride: seconds from the start of a window to that of the next; None is half a window, so that
        an action cut by one window is complete in another.

    Raises:
      ValueError: a length is not positive.
    """
    check_window(seconds, stride)
    duration = float(self.times[-1])
    seconds = min(seconds or duration, duration)
    stride = max(stride or seconds / 2, float(np.median(np.diff(self.times))))
    starts = [*np.arange(0, duration - seconds, stride).tolist(), duration - seconds]
    spans = (frames_between(self.times, start, start + seconds) for start in starts)
    return [
      Window(first, stop, float(self.times[first]), float(self.times[stop]))
      for first, stop in dict.fromkeys(spans)
    ]

  def has_person(self, window: Window) -> bool:
    """Whether a person was detected in a window."""
    return self.scores is not None and bool((self.scores[:, window.first : window.stop] > 0).any())


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

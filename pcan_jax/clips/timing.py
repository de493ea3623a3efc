"""The times of the frames of a video, from their timestamps."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

Times = Float64[np.ndarray, " boundaries"]
"""Seconds at which T frames appear, and at which the last one ends: T + 1 numbers."""

_MAX_GAP_SECONDS = 60
_MAX_GAP_INTERVALS = 100


@dataclasses.dataclass(frozen=True)
class Clock:
  """What a file states about time.

  Attributes:
    rates: frames per second, the most reliable first; all of them may be wrong.
    tick: resolution of the timestamps in seconds.
  """

  rates: Sequence[float]
  tick: float


def frame_times(stamps: Sequence[float | None], clock: Clock) -> tuple[Times, str]:
  """Computes the times of frames from their timestamps.

  Timestamps that equal a stated constant rate up to rounding become exactly that rate. The last
  frame lasts as long as the one before it, because files are often wrong about its duration.

  Args:
    stamps: seconds of every frame, in order; None if the file has no timestamp.
    clock: of the file.

  Returns:
    The times, starting at 0, and an error in the timestamps, empty if there is none.
  """
  count = len(stamps)
  steady = np.arange(count + 1) / (clock.rates[0] if clock.rates else 1.0)
  known = np.array([np.nan if stamp is None else stamp for stamp in stamps], np.float64)
  if count < 2 or not np.isfinite(known).all():
    return steady, ""
  intervals = np.diff(known)
  usual = np.median(intervals)
  if intervals.min() < 0 or usual <= 0:
    return steady, "its timestamps do not increase; the frames are taken as evenly spaced"
  if intervals.max() > max(_MAX_GAP_SECONDS, _MAX_GAP_INTERVALS * usual):
    frame = int(intervals.argmax()) + 1
    reason = f"its timestamps jump by {intervals.max():.1f} s at frame {frame}"
    return steady, f"{reason}; the frames are taken as evenly spaced"
  times = np.append(known - known[0], known[-1] - known[0] + intervals[-1])
  for rate in clock.rates:
    even = np.arange(count + 1) / rate
    if np.abs(times - even).max() <= min(1.5 * clock.tick, 0.25 / rate) + 1e-9:
      return even, ""
  return times, ""


def frame_rate(times: Times) -> float:
  """Frames per second, on average."""
  return round(float((len(times) - 1) / (times[-1] - times[0])), 6)


def frames_between(times: Times, onset: float, offset: float) -> tuple[int, int]:
  """The first frame and the one after the last, by the closest borders; at least one frame."""
  middles = (times[1:] + times[:-1]) / 2
  # Rounding errors must not decide where a time is halfway between two borders.
  first, stop = np.searchsorted(middles, np.array([onset, offset]) + 1e-6)
  first = min(int(first), len(times) - 2)
  return first, max(int(stop), first + 1)


def evenly_in_time(times: Times) -> Int64[np.ndarray, " t"]:
  """The frame shown in the middle of each of T equal intervals, for T frames.

  At a constant rate these are the frames themselves. At a varying rate some are dropped and others
  repeated, so that the position of a frame corresponds to its time.
  """
  count = len(times) - 1
  middles = times[0] + (np.arange(count) + 0.5) * ((times[-1] - times[0]) / count)
  return np.searchsorted(times[1:-1], middles, side="right").astype(np.int64)

"""Writes RGB frames, each at its own time, as an H.264 video."""

import fractions
import pathlib
import types

import av
import numpy as np
from jaxtyping import UInt8

_TIME_BASE = fractions.Fraction(1, 90_000)


class VideoWriter:
  """Writes an mp4, which exists when it is complete; a context manager.

  Args:
    path: of the mp4; its folder is created.
    size: (h, w) of the frames. Odd sizes need a pixel format that some players cannot show.
    fps: frames per second on average, which the header states.
    crf: quality of x264, 0 (lossless) to 51; below 18, losses are hard to see.
  """

  def __init__(self, path: pathlib.Path, size: tuple[int, int], fps: float, crf: int) -> None:
    self._path = path
    self._unfinished = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    self._container = av.open(str(self._unfinished), "w", format="mp4")
    rate = fractions.Fraction(fps).limit_denominator(1001)
    self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
    self._stream.height, self._stream.width = size
    self._stream.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
    self._stream.time_base = self._stream.codec_context.time_base = _TIME_BASE
    self._last = -1

  def add(self, image: UInt8[np.ndarray, "h w 3"], seconds: float) -> None:
    """Adds a frame that appears at a time after that of the one before it."""
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    self._last = max(self._last + 1, round(seconds / _TIME_BASE))
    frame.pts, frame.time_base = self._last, _TIME_BASE
    self._container.mux(self._stream.encode(frame))

  def close(self) -> None:
    """Writes what is left, and gives the file its name."""
    try:
      self._container.mux(self._stream.encode())
    finally:
      self._container.close()
    self._unfinished.replace(self._path)

  def discard(self) -> None:
    """Gives up: no file is left."""
    self._container.close()
    self._unfinished.unlink(missing_ok=True)

  def __enter__(self) -> "VideoWriter":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    if error is None:
      self.close()
    else:
      self.discard()

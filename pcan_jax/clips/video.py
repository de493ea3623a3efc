"""Decoding videos into RGB frames."""

import os
import pathlib
from collections.abc import Iterator

import av
import numpy as np
from jaxtyping import UInt8

# Some formats, such as playlists, make the decoder open other files and network addresses.
_CONTAINERS = {
  "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
  "protocol_whitelist": "file",
}

Frame = UInt8[np.ndarray, "h w 3"]


class VideoError(ValueError):
  """A video cannot be decoded; the message names the file and what is wrong."""


def decode_video(path: str | os.PathLike[str]) -> tuple[Iterator[Frame], float]:
  """Decodes the first video stream of a file, one frame at a time.

  Frames are upright: the rotation in the file's metadata is applied.

  Args:
    path: of the video.

  Returns:
    The frames, RGB [h, w, 3] of one size, and the average number of frames per second. The
    iterator raises `VideoError` if the video is damaged or has no frames.

  Raises:
    FileNotFoundError: there is no such file.
    VideoError: the file is not a video, or has no video stream.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no such video: {path}")
  with _open(path) as container:
    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate
  if not rate:
    raise VideoError(f"{path}: the video does not say how many frames per second it has")
  return _frames(path), float(rate)


def _open(path: pathlib.Path) -> av.container.InputContainer:
  try:
    container = av.open(str(path), options=_CONTAINERS)
  except (av.FFmpegError, ValueError) as error:
    raise VideoError(f"{path}: not a readable video ({_reason(error)})") from error
  if not container.streams.video:
    container.close()
    raise VideoError(f"{path}: the file has no video stream")
  if container.streams.video[0].codec_context is None:
    container.close()
    raise VideoError(f"{path}: no decoder is installed for its video stream")
  return container


def _frames(path: pathlib.Path) -> Iterator[Frame]:
  size = None
  with _open(path) as container:
    stream = container.streams.video[0]
    # One thread: clips are decoded in parallel processes.
    stream.codec_context.thread_count = 1
    try:
      for index, frame in enumerate(container.decode(stream)):
        if frame.is_corrupt:
          raise VideoError(f"{path}: the video is damaged at frame {index}")
        image = frame.to_ndarray(format="rgb24")
        if frame.rotation:
          image = np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
        if size not in (None, image.shape):
          raise VideoError(f"{path}: the frame size changes from {size[:2]} to {image.shape[:2]}")
        size = image.shape
        yield image
    except (av.FFmpegError, MemoryError) as error:
      raise VideoError(f"{path}: the video is damaged ({_reason(error)})") from error
  if size is None:
    raise VideoError(f"{path}: the video has no frames")


def _reason(error: BaseException) -> str:
  return getattr(error, "strerror", None) or str(error) or type(error).__name__

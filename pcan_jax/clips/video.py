"""Decodes videos into RGB frames with their times, and detects damage."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import av
import numpy as np
from jaxtyping import UInt8

from pcan_jax.clips.timing import Clock, Times, frame_times
from pcan_jax.clips.video_files import CONTAINERS, HOW_TO_CONVERT, HOW_TO_JOIN_IMAGES

# Some formats, such as playlists, make the decoder open other files and network addresses.
_CONTAINERS = {
  "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,mpeg,mpegts,flv,gif",
  "protocol_whitelist": "file",
}

# Their headers do not state the duration; FFmpeg estimates it.
_WITHOUT_LENGTH = ("mpeg", "mpegts")

# Identifiers of what states the size of the file, or of all that follows.
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MATROSKA_SEGMENT = bytes.fromhex("18538067")
_MPEGTS_PACKETS = (188, 192, 204)  # bytes

Frame = UInt8[np.ndarray, "h w 3"]


class VideoError(ValueError):
  """A video cannot be decoded; the message names the file and what is wrong."""


class VideoFrames(Iterator[Frame]):
  """Iterates over the frames of one video.

  Frames are upright: the rotation or reflection in the file's metadata is applied. The iterator
  raises `VideoError` if the video cannot be decoded to its end or has no frames.

  Attributes:
    path: of the video.
    damage: after the last frame, damage that did not keep the video from being decoded: it is
      shorter than its header states, or the decoder reported errors.
  """

  def __init__(self, path: pathlib.Path) -> None:
    self.path = path
    self.damage: list[str] = []
    self._times: Times | None = None
    self._frames = self._decode()

  def __next__(self) -> Frame:
    return next(self._frames)

  @property
  def times(self) -> Times:
    """The times of the frames, known after the last frame."""
    if self._times is None:
      raise RuntimeError(f"{self.path}: its frames have not been read to the end")
    return self._times

  def _decode(self) -> Iterator[Frame]:
    said: list[str] = []
    stamps: list[float | None] = []
    size = matrix = None
    end, corrupt = 0.0, 0
    with _open(self.path) as container:
      stream = _video_of(container)
      # One thread: clips are decoded in parallel processes.
      stream.codec_context.thread_count = 1
      packets = container.demux()
      try:
        while True:
          with _complaints(said):
            packet = next(packets, None)
            decoded = packet.decode() if packet is not None and packet.stream is stream else []
          if packet is None:
            break
          corrupt += packet.stream is stream and packet.is_corrupt
          if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
          for frame in decoded:
            if frame.is_corrupt:
              raise VideoError(f"{self.path}: the video is damaged at frame {len(stamps)}")
            if size is None:
              matrix = _display_matrix(frame)  # the same for all frames, and slow to read
            # More threads take longer than one to convert a frame: they start anew for each.
            pixels = frame.to_ndarray(format="rgb24", threads=1)  # ty: ignore
            image = _upright(pixels, matrix)
            if size not in (None, image.shape):
              raise VideoError(
                f"{self.path}: the frame size changes from {size[:2]} to {image.shape[:2]}"
              )
            size = image.shape
            stamps.append(frame.time)
            yield image
      except (av.FFmpegError, MemoryError) as error:
        raise VideoError(f"{self.path}: the video is damaged ({_reason(error)})") from error
      if size is None:
        raise VideoError(f"{self.path}: the video has no frames")
      if container.format.name == "avi" and None not in stamps:
        stamps.sort()  # they are those of packets, in the order of decoding
      self._times, wrong_times = frame_times(stamps, _clock(stream))
      missing = _what_is_missing(self.path, container, len(stamps), end, self._times)
    more = f", and complains {len(said) - 1} times more" if len(said) > 1 else ""
    holes = f"{corrupt} of its packets are damaged, or others before them are lost" * bool(corrupt)
    complaints = f"the decoder says {said[0]!r}{more}" if said else ""
    self.damage += filter(None, (missing, holes, complaints, wrong_times))


def decode_video(path: str | os.PathLike[str]) -> VideoFrames:
  """Decodes the video stream of a file that players show, one frame at a time.

  Args:
    path: of the video.

  Returns:
    The frames, RGB [h, w, 3] of one size.

  Raises:
    FileNotFoundError: there is no such file.
    VideoError: the file is not a video, or has no video stream.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise VideoError(
      f"{path} is a folder, not a video; images are joined by `{HOW_TO_JOIN_IMAGES}`"
    )
  if not path.is_file():
    raise FileNotFoundError(f"no such video: {path}")
  _open(path).close()
  return VideoFrames(path)


@dataclasses.dataclass(frozen=True)
class Measured:
  """What one pass through a video tells.

  Attributes:
    times: of its T frames.
    size: (h, w) in pixels.
    damage: see `VideoFrames`.
  """

  times: Times
  size: tuple[int, int]
  damage: tuple[str, ...]

  @property
  def num_frames(self) -> int:
    """How many frames there are; headers may state another number."""
    return len(self.times) - 1


def measure_video(path: str | os.PathLike[str]) -> Measured:
  """Decodes a video to its end, and keeps no frame.

  Raises:
    FileNotFoundError: there is no such file.
    VideoError: see `decode_video` and `VideoFrames`.
  """
  frames = decode_video(path)
  *_, size = (frame.shape[:2] for frame in frames)
  return Measured(frames.times, size, tuple(frames.damage))


def video_seconds(path: str | os.PathLike[str]) -> float:
  """The length of a video in seconds, without decoding it: its header's, or where its packets end.

  Raises:
    VideoError: the file is not a video, or has no video stream.
  """
  path = pathlib.Path(path)
  with _open(path) as container:
    if container.duration is not None and container.format.name not in _WITHOUT_LENGTH:
      return container.duration / av.time_base
    packets = container.demux(_video_of(container))
    try:
      ends = [
        float((packet.pts + (packet.duration or 0)) * packet.time_base)
        for packet in packets
        if packet.pts is not None
      ]
    except av.FFmpegError as error:
      raise VideoError(f"{path}: the video is damaged ({_reason(error)})") from error
  return max(ends, default=0.0)


def _open(path: pathlib.Path) -> av.container.InputContainer:
  try:
    container = av.open(str(path), options=_CONTAINERS)
  except (av.FFmpegError, ValueError) as error:
    raise VideoError(
      f"{path}: not a readable video ({_reason(error)}); damaged, or none of {CONTAINERS}. Others "
      f"are converted by `{HOW_TO_CONVERT}`"
    ) from error
  if not container.streams.video:
    container.close()
    raise VideoError(f"{path}: the file has no video stream")
  if _video_of(container).codec_context is None:
    container.close()
    raise VideoError(f"{path}: no decoder is installed for its video stream")
  return container


def _video_of(container: av.container.InputContainer) -> av.VideoStream:
  """The stream that players show: others may be pictures of the cover, or of other views."""
  return container.streams.best("video") or container.streams.video[0]


@contextlib.contextmanager
def _complaints(said: list[str]) -> Iterator[None]:
  """Collects the errors that FFmpeg logs without stopping."""
  before = av.logging.get_level(), av.logging.get_skip_repeated()
  av.logging.set_level(av.logging.ERROR)
  av.logging.set_skip_repeated(False)  # else the last message of one file comes with the next
  try:
    with av.logging.Capture() as messages:
      yield
  finally:
    av.logging.set_level(before[0])
    av.logging.set_skip_repeated(before[1])
  said += [text.strip().splitlines()[0] for _, _, text in messages if text.strip()]


def _display_matrix(frame: av.VideoFrame) -> list[int] | None:
  matrix = frame.side_data.get("DISPLAYMATRIX")
  return None if matrix is None else np.frombuffer(matrix, np.int32).tolist()


def _upright(image: Frame, matrix: list[int] | None) -> UInt8[np.ndarray, "upright_h upright_w 3"]:
  """Applies a display matrix: (x, y) goes to (a x + c y, b x + d y), up to offsets."""
  if matrix is None:
    return image
  a, b, _, c, d = matrix[:5]
  if abs(b) > abs(a):
    image, a, d = image.swapaxes(0, 1), c, b
  return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _clock(stream: av.VideoStream) -> Clock:
  rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
  return Clock(rates, float(stream.time_base))


def _what_is_missing(
  path: pathlib.Path,
  container: av.container.InputContainer,
  num_frames: int,
  end: float,
  times: Times,
) -> str:
  """Describes by how much a file is shorter than its header states; empty if it is not."""
  kind, frames = container.format.name, _video_of(container).frames
  if kind == "avi" and frames > num_frames + 1:
    return f"its header promises {frames} frames, but it holds {num_frames}"
  # FFmpeg makes the durations of these fit what is left.
  if container.duration is not None and kind not in ("asf", "gif", *_WITHOUT_LENGTH):
    promised = container.duration / av.time_base
    # Sound may end slightly earlier or later.
    if promised - end > max(1.5 * np.median(np.diff(times)), 0.05):
      return f"its header promises {promised:.2f} s, but it ends after {end:.2f} s"
  return "it is broken off" if _is_broken_off(path, kind) else ""


def _is_broken_off(path: pathlib.Path, kind: str) -> bool:
  """Whether a file is smaller than it states, or ends within what is written as a whole."""
  size = path.stat().st_size
  if kind == "mpegts":
    return all(size % packet for packet in _MPEGTS_PACKETS)
  with path.open("rb") as file:
    if kind == "gif":
      file.seek(max(size - 1, 0))
      return file.read() != b";"
    head = file.read(1 << 16)
  return _stated_size(head, kind) > size


def _stated_size(head: bytes, kind: str) -> int:
  """The size that the head of a file states; 0 if it states none, as in live recordings."""
  if kind == "avi":
    stated = head[4:8]
    return 0 if stated == b"\xff" * 4 else 8 + int.from_bytes(stated, "little")
  if kind == "asf":
    start = head.find(_ASF_PROPERTIES)
    return int.from_bytes(head[start + 40 : start + 48], "little") if start >= 0 else 0
  if kind == "matroska,webm":
    start = head.find(_MATROSKA_SEGMENT) + len(_MATROSKA_SEGMENT)
    number = head[start : start + 8]
    if start < len(_MATROSKA_SEGMENT) or not number or not number[0]:
      return 0
    # As many bytes as the first one has leading zeros, and one; all ones is unknown.
    count = 9 - number[0].bit_length()
    unknown = (1 << 7 * count) - 1
    stated = int.from_bytes(number[:count], "big") & unknown
    return 0 if stated == unknown else start + count + stated
  return 0


def _reason(error: BaseException) -> str:
  return getattr(error, "strerror", None) or str(error) or type(error).__name__

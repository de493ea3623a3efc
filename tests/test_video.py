import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from pcan_jax.clips.video import VideoError, decode_video
from tests.tiny_source import write_video

# A bright left upper quarter tells all rotations apart.
FRAMES = np.full((6, 48, 64, 3), 40, np.uint8)
FRAMES[:, :24, :32] = (200, 120, 60)


def decoded(path):
  frames, fps = decode_video(path)
  return np.stack(list(frames)), fps


def write(path, frames=FRAMES, codec="libx264", pix_fmt="yuv420p", times=None):
  """A video with what `write_video` cannot do."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=30)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = pix_fmt
    stream.time_base = stream.codec_context.time_base = Fraction(1, 600)
    for index, image in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(image, format="rgb24")
      frame.pts = 20 * index if times is None else times[index]
      frame.time_base = Fraction(1, 600)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def test_frames_are_rgb_and_complete(tmp_path):
  write_video(tmp_path / "a.mp4", FRAMES, fps=25)
  frames, fps = decoded(tmp_path / "a.mp4")
  assert frames.shape == FRAMES.shape and frames.dtype == np.uint8 and fps == 25
  np.testing.assert_allclose(frames[:, 12, 16], np.tile([200, 120, 60], (6, 1)), atol=6)


def ask_for_rotation(path, quarters):
  """Makes an mp4 file ask its player to turn it clockwise, in the matrix of its track header."""
  cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
  one = 1 << 16
  matrix = struct.pack(">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
  content = bytearray(path.read_bytes())
  start = content.index(b"tkhd") + 44
  content[start : start + len(matrix)] = matrix
  path.write_bytes(content)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotated_videos_are_turned_upright(tmp_path, quarters):
  path = write(tmp_path / "a.mp4", np.rot90(FRAMES, quarters, axes=(1, 2)))
  ask_for_rotation(path, quarters)
  frames, _ = decoded(path)
  assert frames.shape == FRAMES.shape
  assert np.abs(frames.astype(int) - FRAMES).mean() < 4


def test_a_variable_frame_rate_counts_by_its_average(tmp_path):
  path = write(tmp_path / "a.mp4", times=[0, 10, 40, 100, 110, 150])
  frames, fps = decoded(path)
  assert len(frames) == 6
  assert 15 < fps < 35


@pytest.mark.parametrize("size", [(2, 2), (49, 63), (1, 99), (2160, 3840)])
def test_sizes_may_be_odd_or_large(tmp_path, size):
  image = np.full((2, *size, 3), 90, np.uint8)
  path = write(tmp_path / "a.avi", image, codec="ffv1", pix_fmt="bgr0")
  frames, _ = decoded(path)
  np.testing.assert_array_equal(frames, image)


def test_one_frame_is_a_video(tmp_path):
  assert len(decoded(write(tmp_path / "a.mp4", FRAMES[:1]))[0]) == 1


def test_a_video_without_frames_is_named(tmp_path):
  path = tmp_path / "a.mkv"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=30)
    stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
    container.start_encoding()
  with pytest.raises(VideoError, match=r"a\.mkv: "):
    decoded(path)


def test_sound_alone_is_no_video(tmp_path):
  path = tmp_path / "a.mp4"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("aac", rate=16000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    frame.sample_rate = 16000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
  with pytest.raises(VideoError, match=r"a\.mp4: the file has no video stream"):
    decode_video(path)


@pytest.mark.parametrize("content", [b"", b"no video", b"\x00\x00\x00\x18ftypmp42" + bytes(99)])
def test_a_file_of_another_kind_is_named(tmp_path, content):
  path = tmp_path / "a.mp4"
  path.write_bytes(content)
  with pytest.raises(VideoError, match=r"a\.mp4: "):
    decode_video(path)


def test_a_broken_off_video_is_not_shortened_silently(tmp_path):
  noise = np.random.default_rng(0).integers(0, 255, FRAMES.shape, np.uint8)
  path = write(tmp_path / "a.mkv", noise)
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  try:
    frames, _ = decoded(path)
  except VideoError as error:
    assert "a.mkv" in str(error)
  else:
    assert len(frames) < len(FRAMES)  # the build compares this with the number of poses


def test_a_video_cannot_make_the_decoder_read_other_files(tmp_path):
  write_video(tmp_path / "secret.mp4", FRAMES)
  playlist = tmp_path / "a.mp4"
  playlist.write_text(
    f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n"
  )
  with pytest.raises(VideoError):
    decoded(playlist)
  (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
  with pytest.raises(VideoError):
    decoded(tmp_path / "concat.mp4")


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
    decode_video(tmp_path / "none.mp4")

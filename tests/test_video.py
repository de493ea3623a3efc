import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from pcan_jax.clips.timing import frame_rate
from pcan_jax.clips.video import VideoError, decode_video
from tests.tiny_source import write_video

# A bright left upper quarter tells all rotations apart.
FRAMES = np.full((6, 48, 64, 3), 40, np.uint8)
FRAMES[:, :24, :32] = (200, 120, 60)


def decoded(path):
  frames = decode_video(path)
  return np.stack(list(frames)), frame_rate(frames.times)


def write(
  path, frames=FRAMES, codec="libx264", pix_fmt="yuv420p", times=None, tick=Fraction(1, 600), **mux
):
  """A video with what `write_video` cannot do."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w", **mux) as container:
    stream = container.add_stream(codec, rate=30)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = pix_fmt
    stream.time_base = stream.codec_context.time_base = tick
    for index, image in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(image, format="rgb24")
      frame.pts = index / tick / 30 if times is None else times[index]
      frame.pts = round(frame.pts)
      frame.time_base = tick
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def as_browsers_record(path, milliseconds, frames):
  """A webm whose header has neither a rate nor a length, as MediaRecorder writes it."""
  write(path, frames, "libvpx", times=milliseconds, tick=Fraction(1, 1000), format="webm")
  content = bytearray(path.read_bytes())
  rate = content.find(bytes.fromhex("23e383"))
  size = content[rate + 3] & 0x7F
  content[rate : rate + 4 + size] = bytes([0xEC, 0x80 | (2 + size)]) + bytes(2 + size)
  length = content.find(bytes.fromhex("448988"))
  content[length : length + 11] = bytes([0xEC, 0x89]) + bytes(9)
  tag = content.find(b"DURATION")
  content[tag : tag + 8] = b"WHATEVER"
  path.write_bytes(content)
  return path


def test_frames_are_rgb_and_complete(tmp_path):
  write_video(tmp_path / "a.mp4", FRAMES, fps=25)
  frames, fps = decoded(tmp_path / "a.mp4")
  assert frames.shape == FRAMES.shape and frames.dtype == np.uint8 and fps == 25
  np.testing.assert_allclose(frames[:, 12, 16], np.tile([200, 120, 60], (6, 1)), atol=6)


def ask_for_rotation(path, quarters):
  """Makes an mp4 file ask its player to turn it clockwise."""
  cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
  ask_for_matrix(path, (cos, sin, -sin, cos))


def ask_for_matrix(path, signs):
  """Makes an mp4 file ask its player to show (x, y) elsewhere, in its track header."""
  a, b, c, d = (sign << 16 for sign in signs)
  matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
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


@pytest.mark.parametrize(
  "matrix",
  [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)],
  ids=["left and right", "top and bottom", "along one diagonal", "along the other"],
)
def test_mirrored_videos_are_mirrored_back(tmp_path, matrix):
  a, b, c, d = matrix
  stored = FRAMES
  if b:  # the pixel (x, y) is shown at (c y, b x)
    stored = np.swapaxes(stored, 1, 2)
    a, d = b, c
  stored = stored[:, :: d or 1, :: a or 1]
  path = write(tmp_path / "a.mp4", np.ascontiguousarray(stored))
  ask_for_matrix(path, matrix)
  frames, _ = decoded(path)
  assert frames.shape == FRAMES.shape
  assert np.abs(frames.astype(int) - FRAMES).mean() < 4


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frames_of_a_varying_rate_have_their_own_times(tmp_path, suffix):
  frames = decode_video(write(tmp_path / f"a{suffix}", times=[0, 10, 40, 100, 110, 150]))
  assert len(list(frames)) == 6 and not frames.damage
  np.testing.assert_allclose(frames.times * 600, [0, 10, 40, 100, 110, 150, 190], atol=0.7)


@pytest.mark.parametrize("rate", ["30", "30000/1001", "24", "12.5"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_rounded_timestamps_of_a_constant_rate_are_exact(tmp_path, suffix, rate):
  path = tmp_path / f"a{suffix}"
  write_video(path, np.tile(FRAMES, (5, 1, 1, 1)), fps=Fraction(rate))
  frames = decode_video(path)
  list(frames)
  np.testing.assert_allclose(frames.times, np.arange(31) / float(Fraction(rate)), rtol=1e-12)


def test_a_browsers_recording_has_the_rate_of_its_frames(tmp_path):
  milliseconds = np.cumsum(np.random.default_rng(0).integers(25, 42, 60))
  path = as_browsers_record(tmp_path / "a.webm", milliseconds, np.tile(FRAMES, (10, 1, 1, 1)))
  frames = decode_video(path)
  assert len(list(frames)) == 60 and not frames.damage
  np.testing.assert_allclose(frames.times[:-1], (milliseconds - milliseconds[0]) / 1000)
  assert frame_rate(frames.times) == pytest.approx(30, abs=1.5)


@pytest.mark.parametrize(
  ("name", "codec", "container"),
  [
    ("a.wmv", "wmv2", "asf"),
    ("a.mpg", "mpeg1video", "mpeg"),
    ("a.mp4", "mpeg1video", "mpeg"),
    ("a.ts", "libx264", "mpegts"),
    ("a.flv", "libx264", "flv"),
    ("a.gif", "gif", "gif"),
  ],
)
def test_other_containers_are_read_whatever_they_are_called(tmp_path, name, codec, container):
  tick = Fraction(1, 100) if codec == "gif" else Fraction(1, 30)
  path = write(
    tmp_path / name,
    codec=codec,
    pix_fmt="rgb8" if codec == "gif" else "yuv420p",
    times=np.arange(6) * (4 if codec == "gif" else 1),
    tick=tick,
    format=container,
  )
  frames = decode_video(path)
  images = np.stack(list(frames))
  assert images.shape == FRAMES.shape and not frames.damage
  np.testing.assert_allclose(images[:, 12, 16], np.tile([200, 120, 60], (6, 1)), atol=65)
  assert frame_rate(frames.times) == pytest.approx(25 if codec == "gif" else 30, rel=5e-3)


def test_what_is_not_read_is_told_with_the_way_round(tmp_path):
  path = write(tmp_path / "a.mxf", codec="mpeg2video", tick=Fraction(1, 30), format="mxf")
  with pytest.raises(
    VideoError, match=r"a\.mxf: .*none of MP4, .*GIF.*`ffmpeg -i FILE -c:v libx264"
  ):
    decode_video(path)
  (tmp_path / "images").mkdir()
  with pytest.raises(VideoError, match=r"images is a folder.*`ffmpeg -framerate 30"):
    decode_video(tmp_path / "images")


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


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_picture_before_the_video_is_not_the_video(tmp_path, suffix):
  path = tmp_path / f"a{suffix}"
  with av.open(str(path), "w") as container:
    cover = container.add_stream("mjpeg", rate=1)
    cover.width = cover.height = 16
    cover.pix_fmt = "yuvj420p"
    cover.disposition = av.stream.Disposition(0)
    stream = container.add_stream("libx264", rate=30)
    stream.height, stream.width = FRAMES.shape[1:3]
    stream.pix_fmt = "yuv420p"
    stream.disposition = av.stream.Disposition.default
    picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
    container.mux(cover.encode(picture))
    container.mux(cover.encode())
    for image in FRAMES:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
    container.mux(stream.encode())
  assert np.stack(list(decode_video(path))).shape == FRAMES.shape


def test_packets_that_are_lost_within_a_stream_are_damage(tmp_path):
  path = write(tmp_path / "a.ts", NOISE, tick=Fraction(1, 30))
  content = path.read_bytes()
  packets = [content[start : start + 188] for start in range(0, len(content), 188)]
  middle = len(packets) // 2
  path.write_bytes(b"".join(packets[:middle] + packets[middle + 5 :]))
  try:
    frames = decode_video(path)
    list(frames)
  except VideoError as error:
    assert "a.ts" in str(error)
  else:
    assert frames.damage


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


NOISE = np.random.default_rng(0).integers(0, 255, (40, *FRAMES.shape[1:]), np.uint8)


@pytest.mark.parametrize(
  ("name", "codec", "options"),
  [
    ("a.mkv", "libx264", {}),
    ("a.avi", "mpeg4", {}),
    ("a.webm", "libvpx", {}),
    ("a.mp4", "libx264", {"options": {"movflags": "faststart"}}),
    ("a.flv", "libx264", {}),
    ("a.wmv", "wmv2", {"format": "asf"}),
    ("a.gif", "gif", {"format": "gif"}),
    ("a.ts", "libx264", {}),
  ],
)
@pytest.mark.parametrize("share", [0.4, 0.75, 0.9, 0.97])
def test_a_broken_off_video_is_not_shortened_silently(tmp_path, name, codec, options, share):
  is_gif = codec == "gif"
  path = write(
    tmp_path / name,
    NOISE,
    codec,
    "rgb8" if is_gif else "yuv420p",
    times=np.arange(len(NOISE)) * 4 if is_gif else None,
    tick=Fraction(1, 100 if is_gif else 30),
    **options,
  )
  frames = decode_video(path)
  assert len(list(frames)) == len(NOISE) and not frames.damage
  content = path.read_bytes()
  path.write_bytes(content[: int(len(content) * share)])
  try:
    frames = decode_video(path)
    count = len(list(frames))
  except VideoError as error:
    assert name in str(error)
  else:
    assert count <= len(NOISE) and frames.damage


def test_what_the_decoder_complains_of_is_told(tmp_path):
  path = write(tmp_path / "a.webm", np.tile(FRAMES, (3, 1, 1, 1)), "libvpx", tick=Fraction(1, 30))
  content = path.read_bytes()
  said = []
  for start in range(len(content) // 2, len(content), len(content) // 20):
    path.write_bytes(content[:start] + bytes(100) + content[start + 100 :])
    frames = decode_video(path)
    assert sum(1 for _ in frames) <= 18
    said += frames.damage
  assert any("the decoder says" in reason for reason in said)


def test_a_complaint_is_told_of_every_file_it_is_about(tmp_path):
  """FFmpeg's log keeps what it repeats, which once came with the next file or not at all."""
  path = write(tmp_path / "a.mkv", NOISE)
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
  said = []
  for _ in range(3):
    frames = decode_video(path)
    assert list(frames)
    said.append(frames.damage)
  assert "the decoder says" in said[0][1] and said[0] == said[1] == said[2]


def test_frames_that_avi_stores_in_another_order_are_evenly_spaced(tmp_path):
  path = write(tmp_path / "a.avi", NOISE, "libx264", tick=Fraction(1, 30))
  frames = decode_video(path)
  assert len(list(frames)) == len(NOISE) and not frames.damage
  np.testing.assert_allclose(frames.times, np.arange(len(NOISE) + 1) / 30)


def test_timestamps_that_jump_or_go_back_are_told_and_not_believed(tmp_path):
  times = np.arange(6) * 20
  times[3:] += 600 * 3600
  frames = decode_video(write(tmp_path / "a.mkv", times=times))
  assert len(list(frames)) == 6
  assert frames.times[-1] < 1 and "jump by 3600.0 s at frame 3" in "".join(frames.damage)


def test_times_are_known_when_all_frames_are(tmp_path):
  frames = decode_video(write(tmp_path / "a.mp4"))
  next(frames)
  with pytest.raises(RuntimeError, match=r"a\.mp4: its frames have not been read to the end"):
    frames.times  # noqa: B018


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

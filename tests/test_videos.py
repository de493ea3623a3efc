import pathlib

import numpy as np
import pytest

from pcan_jax.clips.video import VideoError
from pcan_jax.clips.video_files import FilesByName, clip_id, find_videos
from pcan_jax.prediction.videos import Video
from tests.tiny_source import write_video


def make_video(num_frames, fps=30.0, scores=None, times=None):
  keypoints = None if scores is None else np.zeros((*scores.shape, 2), np.float32)
  times = np.arange(num_frames + 1) / fps if times is None else np.array(times, np.float64)
  return Video(pathlib.Path("a.mp4"), times, (48, 64), (), keypoints, scores)


def test_an_hour_is_cut_into_windows_without_gaps():
  windows = make_video(108_000, fps=29.97).windows(2.0, 1.5)
  assert {window.stop - window.first for window in windows} == {59, 60}
  assert windows[0].first == 0 and windows[-1].stop == 108_000
  for index, window in enumerate(windows[:-1]):
    assert window.start_seconds == pytest.approx(1.5 * index, abs=0.5 / 29.97 + 1e-5)
  assert windows[1].start_seconds == pytest.approx(45 / 29.97)
  assert windows[-1].end_seconds == pytest.approx(108_000 / 29.97)


def test_windows_overlap_by_half_unless_told():
  assert [(w.first, w.stop) for w in make_video(100).windows(1.0)] == [
    (0, 30), (15, 45), (30, 60), (45, 75), (60, 90), (70, 100),
  ]  # fmt: skip
  assert [w.first for w in make_video(90).windows(1.0, 1.0)] == [0, 30, 60]


@pytest.mark.parametrize("seconds", [None, 1.0, 100.0])
def test_a_short_video_is_one_window(seconds):
  assert [(w.first, w.stop) for w in make_video(20).windows(seconds)] == [(0, 20)]


def test_windows_shorter_than_a_frame_are_frames():
  assert [(w.first, w.stop) for w in make_video(3).windows(0.001, 0.001)] == [
    (0, 1),
    (1, 2),
    (2, 3),
  ]


def test_windows_of_a_varying_rate_are_cut_by_time():
  # 60 frames in two seconds, then 20 in ten.
  times = [*np.arange(60) / 30, *2 + np.arange(21) / 2]
  windows = make_video(80, times=times).windows(2.0, 2.0)
  assert [(w.first, w.stop) for w in windows] == [
    (0, 60), (60, 64), (64, 68), (68, 72), (72, 76), (76, 80),
  ]  # fmt: skip
  assert [w.start_seconds for w in windows] == [0, 2, 4, 6, 8, 10]
  assert windows[-1].end_seconds == 12
  # Shorter than what a frame lasts, they hold the frame that is closest, each once.
  short = make_video(80, times=times).windows(0.1, 0.1)
  assert [w.first for w in short[:21]] == [*range(0, 60, 3), 60]
  assert [(w.first, w.stop) for w in short[20:]] == [(i, i + 1) for i in range(60, 80)]


@pytest.mark.parametrize(
  ("seconds", "stride", "message"),
  [
    (0.0, None, "window"),
    (1.0, -1.0, "stride"),
    (float("nan"), None, "window"),
    (None, 1.0, "needs"),
  ],
)
def test_useless_lengths_are_refused(seconds, stride, message):
  with pytest.raises(ValueError, match=message):
    make_video(10).windows(seconds, stride)


def test_windows_without_a_person_are_known():
  scores = np.zeros((1, 60, 5), np.float32)
  scores[0, 40] = 0.5
  video = make_video(60, scores=scores)
  assert [video.has_person(w) for w in video.windows(1.0, 1.0)] == [False, True]


def test_frames_are_counted_not_believed(tmp_path):
  path = tmp_path / "clip.one.mp4"
  write_video(path, np.zeros((7, 48, 64, 3), np.uint8), fps=25)
  video = Video.open(path)
  assert (video.num_frames, video.fps, video.size) == (7, 25.0, (48, 64))
  assert clip_id(path) == "clip.one"
  path.write_bytes(path.read_bytes()[:400])
  with pytest.raises(VideoError, match=r"clip\.one\.mp4"):
    Video.open(path)


def test_videos_of_folders_are_found_in_order(tmp_path):
  for name in ("b/2.MP4", "b/1.mkv", "a.avi", "notes.txt", "c.mp4/x.txt", "b/._2.MP4"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  found = find_videos(tmp_path)
  assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.avi", "b/1.mkv", "b/2.MP4"]
  assert find_videos(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]  # named, so tried
  (tmp_path / "z.ogv").touch()  # not passed over in silence, though it cannot be read
  assert find_videos(tmp_path)[-1] == tmp_path / "z.ogv"
  with pytest.raises(FileNotFoundError, match="no video or folder"):
    find_videos(tmp_path / "missing")
  with pytest.raises(FileNotFoundError, match="holds no video"):
    find_videos(tmp_path / "c.mp4")
  (tmp_path / "c.mp4" / "0001.jpg").touch()
  with pytest.raises(FileNotFoundError, match="but images; join .*`ffmpeg -framerate 30 "):
    find_videos(tmp_path / "c.mp4")


def test_accents_may_be_written_in_two_ways(tmp_path):
  decomposed, composed = "gru\u0308n/e\u0301.mp4", "gr\u00fcn/\u00e9.mp4"
  for on_disk, asked in ((decomposed, composed), (composed, decomposed)):
    folder = tmp_path / str(len(on_disk))
    (folder / on_disk).parent.mkdir(parents=True)
    (folder / on_disk).touch()
    files = FilesByName()
    assert files.find(folder / on_disk, below=folder) == folder / on_disk
    assert files.find(folder / asked, below=folder) == folder / on_disk
    assert files.find(folder / "gr\u00fcn/other.mp4", below=folder) is None
    assert clip_id(folder / on_disk) == "\u00e9"

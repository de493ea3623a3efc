import contextlib
import functools
import os
import pathlib
import pickle
import re
import sys
import tomllib

import numpy as np
import pytest

from data import extract_pose
from data.extract_pose import (
  BODY,
  FINGERTIPS,
  JOINTS,
  MIN_VISIBILITY,
  extract,
  main,
  name_videos,
  to_openpose,
)
from pcan_jax.clips.pose_files import open_poses
from pcan_jax.clips.safe_pickle import load_pickle
from pcan_jax.clips.video import decode_video
from pcan_jax.content import sha256
from pcan_jax.keypoints import LAYOUTS
from tests.test_video import ask_for_rotation
from tests.tiny_source import write_video

LAYOUT = LAYOUTS["openpose-28"]
SIZE = (48, 64)
FRAMES = np.full((5, *SIZE, 3), 90, np.uint8)


def body(visibility=0.9):
  """Landmarks at (0.01 i, 0.02 i)."""
  index = np.arange(33)
  return np.stack([0.01 * index, 0.02 * index, np.full(33, visibility)], axis=1)


def hand(x):
  return np.stack([np.full(21, x), 0.01 * np.arange(21)], axis=1)


def joint(name):
  return LAYOUT.joints.index(name)


@contextlib.contextmanager
def tracker():
  """Sees a person in every frame but the first two of a video."""
  seen = []

  def track(frame):
    seen.append(frame)
    return (None, None, None) if len(seen) <= 2 else (body(), hand(0.25), None)

  yield track


def test_joints_are_those_of_the_layout():
  tips = [f"{side}_{tip}" for side in ("left", "right") for tip in FINGERTIPS]
  assert list(JOINTS) == [*BODY, *tips]
  landmarks = LAYOUTS["mediapipe-33"].joints
  for name, sources in BODY.items():
    expected = ("left_shoulder", "right_shoulder") if name == "neck" else (name,)
    assert tuple(landmarks[source] for source in sources) == expected


def test_coordinates_are_pixels_with_the_centre_of_the_first_at_zero():
  keypoints, scores = to_openpose((body(), None, None), SIZE)
  assert keypoints.dtype == scores.dtype == np.float32
  np.testing.assert_allclose(
    keypoints[joint("right_knee")], [0.26 * 64 - 0.5, 0.52 * 48 - 0.5], rtol=1e-6
  )
  np.testing.assert_allclose(
    keypoints[joint("neck")], [0.115 * 64 - 0.5, 0.23 * 48 - 0.5], rtol=1e-6
  )
  assert np.all(scores[:18] == np.float32(0.9)) and not scores[18:].any()
  edges = body()
  edges[0, :2], edges[2, :2] = 0, 1
  keypoints, _ = to_openpose((edges, None, None), SIZE)
  np.testing.assert_array_equal(keypoints[joint("nose")], [0, 0])
  np.testing.assert_array_equal(keypoints[joint("left_eye")], [63, 47])


def test_fingertips_go_to_their_own_hand_with_the_score_of_its_wrist():
  landmarks = body()
  landmarks[15, 2], landmarks[16, 2] = 0.5, 0.7
  keypoints, scores = to_openpose((landmarks, hand(0.25), hand(0.75)), SIZE)
  for side, x, score in (("left", 0.25, 0.5), ("right", 0.75, 0.7)):
    for tip, landmark in (("thumb_tip", 4), ("index_tip", 8), ("little_tip", 20)):
      index = joint(f"{side}_{tip}")
      expected = [x * 64 - 0.5, max(0.01 * landmark * 48 - 0.5, 0)]
      np.testing.assert_allclose(keypoints[index], expected, rtol=1e-6)
      assert scores[index] == np.float32(score)


def test_what_is_not_seen_is_zero():
  landmarks = body()
  landmarks[12, 2] = MIN_VISIBILITY / 2  # right shoulder, and so the neck
  landmarks[25, 1] = 1.01  # left knee, below the frame
  landmarks[16, 2] = 0  # right wrist, and so its hand
  keypoints, scores = to_openpose((landmarks, hand(0.2), hand(0.8)), SIZE)
  missing = ["right_shoulder", "neck", "left_knee", "right_wrist", "right_index_tip"]
  indices = [joint(name) for name in missing]
  assert not keypoints[indices].any() and not scores[indices].any()
  assert (scores > 0).sum() == 28 - 4 - 5
  nobody, scores = to_openpose((None, None, None), SIZE)
  assert not nobody.any() and not scores.any() and nobody.shape == (28, 2)


def test_a_folder_becomes_one_pickle_that_is_read_as_poses(tmp_path, capsys):
  write_video(tmp_path / "videos/train/один.mp4", FRAMES)
  write_video(tmp_path / "videos/two.v2.mp4", FRAMES[:4])
  (tmp_path / "videos/notes.txt").write_text("no video")
  (tmp_path / "videos/broken.mp4").write_bytes(b"no video either")
  videos = name_videos(tmp_path / "videos")
  assert list(videos) == ["broken", "train/один", "two.v2"]
  entries, (unreadable,) = extract(videos, tmp_path / "parts", tracker)
  assert "broken.mp4" in unreadable
  printed = capsys.readouterr().err
  assert re.search(r"skipped: .*broken\.mp4", printed)
  assert re.search(r"один\.mp4: no person in 2 of 5 frames", printed)
  assert re.search(r"two\.v2\.mp4: no person in 2 of 4 frames", printed)
  path = tmp_path / "poses.pkl"
  path.write_bytes(pickle.dumps(entries, protocol=4))
  first, _ = load_pickle(path)
  assert first["frame_dir"] == "train/один" and first["total_frames"] == 5
  assert first["img_shape"] == first["original_shape"] == SIZE
  keypoints, scores = open_poses(path, LAYOUT).read("один", 5, SIZE)
  assert keypoints.shape == (1, 5, 28, 2) and scores.shape == (1, 5, 28)
  assert keypoints.dtype == scores.dtype == np.float32
  np.testing.assert_array_equal(scores.any(axis=(0, 2)), [False, False, True, True, True])
  assert open_poses(path, LAYOUT).clip_ids == ["two.v2", "один"]


def test_frames_stand_upright_as_in_the_build(tmp_path):
  path = tmp_path / "a.mp4"
  write_video(path, np.rot90(FRAMES, axes=(1, 2)))
  ask_for_rotation(path, 1)
  (entry,), _ = extract(name_videos(path), tmp_path / "parts", tracker)
  assert entry["img_shape"] == next(decode_video(path)).shape[:2] == SIZE


def test_clips_of_one_name_are_refused(tmp_path):
  for name in ("train/a.mp4", "val/a.avi"):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).touch()
  with pytest.raises(ValueError, match="would both be the clip 'a'"):
    name_videos(tmp_path)
  (tmp_path / "empty").mkdir()
  with pytest.raises(FileNotFoundError, match="holds no video"):
    name_videos(tmp_path / "empty")
  with pytest.raises(FileNotFoundError, match="no video or folder"):
    name_videos(tmp_path / "nothing")


def test_the_command_writes_the_readable_and_fails_for_the_others(tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(extract_pose, "open_tracker", tracker)
  write_video(tmp_path / "good.mp4", FRAMES)
  (tmp_path / "bad.mp4").touch()
  out = tmp_path / "new" / "poses.pkl"
  with pytest.raises(SystemExit, match="1 of 2 videos could not be read"):
    main([str(tmp_path), "--out", str(out), "--jobs", "1"])
  assert len(load_pickle(out)) == 1 and list(out.parent.iterdir()) == [out]
  printed = capfd.readouterr()
  assert "videos 1, frames 5" in printed.out and "bad.mp4" in printed.err
  with pytest.raises(SystemExit, match="2"):
    main([str(tmp_path), "--out", "poses.npz"])


class Stopped(Exception):
  """The power goes."""


@contextlib.contextmanager
def counting_tracker(calls, stop_after=None):
  """Tells frames apart by their brightness, and how often it was asked."""

  def track(frame):
    if len(calls) == stop_after:
      raise Stopped
    calls.append(int(frame[0, 0, 0]))
    landmarks = body()
    landmarks[:, 0] = frame[0, 0, 0] / 500
    return landmarks, None, None

  yield track


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
  monkeypatch.setattr(extract_pose, "CHUNK", 4)
  frames = np.full((10, *SIZE, 3), 1, np.uint8) * np.arange(20, 220, 20)[:, None, None, None]
  for name in ("a", "b", "c"):
    write_video(tmp_path / "videos" / f"{name}.mp4", frames.astype(np.uint8))
  videos = name_videos(tmp_path / "videos")
  expected, _ = extract(videos, tmp_path / "undisturbed", functools.partial(counting_tracker, []))
  parts = tmp_path / "parts"
  # In the second stretch of the second video, and then in its third.
  for stop_after in (16, 5):
    with pytest.raises(Stopped):
      extract(videos, parts, functools.partial(counting_tracker, [], stop_after))
  calls = []
  entries, _ = extract(videos, parts, functools.partial(counting_tracker, calls))
  assert len(calls) == 2 + 10  # of 30
  for entry, other in zip(entries, expected, strict=True):
    assert entry["frame_dir"] == other["frame_dir"] and entry["total_frames"] == 10
    for field in ("keypoint", "keypoint_score"):
      np.testing.assert_array_equal(entry[field], other[field])
  # Another video of the same name, size and date is no longer the one that was looked at.
  before = videos["a"].stat()
  content = bytearray(videos["a"].read_bytes())
  content[content.index(b"isom")] ^= 1  # the brand of the container
  videos["a"].write_bytes(content)
  os.utime(videos["a"], ns=(0, before.st_mtime_ns))
  calls.clear()
  (entry, *_), _ = extract(videos, parts, functools.partial(counting_tracker, calls))
  assert len(calls) == 10
  assert entry["video_sha256"] == sha256(videos["a"]) != expected[0]["video_sha256"]


def test_several_processes_find_the_same(tmp_path):
  for name, count in (("a", 5), ("b", 3)):
    write_video(tmp_path / "videos" / f"{name}.mp4", FRAMES[:count])
  videos = name_videos(tmp_path / "videos")
  alone, _ = extract(videos, tmp_path / "one", tracker, jobs=1)
  together, _ = extract(videos, tmp_path / "two", tracker, jobs=2)
  for entry, other in zip(alone, together, strict=True):
    assert entry["frame_dir"] == other["frame_dir"]
    np.testing.assert_array_equal(entry["keypoint"], other["keypoint"])


def test_several_processes_share_a_long_video(tmp_path, monkeypatch):
  """Each takes every second chunk, whatever had been done before."""
  monkeypatch.setattr(extract_pose, "CHUNK", 4)
  frames = np.full((18, *SIZE, 3), 1, np.uint8) * np.arange(20, 200, 10)[:, None, None, None]
  path = tmp_path / "a.mp4"
  write_video(path, frames.astype(np.uint8))
  assert [extract_pose._num_shares(path, most) for most in (0, 2, 9)] == [1, 2, 5]
  alone, _ = extract({"a": path}, tmp_path / "one", functools.partial(counting_tracker, []))
  parts = tmp_path / "two"
  shares = [extract_pose.Share("a", path, index, 2) for index in range(2)]
  for share, count in zip(shares, (4 + 4 + 2, 4 + 4)):
    calls = []
    folder = extract_pose.estimate(share, parts, functools.partial(counting_tracker, calls))
    assert len(calls) == count
  shared = extract_pose.join_chunks(folder)
  for field in ("keypoint", "keypoint_score", "total_frames", "video_sha256"):
    np.testing.assert_array_equal(shared[field], alone[0][field])


def test_damaged_videos_are_told(tmp_path, capsys):
  noise = np.random.default_rng(0).integers(0, 255, (30, *SIZE, 3), np.uint8)
  path = tmp_path / "a.mkv"
  write_video(path, noise)
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
  (entry,), _ = extract(name_videos(path), tmp_path / "parts", tracker)
  assert "damage" not in entry
  assert "a.mkv: its header promises 1.00 s, but it ends after" in capsys.readouterr().err


def test_without_mediapipe_uv_runs_it_or_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "mediapipe", None)
  write_video(tmp_path / "a.mp4", FRAMES)
  uv = tmp_path / "bin" / "uv"
  uv.parent.mkdir()
  uv.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\nexit 3\n')
  uv.chmod(0o755)
  monkeypatch.setenv("PATH", str(uv.parent), prepend=os.pathsep)
  words = [str(tmp_path / "a.mp4"), "--out", str(tmp_path / "poses.pkl")]
  with pytest.raises(SystemExit) as done:
    main(words)
  assert done.value.code == 3
  assert (tmp_path / "words").read_text().split() == ["run", extract_pose.__file__, *words]
  monkeypatch.setattr(extract_pose.shutil, "which", lambda name: None)
  with pytest.raises(SystemExit, match="uv run .*/data/extract_pose.py"):
    main([str(tmp_path), "--out", str(tmp_path / "poses.pkl")])
  assert not (tmp_path / "poses.pkl").exists()


def test_the_environment_of_the_script_is_well_formed():
  text = pathlib.Path(extract_pose.__file__).read_text(encoding="utf-8")
  (block,) = re.findall(r"(?m)^# /// script\n((?:#.*\n)+?)# ///$", text)
  environment = tomllib.loads("".join(line[2:] for line in block.splitlines(keepends=True)))
  assert "mediapipe==0.10.21" in environment["dependencies"]

import csv
import json
import logging
import pickle
import shutil

import av
import numpy as np
import pytest

from pcan_jax.clips.video import decode_video
from pcan_jax.prediction.files import predict_files
from pcan_jax.prediction.recognizer import Recognizer
from pcan_jax.prediction.videos import Video
from tests.test_video import as_browsers_record, write
from tests.tiny_checkpoint import write_tiny_checkpoint
from tests.tiny_source import NUM_KEYPOINTS, make_clip, write_video


def pose_entry(clip_id, keypoints, score=0.9):
  return {
    "frame_dir": clip_id,
    "keypoint": keypoints,
    "keypoint_score": np.full(keypoints.shape[:3], score, np.float32),
  }


@pytest.fixture(scope="module")
def checkpoint(tiny_dataset, tmp_path_factory):
  return write_tiny_checkpoint(tmp_path_factory.mktemp("run"), tiny_dataset)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Good videos, and every kind of bad one, with poses."""
  directory = tmp_path_factory.mktemp("videos")
  frames, keypoints = make_clip(np.random.default_rng(0), action=1)
  poses = []
  for name, count, score in (
    ("good", None, 0.9),
    ("below/other", None, 0.9),
    ("nobody", None, 0.0),
    ("single", 1, 0.9),
    ("damaged", None, 0.9),
    ("no_pose", None, None),
  ):
    write_video(directory / f"{name}.mp4", frames[:count], fps=10)
    if score is not None:
      poses.append(pose_entry(name.rsplit("/", 1)[-1], keypoints[:, :count], score))
  damaged = directory / "damaged.mp4"
  damaged.write_bytes(damaged.read_bytes()[:500])
  (directory / "poses.pkl").write_bytes(pickle.dumps(poses))
  return directory


@pytest.fixture(scope="module")
def predicted(checkpoint, folder, tmp_path_factory):
  output = tmp_path_factory.mktemp("output")
  failed = predict_files(
    checkpoint,
    folder,
    output=output,
    pose=folder / "poses.pkl",
    window=0.8,
    overlay=True,
    features=True,
  )
  return failed, output


def test_what_is_wrong_with_a_file_is_said_and_the_others_go_on(predicted, folder):
  failed, output = predicted
  videos = {v["file"]: v for v in json.loads((output / "predictions.json").read_text())["videos"]}
  assert list(videos) == [
    "below/other.mp4", "damaged.mp4", "good.mp4", "no_pose.mp4", "nobody.mp4", "single.mp4",
  ]  # fmt: skip
  assert failed == 4
  assert "damaged.mp4: not a readable video" in videos["damaged.mp4"]["error"]
  assert "no pose of the clip 'no_pose'" in videos["no_pose.mp4"]["error"]
  for name in ("damaged.mp4", "no_pose.mp4"):
    assert videos[name]["windows"] == []
  assert videos["nobody.mp4"]["error"] is None and videos["nobody.mp4"]["windows"]
  assert "no person in any frame" in videos["nobody.mp4"]["warnings"][0]
  assert not any(window["person_found"] for window in videos["nobody.mp4"]["windows"])
  assert "single frame" in videos["single.mp4"]["warnings"][0]
  assert len(videos["single.mp4"]["windows"]) == 1
  good = videos["good.mp4"]
  assert good["warnings"] == [] and good["error"] is None
  assert (good["height"], good["width"], good["fps"]) == (64, 80, 10)


def test_windows_cover_the_video_and_hold_what_the_recognizer_says(predicted, checkpoint, folder):
  _, output = predicted
  videos = json.loads((output / "predictions.json").read_text())["videos"]
  (good,) = [video for video in videos if video["file"] == "good.mp4"]
  recognizer = Recognizer.load(checkpoint)
  frames = np.stack(list(Video.open(folder / "good.mp4").frames()))
  entry = pickle.loads((folder / "poses.pkl").read_bytes())[0]
  assert good["windows"][0]["first_frame"] == 0
  assert good["windows"][-1]["stop_frame"] == good["num_frames"] == len(frames)
  for window in good["windows"]:
    first, stop = window["first_frame"], window["stop_frame"]
    assert stop - first == 8 and window["person_found"]
    assert (window["start"], window["end"]) == (first / 10, stop / 10)
    keypoints, scores = entry["keypoint"][:, first:stop], entry["keypoint_score"][:, first:stop]
    prediction = recognizer.predict(frames[first:stop], keypoints, scores)
    for kind, best in (
      ("actions", prediction.top_actions()),
      ("bodies", prediction.top_bodies()),
    ):
      assert [entry["name"] for entry in window[kind]] == [name for name, _ in best]
      written = [entry["probability"] for entry in window[kind]]
      np.testing.assert_allclose(written, [p for _, p in best], atol=1e-6)


def test_the_table_says_the_same(predicted):
  _, output = predicted
  with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  for video in json.loads((output / "predictions.json").read_text())["videos"]:
    of_video = [row for row in rows if row["file"] == video["file"]]
    assert len(of_video) == max(len(video["windows"]), 1)
    problems = [video["error"], *video["warnings"]]
    assert all((problem or "") in of_video[0]["problem"] for problem in problems)
    for row, window in zip(of_video, video["windows"]):
      assert float(row["end"]) == window["end"]
      assert row["action_1"] == window["actions"][0]["name"]
      assert float(row["body_2_probability"]) == window["bodies"][1]["probability"]
      assert row["body_4"] == ""  # the tree has three body parts


def test_features_are_those_of_the_windows(predicted):
  _, output = predicted
  videos = json.loads((output / "predictions.json").read_text())["videos"]
  windows = [(v["file"], w["first_frame"], w["stop_frame"]) for v in videos for w in v["windows"]]
  with np.load(output / "features.npz") as features:
    found = zip(features["ids"].tolist(), *features["frames"].T.tolist())
    assert list(found) == windows
    assert features["windows"].shape == (len(windows), 2)
    assert features["rgb/action/embedding"].shape == (len(windows), 16)
    assert features["pose/body/logits"].shape == (len(windows), 3)


def test_overlays_are_videos_of_the_same_length(predicted):
  _, output = predicted
  videos = json.loads((output / "predictions.json").read_text())["videos"]
  expected = {
    v["file"].replace(".mp4", ".overlay.mp4"): v["num_frames"] for v in videos if v["windows"]
  }
  found = {p.relative_to(output).as_posix(): p for p in output.rglob("*.mp4*")}
  assert found.keys() == expected.keys()
  for name in ("good.overlay.mp4", "single.overlay.mp4"):
    with av.open(str(found[name])) as container:
      frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == expected[name]
    assert frames[0].shape == (480, 600 + 340, 3)


def test_times_are_those_of_the_frames(checkpoint, folder, tmp_path):
  """30 frames in a second, then 10 in five, and as a browser records."""
  frames, keypoints = make_clip(np.random.default_rng(0), action=1)
  frames = np.resize(frames, (40, *frames.shape[1:]))
  ticks = np.concatenate([np.arange(30) * 20, 600 + np.arange(10) * 300])
  write(tmp_path / "videos" / "slow.mkv", frames, times=ticks)
  milliseconds = np.arange(40) * 100 / 3 + np.random.default_rng(0).integers(-8, 9, 40)
  as_browsers_record(tmp_path / "videos" / "web.webm", milliseconds.round().astype(int), frames)
  poses = [pose_entry(name, np.resize(keypoints, (1, 40, 28, 2))) for name in ("slow", "web")]
  pose = tmp_path / "poses.pkl"
  pose.write_bytes(pickle.dumps(poses))
  output = tmp_path / "output"
  failed = predict_files(
    checkpoint,
    tmp_path / "videos",
    output=output,
    pose=pose,
    window=1.0,
    stride=1.0,
    num_clips=1,
    overlay=True,
  )
  assert failed == 0
  slow, web = json.loads((output / "predictions.json").read_text())["videos"]
  spans = [(w["start"], w["end"], w["first_frame"], w["stop_frame"]) for w in slow["windows"]]
  assert spans[:2] == [(0, 1, 0, 30), (1, 2, 30, 32)] and spans[-1] == (5, 6, 38, 40)
  assert slow["fps"] == pytest.approx(40 / 6, abs=0.01)
  assert web["fps"] == pytest.approx(30, abs=0.5)
  assert [w["start"] for w in web["windows"]] == pytest.approx([0, 1 / 3], abs=0.03)
  assert [w["end"] for w in web["windows"]] == pytest.approx([1, 4 / 3], abs=0.03)
  overlay = decode_video(output / "slow.overlay.mp4")
  assert len(list(overlay)) == 40
  np.testing.assert_allclose(overlay.times[:-1], ticks / 600, atol=2e-3)


@pytest.mark.slow
def test_a_video_that_is_broken_off_is_predicted_with_a_warning(checkpoint, tmp_path, caplog):
  frames, keypoints = make_clip(np.random.default_rng(0), action=1)
  frames = np.resize(frames, (60, *frames.shape[1:]))
  frames[:] = np.random.default_rng(1).integers(0, 255, frames.shape)
  path = tmp_path / "clip.mkv"
  write_video(path, frames)
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
  count = sum(1 for _ in decode_video(path))
  pose = tmp_path / "poses.pkl"
  pose.write_bytes(pickle.dumps([pose_entry("clip", np.resize(keypoints, (1, count, 28, 2)))]))
  failed = predict_files(checkpoint, path, output=tmp_path / "output", pose=pose, num_clips=1)
  (video,) = json.loads((tmp_path / "output" / "predictions.json").read_text())["videos"]
  assert failed == 1 and video["windows"]
  assert "its header promises 2.00 s, but it ends after" in video["warnings"][0]
  caplog.clear()
  Recognizer.load(checkpoint, num_clips=1).predict_video(path, pose)
  assert "clip.mkv: its header promises 2.00 s" in caplog.text


def test_a_video_is_one_clip_without_a_window(checkpoint, folder, tmp_path, caplog):
  with caplog.at_level(logging.INFO, "pcan_jax.prediction.files"):
    failed = predict_files(
      str(checkpoint), folder / "good.mp4", output=tmp_path, pose=folder / "poses.pkl", num_clips=1
    )
  assert failed == 0
  summary = json.loads((tmp_path / "predictions.json").read_text())
  ((window,),) = (video["windows"] for video in summary["videos"])
  assert window["first_frame"] == 0 and summary["num_clips"] == 1
  assert f"good.mp4  0.00-{window['end']:.2f} s  {window['actions'][0]['name']}" in caplog.text
  assert not list(tmp_path.glob("*.npz")) and not list(tmp_path.glob("*.mp4"))


def test_a_model_of_rgb_alone_predicts_whole_frames(tiny_dataset, folder, tmp_path, caplog):
  checkpoint = write_tiny_checkpoint(tmp_path / "run", tiny_dataset, "posec3d_rgb")
  with caplog.at_level(logging.INFO, "pcan_jax.prediction.files"):
    failed = predict_files(
      checkpoint, folder / "below", output=tmp_path / "output", num_clips=1, features=True
    )
  assert failed == 0 and "whole frames" in caplog.text
  (video,) = json.loads((tmp_path / "output" / "predictions.json").read_text())["videos"]
  assert video["windows"][0]["person_found"] is None
  with np.load(tmp_path / "output" / "features.npz") as features:
    assert not any(name.endswith("/embedding") for name in features.files)


def test_mistakes_are_answered_before_any_work(checkpoint, folder, tmp_path, monkeypatch):
  monkeypatch.setattr(shutil, "which", lambda name: None)
  options = {"output": tmp_path / "output", "pose": folder / "poses.pkl"}
  for videos, changes, message in (
    (folder, {"pose": None}, "uv, which is not installed.*extract_pose.py .* --pose="),
    (folder, {"pose": folder / "missing.pkl"}, "no poses at"),
    (folder, {"window": -1.0}, "window must be a positive"),
    (folder, {"stride": 1.0}, "needs a window"),
    (folder, {"output": folder / "output"}, "is inside the folder of videos"),
    (folder / "missing", {}, "no video or folder"),
  ):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
      predict_files(checkpoint, videos, **options | changes)
  assert not (folder / "output").exists() and not (tmp_path / "output").exists()


def test_videos_that_could_be_mistaken_for_each_other_are_refused(checkpoint, tmp_path):
  for name in ("a/clip.mp4", "b/clip.mp4"):
    write_video(tmp_path / "videos" / name, np.zeros((2, 48, 64, 3), np.uint8))
  pose = tmp_path / "poses.pkl"
  pose.write_bytes(pickle.dumps([pose_entry("clip", np.ones((1, 2, NUM_KEYPOINTS, 2)))]))
  for options in ({"pose": pose}, {"formats": ["boris"]}):
    with pytest.raises(ValueError, match="have the same name"):
      predict_files(checkpoint, tmp_path / "videos", output=tmp_path / "output", **options)
  assert not (tmp_path / "output").exists()

"""Clips that have poses and no videos, from the table to the prediction."""

import csv
import json
import pickle
import shutil

import numpy as np
import pytest

from data.build import build
from data.check import main as check
from data.import_clips import import_clips
from data.import_clips import main as import_main
from pcan_jax.clips import source_layout
from pcan_jax.clips.pose_files import open_poses
from pcan_jax.clips.safe_pickle import load_pickle
from pcan_jax.config import load_config
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.feed.pipeline import read_frames, read_keypoints
from pcan_jax.keypoints import get_layout
from pcan_jax.prediction.files import predict_files
from pcan_jax.prediction.recognizer import Recognizer
from pcan_jax.prediction.videos import Video
from pcan_jax.training.loop import prepare
from tests.test_import_clips import LAYOUT
from tests.tiny_checkpoint import write_tiny_checkpoint
from tests.tiny_config import shrink
from tests.tiny_source import CLIPS, HEIGHT, WIDTH, make_clip, write_tiny_source, write_video


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """The tiny source without its videos, and with persons."""
  directory = write_tiny_source(tmp_path_factory.mktemp("skeletons") / "source")
  shutil.rmtree(directory / "raw_videos")
  with (directory / "annotations" / "persons.csv").open("w") as file:
    rows = csv.writer(file)
    rows.writerow(["id", "person"])
    rows.writerows(
      (f"{split}_{index:03}", f"{'val' if split == 'val' else 'p'}{index % 3}")
      for split, count in CLIPS.items()
      for index in range(count)
    )
  return directory


@pytest.fixture(scope="module")
def dataset(source):
  return open_dataset(build(source, source.parent / "dataset", side=48, jobs=1))


@pytest.fixture(scope="module")
def checkpoint(dataset, tmp_path_factory):
  return write_tiny_checkpoint(tmp_path_factory.mktemp("run"), dataset, "pcan_pose")


def test_its_poses_are_those_of_the_same_clips_with_videos(dataset, tiny_dataset):
  assert not dataset.videos and tiny_dataset.videos
  assert dataset.builder.info.metadata["videos"] is False
  assert "frames" not in dataset.builder.info.features
  assert dataset.splits == tiny_dataset.splits
  for split in dataset.splits:
    assert dataset.clip_ids(split) == tiny_dataset.clip_ids(split)
    assert dataset.max_frames(split) == tiny_dataset.max_frames(split)
    for ours, theirs in zip(read_keypoints(dataset, split), read_keypoints(tiny_dataset, split)):
      np.testing.assert_array_equal(ours[0], theirs[0])
      np.testing.assert_array_equal(ours[1], theirs[1])


def test_it_is_checked_and_drawn(source, dataset, tmp_path, capsys):
  for directory in (source, dataset.path):
    check([str(directory), "--html", str(tmp_path / "page.html"), "--samples", "2", "--jobs", "1"])
    printed = capsys.readouterr().out
    assert "skeletons without videos" in printed and "0 errors" in printed
    page = (tmp_path / "page.html").read_text()
    assert "</div>skeleton</div>" in page and "stored frame" not in page
  (name, *_) = dataset.clip_ids("val")
  frames = read_frames(dataset, "val", [name], 3)[name]
  assert frames.shape == (3, 48, 48, 3) and len(np.unique(frames)) > 2


def test_their_rate_is_stated_or_thirty(source, tmp_path):
  tree, layout = source_layout.read_tree(source), get_layout("openpose-28")
  read = source_layout.read_split
  assert {clip.fps for clip in read(source, "val", tree, layout)} == {30.0}
  assert {clip.fps for clip in read(source, "val", tree, layout, 12.5)} == {12.5}
  shutil.copytree(source, tmp_path / "source")
  path = tmp_path / "source" / "pose" / "Tiny_val.pkl"
  entries = load_pickle(path)
  path.write_bytes(pickle.dumps([{**entry, "fps": 25} for entry in entries]))
  clips = read(tmp_path / "source", "val", tree, layout, 12.5)
  assert {clip.fps for clip in clips} == {25.0}
  path.write_bytes(pickle.dumps([{**entry, "fps": -1} for entry in entries]))
  with pytest.raises(ValueError, match=r"val_000.*'fps' is not a number of frames per second"):
    read(tmp_path / "source", "val", tree, layout)


def test_what_needs_frames_is_refused(dataset, checkpoint, tmp_path):
  config = shrink(load_config("ma52"))
  config.data.path = str(dataset.path)
  with pytest.raises(ValueError, match=r"skeletons without videos.*_pose"):
    prepare(config)
  poses = tmp_path / "poses.pkl"
  poses.write_bytes(pickle.dumps([]))
  with pytest.raises(ValueError, match="--overlay draws on videos"):
    predict_files(checkpoint, None, pose=poses, output=tmp_path, overlay=True)
  with pytest.raises(ValueError, match="nothing to predict"):
    predict_files(checkpoint, None, output=tmp_path)
  with pytest.raises(ValueError, match="--fps means nothing with --video"):
    predict_files(checkpoint, tmp_path, pose=poses, output=tmp_path, fps=30.0)
  both = write_tiny_checkpoint(tmp_path / "both", dataset, "pcan")
  with pytest.raises(ValueError, match=r"the model sees RGB frames.*--video"):
    predict_files(both, None, pose=poses, output=tmp_path)


def test_a_prediction_from_poses_alone_is_that_of_the_video(checkpoint, tmp_path):
  frames, keypoints = make_clip(np.random.default_rng(3), action=2)
  scores = np.full(keypoints.shape[:3], 0.9, np.float32)
  write_video(tmp_path / "clip.mp4", frames, fps=10)
  np.savez(tmp_path / "poses.npz", **{"clip/keypoints": keypoints, "clip/scores": scores})
  recognizer = Recognizer.load(checkpoint)
  expected = recognizer.predict_video(tmp_path / "clip.mp4", tmp_path / "poses.npz").top_actions()
  assert recognizer.predict(keypoints=keypoints, scores=scores).top_actions() == expected
  output = tmp_path / "out"
  assert predict_files(checkpoint, None, pose=tmp_path / "poses.npz", output=output, fps=10.0) == 0
  (record,) = json.loads((output / "predictions.json").read_text())["videos"]
  (window,) = record["windows"]
  assert (record["file"], record["fps"]) == ("clip", 10)
  assert window["end"] == pytest.approx(len(frames) / 10)
  assert window["actions"][0]["probability"] == pytest.approx(expected[0][1], abs=1e-6)


def test_frames_without_a_video_count_from_0_or_1(tmp_path):
  layout = get_layout("coco-17")
  person = {"pose_keypoints_2d": np.tile([20.0, 30.0, 0.9], 18).tolist()}
  for clip, numbers in (("zero", (0, 2)), ("one", (1, 2))):
    for number in numbers:
      name = f"{clip}_{number:012}_keypoints.json"
      (tmp_path / name).write_text(json.dumps({"people": [person]}))
  poses = open_poses(tmp_path, layout)
  assert Video.of_poses("zero", poses, 30.0).num_frames == 3
  one = Video.of_poses("one", poses, 30.0)
  assert one.num_frames == 2 and one.size == (31, 21) and (one.scores > 0).any(axis=(0, 2)).all()


def test_a_table_without_videos_is_imported(tmp_path):
  rng = np.random.default_rng(0)
  poses, lines = {}, ["video,label,person,fps"]
  for index in range(8):
    _, keypoints = make_clip(rng, index % 2)
    name = f"v1.{index}"
    poses[f"{name}/keypoints"] = keypoints
    poses[f"{name}/scores"] = np.ones(keypoints.shape[:3])
    lines.append(f"{name},head/{'ab'[index % 2]},p{index // 2},{24 + index // 7}")
  np.savez(tmp_path / "poses.npz", **poses)
  table = tmp_path / "clips.csv"
  table.write_text("\n".join(lines))
  notes = import_clips(
    table, None, tmp_path / "source", poses=tmp_path / "poses.npz", layout=LAYOUT.name
  )
  assert any("skeletons without videos" in note for note in notes)
  assert any(note.startswith("24 to 25 frames per second") for note in notes)
  assert not (tmp_path / "source" / "raw_videos").exists()
  tree = source_layout.read_tree(tmp_path / "source")
  clips = [
    clip
    for split in source_layout.find_splits(tmp_path / "source")
    for clip in source_layout.read_split(tmp_path / "source", split, tree, LAYOUT)
  ]
  assert {clip.id: (clip.fps, clip.person, clip.video) for clip in clips} == {
    f"v1.{index}": (24.0 + index // 7, f"p{index // 2}", None) for index in range(8)
  }
  for clip in clips:
    np.testing.assert_array_equal(clip.keypoints, poses[f"{clip.id}/keypoints"])


@pytest.mark.parametrize(
  "cell, options, reason",
  [
    ("fast", [], r"line 2: fps 'fast' is not a number of frames per second"),
    ("25", ["--videos", "."], "means nothing with --videos"),
    ("25", ["--fps", "0"], r"--fps is 0\.0; give the frames per second"),
  ],
)
def test_a_wrong_rate_is_named(tmp_path, monkeypatch, capsys, cell, options, reason):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "clips.csv").write_text(f"video,label,fps\na,head/nod,{cell}\n")
  np.savez(tmp_path / "poses.npz", keypoints=np.ones((1, 2, 28, 2)), scores=np.ones((1, 2, 28)))
  words = ["clips.csv", "--out", "source", "--poses", "poses.npz", "--fps", "30", *options]
  with pytest.raises(SystemExit, match=reason):
    import_main(words)


def test_a_clip_without_a_person_in_the_table_is_named(source, tmp_path):
  shutil.copytree(source, tmp_path / "source")
  persons = tmp_path / "source" / "annotations" / "persons.csv"
  persons.write_text("id,person\nval_000,a\nval_000,b\n")
  with pytest.raises(ValueError, match=r"persons\.csv, line 3: 'val_000' is 'b' here and 'a'"):
    source_layout.read_persons(tmp_path / "source")
  persons.write_text("id;person;\nval_000;a;\n;;\n")
  assert source_layout.read_persons(tmp_path / "source") == {"val_000": "a"}
  tree, layout = source_layout.read_tree(source), get_layout("openpose-28")
  _, problems = source_layout.scan_split(tmp_path / "source", "val", tree, layout)
  assert len(problems) == 6 and "does not say who it shows" in problems[0].reason


def test_keypoints_of_a_frame_of_unknown_size_are_kept(dataset):
  for split in dataset.splits:
    for keypoints, scores in read_keypoints(dataset, split):
      assert (scores > 0).all() and keypoints.min() >= 0 and keypoints.max() < 48
  assert (HEIGHT, WIDTH) == (64, 80)

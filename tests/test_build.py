import csv
import functools
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data import build as build_module
from data.build import build
from pcan_jax.clips.encode_clip import encode_clip
from pcan_jax.clips.parallel import map_clips
from pcan_jax.clips.problems import Problem
from pcan_jax.clips.source_layout import ClipSource
from pcan_jax.clips.stored_frames import Encoding
from pcan_jax.feed import pcan_dataset_builder, records
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.keypoints import KeypointLayout
from pcan_jax.labels import LabelTree
from tests.tiny_source import HEIGHT, TREE, WIDTH, write_tiny_source

CLIPS = {"train": 6, "val": 3, "test": 2}
OPTIONS = {"side": 32, "clips_per_shard": 2, "jobs": 1}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
  return write_tiny_source(tmp_path_factory.mktemp("pristine") / "source", CLIPS)


@pytest.fixture(scope="module")
def built(pristine, tmp_path_factory):
  return build(pristine, tmp_path_factory.mktemp("built"), **OPTIONS)


@pytest.fixture
def source(pristine, tmp_path):
  return shutil.copytree(pristine, tmp_path / "source")


def files(folder):
  return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def read(folder, split):
  builder = tfds.builder_from_directory(str(folder))
  return {clip["id"].decode(): clip for clip in builder.as_dataset(split=split).as_numpy_iterator()}


def test_every_clip_is_stored_once(built):
  for split, count in CLIPS.items():
    clips = read(built, split)
    assert sorted(clips) == [f"{split}_{index:03}" for index in range(count)]
    for name, clip in clips.items():
      assert clip["action"] == (-1 if split == "test" else int(name[-3:]))
      num_frames = clip["num_frames"]
      assert 12 <= num_frames < 25
      assert clip["frames"].shape == (num_frames, 32, 32, 3)
      assert clip["keypoints"].shape == (1, num_frames, 28, 2)
      assert clip["keypoint_scores"].shape == (1, num_frames, 28)
      assert clip["fps"] == 30
      np.testing.assert_array_equal(clip["original_size"], [HEIGHT, WIDTH])


def test_keypoints_lie_within_the_crop_on_the_moving_square(built):
  for clip in read(built, "train").values():
    assert (clip["keypoints"] > 0).all() and (clip["keypoints"] < 32).all()
    x, y = clip["keypoints"][0].mean(axis=1).round().astype(int).T
    around = clip["frames"][np.arange(clip["num_frames"]), y, x].max(axis=-1)
    assert np.median(around) > 150


def test_the_metadata_says_what_a_reader_needs(built):
  metadata = tfds.builder_from_directory(str(built)).info.metadata
  metadata = records.check_metadata(metadata, "here")
  assert metadata["side"] == 32 and metadata["jpeg_quality"] == 90 and metadata["skipped"] == 0
  assert LabelTree.from_dict(metadata["tree"]) == TREE
  assert KeypointLayout.from_dict(metadata["layout"]).name == "openpose-28"
  assert {split: counts["clips"] for split, counts in metadata["splits"].items()} == CLIPS
  longest = max(clip["num_frames"] for clip in read(built, "train").values())
  assert metadata["splits"]["train"]["max_frames"] == longest


def test_shards_do_not_depend_on_jobs_or_place(built, source, tmp_path):
  again = build(source, tmp_path / "again", **OPTIONS | {"jobs": 2})
  assert files(again) == files(built)
  assert len(list(again.glob("pcan-train.tfrecord-*-of-00003"))) == 3


def test_nothing_but_the_data_set_stays(built):
  version, config, name = built, built.parent, built.parent.parent
  assert [path.name for path in name.parent.iterdir()] == ["pcan"]
  assert sorted(path.name for path in name.iterdir()) == [".config", config.name]
  assert [path.name for path in config.iterdir()] == [version.name]


def test_an_interrupted_build_goes_on_where_it_was(built, source, tmp_path, monkeypatch):
  encoded = []

  def stop_at(limit):
    def encode(function, clips, jobs):
      for record in map_clips(function, clips, jobs):
        if len(encoded) == limit:
          raise KeyboardInterrupt
        encoded.append(record["id"])
        yield record

    return encode

  for limit in (5, 6, 10):
    monkeypatch.setattr(pcan_dataset_builder, "map_clips", stop_at(limit))
    with pytest.raises(KeyboardInterrupt):
      build(source, tmp_path / "out", **OPTIONS)
  monkeypatch.setattr(pcan_dataset_builder, "map_clips", stop_at(None))
  assert files(build(source, tmp_path / "out", **OPTIONS)) == files(built)
  # Each of the three interruptions cost the one clip of the shard that was being written.
  assert len(encoded) == sum(CLIPS.values()) + 3


def test_shards_that_were_lost_at_the_end_are_built_again(built, source, tmp_path, monkeypatch):
  def interrupt(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(tfds.core.splits, "SplitDict", interrupt)
  with pytest.raises(KeyboardInterrupt):
    build(source, tmp_path / "out", **OPTIONS)
  monkeypatch.undo()
  assert files(build(source, tmp_path / "out", **OPTIONS)) == files(built)


@pytest.mark.slow
def test_a_killed_build_leaves_no_trace(built, source, tmp_path):
  out = tmp_path / "out"
  command = [sys.executable, "-m", "data.build", str(source), str(out)]
  command += [f"--{name}={value}" for name, value in (OPTIONS | {"jobs": 2}).items()]
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  deadline = time.monotonic() + 120
  while not list(out.rglob("*.work/*.json")) and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.005)
  process.send_signal(signal.SIGKILL)
  process.wait()
  again = build(source, out, **OPTIONS)
  assert files(again) == files(built)
  assert [path.name for path in again.parent.iterdir()] == [again.name]


def test_changed_videos_are_built_again(source, tmp_path, monkeypatch):
  def interrupt(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(pcan_dataset_builder.Builder, "_take_shards", interrupt)
  with pytest.raises(KeyboardInterrupt):
    build(source, tmp_path / "out", **OPTIONS)
  monkeypatch.undo()
  videos = source / "raw_videos" / "train"
  shutil.copy(videos / "train_001.mp4", videos / "train_000.mp4")
  with pytest.raises(ValueError, match="train_000"):
    build(source, tmp_path / "out", **OPTIONS)


def break_clips(source):
  """One video that is none, one that is too short for its poses, one without a pose."""
  (source / "raw_videos" / "train" / "train_001.mp4").write_bytes(b"nothing")
  for path, change in (
    ("pose/Tiny_val.pkl", lambda poses: poses[0].update(double(poses[0]))),
    ("pose/Tiny_train.pkl", lambda poses: poses.pop(4)),
  ):
    poses = pickle.loads((source / path).read_bytes())
    change(poses)
    (source / path).write_bytes(pickle.dumps(poses))


def double(pose):
  return {
    "total_frames": 2 * pose["total_frames"],
    "keypoint": pose["keypoint"].repeat(2, axis=1),
    "keypoint_score": pose["keypoint_score"].repeat(2, axis=1),
  }


def test_bad_clips_stop_the_build_and_are_listed(source, tmp_path):
  (source / "raw_videos" / "train" / "train_001.mp4").write_bytes(b"nothing")
  (source / "raw_videos" / "val" / "val_002.mp4").write_bytes(b"nothing")
  with pytest.raises(ValueError) as error:
    build(source, tmp_path / "out", **OPTIONS)
  for text in ("2 bad clips", "train/train_001: ", "train_001.mp4: not a readable", "--skip_bad"):
    assert text in str(error.value)
  (report,) = (tmp_path / "out").rglob("*.bad_clips.csv")
  assert str(report) in str(error.value)
  with report.open(newline="") as file:
    rows = list(csv.reader(file))
  assert [row[:2] for row in rows] == [["split", "id"], ["train", "train_001"], ["val", "val_002"]]
  assert not list((tmp_path / "out").rglob("dataset_info.json"))


def test_a_bad_source_stops_the_build_before_it_begins(source, tmp_path):
  break_clips(source)
  with pytest.raises(ValueError, match="train/train_004: it has no entry in"):
    build(source, tmp_path / "out", **OPTIONS)
  assert not list((tmp_path / "out").rglob("*.tfrecord"))


def test_bad_clips_can_be_skipped_and_are_counted(built, source, tmp_path):
  break_clips(source)
  folder = build(source, tmp_path / "out", skip_bad=True, **OPTIONS)
  metadata = json.loads((folder / "metadata.json").read_text())
  assert metadata["skipped"] == 3
  assert {name: counts["skipped"] for name, counts in metadata["splits"].items()} == {
    "train": 2,
    "val": 1,
    "test": 0,
  }
  assert sorted(read(folder, "train")) == [f"train_00{index}" for index in (0, 2, 3, 5)]
  assert sorted(read(folder, "val")) == ["val_001", "val_002"]
  reference = read(built, "train")["train_003"]
  np.testing.assert_array_equal(read(folder, "train")["train_003"]["frames"], reference["frames"])
  (report,) = (tmp_path / "out").rglob("*.bad_clips.csv")
  assert len(report.read_text().splitlines()) == 4


def test_a_split_without_any_good_clip_is_an_error(source, tmp_path):
  for video in (source / "raw_videos" / "test").iterdir():
    video.write_bytes(b"nothing")
  with pytest.raises(ValueError, match="no clip of the split 'test' can be read"):
    build(source, tmp_path / "out", skip_bad=True, **OPTIONS)


class Crashing(ClipSource):
  """A clip that brings down the process which unpacks it, as a broken decoder might."""

  def __reduce__(self):
    return os._exit, (1,)


def test_a_crash_of_the_decoder_costs_one_clip(source):
  train, pose = source / "raw_videos" / "train", source / "pose" / "Tiny_train.pkl"
  clips = []
  for index, entry in enumerate(pickle.loads(pose.read_bytes())[:4]):
    kind = Crashing if index == 1 else ClipSource
    name = f"train_{index:03}"
    arrays = entry["keypoint"], entry["keypoint_score"]
    clips.append(kind(name, "train", train / f"{name}.mp4", index, *arrays, None))
  encoded = list(map_clips(functools.partial(encode_clip, encoding=Encoding(32)), clips, jobs=2))
  assert [getattr(item, "id", None) or item["id"] for item in encoded] == [c.id for c in clips]
  assert isinstance(encoded[1], Problem) and "train_001.mp4: the decoder crashed" in str(encoded[1])


def test_two_builds_of_one_data_set_do_not_mix(source, tmp_path, monkeypatch):
  def build_again(*_):
    build(source, tmp_path / "out", **OPTIONS)

  monkeypatch.setattr(pcan_dataset_builder.Builder, "_build_missing", build_again)
  with pytest.raises(RuntimeError, match="another build is writing to"):
    build(source, tmp_path / "out", **OPTIONS)


def test_a_finished_data_set_is_left_alone(built, source, tmp_path):
  out = shutil.copytree(built.parents[2], tmp_path / "out")
  before = files(out)
  assert files(build(source, out, **OPTIONS)) == files(built)
  assert files(out) == before


def relabel(source):
  """Other labels in the list and in the poses, as someone corrects them."""
  path = source / "annotations" / "train_list_videos.txt"
  rows = [line.split() for line in path.read_text().splitlines()]
  path.write_text("".join(f"{name} {5 - int(label)}\n" for name, label in rows))
  with_poses(source, lambda poses: [pose.update(label=5 - pose["label"]) for pose in poses])


def with_poses(source, change):
  path = source / "pose" / "Tiny_train.pkl"
  poses = pickle.loads(path.read_bytes())
  change(poses)
  path.write_bytes(pickle.dumps(poses))


def move_a_joint(poses):
  poses[2]["keypoint"] = poses[2]["keypoint"] + np.float16(1)


def swap_videos(source):
  """Another file of the same length and time."""
  train = source / "raw_videos" / "train"
  content = bytearray((train / "train_003.mp4").read_bytes())
  times = (train / "train_003.mp4").stat()
  content[-100] ^= 1
  (train / "train_003.mp4").write_bytes(content)
  os.utime(train / "train_003.mp4", ns=(times.st_atime_ns, times.st_mtime_ns))


def drop_from_list(source):
  path = source / "annotations" / "val_list_videos.txt"
  path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def rename_action(source):
  path = source / "annotations" / "actions.csv"
  path.write_text(path.read_text().replace("wave", "greet"))


@pytest.mark.parametrize(
  ("change", "options", "message"),
  [
    (relabel, {}, "train: 6 clips with another label (train_000, train_001, train_002, ...)"),
    (
      lambda source: with_poses(source, move_a_joint),
      {},
      "train: 1 clip with other poses (train_002)",
    ),
    (swap_videos, {}, "train: 1 clip with another video (train_003)"),
    (drop_from_list, {}, "val: 1 clip gone (val_000)"),
    (lambda s: (s / "annotations/test_list_videos.txt").unlink(), {}, "split test is gone"),
    (rename_action, {}, "another label tree"),
    (lambda _: None, {"jpeg_quality": 50}, "jpeg_quality is 50, was 90"),
    (lambda _: None, {"clips_per_shard": 3}, "clips_per_shard is 3, was 2"),
  ],
)
def test_a_data_set_of_something_else_is_refused(built, source, tmp_path, change, options, message):
  out = shutil.copytree(built.parents[2], tmp_path / "out")
  before = files(out)
  change(source)
  with pytest.raises(ValueError, match=re.escape(f"was built of something else: {message}. Del")):
    build(source, out, **OPTIONS | options)
  assert files(out) == before


def test_a_data_set_that_does_not_say_of_what_it_was_built_is_refused(built, source, tmp_path):
  out = shutil.copytree(built.parents[2], tmp_path / "out")
  folder = out / built.relative_to(built.parents[2])
  metadata = json.loads((folder / "metadata.json").read_text())
  del metadata["fingerprint"]
  (folder / "metadata.json").write_text(json.dumps(metadata))
  (folder / "sources.json").unlink()
  with pytest.raises(ValueError, match="it does not say of what"):
    build(source, out, **OPTIONS)


def test_a_data_set_that_lacks_clips_is_not_taken_for_a_whole_one(source, tmp_path):
  (source / "raw_videos" / "train" / "train_001.mp4").write_bytes(b"nothing")
  folder = build(source, tmp_path / "out", skip_bad=True, **OPTIONS)
  assert build(source, tmp_path / "out", skip_bad=True, **OPTIONS) == folder
  with pytest.raises(ValueError, match="lacks 1 bad clips, it was built with --skip_bad"):
    build(source, tmp_path / "out", **OPTIONS)


def test_the_fingerprint_is_of_the_content(built, source, tmp_path):
  """Neither the place nor the times of files count, but every clip does."""
  for video in source.rglob("*.mp4"):
    os.utime(video, (0, 0))
  found = open_dataset(build(source, tmp_path / "out", **OPTIONS)).fingerprint
  assert re.fullmatch("[0-9a-f]{32}", found)
  assert found == open_dataset(built).fingerprint
  relabel(source)
  assert found != open_dataset(build(source, tmp_path / "other", **OPTIONS)).fingerprint


def test_the_command_line_says_where_the_data_set_is(built, source, tmp_path, capsys):
  out = shutil.copytree(built.parents[2], tmp_path / "out")
  build_module.main([str(source), str(out), "--side=32", "--clips_per_shard=2"])
  assert capsys.readouterr().out.strip() == str(out / built.relative_to(built.parents[2]))


def test_by_default_frames_have_256_pixels(source, tmp_path):
  folder = build(source, tmp_path / "out", jobs=1)
  assert folder.parent.name == "openpose-28-256"
  assert read(folder, "val")["val_000"]["frames"].shape[1:] == (256, 256, 3)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["NONE", "OUT"], "error: no source directory at"),
    (["SOURCE", "OUT", "--layout=coco-17"], r"expected \[M, T, 17, 2\] for the layout coco-17"),
    (["SOURCE", "OUT", "--layout=stick"], "no keypoint layout is called 'stick'"),
    (["SOURCE", "OUT", "--tree=NONE"], "no label tree called"),
    (["SOURCE", "OUT", "--side=3"], "side is 3"),
    (["SOURCE", "OUT", "--jpeg_quality=0"], "jpeg_quality is 0"),
    (["SOURCE", "OUT", "--clips_per_shard=0"], "clips_per_shard is 0"),
  ],
)
def test_mistakes_are_answered_in_words(source, tmp_path, arguments, message):
  places = {"SOURCE": source, "OUT": tmp_path / "out", "NONE": tmp_path / "none"}
  for name, place in places.items():
    arguments = [argument.replace(name, str(place)) for argument in arguments]
  with pytest.raises(SystemExit, match=message):
    build_module.main([*arguments, "--jobs=1"])


@pytest.mark.parametrize(
  ("metadata", "message"),
  [
    (None, "here was not built by this project"),
    ({"schema_version": 99}, "here has records of schema version 99, .* reads 1. Build it again"),
    ({"schema_version": 1}, "here: metadata.json lacks .*'tree'"),
  ],
)
def test_records_of_another_kind_are_refused(metadata, message):
  with pytest.raises(ValueError, match=message):
    records.check_metadata(metadata, "here")


def test_a_damaged_description_of_the_data_set_is_named(built, source, tmp_path):
  out = shutil.copytree(built.parents[2], tmp_path / "out")
  (found,) = out.rglob("dataset_info.json")
  found.write_bytes(found.read_bytes()[:200])
  with pytest.raises(ValueError, match="out: dataset_info.json, .* is missing or damaged"):
    build(source, out, **OPTIONS)

import pickle
import re
import shutil

import cv2
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from data import build as build_module
from data import check
from data.build import build
from pcan_jax.clips.video import decode_video
from tests.test_video import write
from tests.tiny_source import write_tiny_source

CLIPS = {"train": 6, "val": 3, "test": 2}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
  return write_tiny_source(tmp_path_factory.mktemp("pristine") / "source", CLIPS)


@pytest.fixture(scope="module")
def built(pristine, tmp_path_factory):
  return build(pristine, tmp_path_factory.mktemp("built"), side=32, clips_per_shard=3, jobs=1)


@pytest.fixture
def source(pristine, tmp_path):
  return shutil.copytree(pristine, tmp_path / "source")


@pytest.fixture
def dataset(built, tmp_path):
  return shutil.copytree(built, tmp_path / "dataset")


def edit_poses(source, split, change):
  path = source / "pose" / f"Tiny_{split}.pkl"
  poses = pickle.loads(path.read_bytes())
  change(poses)
  path.write_bytes(pickle.dumps(poses))


def run(directory, capsys, *arguments):
  """What is printed, and the last word where the check fails."""
  try:
    check.main([str(directory), "--jobs=1", *arguments])
    verdict = None
  except SystemExit as end:
    verdict = end.code
  return capsys.readouterr().out, verdict


@pytest.mark.parametrize("kind", ["source", "dataset"])
def test_good_clips_are_counted(kind, capsys, request):
  output, verdict = run(request.getfixturevalue(kind), capsys)
  assert verdict is None
  assert re.search(
    r"train: 6 clips of 1\d to 2\d frames \(median .*\), 30 fps, 80 x 64, 1 person", output
  )
  assert re.search(r"^head +2 +2 +0$", output, re.MULTILINE)
  assert re.search(r"^   0 nod +1 +1 +0$", output, re.MULTILINE)
  assert re.search(r"^without a label +0 +0 +2$", output, re.MULTILINE)
  assert "0 errors" in output
  # Three of the six actions have no clip in val.
  assert "no clip (3)" in output and "val, 5 tap" in output


@pytest.mark.parametrize("kind", ["source", "dataset"])
def test_the_page_shows_moving_clips(kind, tmp_path, capsys, request):
  page = tmp_path / "pages" / "page.html"
  _, verdict = run(request.getfixturevalue(kind), capsys, f"--html={page}", "--samples=2")
  assert verdict is None
  text = page.read_text(encoding="utf-8")
  assert text.count("<figure>") == 6
  panels = 3 if kind == "source" else 2
  assert len(re.findall(r"animation:play 0\.\d+s steps\(1\d\) infinite", text)) == 6 * panels
  assert text.count("data:image/jpeg;base64,") == 6 * panels
  assert "no label" in text and "0 nod (head)" in text
  assert "http" not in text  # it needs nothing from elsewhere


def test_a_page_shows_names_as_text(source, tmp_path, capsys):
  hostile = "<script>alert(1)<&script>"
  tree = source / "annotations" / "actions.csv"
  tree.write_text(tree.read_text().replace("nod", hostile))
  page = tmp_path / "page.html"
  run(source, capsys, f"--html={page}", "--samples=1")
  assert hostile not in page.read_text() and "&lt;script&gt;alert(1)" in page.read_text()


def far_out(poses):
  poses[2]["keypoint"][0, :, :7] = 500


def missing_person(poses):
  poses[1]["keypoint"][:] = 0
  poses[1]["keypoint_score"][:] = 0


def mostly_missing(poses):
  poses[1]["keypoint_score"][:, 3:] = 0


def one_pose_less(poses):
  pose = poses[0]
  pose["total_frames"] -= 1
  pose["keypoint"], pose["keypoint_score"] = pose["keypoint"][:, 1:], pose["keypoint_score"][:, 1:]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (far_out, "keypoints outside the frame (1)\n    train/train_002: 25% of its"),
    (missing_person, "no person (1)\n    train/train_001: no person is detected in any frame"),
    (mostly_missing, "frames without a person (1)\n    train/train_001: "),
    (one_pose_less, "frame count (1)\n    train/train_000: video and poses differ by one frame"),
  ],
)
def test_odd_clips_are_worth_a_warning(source, capsys, change, message):
  edit_poses(source, "train", change)
  output, verdict = run(source, capsys)
  assert verdict is None
  assert "0 errors" in output and message in output


def test_other_rates_and_unlisted_videos_are_worth_a_warning(source, capsys):
  from tests.tiny_source import make_clip, write_video

  frames, keypoints = make_clip(np.random.default_rng(1), 0)
  write_video(source / "raw_videos" / "train" / "train_000.mp4", frames, fps=25)
  edit_poses(
    source,
    "train",
    lambda poses: poses[0].update(
      keypoint=keypoints, keypoint_score=keypoints[..., 0] / 100, total_frames=len(frames)
    ),
  )
  (source / "raw_videos" / "val" / "more.mp4").touch()
  output, verdict = run(source, capsys)
  assert verdict is None
  assert "train/train_000: 25, most others have 30" in output
  assert "unlisted video (1)\n    raw_videos/val/more.mp4" in output


@pytest.fixture
def odd_source(source):
  """The first video is broken off, the frames of the second one are not evenly spaced."""
  noise = np.random.default_rng(1).integers(0, 255, (40, 64, 80, 3), np.uint8)
  for name, times in (("train_000", None), ("train_001", [*range(0, 200, 20), 240, 260])):
    path = source / "raw_videos" / "train" / f"{name}.mkv"
    write(path, noise[: len(times) if times else None], times=times)
    path.replace(path.with_suffix(".mp4"))  # a wrong suffix is no matter
  cut = source / "raw_videos" / "train" / "train_000.mp4"
  cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 3])
  counts = [sum(1 for _ in decode_video(cut)), 12]

  def fit(poses):
    for pose, count in zip(poses, counts):
      keypoints = np.resize(pose["keypoint"], (1, count, 28, 2))
      pose |= {"keypoint": keypoints, "total_frames": count}
      pose["keypoint_score"] = np.full(keypoints.shape[:3], 0.5, np.float16)

  edit_poses(source, "train", fit)
  return source


def test_damaged_and_varying_videos_are_worth_a_warning(odd_source, capsys, tmp_path):
  page = tmp_path / "page.html"
  output, verdict = run(odd_source, capsys, f"--html={page}")
  assert verdict is None
  assert "damaged video (1)\n    train/train_000: its header promises 1.33 s" in output
  assert "varying frame rate (1)\n    train/train_001: its frames are not evenly" in output


def test_a_build_counts_damaged_videos_and_stores_a_constant_rate(odd_source, capsys, tmp_path):
  build_module.main([str(odd_source), str(tmp_path / "out"), "--side=32", "--jobs=1"])
  printed = capsys.readouterr()
  assert "warning: 1 of the videos are damaged; `pcan check` names them" in printed.err
  builder = tfds.builder_from_directory(printed.out.strip())
  counts = builder.info.metadata["splits"]
  assert (counts["train"]["damaged"], counts["val"]["damaged"]) == (1, 0)
  clips = {clip["id"]: clip for clip in builder.as_dataset("train").as_numpy_iterator()}
  assert clips[b"train_000"]["fps"] == 30
  assert clips[b"train_001"]["fps"] == pytest.approx(12 / (280 / 600), rel=1e-2)
  assert len(clips[b"train_001"]["frames"]) == 12


def test_bad_clips_fail_the_check_and_the_first_is_named(source, capsys, tmp_path):
  (source / "raw_videos" / "train" / "train_003.mp4").write_bytes(b"nothing")
  edit_poses(source, "val", lambda poses: poses[1].update(label=0))
  page = tmp_path / "page.html"
  output, verdict = run(source, capsys, f"--html={page}")
  assert "2 errors" in output
  assert re.search(r"val/val_001: the list says label 1, Tiny_val.pkl says 0", output)
  assert verdict.startswith("\nfirst bad record: train/train_003: ")
  assert "train_003.mp4: not a readable video" in verdict
  assert page.read_text().count("<tr class=error>") == 2


def test_findings_of_one_kind_are_shown_up_to_a_number(source, capsys):
  for video in (source / "raw_videos" / "train").iterdir():
    video.unlink()
  output, _ = run(source, capsys, "--show=2")
  assert output.count("its video is missing") == 2 and "and 4 more" in output


def test_a_video_in_two_splits_is_an_error(source, capsys):
  for path in ("raw_videos/val/val_000.mp4",):
    shutil.copy(source / "raw_videos/train/train_000.mp4", source / path)
  poses = pickle.loads((source / "pose" / "Tiny_train.pkl").read_bytes())
  edit_poses(source, "val", lambda entries: entries[0].update(poses[0] | {"frame_dir": "val_000"}))
  _, verdict = run(source, capsys)
  assert "val/val_000: train/train_000 is the same video; keep it in one split" in verdict


def edit_record(shard, number, change):
  """Rewrites one record of a shard, checksums included."""
  serialized = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
  example = tf.train.Example.FromString(serialized[number])
  change(example.features.feature)
  serialized[number] = example.SerializeToString()
  with tf.io.TFRecordWriter(str(shard)) as writer:
    for record in serialized:
      writer.write(record)


def replace_frame(jpeg):
  def change(feature):
    feature["frames"].bytes_list.value[3] = jpeg

  return change


def drop_frame(feature):
  del feature["frames"].bytes_list.value[-1]


def relabel(feature):
  feature["action"].int64_list.value[0] = 6


def spoil_scores(value):
  def change(feature):
    raw = np.frombuffer(feature["keypoint_scores/value"].bytes_list.value[0], np.float32).copy()
    raw[5] = value
    feature["keypoint_scores/value"].bytes_list.value[0] = raw.tobytes()

  return change


GREY = cv2.imencode(".jpg", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
SMALL = cv2.imencode(".jpg", np.full((16, 32, 3), 90, np.uint8))[1].tobytes()
PNG = cv2.imencode(".png", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
# Its header says 60000 x 60000 pixels.
HUGE = GREY.replace(b"\x00\x20\x00\x20", b"\xea\x60\xea\x60", 1)


BAD_RECORDS = [
  (replace_frame(GREY[:-100]), "frame 3 is not a readable JPEG image"),
  (replace_frame(PNG), "frame 3 is not a readable JPEG image"),
  (replace_frame(b""), "frame 3 is not a readable JPEG image"),
  (replace_frame(SMALL), "frame 3 is 32 x 16 with 3 channels, not 32 x 32"),
  (replace_frame(HUGE), "frame 3 is 60000 x 60000"),
  (drop_frame, r"it says \d+ frames, but holds \d+ images and \d+ poses"),
  (relabel, "its label 6 is outside the label tree"),
  (spoil_scores(np.nan), "its keypoints hold NaN"),
  (spoil_scores(1e6), "it has scores above 10"),
]


def test_bad_records_are_named(tmp_path, capsys):
  """Each of one shard; the one good record among them is none."""
  clips = {"train": 1, "val": len(BAD_RECORDS) + 1}
  dataset = build(write_tiny_source(tmp_path / "source", clips), tmp_path / "out", side=32, jobs=1)
  (shard,) = dataset.glob("pcan-val.tfrecord*")
  for number, (change, _) in enumerate(BAD_RECORDS, 1):
    edit_record(shard, number, change)
  output, verdict = run(dataset, capsys, "--show=20")
  assert f"bad record ({len(BAD_RECORDS)})" in output
  assert f"missing clips (1)\n    val: 1 readable clips, {clips['val']} expected" in output
  found = re.findall(r"^    val/.*$", output, re.MULTILINE)
  for line, (_, message) in zip(found, BAD_RECORDS, strict=True):
    assert re.search(message, line)
  assert found[0].strip() in verdict


def test_a_record_that_lacks_a_field_is_damage(dataset, capsys):
  shard = next(dataset.glob("pcan-val.tfrecord*"))
  edit_record(shard, 1, lambda feature: feature.pop("keypoints/value"))
  output, verdict = run(dataset, capsys)
  assert "bad record (1)" in output and "missing clips (1)" in output
  assert re.search("pcan-val.*damaged after", verdict)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_damaged_shard_is_named(dataset, capsys, place):
  shard = sorted(dataset.glob("pcan-train.tfrecord*"))[1]
  content = bytearray(shard.read_bytes())
  content[int(place * (len(content) - 1))] ^= 4
  shard.write_bytes(content)
  output, verdict = run(dataset, capsys)
  assert f"bad record: {shard.name}: damaged after" in verdict
  assert "readable clips, 6 expected" in output


def test_a_broken_off_shard_is_named(dataset, capsys):
  shard = next(dataset.glob("pcan-val.tfrecord*"))
  shard.write_bytes(shard.read_bytes()[:-50])
  assert shard.name in run(dataset, capsys)[1]


def test_options_that_would_not_be_used_are_refused(source, dataset, capsys):
  assert run(source, capsys, "--samples=3")[1] == 2
  for option in ("--layout=coco-17", "--tree=ma52", "--fps=30"):
    verdict = run(dataset, capsys, option)[1]
    assert f"{option.partition('=')[0]} means nothing for a built data set" in verdict


def test_a_directory_of_another_kind_is_explained(tmp_path, capsys):
  assert "error: " in run(tmp_path, capsys)[1]
  assert "no source directory at" in run(tmp_path / "none", capsys)[1]

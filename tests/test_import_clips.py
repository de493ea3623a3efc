import csv
import json
import os
import pickle
import re
import shutil
import unicodedata

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.build import build
from data.check import check_source
from data.import_clips import import_clips, main
from pcan_jax.clips import source_layout
from pcan_jax.keypoints import LAYOUTS
from tests.pose_writers import write_openpose
from tests.tiny_source import HEIGHT, TREE, WIDTH, make_clip, write_tiny_source, write_video

LAYOUT = LAYOUTS["openpose-28"]
PEOPLE = ("Ann", "Bob", "Cy", "Dee")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
  """Eight videos of four people, their poses, and their table without a split."""
  folder = tmp_path_factory.mktemp("recordings")
  rng = np.random.default_rng(0)
  entries, rows = [], []
  for index in range(8):
    action, name = index % 2, f"clip {index} é"
    frames, keypoints = make_clip(rng, action)
    write_video(folder / "videos" / f"{name}.mp4", frames)
    scores = np.full(keypoints.shape[:3], 0.5, np.float32)
    entries.append({"frame_dir": name, "keypoint": keypoints, "keypoint_score": scores})
    label = f"{TREE.bodies[TREE.parents[action]]}/{TREE.actions[action]}"
    rows.append({"video": f"{name}.mp4", "label": label, "person": PEOPLE[index // 2]})
  (folder / "poses.pkl").write_bytes(pickle.dumps(entries))
  write_table(folder / "clips.csv", rows)
  return folder


def write_table(path, rows):
  with path.open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)


def read_table(path):
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def run(recordings, out, table="clips.csv", poses="poses.pkl", **options):
  poses = recordings / poses if poses else None
  options = {"poses": poses, "jobs": 1} | options
  return import_clips(recordings / table, recordings / "videos", out, **options)


def splits_of(source, tree=None):
  tree = tree or source_layout.read_tree(source)
  return {
    split: source_layout.read_split(source, split, tree, LAYOUT)
    for split in source_layout.find_splits(source)
  }


def test_recordings_become_a_source_directory(recordings, tmp_path):
  notes = run(recordings, tmp_path / "source")
  splits = splits_of(tmp_path / "source")
  table = {row["video"]: row for row in read_table(recordings / "clips.csv")}
  people = {
    split: {table[clip.video.name]["person"] for clip in clips} for split, clips in splits.items()
  }
  assert len(people["val"]) == 1 and people["train"] == set(PEOPLE) - people["val"]
  tree = source_layout.read_tree(tmp_path / "source")
  assert tree.actions == ("nod", "shake") and tree.bodies == ("head",)
  poses = {e["frame_dir"]: e for e in pickle.loads((recordings / "poses.pkl").read_bytes())}
  for clip in [*splits["train"], *splits["val"]]:
    assert table[clip.video.name]["label"] == f"head/{tree.actions[clip.action]}"
    np.testing.assert_array_equal(clip.keypoints, poses[clip.id]["keypoint"])
    np.testing.assert_array_equal(clip.scores, poses[clip.id]["keypoint_score"])
    assert clip.img_shape == (HEIGHT, WIDTH)
    assert clip.video.readlink() == recordings / "videos" / clip.video.name
  assert notes[0] == "8 clips: 6 train, 2 val"
  (person,) = people["val"]
  assert notes[1].endswith(
    f"seed 0, about 20% of every action for val, no person in both parts; in val: {person}"
  )
  assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob("*.csv"))
  report, _ = check_source(tmp_path / "source", LAYOUT, jobs=1)
  assert not report.findings


def test_ma52_goes_through_the_same_door(tmp_path):
  """The clips of a source directory, imported from a table, build into the very same records."""
  original = write_tiny_source(tmp_path / "original", {"train": 4, "val": 2, "test": 1})
  rows, entries = [], []
  for split, clips in splits_of(original).items():
    for clip in clips:
      rows.append({"video": f"{split}/{clip.video.name}", "label": clip.action, "split": split})
    entries += pickle.loads((original / "pose" / f"Tiny_{split}.pkl").read_bytes())
  write_table(tmp_path / "clips.csv", rows)
  (tmp_path / "poses.pkl").write_bytes(pickle.dumps(entries))
  notes = import_clips(
    tmp_path / "clips.csv",
    original / "raw_videos",
    tmp_path / "imported",
    poses=tmp_path / "poses.pkl",
    tree=original / "annotations" / "actions.csv",
    jobs=1,
  )
  assert "the labels of 1 test clip are not kept" in notes[2]
  shards = [
    {path.name: path.read_bytes() for path in folder.glob("*.tfrecord-*")}
    for folder in (
      build(source, tmp_path / "out" / source.name, side=32, jobs=1)
      for source in (original, tmp_path / "imported")
    )
  ]
  assert len(shards[0]) == 3 and shards[0] == shards[1]


def test_openpose_folders_without_a_person_here_and_there(recordings, tmp_path):
  rows = read_table(recordings / "clips.csv")
  clips = {e["frame_dir"]: e for e in pickle.loads((recordings / "poses.pkl").read_bytes())}
  for name, pose in clips.items():
    points = np.concatenate([pose["keypoint"], pose["keypoint_score"][..., None]], axis=-1)
    hands = np.zeros((*points.shape[:2], 42, 3))
    write_openpose(tmp_path / "poses" / name, name, points[:, :, :18], hands)
  first = rows[0]["video"].removesuffix(".mp4")
  for path in sorted((tmp_path / "poses" / first).iterdir())[1:4]:
    path.unlink()
  notes = run(recordings, tmp_path / "source", poses=tmp_path / "poses")
  total = sum(pose["keypoint"].shape[1] for pose in clips.values())
  assert notes[-1] == f"no person in 3 of {total} frames, in 1 of 8 clips; most in {first!r}: 3"


def test_without_poses_the_whole_frame_is_kept(recordings, tmp_path):
  notes = run(recordings, tmp_path / "source", poses=None, val_share=0.5)
  assert notes[-1] == "no poses: keypoints of the layout openpose-28 with the score 0"
  dataset = build(tmp_path / "source", tmp_path / "out", side=32, jobs=1)
  records = list(tfds.builder_from_directory(dataset).as_dataset(split="train").as_numpy_iterator())
  assert len(records) == 4
  for record in records:
    assert record["box"].tolist() == [0, 0, WIDTH, HEIGHT]
    assert not record["keypoint_scores"].any() and record["frames"].any()


def test_a_folder_without_a_table_has_no_labels(recordings, tmp_path):
  notes = run(recordings, tmp_path / "source", table="videos", poses=None)
  assert "8 clips: 8 test" in notes
  assert any(note.startswith("no labels, all in the split test") for note in notes)
  splits = splits_of(tmp_path / "source")
  assert splits.keys() == {"test"}
  assert {clip.action for clip in splits["test"]} == {-1}
  folder = tmp_path / "twice"
  for name in ("a/clip.mp4", "b/clip.mp4"):
    (folder / name).parent.mkdir(parents=True)
    (folder / name).touch()
  with pytest.raises(ValueError, match=r"'b/clip.mp4' has the id of 'a/clip.mp4'"):
    import_clips(folder, folder, tmp_path / "other", poses=None)


def test_videos_are_copied_on_request_and_may_lie_in_folders(recordings, tmp_path):
  shutil.copytree(recordings / "videos", tmp_path / "videos" / "day 1")
  rows = read_table(recordings / "clips.csv")
  for row in rows:
    row["video"] = f"day 1/{row['video']}"
  write_table(tmp_path / "clips.csv", rows)
  import_clips(
    tmp_path / "clips.csv",
    tmp_path / "videos",
    tmp_path / "source",
    poses=recordings / "poses.pkl",
    copy=True,
    jobs=1,
  )
  shutil.rmtree(tmp_path / "videos")
  assert all(
    not c.video.is_symlink() for clips in splits_of(tmp_path / "source").values() for c in clips
  )


def test_people_in_two_given_splits_and_untrained_actions_are_told(recordings, tmp_path):
  rows = read_table(recordings / "clips.csv")
  for index, row in enumerate(rows):
    row["split"] = "train" if row["label"] == "head/nod" else "val"
    row["notes"] = str(index)
  write_table(tmp_path / "clips.csv", rows)
  notes = run(recordings, tmp_path / "source", table=tmp_path / "clips.csv")
  assert notes[1] == "split from the column 'split'; persons in more than one: Ann, Bob, Cy, Dee"
  assert notes[2] == "actions without a clip in train: shake"
  assert "unused columns: notes" in notes


def test_names_of_a_mac_are_found_and_similar_labels_told(recordings, tmp_path):
  (tmp_path / "videos").mkdir()
  rows = read_table(recordings / "clips.csv")
  for row in rows:
    name = unicodedata.normalize("NFD", row["video"])
    assert name != row["video"]
    shutil.copy(recordings / "videos" / row["video"], tmp_path / "videos" / name)
  rows[3]["label"] = rows[3]["label"].upper().replace("HEAD", "head")
  write_table(tmp_path / "clips.csv", rows)
  notes = import_clips(
    tmp_path / "clips.csv",
    tmp_path / "videos",
    tmp_path / "source",
    poses=recordings / "poses.pkl",
    jobs=1,
  )
  assert "warning: labels that are nearly the same: 'SHAKE' and 'shake'" in notes
  clips = [clip for of_split in splits_of(tmp_path / "source").values() for clip in of_split]
  assert {clip.video.name for clip in clips} == {row["video"] for row in rows}
  report, _ = check_source(tmp_path / "source", LAYOUT, jobs=1)
  assert not report.errors


def test_damaged_videos_are_told(recordings, tmp_path):
  shutil.copytree(recordings, tmp_path, dirs_exist_ok=True)
  noise = np.random.default_rng(0).integers(0, 255, (60, HEIGHT, WIDTH, 3), np.uint8)
  path = tmp_path / "videos" / "clip 0 é.mkv"
  write_video(path, noise)
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
  rows = read_table(recordings / "clips.csv")
  rows[0]["video"] = path.name
  write_table(tmp_path / "clips.csv", rows)
  notes = run(tmp_path, tmp_path / "source", poses=None)
  assert re.match(
    r"warning: 1 damaged video: clip 0 é.mkv: its header promises 2.00 s, but it ends after 1",
    notes[-2],
  )
  report, _ = check_source(tmp_path / "source", LAYOUT, jobs=1)
  (finding,) = [f for f in report.findings if f.kind == "damaged video"]
  assert finding.detail.startswith("its header promises 2.00 s") and not finding.is_error


def test_alphapose_calls_its_file_alike_for_every_video(recordings, tmp_path):
  rows = [read_table(recordings / "clips.csv")[0] | {"split": "train"}]
  write_table(tmp_path / "clips.csv", rows)
  points = np.random.default_rng(0).uniform(10, 50, 51).tolist()
  points[2::3] = [0.5] * 17
  (tmp_path / "alphapose-results.json").write_text(
    json.dumps([{"image_id": "2.jpg", "category_id": 1, "keypoints": points, "score": 2.7}])
  )
  notes = run(
    recordings,
    tmp_path / "source",
    table=tmp_path / "clips.csv",
    poses=tmp_path / "alphapose-results.json",
    layout="coco-17",
  )
  assert re.match(r"no person in \d+ of \d+ frames, in 1 of 1 clips", notes[-1])


@pytest.mark.parametrize(
  ("damage", "error", "message"),
  [
    (
      lambda f: os.truncate(f / "videos" / "clip 3 é.mp4", 100),
      ValueError,
      "clip 3 é: .*mp4: not a",
    ),
    (lambda f: (f / "videos" / "clip 3 é.mp4").unlink(), FileNotFoundError, "line 5: no video at"),
    (lambda f: (f / "poses.pkl").write_bytes(pickle.dumps([])), ValueError, "8 bad clips:"),
    (lambda f: (f / "poses.pkl").unlink(), FileNotFoundError, "no poses at"),
    (lambda f: shutil.rmtree(f / "videos"), FileNotFoundError, "no folder of videos"),
    (lambda f: (f / "source").mkdir(), FileExistsError, "source exists; delete it"),
  ],
)
def test_what_is_bad_is_named_and_nothing_is_left(recordings, tmp_path, damage, error, message):
  shutil.copytree(recordings, tmp_path, dirs_exist_ok=True)
  damage(tmp_path)
  with pytest.raises(error, match=message) as raised:
    run(tmp_path, tmp_path / "source")
  assert not list(tmp_path.glob("source*/*"))
  if "bad clip" in str(raised.value):
    problems = read_table(tmp_path / "source.bad_clips.csv")
    assert len(problems) == int(str(raised.value).split(" bad clip")[0].rpartition(" ")[2])


def test_the_command_prints_what_it_did(recordings, tmp_path, capsys):
  arguments = [str(recordings / "clips.csv"), "--videos", str(recordings / "videos")]
  arguments += ["--out", str(tmp_path / "source"), "--jobs", "1"]
  with pytest.raises(SystemExit, match="2"):
    main(arguments)
  assert "pcan extract_pose" in capsys.readouterr().err
  with pytest.raises(SystemExit, match="2"):
    main([*arguments, "--no_poses", "--poses", "poses.pkl"])
  arguments += ["--poses", str(recordings / "poses.pkl")]
  with pytest.raises(SystemExit, match="not in the label tree"):
    main([*arguments, "--tree=ma52"])
  with pytest.raises(SystemExit, match="no keypoint layout is called 'stick'"):
    main([*arguments, "--layout=stick"])
  main([*arguments, "--seed=3", "--val_share=0.4", "--copy"])
  assert "split drawn with seed 3, about 40% of every action" in capsys.readouterr().out
  videos = list((tmp_path / "source/raw_videos").rglob("*.mp4"))
  assert videos and not any(video.is_symlink() for video in videos)
  with pytest.raises(SystemExit, match="error: .*source exists"):
    main(arguments)

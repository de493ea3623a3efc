import pickle
import shutil

import numpy as np
import pytest

from pcan_jax.clips import source_layout
from pcan_jax.clips.source_layout import read_split, scan_split
from pcan_jax.keypoints import LAYOUTS
from pcan_jax.labels import LabelTree
from tests.tiny_source import HEIGHT, TREE, WIDTH

LAYOUT = LAYOUTS["openpose-28"]


def entry(name: str, label: int, num_frames: int = 5) -> dict:
  keypoints = np.full((1, num_frames, LAYOUT.num_keypoints, 2), 30, np.float16)
  return {
    "frame_dir": f"train/{name}",
    "total_frames": num_frames,
    "img_shape": (HEIGHT, WIDTH),
    "label": label,
    "keypoint": keypoints,
    "keypoint_score": np.ones(keypoints.shape[:3], np.float16),
  }


@pytest.fixture
def source(tmp_path):
  """Two clips; the videos are never opened here, so empty files will do."""
  for folder in ("raw_videos/train", "pose", "annotations"):
    (tmp_path / folder).mkdir(parents=True)
  for name in ("a", "b"):
    (tmp_path / "raw_videos" / "train" / f"{name}.mp4").touch()
  write_list(tmp_path, "a.mp4 1\r\nb.mp4 2\r\n")
  write_pickle(tmp_path, [entry("b", 2), entry("a", 1)])
  return tmp_path


def write_list(source, text, split="train"):
  (source / "annotations" / f"{split}_list_videos.txt").write_bytes(text.encode())


def write_pickle(source, content, split="train"):
  (source / "pose" / f"Tiny_{split}.pkl").write_bytes(pickle.dumps(content))


def read(source, split="train"):
  return read_split(source, split, TREE, LAYOUT)


def test_clips_come_in_the_order_of_the_list(source):
  first, second = read(source)
  assert (first.id, first.action, second.id, second.action) == ("a", 1, "b", 2)
  assert first.video == source / "raw_videos" / "train" / "a.mp4"
  assert first.keypoints.shape == (1, 5, 28, 2) and first.img_shape == (HEIGHT, WIDTH)
  assert source_layout.find_splits(source) == ["train"]


@pytest.mark.parametrize(
  ("text", "ids"),
  [
    ('"a.mp4" 1\n\n  \nb.mp4\t2\n', ["a", "b"]),
    ("\ufeffa.mp4 1\n", ["a"]),
    ("a 1\nb 2", ["a", "b"]),
  ],
)
def test_lists_may_be_quoted_blank_marked_or_without_suffix(source, text, ids):
  write_list(source, text)
  assert [clip.id for clip in read(source)] == ids


def test_ids_may_hold_spaces_dots_and_any_script(source):
  name = "微动作 1.5 é"
  (source / "raw_videos" / "train" / f"{name}.avi").touch()
  write_list(source, f"{name}.avi 1\n")
  write_pickle(source, [entry(name, 1)])
  (clip,) = read(source)
  assert clip.id == name and clip.video.name == f"{name}.avi"


def test_all_videos_may_lie_in_one_folder(source):
  for video in (source / "raw_videos" / "train").iterdir():
    video.rename(source / "raw_videos" / video.name)
  (source / "raw_videos" / "train").rmdir()
  assert read(source)[0].video == source / "raw_videos" / "a.mp4"


def test_one_pickle_may_hold_all_splits(source):
  shutil.move(source / "pose" / "Tiny_train.pkl", source / "unused.txt")
  entries = [entry("a", 1), entry("b", 2), entry("c", 0)]
  names = {"train": ["train/a", "train/b"], "val": ["train/c"]}
  content = {"split": names, "annotations": entries}
  (source / "pose" / "all.pkl").write_bytes(pickle.dumps(content))
  (source / "raw_videos" / "c.mp4").touch()
  write_list(source, "c.mp4 0", split="val")
  assert [clip.id for clip in read(source)] == ["a", "b"]
  assert [clip.id for clip in read(source, "val")] == ["c"]


def test_labels_of_the_test_split_are_placeholders(source):
  shutil.copytree(source / "raw_videos" / "train", source / "raw_videos" / "test")
  write_list(source, "a.mp4 0\nb.mp4 999\n", split="test")
  write_pickle(source, [entry("a", 5), entry("b", -1)], split="test")
  assert [clip.action for clip in read(source, "test")] == [-1, -1]


def bad_entry(**changes):
  return [entry("b", 2), entry("a", 1) | changes]


NAN = np.full((1, 5, 28, 2), np.nan)


@pytest.mark.parametrize(
  ("text", "entries", "message"),
  [
    ("a.mp4 1\na.mp4 1", None, "train/a: the list names it 2 times"),
    ("a.mp4 6", None, "train/a: its label 6 is outside the label tree, which has 0..5"),
    ("a.mp4 -1", None, "train/a: its label -1 is outside"),
    ("a.mp4 nod", None, "train/a: its label 'nod' is not the id of an action"),
    ("c.mp4 1", None, "train/c: it has no entry in .*Tiny_train.pkl"),
    ("a.mp4 2", None, "train/a: the list says label 2, Tiny_train.pkl says 1"),
    (None, [entry("a", 1)] * 2 + [entry("b", 2)], "train/a: .*Tiny_train.pkl: clip 'a' has 2"),
    (None, bad_entry(keypoint=None), "train/a: .*clip 'a': 'keypoint' is missing"),
    (None, bad_entry(keypoint=np.zeros((1, 5, 17, 2))), r"17, 2\], expected \[M, T, 28"),
    (None, bad_entry(keypoint=np.zeros((1, 5, 28, 3))), r"shape \[1, 5, 28, 3\]"),
    (None, bad_entry(keypoint_score=np.zeros((1, 4, 28))), r"'keypoint_score' has the shape"),
    (None, bad_entry(keypoint=NAN), "train/a: .*clip 'a': 'keypoint' holds NaN"),
    (None, bad_entry(total_frames=6), "train/a: its 'total_frames' is 6, but its poses are 5"),
    (None, bad_entry(total_frames="5"), "'total_frames' in the pose pickle is a str"),
    (None, bad_entry(label=[1]), "'label' in the pose pickle is a list"),
    (None, bad_entry(img_shape=(1, 2, 3)), "train/a: .*clip 'a': 'img_shape' is not"),
  ],
)
def test_a_bad_clip_is_named(source, text, entries, message):
  if text is not None:
    write_list(source, text)
  if entries is not None:
    write_pickle(source, entries)
  with pytest.raises(ValueError, match=message) as error:
    read(source)
  assert str(source) in str(error.value) and "1 bad clip:" in str(error.value)


def test_a_missing_video_is_named(source):
  (source / "raw_videos" / "train" / "b.mp4").unlink()
  with pytest.raises(ValueError, match=r"train/b: its video is missing: .*b\.mp4"):
    read(source)


def test_good_clips_are_told_from_bad_ones(source):
  write_list(source, "a.mp4 1\n" + "".join(f"x{index}.mp4 0\n" for index in range(9)))
  clips, problems = scan_split(source, "train", TREE, LAYOUT)
  assert [clip.id for clip in clips] == ["a"]
  assert [problem.id for problem in problems] == [f"x{index}" for index in range(9)]
  with pytest.raises(ValueError, match="9 bad clips:") as error:
    read(source)
  assert "x4" in str(error.value) and "x5" not in str(error.value)
  assert "and 4 more" in str(error.value)


def test_a_folder_of_images_is_no_video(source):
  (source / "raw_videos" / "train" / "images").mkdir()
  write_list(source, "images.mp4 1\n")
  write_pickle(source, [entry("images", 1)])
  _, (problem,) = scan_split(source, "train", TREE, LAYOUT)
  assert "images is a folder, not a video; images are joined by `ffmpeg" in problem.reason


@pytest.mark.parametrize(
  "name",
  ["../a.mp4", "/etc/passwd", "train/a.mp4", "a\\b.mp4", "..", ".", "a\x00.mp4", "a\x1b[31m"],
)
def test_names_cannot_leave_the_folder(source, name):
  write_list(source, f"{name} 1\n")
  with pytest.raises(ValueError, match="line 1: .* is not the plain name of a video"):
    read(source)


@pytest.mark.parametrize(
  ("break_it", "error", "message"),
  [
    (lambda s: write_list(s, "a.mp4\n"), ValueError, "line 1: expected 'ID.mp4 label'"),
    (lambda s: write_list(s, "\n"), ValueError, "names no video"),
    (
      lambda s: (s / "annotations" / "train_list_videos.txt").write_bytes(b"\xff\xfea\x00"),
      ValueError,
      "not UTF-8",
    ),
    (lambda s: write_pickle(s, {"a": 1}), ValueError, "expected a list of dicts"),
    (lambda s: write_pickle(s, [1]), ValueError, "expected a list of dicts"),
    (lambda s: write_pickle(s, [{"label": 1}]), ValueError, "entry 0 has no 'frame_dir'"),
    (lambda s: (s / "pose" / "Tiny_train.pkl").write_bytes(b"x"), ValueError, "train.pkl: not"),
    (lambda s: (s / "pose" / "Tiny_train.pkl").unlink(), FileNotFoundError, "no pose pickle"),
    (lambda s: (s / "pose" / "two_train.pkl").touch(), ValueError, "several pose pickles"),
  ],
)
def test_a_bad_file_is_named(source, break_it, error, message):
  break_it(source)
  with pytest.raises(error, match=message) as raised:
    read(source)
  assert str(source) in str(raised.value)


def test_a_directory_of_another_kind_is_explained(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"annotations/.*_list_videos\.txt"):
    source_layout.find_splits(tmp_path)
  with pytest.raises(FileNotFoundError, match="no source directory at"):
    source_layout.find_splits(tmp_path / "none")


def test_the_tree_is_the_sources_own_or_that_of_ma52(source):
  ma52 = source_layout.read_tree(source)
  assert (ma52.num_actions, ma52.num_bodies) == (52, 7)
  assert (ma52.actions[33], ma52.actions[46]) == ("scratching or touching chest", "covering mouth")
  assert [ma52.bodies[ma52.parents[a]] for a in (4, 5, 23, 24, 37, 38, 48)] == [
    "body", "head", "upper limb", "lower limb", "body-hand", "head-hand", "leg-hand",
  ]  # fmt: skip
  TREE.write_csv(source / "annotations" / "actions.csv")
  assert source_layout.read_tree(source) == TREE
  other = LabelTree(("x",), ("y",), (0,))
  other.write_csv(source / "other.csv")
  assert source_layout.read_tree(source, source / "other.csv") == other


def test_the_layout_follows_from_the_number_of_keypoints(source):
  assert source_layout.guess_layout(source) == LAYOUT
  write_pickle(source, [entry("a", 1) | {"keypoint": np.zeros((1, 5, 19, 2))}])
  with pytest.raises(ValueError, match="has 19 keypoints per person; known layouts: openpose-28"):
    source_layout.guess_layout(source)

import io
import json
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest

from pcan_jax.clips import pose_files
from pcan_jax.clips.pose_files import open_poses
from pcan_jax.keypoints import LAYOUTS
from tests.pose_writers import NUM_FRAMES, SIZE, points, write_npz, write_pickle

LAYOUT = LAYOUTS["openpose-28"]
POINTS = points(28)


def read(path, num_frames=NUM_FRAMES, size=SIZE):
  return open_poses(path, LAYOUT).read("clip", num_frames, size)


@pytest.fixture(params=["pkl", "npz"])
def written(request, tmp_path):
  """A function that writes a file of each kind, and the names of its two arrays."""
  write = write_pickle if request.param == "pkl" else write_npz
  names = ("keypoint", "keypoint_score") if request.param == "pkl" else ("keypoints", "scores")
  path = tmp_path / f"poses.{request.param}"

  def write_file(joints=POINTS, keypoints=None, scores=None):
    arrays = {name: array for name, array in zip(names, (keypoints, scores)) if array is not None}
    write(path, "clip", joints, **arrays)
    return path

  return write_file, names


def test_pickles_and_arrays_come_back_as_float32(written):
  write, _ = written
  poses = open_poses(write(POINTS.astype(np.float64)), LAYOUT)
  keypoints, scores = poses.read("clip", NUM_FRAMES, SIZE)
  assert keypoints.dtype == scores.dtype == np.float32
  np.testing.assert_array_equal(keypoints, POINTS[..., :2])
  np.testing.assert_array_equal(scores, POINTS[..., 2])
  assert poses.clip_ids == ["clip"] and poses.frames_without_person == {"clip": 0}


def test_one_frame_more_is_cut_and_one_less_is_empty(written):
  write, _ = written
  path = write()
  assert read(path, NUM_FRAMES - 1)[0].shape[1] == NUM_FRAMES - 1
  poses = open_poses(path, LAYOUT)
  keypoints, scores = poses.read("clip", NUM_FRAMES + 1, SIZE)
  assert keypoints.shape == (2, NUM_FRAMES + 1, 28, 2) and scores.shape == (2, NUM_FRAMES + 1, 28)
  assert not keypoints[:, -1].any() and not scores[:, -1].any() and scores[:, -2].all()
  assert poses.frames_without_person == {"clip": 1}
  with pytest.raises(ValueError, match="'clip' has poses for 6 frames, but its video has 8"):
    read(path, NUM_FRAMES + 2)


def test_frames_without_a_person_are_counted(written):
  write, _ = written
  joints = POINTS.copy()
  joints[:, 1:3, :, 2] = 0  # by the score
  joints[:, 4, :, :2] = 0  # by the coordinates
  joints[0, 5] = 0  # the other person is there
  poses = open_poses(write(joints), LAYOUT)
  poses.read("clip", NUM_FRAMES, SIZE)
  assert poses.frames_without_person == {"clip": 3}


@pytest.mark.parametrize("place", [0, -1, 5, 1e6, np.nan, np.inf])
@pytest.mark.parametrize("score", [0, -0.5])
def test_what_has_no_score_was_not_found_wherever_it_lies(written, place, score):
  write, _ = written
  joints = POINTS.copy()
  joints[:, :, 3:5, :2], joints[:, :, 3:5, 2] = place, score
  keypoints, scores = read(write(joints))
  assert not keypoints[:, :, 3:5].any() and not scores[:, :, 3:5].any()
  np.testing.assert_array_equal(np.delete(scores, (3, 4), 2), np.delete(POINTS[..., 2], (3, 4), 2))
  np.testing.assert_array_equal(
    np.delete(keypoints, (3, 4), 2), np.delete(POINTS[..., :2], (3, 4), 2)
  )


def test_nobody_at_all_is_one_person_with_zeros(written):
  write, _ = written
  keypoints, scores = read(write(POINTS[:0]))
  assert keypoints.shape == (1, NUM_FRAMES, 28, 2) and not keypoints.any() and not scores.any()


NAN = np.where(np.arange(NUM_FRAMES)[:, None, None] == 4, np.nan, POINTS[..., :2])


@pytest.mark.parametrize(
  ("keypoints", "scores", "message"),
  [
    (POINTS[..., :17, :2], None, r"{0}' has the shape \[2, 6, 17, 2\], expected \[M, T, 28, 2\]"),
    (POINTS, None, r"{0}' has the shape \[2, 6, 28, 3\]"),
    (
      np.repeat(POINTS[:, :1, :, :2], 15, axis=0),
      np.ones((30, 1, 28)),
      r"\[30, 1, 28, 2\]: 30 persons in 1 frame.*Swap the first two axes",
    ),
    (None, POINTS[:1, ..., 2], r"{1}' has the shape \[1, 6, 28\], expected \[2, 6, 28\] as '{0}'"),
    (NAN, None, "{0}' holds NaN or infinity in frame 4"),
    (None, np.full((2, 6, 28), np.inf), "{1}' holds NaN or infinity in frame 0"),
    (None, np.full((2, 6, 28), 1e300), "{1}' holds more than 10, expected 0 to about 1 in frame 0"),
    (None, POINTS[..., 2] * 100, "{1}' holds more than 10, expected 0 to about 1 in frame 0"),
    (
      POINTS[..., :2] / 100,
      None,
      "the coordinates lie between -1 and 1; .* multiply x by its width",
    ),
    # As MediaPipe has it of somebody who sits: the legs are guessed below the frame.
    (
      np.where(np.arange(28)[:, None] < 8, 1.8, POINTS[..., :2] / 80),
      None,
      "the coordinates lie between -1 and 1",
    ),
    (points(26)[..., :2], None, r"\[2, 6, 26, 2\], .* 26 keypoints are Halpe-26; its first 17 are"),
    (POINTS[..., :2] * 100, None, "reach from .* far beyond the frame of 80 x 64"),
    (np.where(POINTS[..., :2] > 40, 3e38, -3e38), None, "reach from -3e.38 to 3e.38, far beyond"),
    (None, np.full((2, 6, 28), "a"), "{1}' is missing, or not an array of numbers"),
  ],
)
def test_wrong_arrays_are_named(written, keypoints, scores, message):
  write, names = written
  path = write(keypoints=keypoints, scores=scores)
  with pytest.raises(ValueError, match=message.format(*names)) as error:
    read(path)
  assert str(error.value).startswith(f"{path}: clip 'clip'")


def test_a_clip_that_is_not_there_is_named(written):
  write, _ = written
  with pytest.raises(
    FileNotFoundError, match="no pose of the clip 'other'; it has those of 'clip'"
  ):
    open_poses(write(), LAYOUT).read("other", NUM_FRAMES, SIZE)


@pytest.mark.parametrize("name", ["clip", "clip.mp4", "train/clip", "train/clip.MP4"])
def test_the_id_is_the_name_of_the_video(tmp_path, name):
  write_pickle(tmp_path / "poses.pkl", name, POINTS)
  assert read(tmp_path / "poses.pkl")[0].shape == (2, NUM_FRAMES, 28, 2)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"img_shape": (1, 2)}, "made for 2 x 1 pixels, but the video has 80 x 64"),
    ({"img_shape": [np.int64(1), 2]}, "made for 2 x 1 pixels, but the video has 80 x 64"),
    ({"img_shape": np.array([1, 2])}, "made for 2 x 1 pixels, but the video has 80 x 64"),
    ({"img_shape": [[1], [2, 3]]}, r"'img_shape' is not \(height, width\)"),
    ({"img_shape": 3}, r"'img_shape' is not \(height, width\)"),
    ({"img_shape": (1, 2, 3)}, r"'img_shape' is not \(height, width\)"),
    ({"keypoint": None}, "'keypoint' is missing"),
    ({"frame_dir": 3}, "entry 0 has no 'frame_dir'"),
  ],
)
def test_a_wrong_entry_of_a_pickle_is_named(tmp_path, changes, message):
  path = tmp_path / "poses.pkl"
  write_pickle(path, "clip", POINTS, **changes)
  with pytest.raises(ValueError, match=message) as error:
    read(path)
  assert str(error.value).startswith(f"{path}: ")


def test_one_pickle_of_all_splits_is_read_and_repeated_clips_are_refused(tmp_path):
  path = tmp_path / "poses.pkl"
  write_pickle(path, "train/clip", POINTS)
  (entry,) = pickle.loads(path.read_bytes())
  path.write_bytes(pickle.dumps({"split": {}, "annotations": [entry]}))
  assert read(path)[0].shape[0] == 2
  path.write_bytes(pickle.dumps([entry, entry | {"frame_dir": "val/clip"}]))
  with pytest.raises(ValueError, match="clip 'clip' has 2 entries"):
    read(path)


def test_an_npz_of_one_clip_has_the_name_of_the_clip(tmp_path):
  np.savez(tmp_path / "clip.npz", keypoints=POINTS[..., :2], scores=POINTS[..., 2])
  np.testing.assert_array_equal(read(tmp_path / "clip.npz")[1], POINTS[..., 2])
  np.savez(tmp_path / "other.npz", keypoints=POINTS[..., :2], scores=POINTS[..., 2])
  with pytest.raises(FileNotFoundError, match="it has those of 'other'"):
    read(tmp_path / "other.npz")


def npy(shape="(2, 6, 28, 2)", descr="'<f4'", data=b"") -> bytes:
  header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
  return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (npy("(1000000000000,)"), "cannot be read"),
    (npy("(200000000, 6, 28, 2)"), "cannot be read"),
    (npy("(-1, 6, 28, 2)"), "cannot be read"),
    (npy("(2, 6, 28, 2"), "cannot be read"),
    (npy("(" * 3000), "cannot be read"),
    (npy(descr="'|O'", data=b"cos\nsystem\n(S'true'\ntR."), "cannot be read .*allow_pickle"),
    (npy("()", descr="[('a', '<f4')]", data=bytes(4)), "not an array of numbers"),
    (b"cos\nsystem\n(S'true'\ntR.", "it is not an array"),
    (b"", "it is not an array"),
  ],
)
def test_hostile_arrays_are_refused(tmp_path, content, message):
  path = tmp_path / "clip.npz"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("keypoints.npy", content)
    archive.writestr("scores.npy", content)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # NumPy's about headers of Python 2
    with pytest.raises(ValueError, match=message):
      read(path)


def test_zip_bombs_and_foreign_archives_are_refused(tmp_path, monkeypatch):
  path = tmp_path / "clip.npz"
  monkeypatch.setattr(pose_files, "MAX_ARRAY_BYTES", 1 << 20)
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("keypoints.npy", npy("(1, 3000000)", "'|i1'", bytes(3_000_000)))
    archive.writestr("scores.npy", b"")
  assert path.stat().st_size < 10_000
  with pytest.raises(ValueError, match="'keypoints.npy' cannot be read .it unpacks to 2 MiB"):
    read(path)

  buffer = io.BytesIO()
  np.save(buffer, POINTS[..., :2])
  for compression in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
    with zipfile.ZipFile(path, "w", compression) as archive:
      archive.writestr("keypoints.npy", buffer.getvalue())
    with pytest.raises(ValueError, match="compressed in another way"):
      read(path)

  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("../../x.npy", b"")
  with pytest.raises(ValueError, match=re.escape("unknown array '../../x.npy'")):
    read(path)
  path.write_bytes(b"PK\x03\x04")
  with pytest.raises(ValueError, match="not an .npz file, or damaged"):
    read(path)


def test_missing_arrays_are_named(tmp_path):
  np.savez(tmp_path / "clip.npz", keypoints=POINTS[..., :2])
  with pytest.raises(ValueError, match="clip 'clip': 'scores' is missing"):
    read(tmp_path / "clip.npz")


def test_what_is_no_pose_file_is_explained(tmp_path):
  with pytest.raises(FileNotFoundError, match="pcan extract_pose VIDEOS --out FILE.pkl"):
    read(tmp_path / "none.pkl")
  (tmp_path / "poses.txt").touch()
  with pytest.raises(ValueError, match="poses.txt is not a file of poses: expected .pkl"):
    read(tmp_path / "poses.txt")
  (tmp_path / "poses.pkl").write_bytes(pickle.dumps({"a": 1}))
  with pytest.raises(ValueError, match="expected a list of dicts"):
    read(tmp_path / "poses.pkl")


def test_a_folder_may_hold_one_file_per_clip(tmp_path):
  write_pickle(tmp_path / "clip.pkl", "named otherwise", POINTS)
  np.savez(tmp_path / "second.npz", keypoints=POINTS[:1, ..., :2], scores=POINTS[:1, ..., 2])
  (tmp_path / "third").mkdir()
  write_npz(tmp_path / "third" / "anything.npz", "video", POINTS)
  (tmp_path / "notes.txt").touch()
  poses = open_poses(tmp_path, LAYOUT)
  assert poses.clip_ids == ["clip", "second", "third"]
  for name in poses.clip_ids:
    keypoints, scores = poses.read(name, NUM_FRAMES, SIZE)
    count = 1 if name == "second" else 2
    np.testing.assert_array_equal(keypoints, POINTS[:count, ..., :2])
    np.testing.assert_array_equal(scores, POINTS[:count, ..., 2])


def test_files_of_clips_may_lie_in_folders_of_splits(tmp_path):
  for name in ("train/clip", "train/b", "val/c"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_pickle(tmp_path / f"{name}.pkl", "any", POINTS)
  assert open_poses(tmp_path, LAYOUT).clip_ids == ["b", "c", "clip"]
  np.testing.assert_array_equal(read(tmp_path)[0], POINTS[..., :2])


def test_a_pickle_of_one_clip_may_be_one_dict(tmp_path):
  """As MMAction2's ntu_pose_extraction.py writes it."""
  write_pickle(tmp_path / "clip.pkl", "clip", POINTS)
  (entry,) = pickle.loads((tmp_path / "clip.pkl").read_bytes())
  (tmp_path / "clip.pkl").write_bytes(pickle.dumps(entry | {"total_frames": NUM_FRAMES}))
  np.testing.assert_array_equal(read(tmp_path / "clip.pkl")[0], POINTS[..., :2])
  np.testing.assert_array_equal(read(tmp_path)[0], POINTS[..., :2])


def test_folders_that_name_a_clip_twice_or_hold_all_clips_in_one_file_are_refused(tmp_path):
  write_pickle(tmp_path / "clip.pkl", "clip", POINTS)
  (tmp_path / "clip").mkdir()
  write_npz(tmp_path / "clip" / "a.npz", "clip", POINTS)
  with pytest.raises(
    ValueError, match="a.npz and .*clip.pkl have the name of the same clip; keep one"
  ):
    open_poses(tmp_path, LAYOUT)
  (tmp_path / "clip.pkl").unlink()
  with np.load(tmp_path / "clip" / "a.npz") as arrays:
    others = {f"{name}/{field}": arrays[f"clip/{field}"] for name in "xy" for field in
              ("keypoints", "scores")}  # fmt: skip
  (tmp_path / "all").mkdir()
  np.savez(tmp_path / "all" / "clip.npz", **others)
  with pytest.raises(ValueError, match="clip.npz has poses of 2 clips, .* give the file itself"):
    read(tmp_path / "all")


def test_yolos_files_are_named_with_the_way_round(tmp_path):
  (tmp_path / "clip_1.txt").write_text("0 0.5 0.5 0.2 0.2 0.1 0.2 0.9\n")
  joints = {"x": [1.0] * 17, "y": [2.0] * 17, "visible": [0.9] * 17}
  (tmp_path / "clip.json").write_text(json.dumps([{"name": "person", "keypoints": joints}]))
  for path in (tmp_path / "clip_1.txt", tmp_path / "clip.json"):
    with pytest.raises(ValueError, match=r"YOLO's own files are not read: .*result.keypoints.xy"):
      open_poses(path, LAYOUT)
  (tmp_path / "clip.json").unlink()
  with pytest.raises(ValueError, match="YOLO's own files are not read"):
    open_poses(tmp_path, LAYOUT)


def test_poses_of_single_images_are_named_with_the_way_round(tmp_path):
  person = {"keypoints": [[1.0, 2.0]] * 17, "keypoint_scores": [0.9] * 17}
  (tmp_path / "000001.json").write_text(json.dumps([person]))
  with pytest.raises(ValueError, match="of one image, as MMPose writes it; .* the video"):
    open_poses(tmp_path / "000001.json", LAYOUT)


@pytest.mark.parametrize(("stored", "asked"), [("u\u0308", "\u00fc"), ("\u00fc", "u\u0308")])
def test_accents_of_clip_names_may_be_written_in_two_ways(written, tmp_path, stored, asked):
  write_pickle(tmp_path / "a.pkl", stored, POINTS)
  write_npz(tmp_path / "a.npz", stored, POINTS)
  for name in ("a.pkl", "a.npz"):
    assert open_poses(tmp_path / name, LAYOUT).read(asked, NUM_FRAMES, SIZE)[0].any()

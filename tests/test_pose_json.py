import json

import numpy as np
import pytest

from pcan_jax.clips import pose_frames
from pcan_jax.clips.pose_files import open_poses
from pcan_jax.keypoints import LAYOUTS
from tests.pose_writers import (
  NUM_FRAMES,
  SIZE,
  coco,
  mmpose,
  openpose_person,
  points,
  write_openpose,
)

OPENPOSE_28 = LAYOUTS["openpose-28"]
COCO_17 = LAYOUTS["coco-17"]

BODY = points(25)
HANDS = points(42, seed=1)
# As OpenPose's documentation numbers BODY_25 and the hands, left hand first.
FROM_BODY_25 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
TIPS = [4, 8, 12, 16, 20, 25, 29, 33, 37, 41]


def read(path, layout, clip_id="clip", num_frames=NUM_FRAMES):
  keypoints, scores = open_poses(path, layout).read(clip_id, num_frames, SIZE)
  return np.concatenate([keypoints, scores[..., None]], axis=-1)


def test_openpose_with_hands_gives_the_28_keypoints(tmp_path):
  write_openpose(tmp_path / "clip", "clip", BODY, HANDS)
  write_openpose(tmp_path / "other", "video", points(25, 2), HANDS)
  expected = np.concatenate([BODY[..., FROM_BODY_25, :], HANDS[..., TIPS, :]], axis=2)
  np.testing.assert_array_equal(read(tmp_path, OPENPOSE_28), expected)
  np.testing.assert_array_equal(
    read(tmp_path, LAYOUTS["openpose-18"], "other"), points(25, 2)[..., FROM_BODY_25, :]
  )


def test_clips_may_share_one_folder_and_openposes_coco_model_is_read(tmp_path):
  body = points(18)
  write_openpose(tmp_path, "my_clip_2", body)
  write_openpose(tmp_path, "clip", points(18, 3))
  assert open_poses(tmp_path, LAYOUTS["openpose-18"]).clip_ids == ["clip", "my_clip_2"]
  np.testing.assert_array_equal(read(tmp_path, LAYOUTS["openpose-18"], "my_clip_2"), body)
  write_openpose(tmp_path / "frames", "", body)  # 000000000000_keypoints.json, from images
  np.testing.assert_array_equal(read(tmp_path / "frames", LAYOUTS["openpose-18"], "frames"), body)


def test_openposes_body_is_also_cocos(tmp_path):
  write_openpose(tmp_path, "clip", BODY)
  nose_eyes_ears = [0, 16, 15, 18, 17]
  limbs = [5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11]
  np.testing.assert_array_equal(read(tmp_path, COCO_17), BODY[..., nose_eyes_ears + limbs, :])


def test_missing_files_and_persons_are_zero_and_counted(tmp_path):
  write_openpose(tmp_path, "clip", BODY, HANDS)
  (tmp_path / "clip_000000000002_keypoints.json").unlink()
  (tmp_path / "clip_000000000003_keypoints.json").write_text('{"people": []}')
  one = openpose_person(BODY[0, 4], *np.split(HANDS[0, 4], 2))
  (tmp_path / "clip_000000000004_keypoints.json").write_text(json.dumps({"people": [one]}))
  poses = open_poses(tmp_path, OPENPOSE_28)
  keypoints, scores = poses.read("clip", NUM_FRAMES, SIZE)
  found = (scores > 0).any(axis=2)
  np.testing.assert_array_equal(found, [[1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 0, 1]])
  assert not keypoints[~found].any()
  assert poses.frames_without_person == {"clip": 2}


def test_frames_may_count_from_one_but_not_from_anywhere(tmp_path):
  write_openpose(tmp_path, "clip", BODY, HANDS, first=1)
  np.testing.assert_array_equal(
    read(tmp_path, LAYOUTS["openpose-18"])[:, 0], BODY[:, 0, FROM_BODY_25]
  )
  with pytest.raises(ValueError, match="run from 1 to 6, and its video has 9 frames"):
    read(tmp_path, OPENPOSE_28, num_frames=9)
  with pytest.raises(ValueError, match="run from 1 to 6, and its video has 5 frames"):
    read(tmp_path, OPENPOSE_28, num_frames=5)


def test_frames_beyond_the_end_of_the_video_are_an_error(tmp_path):
  write_openpose(tmp_path, "clip", BODY, HANDS)
  assert read(tmp_path, OPENPOSE_28, num_frames=5).shape[1] == 5
  with pytest.raises(ValueError, match="pose for frame 5, but its video has 4 frames"):
    read(tmp_path, OPENPOSE_28, num_frames=4)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "not JSON, or damaged"),
    ("[" * 100_000, "not JSON, or damaged"),
    ("9" * 5000, "not JSON, or damaged"),
    ("[]", "no list 'people'"),
    ('{"people": 3}', "no list 'people'"),
    (json.dumps({"people": [{}] * 65}), "65 people in one frame"),
    ('{"people": [{}]}', "person 0: 'pose_keypoints_2d' is missing"),
    ('{"people": [{"pose_keypoints_2d": [1, 2]}]}', "has 2 numbers, not x, y, score"),
    ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "has 1 keypoints; OpenPose's models"),
    (json.dumps({"people": [openpose_person(BODY[0, 0])]}), "no left_thumb_tip.*without --hand"),
    (
      json.dumps({"people": [openpose_person(BODY[0, 0], HANDS[0, 0])]}),
      "has 42 keypoints, not 21",
    ),
    (
      json.dumps({"people": [openpose_person(BODY[0, 0] * np.nan)]}),
      "person 0: 'pose_keypoints_2d' holds NaN",
    ),
    (f'{{"people": [{{"pose_keypoints_2d": [1, 2, 1{"0" * 400}]}}]}}', "holds NaN, infinity, or"),
    ('{"people": [{"pose_keypoints_2d": ["1", 2, 3]}]}', "not a list of numbers"),
  ],
)
def test_a_bad_frame_is_named(tmp_path, content, message):
  write_openpose(tmp_path, "clip", BODY, HANDS)
  path = tmp_path / "clip_000000000003_keypoints.json"
  path.write_text(content)
  with pytest.raises(ValueError, match=message) as error:
    read(tmp_path, OPENPOSE_28)
  assert str(error.value).startswith(str(path))


def test_folders_of_another_kind_are_explained(tmp_path):
  with pytest.raises(ValueError, match="holds no poses: expected CLIP/CLIP_0"):
    open_poses(tmp_path, OPENPOSE_28)
  write_openpose(tmp_path, "clip", BODY, HANDS)
  with pytest.raises(ValueError, match="OpenPose has no head, shoulder_centre, spine ..., but"):
    open_poses(tmp_path, LAYOUTS["kinect-20"])
  (tmp_path / "clip_0_keypoints.json").touch()
  with pytest.raises(ValueError, match="are the same frame of one clip"):
    open_poses(tmp_path, OPENPOSE_28)
  (tmp_path / "clip_x_keypoints.json").touch()
  (tmp_path / "clip_0_keypoints.json").unlink()
  with pytest.raises(ValueError, match="clip_x_keypoints.json: its name has no frame number"):
    open_poses(tmp_path, OPENPOSE_28)


def write(tmp_path, content):
  path = tmp_path / "clip.json"
  path.write_text(json.dumps(content))
  return path


JOINTS = points(17)


def test_coco_annotations_are_read(tmp_path):
  path = write(tmp_path, coco("clip", JOINTS))
  np.testing.assert_array_equal(read(path, COCO_17), JOINTS)


def test_joints_are_found_by_the_names_in_categories(tmp_path):
  names = COCO_17.joints[::-1]
  path = write(tmp_path, coco("clip", JOINTS[..., ::-1, :], names))
  np.testing.assert_array_equal(read(path, COCO_17), JOINTS)


def test_the_neck_is_the_middle_of_the_shoulders(tmp_path):
  joints = JOINTS.copy()
  joints[1, 0, 5] = 0  # a shoulder that was not found
  found = read(write(tmp_path, coco("clip", joints)), LAYOUTS["openpose-18"])
  np.testing.assert_allclose(found[0, :, 1, :2], joints[0, :, 5:7, :2].mean(axis=1), rtol=1e-6)
  np.testing.assert_array_equal(found[0, :, 1, 2], joints[0, :, 5:7, 2].min(axis=1))
  assert not found[1, 0, 1].any() and found[1, 1:, 1].all()
  np.testing.assert_array_equal(found[:, :, 2:4], joints[:, :, [6, 8]])  # right shoulder, elbow


def test_coco_wholebody_has_the_fingertips(tmp_path):
  joints = points(133)
  found = read(write(tmp_path, coco("clip", joints)), OPENPOSE_28)
  # As COCO-WholeBody numbers its hands: left from 91, right from 112.
  np.testing.assert_array_equal(found[:, :, 18:23], joints[:, :, [95, 99, 103, 107, 111]])
  np.testing.assert_array_equal(found[:, :, 23:], joints[:, :, [116, 120, 124, 128, 132]])


def test_halpes_keypoints_are_found_by_their_number(tmp_path):
  joints = points(26)
  path = write(tmp_path, coco("clip", joints))
  np.testing.assert_array_equal(read(path, COCO_17), joints[..., :17, :])
  # AlphaPose's document of the 26 keypoints has the neck at 18.
  np.testing.assert_array_equal(read(path, LAYOUTS["openpose-18"])[:, :, 1], joints[:, :, 18])
  joints = points(136)
  found = read(write(tmp_path, coco("clip", joints)), OPENPOSE_28)
  # Its hands begin at 94 and 115.
  np.testing.assert_array_equal(found[:, :, 18:23], joints[:, :, [98, 102, 106, 110, 114]])
  np.testing.assert_array_equal(found[:, :, 23:], joints[:, :, [119, 123, 127, 131, 135]])


def test_flags_count_as_scores(tmp_path):
  joints = JOINTS.copy()
  joints[..., 2] = np.arange(17) % 3
  found = read(write(tmp_path, coco("clip", joints)), COCO_17)
  np.testing.assert_array_equal(found[0, 0, :, 2], np.minimum(np.arange(17) % 3, 1))


def result(name, frame, person=0):
  return {"image_id": name, "keypoints": np.ravel(JOINTS[person, frame]).tolist(), "score": 1.5}


@pytest.mark.parametrize("name", ["{}.jpg", "clip_{:05}.png", "a/clip/img-{}.jpg", "clip\\{}.jpg"])
def test_lists_of_results_name_their_frames(tmp_path, name):
  path = write(tmp_path, [result(name.format(frame), frame) for frame in (0, 1, 4)])
  poses = open_poses(path, COCO_17)
  keypoints, _ = poses.read("clip", NUM_FRAMES, SIZE)
  np.testing.assert_array_equal(keypoints[0, [0, 1, 4]], JOINTS[0, [0, 1, 4], :, :2])
  assert poses.frames_without_person == {"clip": 3}


def test_alphapose_leaves_out_frames_without_a_person(tmp_path):
  path = write(tmp_path, [result(f"{frame}.jpg", frame) for frame in (2, 3)])
  found = read(path, COCO_17)[0]
  np.testing.assert_array_equal(found[2:4], JOINTS[0, 2:4])
  assert not np.delete(found, (2, 3), axis=0).any()
  # Frames that people have numbered from 1 are all there.
  path = write(tmp_path, [result(f"{frame + 1}.jpg", frame) for frame in range(NUM_FRAMES)])
  np.testing.assert_array_equal(read(path, COCO_17)[0], JOINTS[0])


def test_alphaposes_own_file_name_is_no_clip(tmp_path):
  content = json.dumps([result(f"{frame}.jpg", frame) for frame in range(NUM_FRAMES)])
  folder = tmp_path / "poses" / "clip"
  folder.mkdir(parents=True)
  path = folder / "alphapose-results.json"
  path.write_text(content)
  for poses, options in ((path, {}), (folder.parent, {}), (path, {"only_clip": "video"})):
    clip_id = options.get("only_clip", "clip")
    opened = open_poses(poses, COCO_17, **options)
    assert opened.clip_ids == [clip_id]
    np.testing.assert_array_equal(opened.read(clip_id, NUM_FRAMES, SIZE)[0][0], JOINTS[0, ..., :2])


@pytest.mark.parametrize("first", [0, 1])
def test_mmposes_files_are_read(tmp_path, first):
  content = mmpose(JOINTS, first)
  np.testing.assert_array_equal(read(write(tmp_path, content), COCO_17), JOINTS)
  path = write(tmp_path, content["instance_info"])
  np.testing.assert_array_equal(read(path, COCO_17), JOINTS)
  np.testing.assert_array_equal(read(tmp_path, COCO_17), JOINTS)  # a folder of a file per clip
  content["instance_info"][2]["instances"] = []
  found = read(write(tmp_path, content), COCO_17)
  assert not found[:, 2].any() and found[:, 3].any()


def test_joints_of_mmpose_are_found_by_name(tmp_path):
  path = write(tmp_path, mmpose(JOINTS[..., ::-1, :], names=COCO_17.joints[::-1]))
  np.testing.assert_array_equal(read(path, COCO_17), JOINTS)
  # Its names of COCO-WholeBody's fingers are others than those here.
  fingers = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
  names = [*COCO_17.joints, *(f"foot_{index}" for index in range(6))]
  names += [f"face-{index}" for index in range(68)]
  for side in ("left", "right"):
    names += [
      f"{side}_hand_root",
      *(f"{side}_{finger}{n}" for finger in fingers for n in (1, 2, 3, 4)),
    ]
  whole = points(133)
  by_number = read(write(tmp_path, mmpose(whole)), OPENPOSE_28)
  np.testing.assert_array_equal(
    read(write(tmp_path, mmpose(whole, names=names)), OPENPOSE_28), by_number
  )


def instance(**changes):
  return {"instance_info": [{"frame_id": 0, "instances": [changes]}]}


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ({"instance_info": 3}, "'instance_info' is not a list"),
    ({"instance_info": [{"instances": []}]}, "frame 0 has no 'frame_id'"),
    ({"instance_info": [{"frame_id": 0}]}, "frame 0 has no list 'instances'"),
    ({"instance_info": [{"frame_id": 0, "instances": []}] * 2}, "frame 1: .* 0 came before"),
    ({"instance_info": [{"frame_id": 0, "instances": [{}] * 65}]}, "frame 0: 65 persons"),
    (instance(keypoints=[[1, 2]]), r"instance 0: expected 'keypoints' \[V, 2\]"),
    (instance(keypoints=[[1, 2, 3]], keypoint_scores=[1]), r"expected 'keypoints' \[V, 2\]"),
    (instance(keypoints=[[1, 2]], keypoint_scores=[1]), "has 1 keypoints, expected one of .17, 26"),
    (instance(keypoints=[["a", 2]], keypoint_scores=[1]), "not a list of numbers"),
    (mmpose(JOINTS, names=["nose"]), "has 17 keypoints, 'meta_info' names 1"),
    ({"meta_info": {"keypoint_id2name": {"a": 1}}, "instance_info": []}, "does not name keypoints"),
    ({"instance_info": [{"frame_id": 9, "instances": []}]}, "numbers run from 9 to 9"),
  ],
)
def test_a_bad_mmpose_file_is_named(tmp_path, content, message):
  path = write(tmp_path, content)
  with pytest.raises(ValueError, match=message) as error:
    read(path, COCO_17)
  assert str(error.value).startswith(str(path))


def test_frames_without_annotations_are_known_by_their_images(tmp_path):
  content = coco("clip", JOINTS)
  content["annotations"] = content["annotations"][2:4]
  found = read(write(tmp_path, content), COCO_17)
  np.testing.assert_array_equal(found[:, 1], JOINTS[:, 1])
  assert not np.delete(found, 1, axis=1).any()


def changed(**changes):
  return coco("clip", JOINTS) | changes


NUMBERS = [1.0] * 51
IMAGES = coco("clip", JOINTS)["images"]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ({"images": []}, "expected COCO annotations"),
    ([1], "expected COCO annotations"),
    (changed(images=3), "'images' is not a list"),
    (changed(images=[{"id": 1}]), "image 0 has no 'id' or no 'file_name'"),
    (changed(images=IMAGES[:2] + IMAGES[:1]), "image 2, 'clip/img_00001.jpg': its id, or this"),
    (changed(images=[{"id": 1, "file_name": "x.jpg"}]), "'x.jpg' does not end in a frame number"),
    (
      changed(images=[IMAGES[0] | {"height": 3}, *IMAGES[1:]]),
      "have different sizes .height, width.: .*64",
    ),
    (changed(images=[i | {"height": 3} for i in IMAGES]), "made for 80 x 3 pixels, but the video"),
    (changed(categories=[{"keypoints": [1]}]), "are not a list of names"),
    (changed(categories=[{"keypoints": ["nose"]}]), "annotation 0: 'keypoints' has 17 keypoints"),
    (changed(annotations=[{"image_id": 7}]), "annotation 0: its 'image_id' '7' is neither"),
    (changed(annotations=[{"image_id": [7]}]), r"annotation 0: its 'image_id' '\[7\]' is neither"),
    ([{"image_id": 7}], "annotation 0: its 'image_id' '7' is neither"),
    ([{"image_id": "clip_0.jpg"}], "annotation 0: 'keypoints' is missing"),
    ([{"image_id": "clip_0.jpg", "keypoints": [1, 2, 3]}], "1 keypoints, expected one of .17, 26"),
    ([{"image_id": "clip_0.jpg", "keypoints": NUMBERS}] * 65, "annotation 0: 65 persons"),
    ([result("clip_3.jpg", 0)], "numbers run from 3 to 3"),
  ],
)
def test_a_bad_coco_file_is_named(tmp_path, content, message):
  path = write(tmp_path, content)
  with pytest.raises(ValueError, match=message) as error:
    read(path, COCO_17)
  assert str(error.value).startswith(str(path))


def test_body_keypoints_alone_are_not_the_28(tmp_path):
  path = write(tmp_path, coco("clip", JOINTS))
  with pytest.raises(ValueError, match="annotation 0 has no left_thumb_tip, .*openpose-28"):
    read(path, OPENPOSE_28)


def test_files_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(pose_frames, "MAX_FILE_BYTES", 100)
  path = write(tmp_path, coco("clip", JOINTS))
  with pytest.raises(ValueError, match="clip.json: larger than 0 MiB; split it by clips"):
    read(path, COCO_17)


@pytest.mark.parametrize("place", [-1, 5, float("nan"), float("inf")])
@pytest.mark.parametrize("score", [0, -1])
def test_what_has_no_score_was_not_found_wherever_it_lies(tmp_path, place, score):
  joints = JOINTS.copy()
  joints[:, :, 3, :2], joints[:, :, 3, 2] = place, score
  for content in (coco("clip", joints), mmpose(joints)):
    found = read(write(tmp_path, content), COCO_17)
    assert not found[:, :, 3].any()
    np.testing.assert_array_equal(np.delete(found, 3, axis=2), np.delete(JOINTS, 3, axis=2))


def test_huge_scores_are_refused(tmp_path):
  joints = JOINTS.copy()
  joints[0, 4, 3, 2] = 1e6
  for content in (coco("clip", joints), mmpose(joints)):
    with pytest.raises(ValueError, match="'scores' holds more than 10, .* in frame 4"):
      read(write(tmp_path, content), COCO_17)

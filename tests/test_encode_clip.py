import cv2
import numpy as np
import pytest

from pcan_jax.clips.encode_clip import encode_clip
from pcan_jax.clips.source_layout import ClipSource
from pcan_jax.clips.stored_frames import Encoding, crop, move_keypoints
from pcan_jax.clips.video import decode_video
from tests.test_video import write
from tests.tiny_source import write_video

NUM_FRAMES, HEIGHT, WIDTH = 5, 90, 120


def make_clip(tmp_path, keypoints, num_frames=NUM_FRAMES, img_shape=(HEIGHT, WIDTH), scores=None):
  """A grey video with a white dot of 3 x 3 pixels at every keypoint."""
  frames = np.full((num_frames, HEIGHT, WIDTH, 3), 50, np.uint8)
  for frame, joints in zip(frames, keypoints[0].astype(int)):
    for x, y in joints:
      frame[y - 1 : y + 2, x - 1 : x + 2] = 255
  path = tmp_path / "clip.mp4"
  write_video(path, frames)
  if scores is None:
    scores = np.ones(keypoints.shape[:3], np.float32)
  return ClipSource("clip", "train", path, 3, keypoints, scores, img_shape)


def joints(*points):
  return np.tile(np.array(points, np.float32), (1, NUM_FRAMES, 1, 1))


def brightest(jpeg):
  image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)
  weights = np.maximum(image - 70, 0)
  y, x = np.mgrid[: image.shape[0], : image.shape[1]]
  return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


@pytest.mark.parametrize(
  "corners",
  [
    [(40, 30), (80, 60)],  # the box lies in the frame
    [(3, 30), (80, 60)],  # it leaves the frame to the left
    [(40, 3), (110, 86)],  # it leaves the frame above and below
  ],
)
@pytest.mark.parametrize("side", [32, 64, 150])
def test_keypoints_stay_on_what_they_mark(tmp_path, corners, side):
  clip = make_clip(tmp_path, joints(*corners, (50, 40)))
  record = encode_clip(clip, Encoding(side))
  x0, y0, x1, y1 = record["box"]
  scale = side / np.array([x1 - x0, y1 - y0])
  assert scale[0] == pytest.approx(scale[1], rel=0.03)
  for index in range(3):
    alone = make_clip(tmp_path, joints(corners[index] if index < 2 else (50, 40)))
    # The same box, with one dot alone in the picture.
    shown = ClipSource("clip", "train", alone.video, 3, clip.keypoints, clip.scores, None)
    found = brightest(encode_clip(shown, Encoding(side))["frames"][2])
    # A source pixel's centre comes to lie at scale * x + (scale - 1) / 2.
    expected = record["keypoints"][0, 2, index] + (scale - 1) / 2
    np.testing.assert_allclose(found, expected, atol=0.35 * max(1, *scale))


def test_the_record_says_what_it_is(tmp_path):
  record = encode_clip(make_clip(tmp_path, joints((40, 30), (80, 60))), Encoding(32))
  assert (record["id"], record["action"], record["num_frames"], record["fps"]) == ("clip", 3, 5, 30)
  assert not record["trimmed"]
  np.testing.assert_array_equal(record["original_size"], [HEIGHT, WIDTH])
  np.testing.assert_array_equal(record["box"], [35, 20, 85, 70])
  assert record["keypoints"].shape == (1, 5, 2, 2) and record["keypoints"].dtype == np.float32
  np.testing.assert_allclose(record["keypoints"][0, 0], [[3.2, 6.4], [28.8, 25.6]], rtol=1e-6)
  images = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1) for jpeg in record["frames"]]
  assert [image.shape for image in images] == [(32, 32, 3)] * 5


def test_frames_are_stored_as_rgb(tmp_path):
  frames = np.zeros((2, 64, 64, 3), np.uint8)
  frames[..., 0] = 220
  write_video(tmp_path / "red.mp4", frames)
  keypoints = np.zeros((1, 2, 4, 2), np.float32)
  clip = ClipSource("r", "train", tmp_path / "red.mp4", 0, keypoints, keypoints[..., 0], None)
  record = encode_clip(clip, Encoding(16))
  blue, green, red = cv2.imdecode(np.frombuffer(record["frames"][0], np.uint8), 1)[8, 8]
  assert red > 200 and green < 30 and blue < 30
  # Nobody was detected: the whole frame stays.
  np.testing.assert_array_equal(record["box"], [0, 0, 64, 64])
  assert not record["keypoint_scores"].any()


def test_missing_keypoints_stay_missing():
  keypoints = np.array([[[[0, 0], [30, 40], [30, 40], [0, 40]]]], np.float16)
  scores = np.array([[[0.9, 0, 0.5, 0.4]]], np.float16)
  moved, kept = move_keypoints(keypoints, scores, (10, 20, 50, 60), side=20)
  np.testing.assert_array_equal(moved[0, 0], [[0, 0], [0, 0], [10, 10], [-5, 10]])
  np.testing.assert_allclose(kept[0, 0], [0, 0, 0.5, 0.4], rtol=1e-3)
  assert moved.dtype == kept.dtype == np.float32


@pytest.mark.parametrize(
  "box", [(2, 1, 5, 4), (-3, -2, 2, 3), (4, 3, 9, 8), (-2, -2, 9, 9), (20, 20, 23, 23)]
)
def test_crops_are_black_outside_the_image(box):
  image = np.arange(1, 6 * 7 * 3 + 1, dtype=np.uint8).reshape(6, 7, 3)
  padded = np.pad(image, ((30, 30), (30, 30), (0, 0)))
  x0, y0, x1, y1 = np.add(box, 30)
  np.testing.assert_array_equal(crop(image, box), padded[y0:y1, x0:x1])


def test_frames_of_a_varying_rate_are_stored_evenly_in_time(tmp_path):
  """The second of four frames stands for three frames' time."""
  grey = np.arange(4, dtype=np.uint8)[:, None, None, None] * 60 + 20
  path = write(tmp_path / "clip.mkv", np.tile(grey, (1, 48, 64, 3)), times=[0, 20, 80, 90])
  keypoints = np.arange(4, dtype=np.float32)[None, :, None, None] + np.zeros((1, 4, 2, 2)) + 5
  scores = np.full((1, 4, 2), 0.5, np.float32)
  clip = ClipSource("c", "train", path, 0, keypoints.astype(np.float32), scores, None)
  record = encode_clip(clip, Encoding(64))
  assert record["order"].tolist() == [0, 1, 1, 2]
  assert record["fps"] == pytest.approx(4 / (100 / 600), rel=1e-2)
  shown = [cv2.imdecode(np.frombuffer(f, np.uint8), 1).mean() for f in record["frames"]]
  np.testing.assert_allclose(shown, [20, 80, 80, 140], atol=3)
  moved, _ = move_keypoints(
    clip.keypoints, clip.scores, tuple(record["box"].astype(int).tolist()), 64
  )
  np.testing.assert_array_equal(record["keypoints"], moved[:, [0, 1, 1, 2]])


def test_what_is_wrong_with_a_broken_off_video_is_told(tmp_path):
  noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
  path = write(tmp_path / "clip.mkv", noise)
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
  count = sum(1 for _ in decode_video(path))
  keypoints = np.zeros((1, 30, 2, 2), np.float32)
  clip = ClipSource("c", "train", path, 0, keypoints, keypoints[..., 0], None)
  with pytest.raises(
    ValueError, match=rf"has {count} frames \(its header promises 1.00 s, but .*\)"
  ):
    encode_clip(clip, Encoding(16))
  keypoints = keypoints[:, :count]
  clip = ClipSource("c", "train", path, 0, keypoints, keypoints[..., 0], None)
  assert "its header promises 1.00 s" in encode_clip(clip, Encoding(16))["damage"][0]


@pytest.mark.parametrize(("poses", "kept"), [(4, 4), (5, 5), (6, 5)])
def test_one_frame_more_or_less_is_cut(tmp_path, poses, kept):
  clip = make_clip(tmp_path, joints((40, 30), (80, 60)))
  keypoints = np.resize(clip.keypoints, (1, poses, 2, 2))
  clip = ClipSource("c", "train", clip.video, 0, keypoints, keypoints[..., 0], None)
  record = encode_clip(clip, Encoding(16))
  assert record["num_frames"] == len(record["frames"]) == record["keypoints"].shape[1] == kept
  assert record["keypoint_scores"].shape[1] == kept
  assert record["trimmed"] == (poses != 5)


@pytest.mark.parametrize(
  ("poses", "message"),
  [
    (3, r"clip\.mp4 has 5 or more frames, but there are poses for 3"),
    (7, r"clip\.mp4 has 5 frames, but there are poses for 7"),
  ],
)
def test_more_frames_more_or_less_are_an_error(tmp_path, poses, message):
  clip = make_clip(tmp_path, joints((40, 30), (80, 60)))
  keypoints = np.resize(clip.keypoints, (1, poses, 2, 2))
  clip = ClipSource("c", "train", clip.video, 0, keypoints, keypoints[..., 0], None)
  with pytest.raises(ValueError, match=message):
    encode_clip(clip, Encoding(16))


def test_poses_of_another_size_are_an_error(tmp_path):
  clip = make_clip(tmp_path, joints((40, 30), (80, 60)), img_shape=(1080, 1920))
  with pytest.raises(ValueError, match=r"clip\.mp4 is 90 .* 120 .* made for 1080 x 1920"):
    encode_clip(clip, Encoding(16))


@pytest.mark.parametrize(("far", "message"), [(1500, "span"), (3e7, "lie far"), (3e38, "lie far")])
def test_keypoints_far_away_are_an_error_and_no_huge_image(tmp_path, far, message):
  clip = make_clip(tmp_path, joints((40, 30), (80, 60)))
  keypoints = clip.keypoints.copy()
  keypoints[0, 0, 0] = far
  clip = ClipSource("c", "train", clip.video, 0, keypoints, clip.scores, None)
  with pytest.raises(ValueError, match=rf"clip\.mp4: the keypoints {message}"):
    encode_clip(clip, Encoding(16))


@pytest.mark.parametrize("options", [{"side": 8}, {"jpeg_quality": 0}, {"jpeg_quality": 101}])
def test_impossible_encodings_are_refused(options):
  with pytest.raises(ValueError, match=next(iter(options))):
    Encoding(**options)

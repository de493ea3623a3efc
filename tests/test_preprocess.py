import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax.keypoints import get_layout
from pcan_jax.preprocess import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  Augmentation,
  Preprocessing,
  crop_and_resize,
  crop_keypoints,
  flip_keypoints,
  jitter_keypoints,
  preprocess,
  random_crop,
)

preprocess = jax.jit(preprocess, static_argnums=1)
LAYOUT = get_layout("openpose-28")
KEY = jax.random.key(0)


def make_batch(size=32, clips=2):
  rng = np.random.default_rng(0)
  batch = {
    "rgb": rng.integers(0, 256, (clips, 3, size, size, 3), np.uint8),
    "keypoints": rng.uniform(0, size, (clips, 5, 1, 28, 2)).astype(np.float32),
    "keypoint_scores": rng.uniform(0.3, 1, (clips, 5, 1, 28)).astype(np.float32),
  }
  return {name: jnp.asarray(values) for name, values in batch.items()}


def test_evaluation_at_stored_size_only_normalises():
  batch = make_batch()
  config = Preprocessing(stored_size=32, rgb_size=32, heatmap_size=8, layout=LAYOUT)
  inputs = preprocess(batch, config)
  expected = (batch["rgb"] - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
  np.testing.assert_allclose(inputs["rgb"], expected, atol=1e-4)
  assert inputs["heatmaps"].shape == (2, 5, 8, 8, 28)


def test_streams_that_are_not_read_are_left_out():
  batch = make_batch()
  config = Preprocessing(stored_size=32, rgb_size=32, heatmap_size=8, layout=LAYOUT)
  assert preprocess({"rgb": batch["rgb"]}, config).keys() == {"rgb"}
  pose = {name: batch[name] for name in ("keypoints", "keypoint_scores")}
  assert preprocess(pose, config).keys() == {"heatmaps"}


@pytest.mark.parametrize("aspect", [(0.75, 4 / 3), (1.0, 1.0)])
def test_random_crops_have_the_area_and_aspect_asked_for(aspect):
  config = Augmentation(crop_area=(0.56, 1.0), crop_aspect=aspect)
  boxes = np.asarray(random_crop(KEY, 500, config))
  width, height = (boxes[:, 2:] - boxes[:, :2]).T
  assert boxes.min() >= 0 and boxes.max() <= 1 + 1e-6
  assert (width * height).min() > 0.559
  assert (width / height).min() > aspect[0] - 1e-3 and (width / height).max() < aspect[1] + 1e-3
  assert np.std(boxes[:, 0]) > 0.01


def test_an_impossible_crop_takes_the_whole_frame():
  config = Augmentation(crop_area=(0.99, 1.0), crop_aspect=(2.0, 2.0))
  np.testing.assert_allclose(random_crop(KEY, 3, config), [[0, 0, 1, 1]] * 3)


def test_crop_shows_the_box_in_image_and_keypoints_alike():
  """A bright dot and the keypoint on it stay together through a crop."""
  frames = np.zeros((1, 1, 64, 64, 3), np.uint8)
  frames[0, 0, 40:42, 20:22] = 255
  box = jnp.array([[10.0, 30.0, 42.0, 62.0]])
  image = np.asarray(crop_and_resize(jnp.asarray(frames), box, 64))[0, 0, :, :, 0]
  row, column = np.argwhere(image > 0.9 * image.max()).mean(axis=0) + 0.5
  # The dot covers [20, 22) x [40, 42): its centre is an edge between pixels.
  keypoint = jnp.full((1, 1, 1, 1, 2), jnp.array([21.0, 41.0]))
  x, y = np.asarray(crop_keypoints(keypoint, box, 64))[0, 0, 0, 0]
  assert (x, y) == (22.0, 22.0)
  np.testing.assert_allclose([column, row], [x, y], atol=0.5)


def test_flip_mirrors_and_swaps_sides_and_is_its_own_inverse():
  batch = make_batch()
  keypoints, scores = batch["keypoints"], batch["keypoint_scores"]
  flipped = jnp.array([True, False])
  permutation = LAYOUT.flip_permutation()
  once = flip_keypoints(keypoints, scores, flipped, 32, permutation)
  left, right = LAYOUT.flip_pairs[0]
  np.testing.assert_allclose(once[0][0, :, :, left, 0], 32 - keypoints[0, :, :, right, 0])
  np.testing.assert_array_equal(once[1][0, :, :, left], scores[0, :, :, right])
  np.testing.assert_array_equal(once[0][1], keypoints[1])
  twice = flip_keypoints(*once, flipped, 32, permutation)
  np.testing.assert_allclose(twice[0], keypoints, atol=1e-5)


def test_flipped_heatmaps_mirror_the_image():
  """With heatmaps as wide as the image, a flip mirrors both alike."""
  batch = make_batch(size=16)
  # Keypoints on half pixels, so that mirrored ones fall on the same grid.
  batch["keypoints"] = jnp.floor(batch["keypoints"]) + 0.5
  config = dict(stored_size=16, rgb_size=16, heatmap_size=16, layout=LAYOUT)
  plain = preprocess(batch, Preprocessing(**config))
  whole = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=1.0)
  mirrored = preprocess(batch, Preprocessing(**config, augmentation=whole), KEY)
  np.testing.assert_allclose(mirrored["rgb"], plain["rgb"][:, :, :, ::-1], atol=1e-4)
  mass = plain["heatmaps"].sum(axis=(2, 3))
  np.testing.assert_allclose(
    mirrored["heatmaps"].sum(axis=(2, 3)).mean(),
    mass[..., LAYOUT.flip_permutation()].mean(),
    rtol=0.1,
  )


def test_jitter_of_zero_changes_nothing_and_rotation_keeps_distances():
  keypoints = make_batch()["keypoints"]
  same = jitter_keypoints(KEY, keypoints, 32, Augmentation())
  np.testing.assert_allclose(same, keypoints, atol=1e-4)
  rotated = np.asarray(jitter_keypoints(KEY, keypoints, 32, Augmentation(rotation=30.0)))
  assert np.abs(rotated - keypoints).max() > 1

  def to_centre(x):
    return np.linalg.norm(x - 16, axis=-1)

  np.testing.assert_allclose(to_centre(rotated), to_centre(keypoints), atol=1e-3)


def test_augmentation_is_a_function_of_its_key():
  batch = make_batch()
  config = Preprocessing(32, 32, 8, LAYOUT, augmentation=Augmentation())
  one, same, other = (preprocess(batch, config, jax.random.key(k)) for k in (1, 1, 2))
  np.testing.assert_array_equal(one["rgb"], same["rgb"])
  assert np.abs(one["rgb"] - other["rgb"]).max() > 0

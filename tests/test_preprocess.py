import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ma52
from pcan_jax import heatmaps
from pcan_jax.inputs import (
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
from pcan_jax.keypoints import KeypointLayout, get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.spec import ModelSpec
from tests.paper import AUGMENTATION
from tests.tiny_config import shrink

preprocess = jax.jit(preprocess, static_argnums=1)
LAYOUT = get_layout("openpose-28")
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 2)


def preprocessing(size=32, heatmap_size=8, layout=LAYOUT, heatmaps="joints", augmentation=None):
  return Preprocessing(size, size, heatmap_size, layout, 0.7, heatmaps, augmentation)


def augmentation(**values):
  return dataclasses.replace(AUGMENTATION, **values)


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
  config = preprocessing()
  inputs = preprocess(batch, config)
  expected = (batch["rgb"] - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
  np.testing.assert_allclose(inputs["rgb"], expected, atol=1e-4)
  assert inputs["heatmaps"].shape == (2, 5, 8, 8, 28)


def test_streams_that_are_not_read_are_left_out():
  batch = make_batch()
  config = preprocessing()
  assert preprocess({"rgb": batch["rgb"]}, config).keys() == {"rgb"}
  pose = {name: batch[name] for name in ("keypoints", "keypoint_scores")}
  assert preprocess(pose, config).keys() == {"heatmaps"}


@pytest.mark.parametrize("aspect", [(0.75, 4 / 3), (1.0, 1.0)])
def test_random_crops_have_the_area_and_aspect_asked_for(aspect):
  config = augmentation(crop_aspect=aspect)
  boxes = jax.vmap(lambda key: random_crop(key, config))(jax.random.split(KEY, 500))
  boxes = np.asarray(boxes)
  width, height = (boxes[:, 2:] - boxes[:, :2]).T
  assert boxes.min() >= 0 and boxes.max() <= 1 + 1e-6
  assert (width * height).min() > 0.559
  assert (width / height).min() > aspect[0] - 1e-3 and (width / height).max() < aspect[1] + 1e-3
  assert np.std(boxes[:, 0]) > 0.01


def test_an_impossible_crop_takes_the_whole_frame():
  config = augmentation(crop_area=(0.99, 1.0), crop_aspect=(2.0, 2.0))
  np.testing.assert_allclose(random_crop(KEY, config), [0, 0, 1, 1])


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
  plain = preprocess(batch, preprocessing(16, 16))
  whole = augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=1.0)
  mirrored = preprocess(batch, preprocessing(16, 16, augmentation=whole), KEYS)
  np.testing.assert_allclose(mirrored["rgb"], plain["rgb"][:, :, :, ::-1], atol=1e-4)
  mass = plain["heatmaps"].sum(axis=(2, 3))
  np.testing.assert_allclose(
    mirrored["heatmaps"].sum(axis=(2, 3)).mean(),
    mass[..., LAYOUT.flip_permutation()].mean(),
    rtol=0.1,
  )


def test_jitter_of_zero_changes_nothing_and_rotation_keeps_distances():
  keypoints = make_batch()["keypoints"][0]
  same = jitter_keypoints(KEY, keypoints, 32, augmentation())
  np.testing.assert_allclose(same, keypoints, atol=1e-4)
  rotated = np.asarray(jitter_keypoints(KEY, keypoints, 32, augmentation(rotation=30.0)))
  assert np.abs(rotated - keypoints).max() > 1

  def to_centre(x):
    return np.linalg.norm(x - 16, axis=-1)

  np.testing.assert_allclose(to_centre(rotated), to_centre(keypoints), atol=1e-3)


def test_augmentation_is_a_function_of_its_key():
  batch = make_batch()
  config = preprocessing(augmentation=AUGMENTATION)
  one, same, other = (
    preprocess(batch, config, jax.random.split(jax.random.key(k), 2)) for k in (1, 1, 2)
  )
  np.testing.assert_array_equal(one["rgb"], same["rgb"])
  assert np.abs(one["rgb"] - other["rgb"]).max() > 0


def test_augmentation_goes_with_the_clip():
  """Whatever its row, and whatever else is in the batch."""
  batch = make_batch(clips=4)
  config = preprocessing(augmentation=augmentation(rotation=10.0, scale_jitter=0.1, flip=0.5))
  keys = jax.random.split(KEY, 4)
  whole = preprocess(batch, config, keys)
  rows = np.array([2, 0, 3])
  found = preprocess({name: values[rows] for name, values in batch.items()}, config, keys[rows])
  for name, values in whole.items():
    np.testing.assert_allclose(found[name], values[rows], atol=1e-4, err_msg=name)
  assert np.abs(whole["heatmaps"][0] - whole["heatmaps"][1]).max() > 0.1


def test_heatmaps_show_joints_limbs_or_both():
  batch = make_batch()
  pose = {name: batch[name] for name in ("keypoints", "keypoint_scores")}
  drawn = {}
  for kind in ("joints", "limbs", "both"):
    config = preprocessing(heatmaps=kind)
    drawn[kind] = preprocess(pose, config)["heatmaps"]
    assert drawn[kind].shape == (2, 5, 8, 8, len(config.heatmap_channels))
  joints = heatmaps.render_joints(batch["keypoints"] / 4, batch["keypoint_scores"], (8, 8), 0.7)
  np.testing.assert_allclose(drawn["joints"], joints, atol=1e-6)
  apart = np.concatenate([drawn["joints"], drawn["limbs"]], axis=-1)
  np.testing.assert_allclose(drawn["both"], apart, atol=1e-6)


def test_channels_are_named():
  layout = KeypointLayout("arm", ("elbow", "wrist"), (), ((1, 0),))
  assert preprocessing(layout=layout).heatmap_channels == ("elbow", "wrist")
  assert preprocessing(layout=layout, heatmaps="limbs").heatmap_channels == ("wrist-elbow",)
  both = preprocessing(layout=layout, heatmaps="both")
  assert both.heatmap_channels == ("elbow", "wrist", "wrist-elbow")


def test_a_flip_swaps_the_channels_of_left_and_right_limbs():
  batch = make_batch(size=16)
  batch["keypoint_scores"] = jnp.ones_like(batch["keypoint_scores"])
  pose = {name: batch[name] for name in ("keypoints", "keypoint_scores")}
  config = dict(size=16, heatmap_size=16, heatmaps="limbs")
  plain = np.asarray(preprocess(pose, preprocessing(**config))["heatmaps"])
  flip = augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=1.0)
  flipped = preprocess(pose, preprocessing(**config, augmentation=flip), KEYS)["heatmaps"]
  flipped = np.asarray(flipped)

  joints = LAYOUT.flip_permutation()
  limbs = [frozenset(limb) for limb in LAYOUT.limbs]
  partners = [limbs.index(frozenset(int(joints[joint]) for joint in limb)) for limb in limbs]
  assert sorted(partners) == list(range(len(limbs))) and partners != sorted(partners)
  # Column x of the picture becomes column 16 - x; at a patch's border, 3 sigma out, one may lack.
  mirrored = plain[:, :, :, :0:-1][..., partners]
  np.testing.assert_allclose(flipped[:, :, :, 1:], mirrored, atol=0.02)
  assert np.abs(flipped[:, :, :, 1:] - plain[:, :, :, :0:-1]).max() > 0.5


def test_heatmaps_that_cannot_be_drawn_are_refused():
  with pytest.raises(ValueError, match="input.heatmaps must be joints, limbs or both, not 'bones'"):
    preprocessing(heatmaps="bones")
  points = KeypointLayout("points", ("a", "b"), (), ())
  with pytest.raises(
    ValueError, match="input.heatmaps='both' needs limbs, but .* 'points' has none"
  ):
    preprocessing(layout=points, heatmaps="both")


@pytest.mark.parametrize(("kind", "channels"), [("joints", 28), ("limbs", 27), ("both", 55)])
def test_the_config_says_what_heatmaps_show(kind, channels):
  config = shrink(ma52.get_config("pcan_pose"))
  config.input.heatmaps = kind
  tree = LabelTree(("nod", "wave"), ("head", "arm"), (0, 1))
  spec = ModelSpec(config, tree, LAYOUT, stored_size=32)
  stem = jax.eval_shape(spec.init)["params"]["backbone"]["pose_path"]["conv1"]["conv"]["kernel"]
  assert stem.shape[-2] == channels
  batch = make_batch()
  pose = {name: batch[name] for name in ("keypoints", "keypoint_scores")}
  drawn = jax.eval_shape(lambda: preprocess(pose, spec.test_preprocessing))
  assert drawn["heatmaps"].shape[-1] == channels


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("crop_area", (56.0, 100.0)),
    ("crop_area", (0.0, 1.0)),
    ("crop_aspect", (2.0, 0.5)),
    ("flip", 7.0),
    ("rotation", -1.0),
    ("mixup", -1.0),
  ],
)
def test_augmentation_out_of_range_is_named(field, value):
  values = {**ma52.get_config().augmentation, field: value}
  with pytest.raises(ValueError, match=f"augmentation.{field} "):
    Augmentation(**values)

import dataclasses
import itertools
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from data.build import build
from pcan_jax.clips import sampling
from pcan_jax.clips.sampling import FrameSampling
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.feed.epochs import ClassSampling, uniform_order
from pcan_jax.feed.pipeline import evaluation_batches, training_batches, training_stages
from tests.tiny_source import write_tiny_source

TRAINING = FrameSampling(rgb_frames=4, pose_frames=8, num_clips=None, max_persons=2)
EVALUATION = dataclasses.replace(TRAINING, num_clips=2)


def take(dataset, count, **options):
  options = {"batch_size": 4, "seed": 0} | options
  return list(itertools.islice(training_batches(dataset, "train", TRAINING, **options), count))


def assert_same(batches, others):
  assert len(batches) == len(others)
  for a, b in zip(batches, others):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_batches_have_the_documented_shapes(tiny_dataset):
  (batch,) = take(tiny_dataset, 1)
  side, joints = tiny_dataset.stored_size, tiny_dataset.layout.num_keypoints
  assert {name: (values.shape, values.dtype) for name, values in batch.items()} == {
    "rgb": ((4, 4, side, side, 3), np.uint8),
    "keypoints": ((4, 8, 2, joints, 2), np.float32),
    "keypoint_scores": ((4, 8, 2, joints), np.float32),
    "action": ((4,), np.int32),
  }
  assert batch["keypoint_scores"][:, :, 0].max() > 0
  np.testing.assert_array_equal(batch["keypoint_scores"][:, :, 1], 0)


def test_batches_depend_on_the_seed_and_nothing_else(tiny_dataset):
  assert_same(take(tiny_dataset, 6), take(tiny_dataset, 6))
  first, other = take(tiny_dataset, 1)[0], take(tiny_dataset, 1, seed=1)[0]
  assert not np.array_equal(first["keypoints"], other["keypoints"])


def test_a_clip_depends_on_its_position_and_nothing_else(tiny_dataset):
  """Alone, without threads, it is what it was in the stream."""
  size = tiny_dataset.num_clips("train")
  order = uniform_order(size)
  stages = training_stages(tiny_dataset, "train", TRAINING, order=order, seed=0)
  batches = take(tiny_dataset, 2, batch_size=size)
  for position in (3, 0, size + 1):
    clip = tf.constant(position, tf.int64)
    for stage in stages.values():
      clip = stage(clip)
    batch = batches[position // size]
    assert clip.keys() == batch.keys()
    for name, values in clip.items():
      np.testing.assert_array_equal(values, batch[name][position % size], err_msg=name)


@pytest.mark.parametrize("start_step", [1, 3, 7])
def test_a_resumed_stream_is_the_rest_of_the_whole_one(tiny_dataset, start_step):
  whole = take(tiny_dataset, 9)
  assert_same(whole[start_step:], take(tiny_dataset, 9 - start_step, start_step=start_step))


def test_an_epoch_repeats_rare_actions(tiny_dataset):
  """16 clips of 6 actions: three each of the first four, two each of the others."""
  order = tiny_dataset.epoch_order("train", ClassSampling("repeat", 0.5))
  for batch in take(tiny_dataset, 2, batch_size=order.num_clips, order=order):
    # 3 * sqrt(0.5 * 16 / 3) = 4.9, 2 * sqrt(0.5 * 16 / 2) = 4
    assert np.bincount(batch["action"]).tolist() == [5, 5, 5, 5, 4, 4]
    # A clip that comes twice shows other frames the second time.
    assert len(np.unique(batch["keypoints"], axis=0)) == order.num_clips


def test_an_epoch_holds_every_clip_once_and_epochs_differ(tiny_dataset):
  size = tiny_dataset.num_clips("train")
  epochs = take(tiny_dataset, 2, batch_size=size)
  first, second = (sorted(epoch["action"].tolist()) for epoch in epochs)
  assert first == second
  assert not np.array_equal(epochs[0]["rgb"], epochs[1]["rgb"])


def test_hosts_share_a_batch(tiny_dataset):
  together = take(tiny_dataset, 3)
  hosts = [take(tiny_dataset, 3, num_hosts=2, host=host) for host in (0, 1)]
  for whole, *parts in zip(together, *hosts):
    merged = np.stack([part["rgb"] for part in parts], axis=1).reshape(whole["rgb"].shape)
    np.testing.assert_array_equal(merged, whole["rgb"])


@pytest.mark.parametrize("num_hosts", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 6])
def test_evaluation_sees_every_clip_once(tiny_dataset, num_hosts, batch_size):
  wanted = FrameSampling(rgb_frames=2, pose_frames=0, num_clips=3, max_persons=1)
  ids, counts = [], []
  for host in range(num_hosts):
    batches = list(
      evaluation_batches(
        tiny_dataset, "val", wanted, batch_size=batch_size, num_hosts=num_hosts, host=host
      )
    )
    counts.append(len(batches))
    for batch in batches:
      assert batch["rgb"].shape[:3] == (batch_size // num_hosts, 3, 2)
      assert "keypoints" not in batch
      ids += list(batch["id"][batch["mask"] > 0])
  assert len(ids) == len(set(ids)) == tiny_dataset.num_clips("val")
  assert len(set(counts)) == 1


def test_clips_are_found_in_all_shards(tmp_path):
  source = write_tiny_source(tmp_path / "source", {"train": 8})
  dataset = open_dataset(build(source, tmp_path / "out", side=16, jobs=1, clips_per_shard=3))
  info = dataset.builder.info.splits["train"]
  assert len(info.shard_lengths) == 3
  stored = [
    tf.train.Example.FromString(record.numpy()).features.feature["id"].bytes_list.value[0]
    for path in info.filepaths
    for record in tf.data.TFRecordDataset(str(path))
  ]
  wanted = FrameSampling(rgb_frames=0, pose_frames=2, num_clips=1, max_persons=1)
  batches = evaluation_batches(dataset, "train", wanted, batch_size=3)
  assert [clip_id for batch in batches for clip_id in batch["id"][batch["mask"] > 0]] == stored
  # The clips take the 6 actions in turn, so that the first two have two clips.
  order = dataset.epoch_order("train", ClassSampling("class_balanced"))
  (batch,) = itertools.islice(
    training_batches(
      dataset,
      "train",
      dataclasses.replace(wanted, num_clips=None),
      batch_size=8,
      seed=0,
      order=order,
    ),
    1,
  )
  assert np.bincount(batch["action"]).tolist() == [2, 2, 1, 1, 1, 1]


def test_more_hosts_than_clips_are_refused(tiny_dataset):
  with pytest.raises(ValueError, match="'test' has 3 clips for 4 hosts"):
    next(evaluation_batches(tiny_dataset, "test", EVALUATION, batch_size=4, num_hosts=4))


def test_evaluation_draws_the_seeded_test_clips(tiny_dataset):
  """Every frame's keypoints tell which frame it is; compare with the stored clip."""
  whole = {
    clip["id"]: clip for clip in tiny_dataset.builder.as_dataset(split="val").as_numpy_iterator()
  }
  wanted = FrameSampling(rgb_frames=0, pose_frames=8, num_clips=2, max_persons=1)
  for batch in evaluation_batches(tiny_dataset, "val", wanted, batch_size=1):
    stored = whole[batch["id"][0]]
    chosen = sampling.test_clips(int(stored["num_frames"]), 8, 2)
    np.testing.assert_array_equal(batch["keypoints"][0, :, :, 0], stored["keypoints"][0][chosen])


def test_evaluation_decodes_the_frames_that_were_chosen(tiny_dataset):
  encoded = tiny_dataset.builder.as_dataset(
    split="val", decoders={"frames": tfds.decode.SkipDecoding()}
  )
  stored = {clip["id"]: clip["frames"] for clip in encoded.as_numpy_iterator()}
  wanted = FrameSampling(rgb_frames=4, pose_frames=0, num_clips=3, max_persons=1)
  (batch,) = itertools.islice(evaluation_batches(tiny_dataset, "val", wanted, batch_size=3), 1)
  for clip_id, frames in zip(batch["id"], batch["rgb"]):
    chosen = sampling.test_clips(len(stored[clip_id]), 4, 3)
    expected = [
      [tf.io.decode_jpeg(stored[clip_id][i], dct_method="INTEGER_ACCURATE") for i in row]
      for row in chosen
    ]
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_record_names_the_data_set(tiny_dataset_path, tmp_path, damage):
  copy = tmp_path / "damaged"
  shutil.copytree(tiny_dataset_path, copy)
  (path,) = copy.rglob("*-val.tfrecord*")
  content = bytearray(path.read_bytes())
  if damage == "flip":
    content[len(content) // 2] ^= 1
  else:
    del content[-1000:]
  path.write_bytes(content)
  dataset = open_dataset(copy)
  with pytest.raises(ValueError, match="a record of .*damaged.* cannot be read.*pcan check"):
    list(evaluation_batches(dataset, "val", EVALUATION, batch_size=4))
  with pytest.raises(ValueError, match="a record of .*damaged.* cannot be read.*pcan check"):
    list(itertools.islice(training_batches(dataset, "val", TRAINING, batch_size=7, seed=0), 1))

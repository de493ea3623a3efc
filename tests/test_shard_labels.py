import pathlib
import random

import numpy as np
import pytest
import tensorflow as tf

from pcan_jax.shard_labels import read_actions


def shards_of(dataset, split):
  info = dataset.builder.info.splits[split]
  return [pathlib.Path(path) for path in info.filepaths], info.shard_lengths


@pytest.fixture
def shard(tiny_dataset, tmp_path):
  """A copy of a shard, the number of its records, and their actions."""
  (path,), (length,) = shards_of(tiny_dataset, "train")
  copy = tmp_path / "copy.tfrecord"
  copy.write_bytes(path.read_bytes())
  return copy, length, read_actions([path], [length])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_labels_are_those_of_the_records(tiny_dataset, split):
  paths, lengths = shards_of(tiny_dataset, split)
  expected = [
    tf.train.Example.FromString(record.numpy()).features.feature["action"].int64_list.value[0]
    for path in paths
    for record in tf.data.TFRecordDataset(str(path))
  ]
  np.testing.assert_array_equal(read_actions(paths, lengths), expected)
  assert split != "test" or expected == [-1] * len(expected), "the test split is unlabelled"


def test_several_shards_come_in_order(shard):
  path, length, actions = shard
  np.testing.assert_array_equal(
    read_actions([path, path], [length, length]), np.concatenate([actions, actions])
  )


def test_any_order_of_fields_is_read(tmp_path):
  """A map may be written in any order; small integers take one byte, large ones several."""
  record = tf.train.Example()
  for name, value in (("zeros", 0), ("action", 300), ("beyond", 7)):
    record.features.feature[name].int64_list.value.append(value)
  path = tmp_path / "shard.tfrecord"
  with tf.io.TFRecordWriter(str(path)) as writer:
    writer.write(record.SerializeToString())
  assert read_actions([path], [1]).tolist() == [300]


def test_a_record_without_a_label_is_named(tmp_path):
  path = tmp_path / "shard.tfrecord"
  with tf.io.TFRecordWriter(str(path)) as writer:
    writer.write(tf.train.Example().SerializeToString())
  with pytest.raises(ValueError, match=r"shard\.tfrecord: the label of record 0 .*no field"):
    read_actions([path], [1])


def test_a_missing_record_is_named(shard):
  path, length, _ = shard
  with pytest.raises(ValueError, match=f"holds {length} records instead of {length + 1}"):
    read_actions([path], [length + 1])


def test_a_missing_shard_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="gone"):
    read_actions([tmp_path / "gone"], [1])


def test_damaged_shards_end_in_an_error_or_in_labels(shard):
  """Checksums are left to the reading of whole records, so a flipped label may go unseen here."""
  path, length, actions = shard
  content = path.read_bytes()
  rng = random.Random(0)
  refused = 0
  for _ in range(300):
    damaged = bytearray(content)
    if rng.random() < 0.3:
      del damaged[rng.randrange(len(damaged)) :]
    else:
      for _ in range(20):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        damaged[rng.randrange(60)] = rng.randrange(256)
    path.write_bytes(damaged)
    try:
      assert len(read_actions([path], [length])) == length
    except ValueError as error:
      assert str(path) in str(error)
      refused += 1
  assert refused > 200

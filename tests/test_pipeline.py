import dataclasses
import itertools
import json
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
from pcan_jax.feed.offsets import record_offsets
from pcan_jax.feed.pipeline import evaluation_batches, training_batches, training_stages
from tests.tiny_source import write_tiny_source

TRAINING = FrameSampling(rgb_frames=4, pose_frames=8, num_clips=None, max_persons=2)
EVALUATION = dataclasses.replace(TRAINING, num_clips=2)


def take(dataset, count, **options):
  options = {"batch_size": 4, "seed": 0} | options
  return list(itertools.islice(training_batches(dataset, "train", TRAINING, **options), count))


@pytest.fixture(scope="module")
def stream(tiny_dataset):
  """The first batches of a run."""
  return take(tiny_dataset, 9)


def assert_same(batches, others):
  assert len(batches) == len(others)
  for a, b in zip(batches, others):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_batches_have_the_documented_shapes(tiny_dataset, stream):
  batch = stream[0]
  side, joints = tiny_dataset.stored_size, tiny_dataset.layout.num_keypoints
  assert {name: (values.shape, values.dtype) for name, values in batch.items()} == {
    "rgb": ((4, 4, side, side, 3), np.uint8),
    "keypoints": ((4, 8, 2, joints, 2), np.float32),
    "keypoint_scores": ((4, 8, 2, joints), np.float32),
    "action": ((4,), np.int32),
    "position": ((4,), np.uint32),
  }
  assert batch["keypoint_scores"][:, :, 0].max() > 0
  np.testing.assert_array_equal(batch["keypoint_scores"][:, :, 1], 0)


def test_batches_depend_on_the_seed_and_nothing_else(tiny_dataset, stream):
  assert_same(take(tiny_dataset, 6), stream[:6])
  (other,) = take(tiny_dataset, 1, seed=1)
  assert not np.array_equal(stream[0]["keypoints"], other["keypoints"])


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
def test_a_resumed_stream_is_the_rest_of_the_whole_one(tiny_dataset, stream, start_step):
  rest = take(tiny_dataset, 9 - start_step, start_step=start_step)
  assert_same(stream[start_step:], rest)


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


SHARES = {
  "one host": [[0, 1, 2, 3, 4, 5, 6, 7]],
  "two interleaved hosts": [[0, 2, 4, 6], [1, 3, 5, 7]],
  "four hosts": [[0, 1], [2, 3], [4, 5], [6, 7]],
  "unequal hosts": [[2, 3, 4, 5, 6, 7], [0, 1]],
}


@pytest.fixture(scope="module")
def together(tiny_dataset):
  """An epoch and a half, as the hosts read them together."""
  return take(tiny_dataset, 3, batch_size=8)


@pytest.mark.parametrize("name", SHARES)
def test_hosts_read_the_rows_of_one_batch(tiny_dataset, together, name):
  for rows in SHARES[name]:
    found = take(tiny_dataset, 3, batch_size=8, rows=np.array(rows))
    assert_same(found, [{name: x[rows] for name, x in batch.items()} for batch in together])


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("name", SHARES)
def test_evaluation_sees_every_clip_once(tiny_dataset, name, split):
  """Also with more hosts than clips: 'test' has three."""
  wanted = FrameSampling(rgb_frames=2, pose_frames=0, num_clips=3, max_persons=1)
  index, counts = [], []
  for rows in SHARES[name]:
    options = {"batch_size": 8, "rows": np.array(rows)}
    batches = list(evaluation_batches(tiny_dataset, split, wanted, **options))
    counts.append(len(batches))
    for batch in batches:
      assert batch["rgb"].shape[:3] == (len(rows), 3, 2)
      assert "keypoints" not in batch
      index += batch["index"][batch["mask"] > 0].tolist()
  assert sorted(index) == list(range(tiny_dataset.num_clips(split)))
  assert len(set(counts)) == 1


def test_small_batches_of_an_evaluation_follow_the_split(tiny_dataset):
  wanted = FrameSampling(rgb_frames=0, pose_frames=2, num_clips=1, max_persons=1)
  batches = list(evaluation_batches(tiny_dataset, "val", wanted, batch_size=3))
  index, mask, actions = (
    np.concatenate([batch[name] for batch in batches]) for name in ("index", "mask", "action")
  )
  assert index.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1] and mask.tolist() == [1] * 7 + [0] * 2
  np.testing.assert_array_equal(actions, tiny_dataset.actions("val")[index])


def test_clips_are_found_in_all_shards(tmp_path):
  source = write_tiny_source(tmp_path / "source", {"train": 8})
  dataset = open_dataset(build(source, tmp_path / "out", side=16, jobs=1, clips_per_shard=3))
  info = dataset.builder.info.splits["train"]
  assert len(info.shard_lengths) == 3
  fields = [
    tf.train.Example.FromString(record.numpy()).features.feature
    for path in info.filepaths
    for record in tf.data.TFRecordDataset(str(path))
  ]
  stored = [(f["id"].bytes_list.value[0].decode(), f["action"].int64_list.value[0]) for f in fields]
  wanted = FrameSampling(rgb_frames=0, pose_frames=2, num_clips=1, max_persons=1)
  batches = evaluation_batches(dataset, "train", wanted, batch_size=3)
  actions = [batch["action"][batch["mask"] > 0] for batch in batches]
  assert np.concatenate(actions).tolist() == [action for _, action in stored]
  assert dataset.clip_ids("train") == [name for name, _ in stored]
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


def test_evaluation_draws_the_seeded_test_clips(tiny_dataset):
  """Every frame's keypoints tell which frame it is; compare with the stored clip."""
  whole = list(tiny_dataset.builder.as_dataset(split="val").as_numpy_iterator())
  wanted = FrameSampling(rgb_frames=0, pose_frames=8, num_clips=2, max_persons=1)
  for batch in evaluation_batches(tiny_dataset, "val", wanted, batch_size=1):
    stored = whole[batch["index"][0]]
    chosen = sampling.test_clips(int(stored["num_frames"]), 8, 2)
    np.testing.assert_array_equal(batch["keypoints"][0, :, :, 0], stored["keypoints"][0][chosen])


def test_evaluation_decodes_the_frames_that_were_chosen(tiny_dataset):
  encoded = tiny_dataset.builder.as_dataset(
    split="val", decoders={"frames": tfds.decode.SkipDecoding()}
  )
  stored = [clip["frames"] for clip in encoded.as_numpy_iterator()]
  wanted = FrameSampling(rgb_frames=4, pose_frames=0, num_clips=3, max_persons=1)
  (batch,) = itertools.islice(evaluation_batches(tiny_dataset, "val", wanted, batch_size=3), 1)
  for index, frames in zip(batch["index"], batch["rgb"]):
    chosen = sampling.test_clips(len(stored[index]), 4, 3)
    expected = [
      [tf.io.decode_jpeg(stored[index][i], dct_method="INTEGER_ACCURATE") for i in row]
      for row in chosen
    ]
    np.testing.assert_array_equal(frames, expected)


def test_records_are_read_at_once_and_in_data_sets_without_offsets(tmp_path):
  source = write_tiny_source(tmp_path / "source", {"train": 7})
  path = build(source, tmp_path / "out", side=16, jobs=1, clips_per_shard=3)
  batches, fingerprints = [], []
  for _ in range(2):
    dataset = open_dataset(path)
    batches.append(list(evaluation_batches(dataset, "train", EVALUATION, batch_size=7)))
    fingerprints.append(dataset.fingerprint)
    _forget_offsets(path)
  assert dataset.record_offsets is None
  for name, values in batches[0][0].items():
    np.testing.assert_array_equal(values, batches[1][0][name])
  assert fingerprints[0] == fingerprints[1]


def _forget_offsets(path):
  file = path / "metadata.json"
  metadata = json.loads(file.read_text())
  for split in metadata["splits"].values():
    split.pop("offsets", None)
  file.write_text(json.dumps(metadata))


def test_offsets_are_those_of_the_records(tmp_path):
  lengths = [0, 1, 1000, 3]
  path = tmp_path / "shard"
  with tf.io.TFRecordWriter(str(path)) as writer:
    for length in lengths:
      writer.write(bytes(length))
  assert record_offsets(path) == [0, 16, 33, 1049]
  with path.open("r+b") as file:
    file.truncate(1050)
  with pytest.raises(ValueError, match="ends within a record"):
    record_offsets(path)


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

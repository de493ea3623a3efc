"""From TFRecord shards to host batches: choose the frames of a clip, decode only these, batch.

A training stream is a function of (seed, step): the choice of frames depends on the seed, the
epoch and the clip alone, whatever the number of threads, and a stream that starts at a later step
equals the rest of one that started at 0.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from pcan_jax import records, sampling
from pcan_jax.keypoints import KeypointLayout
from pcan_jax.labels import LabelTree

tf.config.set_visible_devices([], "GPU")

HostBatch = dict[str, np.ndarray]

_PREFETCHED_BATCHES = 4
_SHARDS_AT_ONCE = 8


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A built data set: where its shards are and what its metadata says.

  Attributes:
    builder: reads the shards.
    tree: the labels of its clips.
    layout: the keypoints of its clips.
    stored_size: side of the stored frames in pixels.
  """

  builder: tfds.core.DatasetBuilder
  tree: LabelTree
  layout: KeypointLayout
  stored_size: int

  def num_clips(self, split: str) -> int:
    """Clips in a split.

    Raises:
      ValueError: there is no such split.
    """
    if split not in self.builder.info.splits:
      raise ValueError(
        f"{self.builder.data_path} has no split {split!r}; "
        f"it has {sorted(self.builder.info.splits)}"
      )
    return self.builder.info.splits[split].num_examples

  def max_frames(self, split: str) -> int:
    """Frames of the longest clip of a split."""
    return self.builder.info.metadata["splits"][split]["max_frames"]


def open_dataset(path: str | os.PathLike[str], instructions: str = "") -> Dataset:
  """Opens the data set built at `path`, or in the one folder below it that holds one.

  Args:
    path: the folder.
    instructions: how to get the data set, for the message if it is not there.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is not one of ours, of another schema version, or there are several.
  """
  found = sorted(pathlib.Path(path).rglob("dataset_info.json"))
  if not found:
    raise FileNotFoundError(
      f"no data set at {path} (config.data.path). "
      + (instructions or "Build one: python -m data.build SOURCE OUT; see docs/DATA.md")
    )
  if len(found) > 1:
    places = ", ".join(str(info.parent) for info in found)
    raise ValueError(f"{path} holds several data sets; name one of: {places}")
  builder = tfds.builder_from_directory(str(found[0].parent))
  metadata = records.check_metadata(builder.info.metadata, where=str(found[0].parent))
  return Dataset(
    builder=builder,
    tree=LabelTree.from_dict(metadata["tree"]),
    layout=KeypointLayout.from_dict(metadata["layout"]),
    stored_size=metadata["side"],
  )


@dataclasses.dataclass(frozen=True)
class Clips:
  """What is read of every stored clip.

  Attributes:
    rgb_frames: frames per clip for the RGB stream; 0 reads no images.
    pose_frames: frames per clip for the pose stream; 0 reads no keypoints.
    num_clips: clips per video; None is one random clip, as in training, else seeded test clips.
    max_persons: persons per frame; those with the highest scores stay, missing ones score 0.
  """

  rgb_frames: int
  pose_frames: int
  num_clips: int | None
  max_persons: int

  @property
  def lengths(self) -> dict[str, int]:
    """Frames per clip of the streams that are read."""
    lengths = {"rgb": self.rgb_frames, "pose": self.pose_frames}
    return {stream: length for stream, length in lengths.items() if length}


def training_batches(
  dataset: Dataset,
  split: str,
  clips: Clips,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  shuffle_buffer: int = 4096,
  num_hosts: int = 1,
  host: int = 0,
) -> Iterator[HostBatch]:
  """Endless shuffled batches; epochs follow each other without a gap.

  Args:
    dataset: the data set.
    split: its training split.
    clips: what to read; `num_clips` is None.
    batch_size: clips per batch on all hosts together.
    seed: of the order of clips and the choice of frames.
    start_step: number of batches that an interrupted run has already used.
    shuffle_buffer: clips among which the next one is drawn.
    num_hosts, host: the batches hold this host's share of the clips.

  Yields:
    `rgb` uint8 [b, T, S, S, 3], `keypoints` float32 [b, T', M, V, 2], `keypoint_scores`
    [b, T', M, V], `action` int32 [b].
  """
  start_clip = start_step * batch_size
  start_epoch, offset = divmod(start_clip, dataset.num_clips(split))
  epochs = tf.data.Dataset.range(start_epoch, np.iinfo(np.int64).max)

  def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
    stored = _stored_clips(dataset, split, clips, shuffle_seed=seed + epoch)
    chosen = stored.map(
      lambda clip: _random_frames(clip, clips, seed, epoch), num_parallel_calls=tf.data.AUTOTUNE
    )
    return chosen.shuffle(shuffle_buffer, seed=seed + epoch)

  stream = epochs.flat_map(one_epoch).skip(offset)
  stream = stream.shard(num_hosts, host)
  stream = stream.map(_decode, num_parallel_calls=tf.data.AUTOTUNE)
  stream = stream.map(lambda clip: {k: v for k, v in clip.items() if k != "id"})
  stream = stream.batch(batch_size // num_hosts, drop_remainder=True)
  yield from _deterministic(stream).as_numpy_iterator()


def evaluation_batches(
  dataset: Dataset,
  split: str,
  clips: Clips,
  *,
  batch_size: int,
  num_hosts: int = 1,
  host: int = 0,
) -> Iterator[HostBatch]:
  """Every clip of a split once, in the order of the shards.

  The last batches are filled up with clips of which `mask` is 0, so that all batches have one
  shape and all hosts equally many.

  Yields:
    As `training_batches`, with an axis [K] of test clips after the batch axis, and `id` bytes [b],
    `mask` float32 [b].
  """
  stream = _stored_clips(dataset, split, clips, shuffle_seed=None).shard(num_hosts, host)
  choose = _test_frames(clips, dataset.max_frames(split))
  stream = stream.map(choose, num_parallel_calls=tf.data.AUTOTUNE)
  stream = stream.map(_decode, num_parallel_calls=tf.data.AUTOTUNE)
  size = batch_size // num_hosts
  num_batches = -(-dataset.num_clips(split) // batch_size)
  batch = None
  count = 0
  for batch in _deterministic(stream.batch(size)).as_numpy_iterator():
    count += 1
    yield _fill_up(batch, size)
  for _ in range(num_batches - count):
    yield _fill_up({name: values[:0] for name, values in batch.items()}, size)


def _fill_up(batch: HostBatch, size: int) -> HostBatch:
  missing = size - len(batch["id"])
  batch["mask"] = np.ones(size - missing, np.float32)
  return {
    name: np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
    for name, values in batch.items()
  }


def _stored_clips(dataset: Dataset, split: str, clips: Clips, shuffle_seed: Any) -> tf.data.Dataset:
  """Stored clips with their frames still encoded; the order of shards shuffled, if seeded."""
  dataset.num_clips(split)
  files = tf.data.Dataset.from_tensor_slices(
    [str(path) for path in dataset.builder.info.splits[split].filepaths]
  )
  if shuffle_seed is not None:
    files = files.shuffle(len(files), seed=shuffle_seed)
  serialized = files.interleave(
    tf.data.TFRecordDataset, cycle_length=_SHARDS_AT_ONCE if shuffle_seed is not None else 1
  )
  features = dataset.builder.info.features
  wanted = {"id", "action", "num_frames"}
  if clips.rgb_frames:
    wanted |= {"frames"}
  if clips.pose_frames:
    wanted |= {"keypoints", "keypoint_scores"}
  decoders = tfds.decode.PartialDecoding(
    dict.fromkeys(wanted, True),
    decoders={"frames": tfds.decode.SkipDecoding()} if clips.rgb_frames else None,
  )
  partial = decoders.extract_features(features)
  return serialized.map(
    lambda example: partial.deserialize_example(example, decoders=decoders.decoders),
    num_parallel_calls=tf.data.AUTOTUNE,
  )


def _choose_frames(
  clip: dict[str, tf.Tensor], clips: Clips, indices: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """Keeps the frames that either stream was given, [length] or [clips, length], and no others."""
  chosen = {"id": clip["id"], "action": tf.cast(clip["action"], tf.int32)}
  if "rgb" in indices:
    chosen["rgb"] = tf.gather(clip["frames"], indices["rgb"])
  if "pose" in indices:
    keypoints, scores = _strongest_persons(
      clip["keypoints"], clip["keypoint_scores"], clips.max_persons
    )
    chosen["keypoints"] = tf.gather(keypoints, indices["pose"])
    chosen["keypoint_scores"] = tf.gather(scores, indices["pose"])
  return chosen


def _random_frames(
  clip: dict[str, tf.Tensor], clips: Clips, seed: int, epoch: tf.Tensor
) -> dict[str, tf.Tensor]:
  """Draws frames for each stream, by the seed, the epoch and the clip's id."""
  id_hash = tf.strings.to_hash_bucket_fast(clip["id"], np.iinfo(np.int32).max)
  fold_in = tf.random.experimental.stateless_fold_in
  indices = {}
  for number, (stream, length) in enumerate(clips.lengths.items()):
    stream_seed = fold_in(fold_in(tf.constant([seed, number], tf.int64), epoch), id_hash)
    indices[stream] = sampling.training_clip(clip["num_frames"], length, stream_seed)
  return _choose_frames(clip, clips, indices)


def _test_frames(clips: Clips, max_frames: int) -> Callable[[dict], dict[str, tf.Tensor]]:
  """A function that gives a clip its test clips, from a table of those of every length."""
  tables = {
    stream: tf.constant(
      [sampling.test_clips(n, length, clips.num_clips) for n in range(1, max_frames + 1)]
    )
    for stream, length in clips.lengths.items()
  }
  return lambda clip: _choose_frames(
    clip, clips, {stream: table[clip["num_frames"] - 1] for stream, table in tables.items()}
  )


def _strongest_persons(
  keypoints: tf.Tensor, scores: tf.Tensor, max_persons: int
) -> tuple[tf.Tensor, tf.Tensor]:
  """[M, T, V, ...] of any M to [T, max_persons, V, ...], the person of highest scores first."""
  missing = tf.maximum(max_persons - tf.shape(scores)[0], 0)
  keypoints = tf.pad(keypoints, [[0, missing], [0, 0], [0, 0], [0, 0]])
  scores = tf.pad(scores, [[0, missing], [0, 0], [0, 0]])
  _, order = tf.math.top_k(tf.reduce_sum(scores, axis=[1, 2]), max_persons)
  return (
    tf.transpose(tf.gather(keypoints, order), [1, 0, 2, 3]),
    tf.transpose(tf.gather(scores, order), [1, 0, 2]),
  )


def _decode(clip: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  if "rgb" not in clip:
    return clip
  encoded = clip["rgb"]
  frames = tf.map_fn(
    lambda jpeg: tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE"),
    tf.reshape(encoded, [-1]),
    fn_output_signature=tf.uint8,
  )
  shape = tf.shape(frames)
  return clip | {"rgb": tf.reshape(frames, tf.concat([tf.shape(encoded), shape[1:]], axis=0))}


def _deterministic(stream: tf.data.Dataset) -> tf.data.Dataset:
  options = tf.data.Options()
  options.deterministic = True
  return stream.prefetch(_PREFETCHED_BATCHES).with_options(options)

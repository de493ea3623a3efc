"""From TFRecord shards to host batches: choose the frames of a clip, decode only these, batch.

A training stream is a function of (seed, step): which clip stands at a place of the stream, and
which of its frames are taken, depends on the seed and the place alone, whatever the number of
threads and hosts. Records are read by their number, so that a stream can start at any step at once
and a host reads its own clips only.
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
from pcan_jax.epochs import ClipSampling, EpochOrder, order_by_action, uniform_order
from pcan_jax.keypoints import KeypointLayout
from pcan_jax.labels import LabelTree
from pcan_jax.shard_labels import read_actions

tf.config.set_visible_devices([], "GPU")

HostBatch = dict[str, np.ndarray]
Stage = Callable[[Any], Any]

_PREFETCHED_BATCHES = 4


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

  def epoch_order(self, split: str, sampling: ClipSampling) -> EpochOrder:
    """The order in which training takes the clips of a split; its `num_clips` make an epoch.

    Raises:
      ValueError: there is no such split, or `sampling` needs labels that it has not.
    """
    num_clips = self.num_clips(split)
    if sampling.name == "uniform":
      return uniform_order(num_clips)
    info = self.builder.info.splits[split]
    return order_by_action(read_actions(info.filepaths, info.shard_lengths), sampling)

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
  order: EpochOrder | None = None,
  start_step: int = 0,
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
    order: as `dataset.epoch_order` returns it; None is every clip once per epoch.
    start_step: number of batches that an interrupted run has already used.
    num_hosts, host: the batches hold this host's share of the clips.

  Yields:
    `rgb` uint8 [b, T, S, S, 3], `keypoints` float32 [b, T', M, V, 2], `keypoint_scores`
    [b, T', M, V], `action` int32 [b].

  Raises:
    ValueError: there is no such split, or a record is damaged.
  """
  order = order or uniform_order(dataset.num_clips(split))
  places = tf.data.Dataset.range(start_step * batch_size + host, np.iinfo(np.int64).max, num_hosts)
  stream = _through(places, training_stages(dataset, split, clips, order=order, seed=seed))
  stream = stream.batch(batch_size // num_hosts, drop_remainder=True)
  yield from _host_batches(stream, dataset)


def training_stages(
  dataset: Dataset, split: str, clips: Clips, *, order: EpochOrder, seed: int
) -> dict[str, Stage]:
  """What is done to each clip, by name and in order, from a place in the stream to its frames."""
  read = _reader(dataset, split)
  parse = _parser(dataset, clips)

  def choose(clip: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    chosen = _random_frames(clip, clips, seed)
    return {name: values for name, values in chosen.items() if name != "id"}

  return {
    "order": lambda place: {"place": place, "number": order.clip_at(place, seed)},
    "read": lambda clip: clip | {"record": read(clip["number"])},
    "parse": lambda clip: {"place": clip["place"]} | parse(clip["record"]),
    "choose": choose,
    "decode": _decode,
  }


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

  Raises:
    ValueError: there is no such split, it has fewer clips than there are hosts, or a record is
      damaged.
  """
  num_clips = dataset.num_clips(split)
  if num_clips < num_hosts:
    raise ValueError(
      f"split {split!r} has {num_clips} clips for {num_hosts} hosts; evaluate on fewer of them"
    )
  stages = {
    "read": _reader(dataset, split),
    "parse": _parser(dataset, clips),
    "choose": _test_frames(clips, dataset.max_frames(split)),
    "decode": _decode,
  }
  stream = _through(tf.data.Dataset.range(host, num_clips, num_hosts), stages)
  size = batch_size // num_hosts
  num_batches = -(-num_clips // batch_size)
  batch = None
  count = 0
  for batch in _host_batches(stream.batch(size), dataset):
    count += 1
    yield _fill_up(batch, size)
  for _ in range(num_batches - count):
    yield _fill_up({name: values[:0] for name, values in batch.items()}, size)


def _fill_up(batch: HostBatch, size: int) -> HostBatch:
  missing = size - len(batch["id"])
  batch["mask"] = np.ones(size - missing, np.float32)
  if not missing:
    return batch
  return {
    name: np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
    for name, values in batch.items()
  }


def _through(stream: tf.data.Dataset, stages: dict[str, Stage]) -> tf.data.Dataset:
  """Sends elements through all stages, several at once; a single map costs least."""

  def all_stages(element: Any) -> Any:
    for stage in stages.values():
      element = stage(element)
    return element

  return stream.map(all_stages, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _reader(dataset: Dataset, split: str) -> Stage:
  """Reads the record of a clip by the clip's number in the split."""
  info = dataset.builder.info.splits[split]
  paths = tf.constant([str(path) for path in info.filepaths])
  ends = tf.constant(np.cumsum(info.shard_lengths), tf.int64)
  starts = tf.concat([[0], ends[:-1]], axis=0)

  def read(number: tf.Tensor) -> tf.Tensor:
    shard = tf.searchsorted(ends, number[None], side="right")[0]
    # Without a buffer, records that are skipped are not read, only their lengths.
    shard_records = tf.data.TFRecordDataset(paths[shard], buffer_size=0)
    return shard_records.skip(number - starts[shard]).take(1).get_single_element()

  return read


class _StillEncoded(tfds.decode.SkipDecoding):
  """Hands out all frames of a clip as they are stored, in one piece instead of one by one."""

  def decode_batch_example(self, example_data: tf.Tensor) -> tf.Tensor:
    return example_data


def _parser(dataset: Dataset, clips: Clips) -> Stage:
  """Turns a record into the fields that are needed, its frames still encoded."""
  wanted = {"id", "action", "num_frames"}
  if clips.rgb_frames:
    wanted |= {"frames"}
  if clips.pose_frames:
    wanted |= {"keypoints", "keypoint_scores"}
  decoding = tfds.decode.PartialDecoding(
    dict.fromkeys(wanted, True),
    decoders={"frames": _StillEncoded()} if clips.rgb_frames else None,
  )
  partial = decoding.extract_features(dataset.builder.info.features)
  return lambda record: partial.deserialize_example(record, decoders=decoding.decoders)


def _choose_frames(
  clip: dict[str, tf.Tensor], clips: Clips, indices: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """Keeps the frames that either stream was given, [length] or [clips, length], and no others."""
  chosen = {"id": clip["id"], "action": tf.cast(clip["action"], tf.int32)}
  if "rgb" in indices:
    # Test clips have frames in common; each is to be decoded once.
    frames, which = tf.unique(tf.reshape(indices["rgb"], [-1]))
    chosen["jpegs"] = tf.gather(clip["frames"], frames)
    chosen["rgb"] = tf.reshape(which, tf.shape(indices["rgb"]))
  if "pose" in indices:
    keypoints, scores = _strongest_persons(
      clip["keypoints"], clip["keypoint_scores"], clips.max_persons
    )
    chosen["keypoints"] = tf.gather(keypoints, indices["pose"])
    chosen["keypoint_scores"] = tf.gather(scores, indices["pose"])
  return chosen


def _random_frames(clip: dict[str, tf.Tensor], clips: Clips, seed: int) -> dict[str, tf.Tensor]:
  """Draws frames for each stream, by the seed and the clip's place."""
  indices = {}
  for number, (stream, length) in enumerate(clips.lengths.items()):
    stream_seed = tf.random.experimental.stateless_fold_in(
      tf.constant([seed, number], tf.int64), clip["place"]
    )
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
  """Replaces `jpegs` and, in `rgb`, the number of the one that stands at each place."""
  if "rgb" not in clip:
    return clip
  decoded = clip | {}
  frames = tf.map_fn(
    lambda jpeg: tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE"),
    decoded.pop("jpegs"),
    fn_output_signature=tf.uint8,
  )
  return decoded | {"rgb": tf.gather(frames, clip["rgb"])}


def _host_batches(stream: tf.data.Dataset, dataset: Dataset) -> Iterator[HostBatch]:
  """Works some batches ahead, and names the data set if one of its records is damaged."""
  batches = stream.prefetch(_PREFETCHED_BATCHES).as_numpy_iterator()
  while True:
    try:
      batch = next(batches)
    except StopIteration:
      return
    except (
      tf.errors.DataLossError,
      tf.errors.InvalidArgumentError,
      tf.errors.NotFoundError,
    ) as error:
      where = dataset.builder.data_path
      raise ValueError(
        f"a record of {where} cannot be read; `python -m data.check {where}` names it, and "
        f"building the data set again mends it ({error.message})"
      ) from error
    yield batch

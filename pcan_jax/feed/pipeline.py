"""From TFRecord shards to host batches: choose the frames of a clip, decode only these, batch.

A training stream is a function of (seed, step): the clip at a position of the stream and its
frames depend only on the seed and the position, not on the number of threads and hosts. Records are
read by index, so that a stream can start at any step immediately and a host reads only the rows of
a batch that its devices hold.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp
import tensorflow_datasets as tfds
from jaxtyping import Float, Int64, UInt8

from pcan_jax.clips.persons import strongest_persons
from pcan_jax.clips.sampling import FrameSampling, test_clips
from pcan_jax.clips.skeleton import draw_alone
from pcan_jax.feed.dataset import Dataset
from pcan_jax.feed.epochs import EpochOrder, uniform_order
from pcan_jax.feed.records import FEATURES
from pcan_jax.feed.sampling import training_clip

HostBatch = dict[str, np.ndarray]
Stage = Callable[[Any], Any]
Rows = Int64[np.ndarray, " b"]

_PREFETCHED_BATCHES = 4
_FOREVER = 2**31  # steps


def training_batches(
  dataset: Dataset,
  split: str,
  sampling: FrameSampling,
  *,
  batch_size: int,
  seed: int,
  order: EpochOrder | None = None,
  start_step: int = 0,
  rows: Rows | None = None,
  labelled: bool = True,
) -> Iterator[HostBatch]:
  """Endless shuffled batches; epochs follow each other without a gap.

  Args:
    dataset: the data set.
    split: its training split.
    sampling: what to read; its `num_clips` must be None.
    batch_size: clips per batch on all hosts together.
    seed: of the order of clips and the choice of frames.
    order: from `dataset.epoch_order`; None is every clip once per epoch.
    start_step: number of batches to skip, those that an interrupted run has already used.
    rows: the rows of every batch that this host reads, from `mesh.local_rows`; None is all.
    labelled: whether every clip must have a label.

  Yields:
    `rgb` uint8 [b, T, S, S, 3] or `features` float32 [b, T, D], `keypoints` float32
    [b, T', M, V, 2], `keypoint_scores` [b, T', M, V], `action` int32 [b], and `position` uint32 [b]
    of the clips in the stream.

  Raises:
    ValueError: there is no such split, or a record is damaged or has no label of the tree.
  """
  order = order or uniform_order(dataset.num_clips(split))
  rows = _all_rows(batch_size) if rows is None else rows
  stream = _positions(batch_size, rows, range(start_step, _FOREVER))
  stream = _through(stream, training_stages(dataset, split, sampling, order=order, seed=seed))
  for batch in _host_batches(stream.batch(len(rows)), dataset):
    yield _with_known_labels(batch, dataset) if labelled else batch


def training_stages(
  dataset: Dataset, split: str, sampling: FrameSampling, *, order: EpochOrder, seed: int
) -> dict[str, Stage]:
  """The stages from a position of the stream to the frames of a clip, by name and in order."""
  read, numbers = _reader(dataset), tf.constant(dataset.record_numbers(split))
  parse = _parser(dataset, sampling)

  def choose(clip: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    position = tf.cast(clip["position"] % 2**32, tf.uint32)
    return _random_frames(clip, sampling, seed) | {"position": position}

  return {
    "order": lambda position: {"position": position, "number": order.clip_at(position, seed)},
    "read": lambda clip: clip | {"record": read(numbers[clip["number"]])},
    "parse": lambda clip: {"position": clip["position"]} | parse(clip["record"]),
    "choose": choose,
    "decode": _decode,
  }


def evaluation_batches(
  dataset: Dataset,
  split: str,
  sampling: FrameSampling,
  *,
  batch_size: int,
  rows: Rows | None = None,
) -> Iterator[HostBatch]:
  """Every clip of a split once, in the order of the shards.

  The last batch is padded with earlier clips whose `mask` is 0, so that all batches have the same
  shape and all hosts have the same number of batches.

  Args:
    dataset, split, sampling: what to read.
    batch_size: videos per batch on all hosts together.
    rows: as for `training_batches`.

  Yields:
    As `training_batches`, with an axis [K] of test clips after the batch axis, and without
    `position`; instead `index` int32 [b], the number of the clip in the split, and `mask` float32
    [b].

  Raises:
    ValueError: there is no such split, or a record is damaged.
  """
  num_clips = dataset.num_clips(split)
  read, parse = _reader(dataset), _parser(dataset, sampling)
  numbers = tf.constant(dataset.record_numbers(split))
  choose = _test_frames(sampling, dataset.max_frames(split), dataset.max_features(split))

  def about(position: tf.Tensor) -> dict[str, tf.Tensor]:
    mask = tf.cast(position < num_clips, tf.float32)
    return {"index": tf.cast(position % num_clips, tf.int32), "mask": mask}

  stages = {
    "about": about,
    "read": lambda clip: clip | parse(read(numbers[clip["index"]])),
    "choose": lambda clip: choose(clip) | {name: clip[name] for name in ("index", "mask")},
    "decode": _decode,
  }
  rows = _all_rows(batch_size) if rows is None else rows
  stream = _through(_positions(batch_size, rows, range(-(-num_clips // batch_size))), stages)
  yield from _host_batches(stream.batch(len(rows)), dataset)


def read_frames(
  dataset: Dataset, split: str, ids: Sequence[str], num_frames: int
) -> dict[str, UInt8[np.ndarray, "_ s s 3"]]:
  """Reads evenly spaced frames of some clips.

  Args:
    dataset: the data set.
    split: the split of the clips.
    ids: of the clips; ids that the split lacks are ignored.
    num_frames: maximum number of frames per clip.

  Returns:
    The frames by clip, RGB; without videos, drawings of the skeletons.

  Raises:
    ValueError: there is no such split, or a record is damaged.
  """
  numbers = dict(zip(dataset.clip_ids(split), dataset.record_numbers(split)))
  found = {name: numbers[name] for name in ids if name in numbers}
  shown = {"frames"} if dataset.videos else {"keypoints", "keypoint_scores"}
  frames = {}
  wanted = np.array([*found.values()], np.int64)
  for name, clip in zip(found, _records(dataset, wanted, {"num_frames"} | shown)):
    count = int(clip["num_frames"])
    chosen = np.linspace(0, count - 1, min(num_frames, count)).round().astype(int)
    if dataset.videos:
      frames[name] = np.stack([decode_frame(clip["frames"][index]).numpy() for index in chosen])
    else:
      poses = clip["keypoints"][:, chosen], clip["keypoint_scores"][:, chosen]
      frames[name] = draw_alone(*poses, dataset.stored_size, dataset.layout)
  return frames


def read_keypoints(
  dataset: Dataset, split: str
) -> Iterator[tuple[Float[np.ndarray, "m t v 2"], Float[np.ndarray, "m t v"]]]:
  """Keypoints, in pixels of the stored frames, and scores of every clip, in stored order.

  Raises:
    ValueError: there is no such split, or a record is damaged.
  """
  fields = {"keypoints", "keypoint_scores"}
  for clip in _records(dataset, dataset.record_numbers(split), fields):
    yield clip["keypoints"], clip["keypoint_scores"]


def _records(
  dataset: Dataset, numbers: Int64[np.ndarray, " n"], fields: Collection[str]
) -> Iterator[HostBatch]:
  """Some fields of records, given by their numbers; frames stay encoded."""
  read, parse = _reader(dataset), _field_parser(dataset, fields)
  stream = tf.data.Dataset.from_tensor_slices(numbers)
  stream = stream.map(lambda number: parse(read(number)), num_parallel_calls=tf.data.AUTOTUNE)
  return _host_batches(stream, dataset)


def _all_rows(batch_size: int) -> Rows:
  return np.arange(batch_size, dtype=np.int64)


def _positions(batch_size: int, rows: Rows, steps: range) -> tf.data.Dataset:
  """The positions of this host's clips in a stream of batches, batch after batch."""
  size, table = len(rows), tf.constant(rows)
  counts = tf.data.Dataset.range(steps.start * size, steps.stop * size)
  return counts.map(lambda count: count // size * batch_size + table[count % size])


def _through(stream: tf.data.Dataset, stages: dict[str, Stage]) -> tf.data.Dataset:
  """Applies all stages to elements in parallel. One fused `map` is cheapest."""

  # No stage branches on a tensor: looking for that in their source would take seconds.
  @tf.autograph.experimental.do_not_convert
  def all_stages(element: Any) -> Any:
    for stage in stages.values():
      element = stage(element)
    return element

  return stream.map(all_stages, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _reader(dataset: Dataset) -> Stage:
  """Reads a record by its number among those of all stored splits."""
  infos = [dataset.builder.info.splits[split] for split in dataset.stored_splits]
  paths = tf.constant([str(path) for info in infos for path in info.filepaths])
  lengths = [length for info in infos for length in info.shard_lengths]
  ends = tf.constant(np.cumsum(lengths), tf.int64)
  starts = tf.concat([[0], ends[:-1]], axis=0)
  offsets = dataset.record_offsets

  def skip(number: tf.Tensor, shard: tf.Tensor) -> tf.data.Dataset:
    # Without a buffer, only the lengths of skipped records are read.
    return tf.data.TFRecordDataset(paths[shard], buffer_size=0).skip(number - starts[shard])

  def seek(number: tf.Tensor, shard: tf.Tensor) -> tf.data.Dataset:
    records = tf.raw_ops.TFRecordDatasetV2(
      filenames=paths[shard],
      compression_type="",
      buffer_size=tf.constant(0, tf.int64),
      byte_offsets=tf.constant(offsets)[number],
    )
    return tf.data.experimental.from_variant(records, tf.TensorSpec((), tf.string))

  find = skip if offsets is None else seek

  def read(number: tf.Tensor) -> tf.Tensor:
    shard = tf.searchsorted(ends, number[None], side="right")[0]
    return find(number, shard).take(1).get_single_element()

  return read


class _StillEncoded(tfds.decode.SkipDecoding):
  """Returns all frames of a clip undecoded, in one tensor instead of one by one."""

  def decode_batch_example(self, example_data: tf.Tensor) -> tf.Tensor:  # ty: ignore
    return example_data


def _parser(dataset: Dataset, sampling: FrameSampling) -> Stage:
  """Parses what a model needs of a record."""
  wanted = {"action", "num_frames"}
  if sampling.rgb_frames:
    wanted |= {"frames"}
  if sampling.pose_frames:
    wanted |= {"keypoints", "keypoint_scores"}
  if sampling.features:
    if not dataset.feature_size:
      raise ValueError(
        f"{dataset.path} has no stored features, which model.rgb.kind='features' reads; add them "
        "with pcan import_features"
      )
    wanted |= {FEATURES}
  return _field_parser(dataset, wanted)


def _field_parser(dataset: Dataset, wanted: Collection[str]) -> Stage:
  """Parses some fields of a record; frames stay encoded."""
  decoding = tfds.decode.PartialDecoding(
    dict.fromkeys(wanted, True),
    decoders={"frames": _StillEncoded()} if "frames" in wanted else None,
  )
  partial = decoding.extract_features(dataset.builder.info.features)
  # A mapping of features in, so a mapping out; TFDS does not annotate that.
  return lambda record: partial.deserialize_example(record, decoders=decoding.decoders)  # ty: ignore


def _choose_frames(
  clip: dict[str, tf.Tensor], sampling: FrameSampling, indices: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """Keeps only the frames at the indices of each stream, [length] or [clips, length]."""
  chosen = {"action": tf.cast(clip["action"], tf.int32)}
  if "rgb" in indices:
    # Test clips share frames; decode each only once.
    frames, which = tf.unique(tf.reshape(indices["rgb"], [-1]))
    chosen["jpegs"] = tf.gather(clip["frames"], frames)
    chosen["jpeg_indices"] = tf.reshape(which, tf.shape(indices["rgb"]))
  if "pose" in indices:
    keypoints, scores = strongest_persons(
      clip["keypoints"], clip["keypoint_scores"], sampling.max_persons, xp=tnp
    )
    chosen["keypoints"] = tf.gather(keypoints, indices["pose"])
    chosen["keypoint_scores"] = tf.gather(scores, indices["pose"])
  if FEATURES in indices:
    chosen[FEATURES] = tf.gather(clip[FEATURES], indices[FEATURES])
  return chosen


def _random_frames(
  clip: dict[str, tf.Tensor], sampling: FrameSampling, seed: int
) -> dict[str, tf.Tensor]:
  """Draws frames for each stream; a function of the seed and the clip's position."""

  def draw(number: int, count: tf.Tensor, length: int) -> tf.Tensor:
    stream_seed = tf.random.experimental.stateless_fold_in(
      tf.constant([seed, number], tf.int64), clip["position"]
    )
    return training_clip(count, length, stream_seed)

  indices = {
    stream: draw(number, clip["num_frames"], length)
    for number, (stream, length) in enumerate(sampling.lengths.items())
  }
  if sampling.features:
    indices[FEATURES] = draw(len(indices), tf.shape(clip[FEATURES])[0], sampling.features)
  return _choose_frames(clip, sampling, indices)


def _test_frames(
  sampling: FrameSampling, max_frames: int, max_features: int
) -> Callable[[dict], dict[str, tf.Tensor]]:
  """Returns a function that selects the test clips, from a precomputed table by video length."""

  def table(longest: int, length: int) -> tf.Tensor:
    return tf.constant([test_clips(n, length, sampling.num_clips) for n in range(1, longest + 1)])

  tables = {stream: table(max_frames, length) for stream, length in sampling.lengths.items()}
  of_features = table(max_features, sampling.features) if sampling.features else None

  def choose(clip: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    indices = {stream: rows[clip["num_frames"] - 1] for stream, rows in tables.items()}
    if of_features is not None:
      indices[FEATURES] = of_features[tf.shape(clip[FEATURES])[0] - 1]
    return _choose_frames(clip, sampling, indices)

  return choose


def _decode(clip: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  """Decodes every chosen frame once, then repeats frames according to `jpeg_indices`."""
  if "jpegs" not in clip:
    return clip
  decoded = dict(clip)
  jpegs, indices = decoded.pop("jpegs"), decoded.pop("jpeg_indices")
  frames = tf.map_fn(decode_frame, jpegs, fn_output_signature=tf.uint8)
  decoded["rgb"] = tf.gather(frames, indices)
  return decoded


def decode_frame(jpeg: tf.Tensor | bytes) -> tf.Tensor:
  """Decodes a stored frame to uint8 [S, S, 3] RGB, with the same result as OpenCV."""
  return tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")


def _with_known_labels(batch: HostBatch, dataset: Dataset) -> HostBatch:
  """Refuses records that contradict the metadata: JAX would compute a loss with any label."""
  wrong = batch["action"][(batch["action"] < 0) | (batch["action"] >= dataset.tree.num_actions)]
  if len(wrong):
    raise ValueError(
      f"a record of {dataset.path} has the label {wrong[0]}, but the label tree has "
      f"0..{dataset.tree.num_actions - 1}; build the data set again"
    )
  return batch


def _host_batches(stream: tf.data.Dataset, dataset: Dataset) -> Iterator[HostBatch]:
  """Prefetches batches, and names the data set in the error if a record is damaged."""
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
      tf.errors.PermissionDeniedError,
    ) as error:
      where = dataset.builder.data_path
      raise ValueError(
        f"a record of {where} cannot be read; `pcan check {where}` names it, and "
        f"building the data set again fixes it ({error.message})"
      ) from error
    yield batch

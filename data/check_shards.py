"""Checks the shards of a built data set, record by record."""

import concurrent.futures
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm

from pcan_jax.clips.pose import MAX_SCORE
from pcan_jax.clips.source_layout import UNLABELLED
from pcan_jax.feed.dataset import Dataset, open_dataset
from pcan_jax.feed.pipeline import decode_frame

from . import findings
from .contact_sheet import Sample, evenly_spaced
from .findings import CheckResult, ClipFacts, Finding

Record = dict[str, Any]


def check_dataset(
  path: pathlib.Path, num_samples: int
) -> tuple[CheckResult, Dataset, list[Sample]]:
  """Reads every record and decodes every frame of a built data set.

  Args:
    path: the data set, or a folder that contains one.
    num_samples: number of clips, of different classes, to return from each split.

  Returns:
    The findings, the data set, and samples.

  Raises:
    FileNotFoundError, ValueError: there is no data set that this version can read.
  """
  dataset = open_dataset(path)
  kind = "" if dataset.videos else ", skeletons without videos"
  result = CheckResult(f"data set {dataset.path}{kind}", dataset.tree, {}, [])
  size = (dataset.stored_size, dataset.stored_size)
  samples = []
  for split, info in dataset.builder.info.splits.items():
    of_split: dict[int | str, Sample] = {}
    result.clips[split] = []
    with tqdm.tqdm(desc=split, total=info.num_examples, disable=None) as progress:
      for shard in map(pathlib.Path, info.filepaths):
        for record, frames, reason in _read_shard(shard, dataset):
          progress.update()
          if reason:
            where = f"{split}/{record['id'].decode(errors='replace')}" if record else shard.name
            result.findings.append(Finding("bad record", where, reason, is_error=True))
            continue
          name = record["id"].decode(errors="replace")
          facts = findings.measure_clip(name, split, record, record["keypoints"], size)
          result.clips[split].append(facts)
          if facts.kind not in of_split and len(of_split) < num_samples:
            shown = frames if dataset.videos else None
            of_split[facts.kind] = _sample(record, shown, facts, dataset.stored_size)
    samples += sorted(of_split.values(), key=lambda sample: sample.facts.action)
    found = len(result.clips[split])
    if found != info.num_examples:
      detail = f"{found} readable clips, {info.num_examples} expected; build the data set again"
      result.findings.append(Finding("missing clips", split, detail, is_error=True))
  result.findings += findings.examine_clips(result.clips, dataset.tree)
  return result, dataset, samples


def _read_shard(
  shard: pathlib.Path, dataset: Dataset
) -> Iterator[tuple[Record | None, list[np.ndarray | str], str]]:
  """Yields records with their decoded frames, or with an error."""
  features = dataset.builder.info.features
  decoders = {"frames": tfds.decode.SkipDecoding()} if dataset.videos else None
  stream = tf.data.TFRecordDataset(os.fspath(shard)).map(
    lambda example: features.deserialize_example(example, decoders=decoders),
    num_parallel_calls=tf.data.AUTOTUNE,
  )
  decode = functools.partial(_decode, side=dataset.stored_size)
  count = 0
  with concurrent.futures.ThreadPoolExecutor() as pool:
    try:
      for record in stream.as_numpy_iterator():
        count += 1
        frames = list(pool.map(decode, record.get("frames", ())))
        yield record, frames, _what_is_wrong(record, frames, dataset)
    except tf.errors.OpError as error:
      reason = error.message.splitlines()[0] if error.message else type(error).__name__
      yield None, [], f"damaged after {count} records ({reason}); build the data set again"


def _decode(jpeg: bytes, side: int) -> np.ndarray | str:
  """Decodes an image as for training, or returns what is wrong with it."""
  try:
    # Checked before decoding: a few bytes can claim gigabytes.
    height, width, channels = tf.io.extract_jpeg_shape(jpeg).numpy()
    if (height, width, channels) != (side, side, 3):
      return f"is {width} x {height} with {channels} channels, not {side} x {side} with 3"
    return decode_frame(jpeg).numpy()
  except tf.errors.InvalidArgumentError:
    return "is not a readable JPEG image"


def _what_is_wrong(record: Record, frames: list[np.ndarray | str], dataset: Dataset) -> str:
  """Why the record cannot be used; empty if it can."""
  num_frames = record["num_frames"]
  poses = record["keypoints"].shape[1]
  if not dataset.videos:
    if not poses == num_frames > 0:
      return f"it says {num_frames} frames, but holds {poses} poses"
  elif not len(frames) == poses == num_frames > 0:
    return f"it says {num_frames} frames, but holds {len(frames)} images and {poses} poses"
  for index, frame in enumerate(frames):
    if isinstance(frame, str):
      return f"frame {index} {frame}"
  if not UNLABELLED <= record["action"] < dataset.tree.num_actions:
    return f"its label {record['action']} is outside the label tree"
  if record["keypoint_scores"].shape != record["keypoints"].shape[:3]:
    return "its keypoints and their scores differ in number"
  if not all(np.isfinite(record[name]).all() for name in ("keypoints", "keypoint_scores")):
    return "its keypoints hold NaN or infinity"
  if record["keypoint_scores"].max(initial=0) > MAX_SCORE:
    return f"it has scores above {MAX_SCORE}, expected 0 to about 1; build the data set again"
  return ""


def _sample(record: Record, frames: list[np.ndarray] | None, facts: ClipFacts, side: int) -> Sample:
  chosen = evenly_spaced(facts.num_frames)
  return Sample(
    facts=facts,
    frames=np.stack([frames[index] for index in chosen]) if frames else None,
    keypoints=record["keypoints"][:, chosen],
    scores=record["keypoint_scores"][:, chosen],
    source=None,
    side=side,
  )

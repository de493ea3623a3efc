"""Stores the finished shards of a build in progress until the data set is complete."""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import av
import cv2
import tensorflow as tf
import tensorflow_datasets as tfds

from pcan_jax.clips.encode_clip import UNSTORED_FIELDS
from pcan_jax.clips.problems import Problem
from pcan_jax.clips.source_layout import ClipSource
from pcan_jax.clips.stored_frames import Encoding
from pcan_jax.feed.records import SCHEMA_VERSION
from pcan_jax.feed.sources import ClipDigests, digest


@dataclasses.dataclass(frozen=True)
class ShardSummary:
  """The contents of a finished shard.

  Attributes:
    ids: of its records, in stored order.
    actions: of its records; -1 for unknown labels.
    problems: clips that could not be included.
    trimmed: number of clips whose video and poses differed in length and were cut to the shorter.
    without_person: number of clips in which no keypoint was detected.
    max_frames: number of frames of the longest clip.
    damaged: clips whose video is damaged, but can be read.
  """

  ids: tuple[str, ...]
  actions: tuple[int, ...]
  problems: tuple[Problem, ...]
  trimmed: int
  without_person: int
  max_frames: int
  damaged: int


def plan_shards(clips: Sequence[ClipSource], clips_per_shard: int) -> list[list[ClipSource]]:
  """Distributes clips over shards of nearly equal length, in an order that mixes the classes."""
  clips = sorted(clips, key=lambda clip: hashlib.sha256(clip.id.encode()).digest())
  count = -(-len(clips) // clips_per_shard)
  if not clips:
    return []
  edges = [len(clips) * index // count for index in range(count + 1)]
  return [clips[start:end] for start, end in zip(edges, edges[1:])]


def shard_key(clips: Sequence[ClipSource], digests: ClipDigests, encoding: Encoding) -> str:
  """Hashes all inputs of a shard."""
  summary = tuple(field.name for field in dataclasses.fields(ShardSummary))
  versions = (SCHEMA_VERSION, summary, cv2.__version__, av.__version__)
  made_of = [(clip.split, clip.id, dataclasses.astuple(digests[clip.id])) for clip in clips]
  return digest(repr((versions, encoding, made_of)).encode())


def _as_example(record: dict[str, Any]) -> dict[str, Any]:
  """Converts a record for TFDS, which stores images given as files unchanged."""
  example = {name: value for name, value in record.items() if name not in UNSTORED_FIELDS}
  if "frames" in record:
    example["frames"] = [io.BytesIO(jpeg) for jpeg in record["frames"]]
  return example


class ShardStore:
  """The folder of finished shards.

  A shard is two files, KEY.tfrecord and KEY.json, which is written last.
  """

  def __init__(self, folder: pathlib.Path, features: tfds.features.FeaturesDict) -> None:
    self.folder = folder
    self._features = features

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Locks out other builds of the same data set.

    Raises:
      RuntimeError: another build is running.
    """
    self.folder.mkdir(parents=True, exist_ok=True)
    with (self.folder / "lock").open("w") as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise RuntimeError(f"another build is writing to {self.folder}; wait for it") from None
      yield

  def path(self, key: str) -> pathlib.Path:
    return self.folder / f"{key}.tfrecord"

  def summary(self, key: str) -> ShardSummary | None:
    """The contents of a shard, or None if it is not finished."""
    path = self.folder / f"{key}.json"
    # The shard is missing if a build was killed while moving its shards into place.
    if not path.is_file() or not self.path(key).is_file():
      return None
    fields = json.loads(path.read_text(encoding="utf-8"))
    problems = tuple(Problem(**problem) for problem in fields.pop("problems"))
    ids, actions = tuple(fields.pop("ids")), tuple(fields.pop("actions"))
    return ShardSummary(ids=ids, actions=actions, problems=problems, **fields)

  def write(self, key: str, encoded: Iterable[dict[str, Any] | Problem]) -> ShardSummary:
    """Writes one shard; it counts as finished once both of its files are on disk."""
    serializer = tfds.core.example_serializer.ExampleSerializer(
      self._features.get_serialized_info()
    )
    ids, actions, problems = [], [], []
    trimmed = without_person = max_frames = damaged = 0
    unfinished = self.folder / f"{key}.unfinished"
    with tf.io.TFRecordWriter(os.fspath(unfinished)) as writer:
      for record in encoded:
        if isinstance(record, Problem):
          problems.append(record)
          continue
        ids.append(record["id"])
        actions.append(record["action"])
        trimmed += record["trimmed"]
        damaged += bool(record["damage"])
        without_person += not record["keypoint_scores"].any()
        max_frames = max(max_frames, record["num_frames"])
        example = serializer.serialize_example(self._features.encode_example(_as_example(record)))
        # The fields of an example are a protobuf map, whose order is otherwise arbitrary.
        example = tf.train.Example.FromString(example)
        writer.write(example.SerializeToString(deterministic=True))  # ty: ignore
    unfinished.replace(self.path(key))
    summary = ShardSummary(
      tuple(ids), tuple(actions), tuple(problems), trimmed, without_person, max_frames, damaged
    )
    unfinished.write_text(json.dumps(dataclasses.asdict(summary)), encoding="utf-8")
    unfinished.replace(self.folder / f"{key}.json")
    return summary

"""A built data set: its shards and their metadata."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int64

from pcan_jax.clips.source_layout import UNLABELLED
from pcan_jax.feed import records, sources
from pcan_jax.feed.epochs import (
  ClassSampling,
  EpochOrder,
  labelled_share,
  order_by_action,
  uniform_order,
)
from pcan_jax.keypoints import KeypointLayout
from pcan_jax.labels import LabelTree


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A built data set.

  Attributes:
    builder: the TFDS builder, which reads the shards.
    tree: the labels of its clips.
    layout: the keypoints of its clips.
    stored_size: side of the stored frames in pixels.
  """

  builder: tfds.core.DatasetBuilder
  tree: LabelTree
  layout: KeypointLayout
  stored_size: int

  @property
  def path(self) -> pathlib.Path:
    """The folder of the shards."""
    return pathlib.Path(self.builder.data_path)

  @property
  def splits(self) -> list[str]:
    """Names of the splits."""
    return sorted(self.builder.info.splits)

  @property
  def fingerprint(self) -> str:
    """32 hexadecimal digits that differ from those of any data set with other clips or options.

    A data set that is built again of the same clips has the same, wherever that is done and
    wherever it lies. It is the digest of the metadata, which hold that of everything the data set
    was built of; for data sets of earlier versions, whose metadata do not, also of the number of
    records and bytes.
    """
    made_of = [{**self.builder.info.metadata, "splits": self._described_splits()}]
    if not made_of[0].get("fingerprint"):
      splits = self.builder.info.splits
      made_of += [[name, s.shard_lengths, s.num_bytes] for name, s in sorted(splits.items())]
    return sources.digest(json.dumps(made_of, sort_keys=True).encode())

  def _described_splits(self) -> dict[str, dict[str, Any]]:
    """What the metadata say of the splits, without where records lie: that is no content."""
    splits = self.builder.info.metadata["splits"]
    return {
      split: {name: value for name, value in facts.items() if name != "offsets"}
      for split, facts in splits.items()
    }

  def num_clips(self, split: str) -> int:
    """Clips in a split.

    Raises:
      ValueError: there is no such split.
    """
    if split not in self.splits:
      raise ValueError(f"{self.path} has no split {split!r}; it has {self.splits}")
    return self.builder.info.splits[split].num_examples

  def actions(self, split: str) -> Int64[np.ndarray, " n"]:
    """The actions of all clips of a split, in stored order; -1 for unknown labels.

    Reads every record of a data set that was built by an earlier version.

    Raises:
      ValueError: there is no such split, labels are missing, not in the label tree, or known of
        some clips only.
    """
    num_clips = self.num_clips(split)
    stored = self.builder.info.metadata["splits"][split].get("actions")
    actions = np.array(self._read("action", split) if stored is None else stored, np.int64)
    if len(actions) != num_clips:
      raise ValueError(
        f"{self.path}: metadata.json has {len(actions)} labels for the {num_clips} clips of "
        f"{split!r}; build the data set again"
      )
    wrong = np.setdiff1d(actions, np.arange(UNLABELLED, self.tree.num_actions))
    if len(wrong):
      raise ValueError(
        f"{self.path}: clips of {split!r} have the label {wrong[0]}, but the label tree has "
        f"0..{self.tree.num_actions - 1}; correct the labels and build the data set again"
      )
    unlabelled = int((actions == UNLABELLED).sum())
    if 0 < unlabelled < num_clips:
      raise ValueError(
        f"{self.path}: {unlabelled} of the {num_clips} clips of {split!r} have no label; label "
        "them all or none, and build the data set again"
      )
    return actions

  def clip_ids(self, split: str) -> list[str]:
    """The ids of all clips of a split, in stored order.

    Reads every record of a data set that was built by an earlier version.

    Raises:
      ValueError: there is no such split.
    """
    self.num_clips(split)
    ids = self.builder.info.metadata["splits"][split].get("ids")
    if ids is not None:
      return list(ids)
    return [name.decode() for name in self._read("id", split)]

  def num_skipped(self, split: str) -> int:
    """Number of unreadable clips of the source that were left out of a split."""
    return self.builder.info.metadata["splits"][split]["skipped"]

  def epoch_order(
    self, split: str, sampling: ClassSampling, label_share: float = 1.0
  ) -> EpochOrder:
    """The order in which training uses the clips of a split; an epoch is `num_clips` of it.

    Args:
      split: the split.
      sampling: how often rare actions come.
      label_share: of each action's clips; fewer are repeated, so that an epoch stays as long.

    Raises:
      ValueError: there is no such split, it has no labels, or they are wrong.
    """
    actions = self.actions(split)
    if (actions == UNLABELLED).any():
      raise ValueError(
        f"the {len(actions)} clips of {split!r} have no label, so that nothing can be learned from "
        "them; choose a labelled split (config.data.train_split)"
      )
    used = labelled_share(actions, label_share)
    order = (
      uniform_order(len(used))
      if sampling.name == "uniform"
      else order_by_action(actions[used], sampling)
    )
    return order if len(used) == len(actions) else order.over(used, len(actions))

  def offsets(self, split: str) -> Int64[np.ndarray, " n"] | None:
    """The byte at which each record starts in its shard; None in data sets of earlier versions.

    Raises:
      ValueError: there is no such split, or the metadata have another number of them.
    """
    num_clips = self.num_clips(split)
    stored = self.builder.info.metadata["splits"][split].get("offsets")
    if stored is not None and len(stored) != num_clips:
      raise ValueError(
        f"{self.path}: metadata.json has {len(stored)} offsets for the {num_clips} clips of "
        f"{split!r}; build the data set again"
      )
    return None if stored is None else np.array(stored, np.int64)

  @property
  def feature_size(self) -> int:
    """Numbers in a stored vector of another network; 0 if there are none."""
    return self.builder.info.metadata.get("feature_size", 0)

  def max_features(self, split: str) -> int:
    """The largest number of stored vectors of a clip of a split."""
    return self.builder.info.metadata["splits"][split].get("max_features", 0)

  def max_frames(self, split: str) -> int:
    """Number of frames of the longest clip of a split."""
    return self.builder.info.metadata["splits"][split]["max_frames"]

  def _read(self, field: str, split: str) -> list[Any]:
    """One field of every record."""
    only = tfds.decode.PartialDecoding({field: True})
    stored = tfds.as_numpy(self.builder.as_dataset(split=split, decoders=only))
    return [record[field] for record in stored]


def open_dataset(path: str | os.PathLike[str], instructions: str = "") -> Dataset:
  """Opens the data set at `path`, or the only one in a folder below it.

  Args:
    path: the folder.
    instructions: how to get the data set, for the error message if there is none.

  Raises:
    FileNotFoundError: there is no data set.
    ValueError: there are several, another program or schema version built it, or its labels are
      wrong.
  """
  found = sorted(pathlib.Path(path).rglob("dataset_info.json"))
  if not found:
    raise FileNotFoundError(
      f"no data set at {path} (config.data.path). "
      + (instructions or "Build one: pcan build SOURCE OUT; see docs/DATA.md")
    )
  if len(found) > 1:
    folders = ", ".join(str(info.parent) for info in found)
    raise ValueError(f"{path} holds several data sets; choose one of: {folders}")
  builder = tfds.builder_from_directory(str(found[0].parent))
  metadata = records.check_metadata(builder.info.metadata, where=str(found[0].parent))
  dataset = Dataset(
    builder=builder,
    tree=LabelTree.from_dict(metadata["tree"]),
    layout=KeypointLayout.from_dict(metadata["layout"]),
    stored_size=metadata["side"],
  )
  for split in dataset.splits:
    # Without those in the metadata, every record would have to be read.
    if "actions" in metadata["splits"][split]:
      dataset.actions(split)
  return dataset

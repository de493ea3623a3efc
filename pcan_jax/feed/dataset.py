"""A built data set: its shards and their metadata."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
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
    videos: whether there are frames; otherwise it is one of skeletons.
    selection: by split the numbers of its records among those of all stored splits, which follow
      each other by name; None is the stored splits themselves.
  """

  builder: tfds.core.DatasetBuilder
  tree: LabelTree
  layout: KeypointLayout
  stored_size: int
  videos: bool = True
  selection: Mapping[str, Int64[np.ndarray, "..."]] | None = None

  @property
  def path(self) -> pathlib.Path:
    """The folder of the shards."""
    return pathlib.Path(self.builder.data_path)

  @property
  def splits(self) -> list[str]:
    """Names of the splits."""
    return sorted(self.stored_splits if self.selection is None else self.selection)

  @property
  def labelled_splits(self) -> list[str]:
    """Names of the splits whose clips have labels."""
    return [split for split in self.splits if (self.actions(split) != UNLABELLED).all()]

  @property
  def stored_splits(self) -> list[str]:
    """Names of the splits in which the records are stored."""
    return sorted(self.builder.info.splits)

  def has_split(self, split: str) -> bool:
    """Whether there is such a split, or each of several that are joined by `+`."""
    return set(joined_splits(split)) <= set(self.splits)

  def shared_clips(self, split: str, other: str) -> int:
    """How many clips two splits have in common, as `train+val` and `val` do.

    Raises:
      ValueError: there is no such split.
    """
    return len(np.intersect1d(self.record_numbers(split), self.record_numbers(other)))

  def record_numbers(self, split: str) -> Int64[np.ndarray, " n"]:
    """The records of a split, by their numbers among those of all stored splits.

    Those of `train+val` are those of `train` and then those of `val`; all that takes the name of a
    split takes several, too.

    Raises:
      ValueError: there is no such split, or one is named twice.
    """
    names = joined_splits(split)
    if len(names) > 1:
      if len(set(names)) < len(names):
        raise ValueError(f"{split!r} names a split twice")
      return np.concatenate([self.record_numbers(name) for name in names])
    if split not in self.splits:
      raise ValueError(f"{self.path} has no split {split!r}; it has {self.splits}")
    if self.selection is not None:
      return self.selection[split]
    first = 0
    for name in self.stored_splits:
      count = self.builder.info.splits[name].num_examples
      if name == split:
        return np.arange(first, first + count, dtype=np.int64)
      first += count
    raise AssertionError(split)

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

  def require_videos(self) -> None:
    """Refuses a data set of skeletons.

    Raises:
      ValueError: it has no frames.
    """
    if not self.videos:
      raise ValueError(
        f"{self.path} holds skeletons without videos, which only a model of poses can use: choose "
        "a variant with the suffix _pose, such as --config=small:pcan_pose"
      )

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
    return len(self.record_numbers(split))

  def actions(self, split: str) -> Int64[np.ndarray, " n"]:
    """The actions of all clips of a split, in stored order; -1 for unknown labels.

    Reads every record of a data set that was built by an earlier version.

    Raises:
      ValueError: there is no such split, labels are missing, not in the label tree, or known of
        some clips only.
    """
    num_clips = self.num_clips(split)
    actions = np.array(self._column("actions", "action", split), np.int64)
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
    names = self._column("ids", "id", split)
    return [name.decode() if isinstance(name, bytes) else name for name in names]

  def persons(self, split: str) -> list[str]:
    """Who is in the clips of a split, in stored order.

    Raises:
      ValueError: there is no such split, or the data set does not say.
    """
    facts = self.builder.info.metadata["splits"]
    stated = self.selection is not None or all(
      "persons" in facts.get(name, {}) for name in joined_splits(split)
    )
    if not self.knows_persons or not stated:
      raise ValueError(
        f"{self.path} does not say who is in its clips. Write a table 'id,person' to "
        "annotations/persons.csv in the source directory (`pcan import_clips` does, of a column "
        "'person') and build the data set again"
      )
    return self._column("persons", "", split)

  @property
  def knows_persons(self) -> bool:
    """Whether it says who is in its labelled clips."""
    splits = self.builder.info.metadata["splits"].values()
    labelled = [split for split in splits if UNLABELLED not in split.get("actions", ())]
    return bool(labelled) and all("persons" in split for split in labelled)

  def shows(self, persons: Collection[str]) -> bool:
    """Whether all of these persons are known to be in its clips."""
    if not self.knows_persons:
      return False
    splits = self.builder.info.metadata["splits"].values()
    return set(persons) <= {person for split in splits for person in split.get("persons", ())}

  def hold_out(self, persons: Collection[str]) -> "Dataset":
    """The same clips in other splits: `val` has those of some persons, `train` all others.

    Clips without labels are left out.

    Raises:
      ValueError: nobody is left to train on, a person is in no clip, or the data set does not say
        who is in its clips.
    """
    splits = self.labelled_splits
    numbers = np.concatenate([self.record_numbers(split) for split in splits])
    shown = np.array([person for split in splits for person in self.persons(split)])
    unknown = sorted(set(persons) - set(shown.tolist()))
    if unknown:
      raise ValueError(f"{self.path} has no clip of the person {unknown[0]!r} (data.held_out)")
    held_out = np.isin(shown, sorted(persons))
    if held_out.all():
      raise ValueError(f"data.held_out names every person in {self.path}; leave some to train on")
    selection = {"train": numbers[~held_out], "val": numbers[held_out]}
    return dataclasses.replace(self, selection=selection)

  def num_skipped(self, split: str) -> int:
    """Number of unreadable clips of the source that were left out of a split."""
    return sum(self.builder.info.metadata["splits"][name]["skipped"] for name in self._of(split))

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

  def action_counts(self, split: str, label_share: float = 1.0) -> tuple[int, ...]:
    """How many clips of a labelled split training has of every action, however often it uses them.

    Args:
      split, label_share: as for `epoch_order`.

    Raises:
      ValueError: there is no such split, or labels are wrong.
    """
    actions = self.actions(split)
    used = actions[labelled_share(actions, label_share)]
    return tuple(np.bincount(used, minlength=self.tree.num_actions).tolist())

  @property
  def record_offsets(self) -> Int64[np.ndarray, " n"] | None:
    """The byte at which each record of all stored splits starts in its shard.

    None in data sets of earlier versions.

    Raises:
      ValueError: the metadata have another number of them.
    """
    offsets: list[int] = []
    for split in self.stored_splits:
      stored = self.builder.info.metadata["splits"][split].get("offsets")
      count = self.builder.info.splits[split].num_examples
      if stored is None:
        return None
      if len(stored) != count:
        raise ValueError(
          f"{self.path}: metadata.json has {len(stored)} offsets for the {count} clips of "
          f"{split!r}; build the data set again"
        )
      offsets += stored
    return np.array(offsets, np.int64)

  @property
  def feature_size(self) -> int:
    """Numbers in a stored vector of another network; 0 if there are none."""
    return self.builder.info.metadata.get("feature_size", 0)

  def max_features(self, split: str) -> int:
    """The largest number of stored vectors of a clip of a split, or more."""
    splits = self.builder.info.metadata["splits"]
    return max(splits[name].get("max_features", 0) for name in self._of(split))

  def max_frames(self, split: str) -> int:
    """Number of frames of the longest clip of a split, or more."""
    return max(self.builder.info.metadata["splits"][name]["max_frames"] for name in self._of(split))

  def _of(self, split: str) -> list[str]:
    """The stored splits that a split may take clips from."""
    return joined_splits(split) if self.selection is None else self.stored_splits

  def _column(self, name: str, field: str, split: str) -> list[Any]:
    """What the metadata list under a name, or else a field of every record, for a split's clips."""
    numbers = self.record_numbers(split)
    columns = {
      stored: self.builder.info.metadata["splits"][stored].get(name) for stored in self._of(split)
    }
    if self.selection is None:
      return [
        value
        for stored, column in columns.items()
        for value in (self._read(field, stored) if column is None else column)
      ]
    lengths = {s: self.builder.info.splits[s].num_examples for s in columns}
    whole = [value for s, column in columns.items() for value in column or [None] * lengths[s]]
    return [whole[number] for number in numbers]

  def _read(self, field: str, split: str) -> list[Any]:
    """One field of every record."""
    only = tfds.decode.PartialDecoding({field: True})
    stored = tfds.as_numpy(self.builder.as_dataset(split=split, decoders=only))
    return [record[field] for record in stored]


def joined_splits(split: str) -> list[str]:
  """The splits that a name means: `train+val` is two."""
  return split.split("+")


@contextlib.contextmanager
def naming_damage(folder: pathlib.Path) -> Iterator[None]:
  """Says that the description of the data set in a folder is damaged, if TFDS cannot read it.

  Raises:
    ValueError: it cannot.
  """
  try:
    yield
  except OSError:
    raise
  except Exception as error:  # of JSON, protobuf or TFDS: they promise nothing
    reason = str(error).strip().partition("\n")[0]
    raise ValueError(
      f"{folder}: dataset_info.json, features.json or metadata.json is missing or damaged "
      f"({reason[:100]}); build the data set again, in an empty folder"
    ) from error


def open_dataset(
  path: str | os.PathLike[str], instructions: str = "", held_out: Collection[str] = ()
) -> Dataset:
  """Opens the data set at `path`, or the only one in a folder below it.

  Args:
    path: the folder.
    instructions: how to get the data set, for the error message if there is none.
    held_out: persons whose clips make up the split `val`, see `Dataset.hold_out`; none leaves the
      splits as they are.

  Raises:
    FileNotFoundError: there is no data set.
    ValueError: there are several, another program or schema version built it, its description is
      damaged, or its labels are wrong.
  """
  found = sorted(pathlib.Path(path).rglob("dataset_info.json"))
  if not found:
    raise FileNotFoundError(
      f"no data set at {path}; name it with --config.data.path=DIR to train, and with --data=DIR "
      "after that. " + (instructions or "Build one: pcan build SOURCE OUT; see docs/DATA.md")
    )
  if len(found) > 1:
    folders = ", ".join(str(info.parent) for info in found)
    raise ValueError(f"{path} holds several data sets; choose one of: {folders}")
  folder = found[0].parent
  with naming_damage(folder):
    builder = tfds.builder_from_directory(str(folder))
    stored = builder.info.metadata
  metadata = records.check_metadata(stored, where=str(folder))
  dataset = Dataset(
    builder=builder,
    tree=LabelTree.from_dict(metadata["tree"]),
    layout=KeypointLayout.from_dict(metadata["layout"]),
    stored_size=metadata["side"],
    videos=metadata.get("videos", True),
  )
  for split in dataset.splits:
    # Without those in the metadata, every record would have to be read.
    if "actions" in metadata["splits"][split]:
      dataset.actions(split)
  return dataset.hold_out(held_out) if held_out else dataset

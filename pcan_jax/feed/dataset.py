"""A built data set: its shards and their metadata."""

import dataclasses
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int64

from pcan_jax.feed import records
from pcan_jax.feed.epochs import ClassSampling, EpochOrder, order_by_action, uniform_order
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

    Raises:
      ValueError: there is no such split, or the data set was built by a version that stored labels
        only in the records.
    """
    num_clips = self.num_clips(split)
    actions = self.builder.info.metadata["splits"][split].get("actions")
    if actions is None:
      raise ValueError(
        f"{self.path} was built by an earlier version, which kept labels in the records only; "
        "build the data set again with `pcan build SOURCE OUT`, or choose "
        "data.sampling='uniform'"
      )
    if len(actions) != num_clips:
      raise ValueError(
        f"{self.path}: metadata.json has {len(actions)} labels for the {num_clips} clips of "
        f"{split!r}; build the data set again"
      )
    return np.array(actions, np.int64)

  def clip_ids(self, split: str) -> list[str]:
    """The ids of all clips of a split, in stored order; reads every record."""
    self.num_clips(split)
    only_ids = tfds.decode.PartialDecoding({"id": True})
    stored = tfds.as_numpy(self.builder.as_dataset(split=split, decoders=only_ids))
    return [record["id"].decode() for record in stored]

  def num_skipped(self, split: str) -> int:
    """Number of unreadable clips of the source that were left out of a split."""
    return self.builder.info.metadata["splits"][split]["skipped"]

  def epoch_order(self, split: str, sampling: ClassSampling) -> EpochOrder:
    """The order in which training uses the clips of a split; an epoch is `num_clips` of it.

    Raises:
      ValueError: there is no such split, or `sampling` needs labels and the split has none.
    """
    if sampling.name == "uniform":
      return uniform_order(self.num_clips(split))
    return order_by_action(self.actions(split), sampling)

  def max_frames(self, split: str) -> int:
    """Number of frames of the longest clip of a split."""
    return self.builder.info.metadata["splits"][split]["max_frames"]


def open_dataset(path: str | os.PathLike[str], instructions: str = "") -> Dataset:
  """Opens the data set at `path`, or the only one in a folder below it.

  Args:
    path: the folder.
    instructions: how to get the data set, for the error message if there is none.

  Raises:
    FileNotFoundError: there is no data set.
    ValueError: there are several, or another program or schema version built it.
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
  return Dataset(
    builder=builder,
    tree=LabelTree.from_dict(metadata["tree"]),
    layout=KeypointLayout.from_dict(metadata["layout"]),
    stored_size=metadata["side"],
  )

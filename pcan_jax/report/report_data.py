"""Collects the inputs of a report: one or two runs, and parts of their data set."""

import dataclasses
import functools
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from pcan_jax.evaluation.protocol import open_evaluated
from pcan_jax.feed.pipeline import read_frames
from pcan_jax.labels import LabelTree
from pcan_jax.report import statistics
from pcan_jax.report.evaluated_run import (
  Curve,
  EvaluatedRun,
  align,
  read_curves,
  read_prototypes,
  read_run,
)
from pcan_jax.report.examples import Example, choose_examples
from pcan_jax.yardstick.beside import read_kept
from pcan_jax.yardstick.measured import Yardstick

_FRAMES = 6


@dataclasses.dataclass(frozen=True)
class DatasetParts:
  """Parts of the data set used in a report.

  Attributes:
    train_support: training clips per action; None if unknown.
    train_note: why they are unknown.
    frames: of the examples, by id.
    frames_note: which are missing, and why.
  """

  train_support: Int[np.ndarray, " k"] | None
  train_note: str
  frames: dict[str, UInt8[np.ndarray, "_ s s 3"]]
  frames_note: str


@dataclasses.dataclass(frozen=True)
class ReportData:
  """The inputs of a report.

  Attributes:
    run: the run.
    baseline: the baseline, with clips in the run's order, or None.
    prototypes: per stream and level [K, D]; empty if there are none.
    curves: scalars over training, by name; empty if there are none.
    examples: ambiguous clips.
    dataset: parts of the data set.
    yardstick: what a simple classifier gets on the same clips, if that was measured.
  """

  run: EvaluatedRun
  baseline: EvaluatedRun | None
  prototypes: dict[str, dict[str, Float[np.ndarray, "_ _"]]]
  curves: dict[str, Curve]
  examples: list[Example]
  dataset: DatasetParts
  yardstick: Yardstick | None

  @property
  def tree(self) -> LabelTree:
    return self.run.tree

  @property
  def streams(self) -> tuple[str, ...]:
    return tuple(branch for branch in self.run.branches if branch != "fused")

  @property
  def names(self) -> tuple[str, str]:
    """Distinct names of the run and the baseline."""
    if self.baseline is None:
      return self.run.name, ""
    if self.run.name == self.baseline.name:
      return str(self.run.workdir), str(self.baseline.workdir)
    return self.run.name, self.baseline.name

  @functools.cached_property
  def accuracy(self) -> Float[np.ndarray, " k"]:
    """Accuracy of every action; NaN without clips."""
    return statistics.class_accuracy(self.run.confusions["action"])

  @functools.cached_property
  def baseline_accuracy(self) -> Float[np.ndarray, " k"] | None:
    if self.baseline is None:
      return None
    return statistics.class_accuracy(self.baseline.confusions["action"])

  @property
  def support(self) -> Int[np.ndarray, " k"]:
    """Evaluated clips per action."""
    return self.run.confusions["action"].sum(axis=1)


def read_report_data(
  workdir: str | os.PathLike[str],
  *,
  baseline: str | os.PathLike[str] | None,
  split: str | None,
  data_path: str | os.PathLike[str] | None,
) -> ReportData:
  """Reads the inputs of a report; see `write_report` for arguments and errors."""
  run = read_run(workdir, split)
  compared = align(read_run(baseline, run.split), run) if baseline is not None else None
  examples = choose_examples(run, compared)
  clips = [run.results.ids[example.row] for example in examples]
  return ReportData(
    run=run,
    baseline=compared,
    prototypes=read_prototypes(run),
    curves=read_curves(run.workdir),
    examples=examples,
    dataset=_read_dataset(run, clips, data_path),
    yardstick=_read_yardstick(run),
  )


def _read_yardstick(run: EvaluatedRun) -> Yardstick | None:
  origin = run.results.origin
  data = run.spec.config.data
  kept = read_kept(run.workdir, run.split, origin.dataset, data) if origin else None
  return Yardstick(**kept) if kept else None


def _read_dataset(
  run: EvaluatedRun, clips: Sequence[str], data_path: str | os.PathLike[str] | None
) -> DatasetParts:
  config = run.spec.config.data
  evaluated = run.ensemble.members[0].data_path if run.ensemble else config.path
  path = data_path if data_path is not None else evaluated
  try:
    dataset = open_evaluated(config, path if run.ensemble else data_path)
  except FileNotFoundError:
    if data_path is not None:
      raise
    return _nothing(f"There is no data set at {path}; --data names another place.")
  origin = run.results.origin
  if origin is not None and dataset.fingerprint != origin.dataset:
    raise ValueError(
      f"the results in {run.workdir} are of another data set than {dataset.path}: evaluate again "
      "(--mode=eval), or name the one that was evaluated with --data"
    )
  if dataset.tree != run.tree:
    return _nothing(f"The data set at {path} has another label tree.")
  train_support, train_note = None, ""
  try:
    train_support = np.array(dataset.action_counts(config.train_split, config.label_share))
  except ValueError as error:  # no such split, or a data set without stored labels
    train_note = f"{error}."
  if not dataset.has_split(run.split):
    note = f"The data set at {path} has no split {run.split!r}."
    return DatasetParts(train_support, train_note, {}, note)
  frames = read_frames(dataset, run.split, clips, _FRAMES)
  missing = [clip for clip in clips if clip not in frames]
  note = f"The data set at {path} lacks {', '.join(missing)}." if missing else ""
  return DatasetParts(train_support, train_note, frames, note)


def _nothing(note: str) -> DatasetParts:
  return DatasetParts(train_support=None, train_note=note, frames={}, frames_note=note)

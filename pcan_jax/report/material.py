"""All that a report is written from, and what several of its sections need of it."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int

from pcan_jax.labels import LabelTree
from pcan_jax.report import statistics
from pcan_jax.report.examples import Example
from pcan_jax.report.run import Curve, Run


@dataclasses.dataclass(frozen=True)
class Material:
  """What a report is written from.

  Attributes:
    run: the report is about.
    baseline: to compare with, its clips in the run's order.
    prototypes: per stream and level [K, D]; empty for a run without.
    curves: scalars over training, by name; empty if there are none.
    examples: ambiguous clips.
    frames: of the examples, by id; empty if they could not be read.
    train_support: training clips per action, if they are known.
    data_note: why frames are missing.
  """

  run: Run
  baseline: Run | None
  prototypes: dict[str, dict[str, np.ndarray]]
  curves: dict[str, Curve]
  examples: list[Example]
  frames: dict[str, np.ndarray]
  train_support: np.ndarray | None
  data_note: str

  @property
  def tree(self) -> LabelTree:
    return self.run.tree

  @property
  def streams(self) -> tuple[str, ...]:
    return tuple(branch for branch in self.run.branches if branch != "fused")

  @property
  def names(self) -> tuple[str, str]:
    """Of the run and of the baseline, never the same."""
    if self.baseline is None:
      return self.run.name, ""
    if self.run.name == self.baseline.name:
      return str(self.run.workdir), str(self.baseline.workdir)
    return self.run.name, self.baseline.name

  @functools.cached_property
  def confusions(self) -> dict[str, Int[np.ndarray, "_ _"]]:
    """Of the run, per level."""
    return {
      "action": statistics.confusion_matrix(
        self.run.actions, self.run.predicted("action"), self.tree.num_actions
      ),
      "body": statistics.confusion_matrix(
        self.run.bodies, self.run.predicted("body"), self.tree.num_bodies
      ),
    }

  @property
  def accuracy(self) -> Float[np.ndarray, " k"]:
    """Of every action; NaN without clips."""
    return statistics.class_accuracy(self.confusions["action"])

  @functools.cached_property
  def baseline_accuracy(self) -> Float[np.ndarray, " k"] | None:
    if self.baseline is None:
      return None
    predicted = self.baseline.predicted("action")
    return statistics.class_accuracy(
      statistics.confusion_matrix(self.run.actions, predicted, self.tree.num_actions)
    )

  @property
  def support(self) -> Int[np.ndarray, " k"]:
    """Evaluated clips per action."""
    return self.confusions["action"].sum(axis=1)

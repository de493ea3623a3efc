"""Statistics for tables and figures: accuracy per class, difficulty, differences.

N is the number of clips; accuracies are fractions.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from pcan_jax.evaluation.metrics import Predictions, measure
from pcan_jax.labels import LabelTree

RESAMPLES = 2000
COVERAGE = 0.95

HARD_BELOW, EASY_ABOVE = 0.5, 0.6


def class_accuracy(confusion: Int[np.ndarray, "k k"]) -> Float[np.ndarray, " k"]:
  """The share of each class's clips that were recognised; NaN for a class without clips."""
  support = confusion.sum(axis=1)
  return np.where(support > 0, np.diag(confusion) / np.maximum(support, 1), np.nan)


def wilson_interval(
  right: Int[np.ndarray, " k"], support: Int[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
  """Wilson's 95 % interval of accuracies, valid also for few clips; NaN without clips."""
  z = stats.norm.ppf((1 + COVERAGE) / 2)
  n = np.where(support > 0, support, np.nan)
  centre = (right + z**2 / 2) / (n + z**2)
  half = z / (n + z**2) * np.sqrt(right * (n - right) / n + z**2 / 4)
  return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def difficulty_groups(accuracy: Float[np.ndarray, " k"]) -> dict[str, Int[np.ndarray, " _"]]:
  """Groups classes by a baseline's accuracy: hard below 50 %, easy above 60 % (PCAN figure 3).

  Classes without clips are in no group.
  """
  return {
    "hard": np.flatnonzero(accuracy < HARD_BELOW),
    "medium": np.flatnonzero((accuracy >= HARD_BELOW) & (accuracy <= EASY_ABOVE)),
    "easy": np.flatnonzero(accuracy > EASY_ABOVE),
  }


def bootstrap(
  given: Sequence[Predictions], actions: Int[np.ndarray, " n"], tree: LabelTree, seed: int = 0
) -> list[dict[str, Float[np.ndarray, " resamples"]]]:
  """Computes metrics on bootstrap resamples of the clips.

  All of `given` share the resamples, so that differences between them are paired.

  Args:
    given: predictions of branches or runs on the same clips.
    actions: true actions of the clips.
    tree: the labels.
    seed: of the resamples.

  Returns:
    Per entry of `given` and metric, one value per resample.
  """
  rng = np.random.default_rng(seed)
  drawn = [[] for _ in given]
  for _ in range(RESAMPLES):
    chosen = rng.integers(len(actions), size=len(actions))
    for found, one in zip(drawn, given):
      found.append(measure(one, actions, tree, chosen))
  return [
    {metric: np.array([values[metric] for values in found]) for metric in found[0]}
    for found in drawn
  ]


def interval(values: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
  """The central 95 % of resampled values."""
  low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
  return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class McNemar:
  """McNemar's exact test of two classifiers on the same clips.

  Attributes:
    only_run: clips that only the run got right.
    only_baseline: clips that only the baseline got right.
    p_value: two-sided; probability of a split at least as uneven if neither is better.
  """

  only_run: int
  only_baseline: int
  p_value: float


def mcnemar(run_right: Bool[np.ndarray, " n"], baseline_right: Bool[np.ndarray, " n"]) -> McNemar:
  """Compares two classifiers by the clips on which they disagree.

  References:
    McNemar, Note on the sampling error of the difference between correlated proportions or
    percentages, Psychometrika 1947.
  """
  only_run = int((run_right & ~baseline_right).sum())
  only_baseline = int((baseline_right & ~run_right).sum())
  disagreements = only_run + only_baseline
  p_value = float(stats.binomtest(only_run, disagreements).pvalue) if disagreements else 1.0
  return McNemar(only_run, only_baseline, p_value)

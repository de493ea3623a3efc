"""Means over seeds, and differences between rows, with intervals.

A difference is uncertain for two reasons: other seeds would have trained other networks, and other
clips would have been evaluated. The bootstrap draws both anew, the same for both rows.

N is the number of clips, B of resamples, S of seeds.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from pcan_jax.evaluation.metrics import Predictions
from pcan_jax.labels import LabelTree
from pcan_jax.report.statistics import COVERAGE, difficulty_groups, interval

RESAMPLES = 2000

Resampled = dict[str, Float[np.ndarray, " b"]]
"""By metric the values for the resamples."""


@dataclasses.dataclass(frozen=True)
class Summary:
  """A figure with its interval.

  Attributes:
    mean: over the seeds.
    deviation: standard deviation over the seeds; NaN for one seed.
    low, high: 95 % interval; NaN if there is none.
    seeds: how many.
  """

  mean: float
  deviation: float
  low: float
  high: float
  seeds: int

  @property
  def verdict(self) -> str:
    """Whether a difference is clear of zero: "above", "below" or "open"."""
    if self.low > 0:
      return "above"
    return "below" if self.high < 0 else "open"


def over_seeds(values: Sequence[float]) -> Summary:
  """Mean, standard deviation and Student's 95 % interval of the mean over seeds."""
  count = len(values)
  mean = float(np.mean(values))
  if count < 2:
    return Summary(mean, float("nan"), float("nan"), float("nan"), count)
  deviation = float(np.std(values, ddof=1))
  half = float(stats.t.ppf((1 + COVERAGE) / 2, count - 1)) * deviation / np.sqrt(count)
  return Summary(mean, deviation, mean - half, mean + half, count)


@functools.cache
def clip_weights(num_clips: int, resamples: int = RESAMPLES) -> Float[np.ndarray, "b n"]:
  """How often each clip is in each resample of the clips; the same for whoever asks."""
  rng = np.random.default_rng(0)
  share = np.full(num_clips, 1 / num_clips)
  return rng.multinomial(num_clips, share, resamples).astype(np.float32)


def resample(
  predictions: Predictions, actions: Int[np.ndarray, " n"], tree: LabelTree
) -> Resampled:
  """What `evaluation.metrics.measure` says of every resample of the clips."""
  weights = clip_weights(len(actions))
  bodies = np.asarray(tree.parents)[actions]
  action_top1, action_macro = _top1_and_macro(
    weights, actions, predictions.action, tree.num_actions
  )
  body_top1, body_macro = _top1_and_macro(weights, bodies, predictions.body, tree.num_bodies)
  return {
    "action_top1": action_top1,
    "action_top5": weights @ predictions.action_in_top5.astype(np.float32) / len(actions),
    "body_top1": body_top1,
    "f1_body_macro": body_macro,
    "f1_body_micro": body_top1,
    "f1_action_macro": action_macro,
    "f1_action_micro": action_top1,
    # With one label per clip, micro F1 is top-1 accuracy.
    "f1_mean": (body_macro + body_top1 + action_macro + action_top1) / 4,
  }


def _top1_and_macro(
  weights: Float[np.ndarray, "b n"],
  true: Int[np.ndarray, " n"],
  predicted: Int[np.ndarray, " n"],
  classes: int,
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
  """Accuracy and macro F1 per resample. Sums over clips are products of matrices."""
  one_hot = np.eye(classes, dtype=np.float32)
  right = weights @ (one_hot[true] * (predicted == true)[:, None])
  involved = weights @ (one_hot[true] + one_hot[predicted])
  occurs = involved > 0
  f1 = np.where(occurs, 2 * right / np.maximum(involved, 1), 0)
  return right.sum(1) / weights.shape[1], f1.sum(1) / occurs.sum(1)


def difference(
  row: Mapping[str, tuple[float, Float[np.ndarray, " b"]]],
  baseline: Mapping[str, tuple[float, Float[np.ndarray, " b"]]],
) -> Summary | None:
  """The mean paired difference between two rows, by a bootstrap over clips and seeds.

  Few seeds underestimate how much seeds matter. Their part of each resample is therefore widened so
  that, if only seeds mattered, the interval would be Student's.

  Args:
    row, baseline: by seed the value of a metric, and its values for the resamples of the clips.

  Returns:
    None without a common seed. `deviation` is that of the seeds' differences.

  References:
    Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 2015, for
    the correction of percentile intervals of small samples.
  """
  seeds = sorted(row.keys() & baseline.keys())
  if not seeds:
    return None
  by_seed = np.array([row[seed][0] - baseline[seed][0] for seed in seeds])
  resampled = np.stack([row[seed][1] - baseline[seed][1] for seed in seeds])
  drawn = resampled.mean(0)
  count = len(seeds)
  if count > 1:
    rng = np.random.default_rng(1)
    chosen = rng.integers(count, size=(count, resampled.shape[1]))
    upper = (1 + COVERAGE) / 2
    widening = np.sqrt(count / (count - 1)) * stats.t.ppf(upper, count - 1) / stats.norm.ppf(upper)
    drawn = drawn + widening * (np.take_along_axis(resampled, chosen, 0).mean(0) - drawn)
  deviation = float(by_seed.std(ddof=1)) if count > 1 else float("nan")
  return Summary(float(by_seed.mean()), deviation, *interval(drawn), count)


def gains_by_difficulty(
  row: Sequence[Predictions],
  baseline: Sequence[Predictions],
  actions: Int[np.ndarray, " n"],
  tree: LabelTree,
  honest: bool = True,
) -> dict[str, tuple[int, float]]:
  """How much the accuracy of hard, medium and easy actions differs (PCAN figure 3).

  Actions are hard or easy by the baseline's accuracy. If that is measured on the clips that are
  reported, actions that were unlucky there count as hard and look better in any second run.

  Args:
    row, baseline: predictions of their seeds.
    actions: true actions.
    tree: the labels.
    honest: whether to group by one half of each action's clips and report the other, both ways.

  Returns:
    Per group the number of actions in it (the mean over both ways) and the mean difference of their
    accuracies; NaN for an empty group.
  """
  order = np.argsort(actions, kind="stable")
  half = np.zeros(len(actions), bool)
  half[order[::2]] = True
  everything = np.ones(len(actions), bool)
  ways = [(half, ~half), (~half, half)] if honest else [(everything, everything)]
  found = {"hard": [], "medium": [], "easy": []}
  counts = dict.fromkeys(found, 0.0)
  for grouping, reported in ways:
    groups = difficulty_groups(_accuracies(baseline, actions, tree, grouping))
    after, before = (_accuracies(p, actions, tree, reported) for p in (row, baseline))
    for name, classes in groups.items():
      gains = (after - before)[classes]
      found[name] += gains[np.isfinite(gains)].tolist()
      counts[name] += len(classes) / len(ways)
  return {
    name: (round(counts[name]), float(np.mean(gains)) if gains else float("nan"))
    for name, gains in found.items()
  }


def _accuracies(
  predictions: Sequence[Predictions],
  actions: Int[np.ndarray, " n"],
  tree: LabelTree,
  chosen: np.ndarray,
) -> Float[np.ndarray, " a"]:
  """The accuracy of every action over the chosen clips and all seeds; NaN without clips."""
  count = np.bincount(actions[chosen], minlength=tree.num_actions).astype(float)
  right = np.mean([one.action == actions for one in predictions], axis=0)
  sums = np.bincount(actions[chosen], right[chosen], tree.num_actions)
  return np.where(count > 0, sums / np.maximum(count, 1), np.nan)

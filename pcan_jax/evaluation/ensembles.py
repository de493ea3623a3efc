"""Averages the results of several checkpoints on the same clips, and chooses their weights."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pcan_jax.evaluation.calibration import SMALLEST
from pcan_jax.evaluation.metrics import measure_branches
from pcan_jax.evaluation.origins import Ensemble, Fit, Member
from pcan_jax.evaluation.results import Results
from pcan_jax.evaluation.runs import Run
from pcan_jax.labels import LEVELS

_ROUNDS = 10_000
_STILL = 1e-9


def normalise_weights(weights: Sequence[float] | None, count: int) -> list[float]:
  """Weights that add up to 1; equal ones if there are none.

  Raises:
    ValueError: there is another number of them than `count`, or one is negative or not finite, or
      all are 0.
  """
  if weights is None:
    return [1 / count] * count
  if len(weights) != count:
    raise ValueError(f"--weights has {len(weights)} numbers for {count} checkpoint(s)")
  if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights):
    raise ValueError(
      f"--weights must be numbers of at least 0, one of them above, not {[*weights]}"
    )
  return [weight / sum(weights) for weight in weights]


def fit_weights(
  runs: Sequence[Run], scored: Sequence[Results], split: str
) -> tuple[list[float], Fit]:
  """The weights with which the mean of probabilities explains the labels of a split best.

  Args:
    runs: the members.
    scored: their results on the split, with the clips of all in the same order; every clip has a
      label.
    split: its name.

  Returns:
    The weights, which add up to 1, and what they were chosen on.
  """
  actions = scored[0].actions
  true = {"action": actions, "body": np.asarray(runs[0].spec.tree.parents)[actions]}
  rows = np.arange(len(actions))
  of_truth = np.array(
    [
      [results.outputs[run.branch][level]["probabilities"][rows, true[level]] for level in LEVELS]
      for run, results in zip(runs, scored)
    ],
    np.float64,
  )
  of_truth = np.maximum(of_truth.reshape(len(runs), -1), SMALLEST)
  equal = np.full(len(runs), 1 / len(runs))
  weights = most_likely_weights(of_truth)
  fit = Fit(split, len(actions), _nll(equal, of_truth), _nll(weights, of_truth))
  return weights.tolist(), fit


def most_likely_weights(probabilities: Float[np.ndarray, "m n"]) -> Float[np.ndarray, " m"]:
  """The weights of a mixture with the highest likelihood, by expectation maximisation.

  The log likelihood is concave in the weights, so that there is one maximum. It is approached from
  equal weights, and no round makes it worse.

  Args:
    probabilities: that each of M members gives to each of N observations; above 0.

  References:
    Dempster, Laird and Rubin, Maximum Likelihood from Incomplete Data via the EM Algorithm, 1977.
  """
  weights = np.full(len(probabilities), 1 / len(probabilities))
  for _ in range(_ROUNDS):
    parts = weights[:, None] * probabilities
    before, weights = weights, (parts / parts.sum(axis=0)).mean(axis=1)
    if np.abs(weights - before).max() < _STILL:
      break
  return weights / weights.sum()


def _nll(weights: Float[np.ndarray, " m"], probabilities: Float[np.ndarray, "m n"]) -> float:
  return float(-np.log(weights @ probabilities).mean())


def combine(
  runs: Sequence[Run],
  scored: Sequence[Results],
  weights: Sequence[float],
  split: str,
  fit: Fit | None,
) -> Results:
  """The results of an ensemble: the weighted means of probabilities, as the branch `fused`.

  Args:
    runs: the members.
    scored: their results on the split, with the clips of all in the same order.
    weights: of the members, which add up to 1.
    split: its name.
    fit: on what the weights were chosen, if they were.
  """
  fused = {}
  for level in LEVELS:
    of_members = (
      results.outputs[run.branch][level]["probabilities"].astype(np.float64)
      for run, results in zip(runs, scored)
    )
    mean = sum(weight * probabilities for weight, probabilities in zip(weights, of_members))
    fused[level] = {"probabilities": np.asarray(mean, np.float32)}
  members = tuple(
    Member(
      path=run.path,
      data_path=str(run.dataset.path),
      branch=run.branch,
      weight=weight,
      origin=run.origin,
      metrics=measure_branches(
        {run.branch: results.outputs[run.branch]}, results.actions, run.spec.tree
      ).get(run.branch, {}),
      description=run.spec.to_json(),
    )
    for run, results, weight in zip(runs, scored, weights)
  )
  return dataclasses.replace(
    scored[0],
    outputs={"fused": fused},
    metrics=measure_branches({"fused": fused}, scored[0].actions, runs[0].spec.tree),
    origin=Ensemble(members, split, fit),
  )

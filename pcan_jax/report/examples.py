"""Selects the ambiguous clips of a report."""

import dataclasses

import numpy as np
from jaxtyping import Bool

from pcan_jax.report.evaluated_run import EvaluatedRun

_PER_KIND = 2


@dataclasses.dataclass(frozen=True)
class Example:
  """An example clip.

  Attributes:
    row: of the clip in the results.
    kind: why it was selected.
  """

  row: int
  kind: str


def choose_examples(run: EvaluatedRun, baseline: EvaluatedRun | None) -> list[Example]:
  """The most ambiguous clips of every kind, of different actions if possible.

  Clips are more ambiguous the less the two most likely actions differ in probability. Kinds are the
  false negatives A1, A2, A3 of PCAN section 3.2 and clips that only the run or only the baseline
  gets right or, without a baseline, clips that are barely right.
  """
  action_right, body_right = run.right("action"), run.right("body")
  kinds = {
    "Body part right, action wrong (A1)": ~action_right & body_right,
    "Body part and action wrong (A2)": ~action_right & ~body_right,
    "Body part wrong, action right (A3)": action_right & ~body_right,
  }
  if baseline is None:
    kinds = {"Barely right": action_right & body_right} | kinds
  else:
    baseline_right = baseline.right("action")
    kinds = {
      "Right here, wrong in the baseline": action_right & ~baseline_right,
      "Wrong here, right in the baseline": ~action_right & baseline_right,
    } | kinds
  top = np.sort(run.probabilities("action"), axis=1)
  margin = top[:, -1] - top[:, -2] if top.shape[1] > 1 else top[:, -1]
  ranking = np.argsort(margin, kind="stable")
  chosen: list[Example] = []
  for kind, members in kinds.items():
    chosen += _most_ambiguous(run, ranking, members, kind, {example.row for example in chosen})
  return chosen


def _most_ambiguous(
  run: EvaluatedRun,
  ranking: np.ndarray,
  members: Bool[np.ndarray, " n"],
  kind: str,
  taken: set[int],
) -> list[Example]:
  actions = run.labels["action"]
  candidates = [int(row) for row in ranking if members[row] and int(row) not in taken]
  first_of_action = {int(actions[row]): row for row in reversed(candidates)}
  # Clips of actions not yet shown come first, in the order of the ranking.
  candidates.sort(key=lambda row: first_of_action[int(actions[row])] != row)
  return [Example(row, kind) for row in candidates[:_PER_KIND]]

"""What the lines of a study say, data set by data set."""

import collections
import dataclasses

import numpy as np

from benchmarks.study import explain
from benchmarks.study.intervals import (
  Summary,
  difference,
  gains_by_difficulty,
  over_seeds,
  resample,
)
from benchmarks.study.lines import BRANCHES, Line, Results, key_of
from benchmarks.study.tables import STUDIES
from pcan_jax.evaluation.metrics import Predictions
from pcan_jax.evaluation.results import TABLE_COLUMNS

Groups = dict[str, tuple[int, float]]


@dataclasses.dataclass(frozen=True)
class Summarised:
  """A branch of a row.

  Attributes:
    means: by metric, over seeds.
    differences: by metric, to the row's baseline; empty if they cannot be computed.
    why: by name of `explain.NAMES`, the mean over seeds; empty for `fused`.
  """

  means: dict[str, Summary]
  differences: dict[str, Summary]
  why: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Section:
  """A study on one data set.

  Attributes:
    study: its name.
    data, fingerprint, split, num_clips: what was evaluated.
    clips: number of clips in the split.
    runs: number of lines.
    hours: their wall time.
    machines: on which they ran.
    rows: by name and branch.
    difficulty: by row and branch the gains of hard, medium and easy actions, grouped by other clips
      than those reported, and by the same.
  """

  study: str
  data: str
  fingerprint: str
  split: str
  num_clips: str
  clips: int
  runs: int
  hours: float
  machines: list[str]
  rows: dict[str, dict[str, Summarised]]
  difficulty: dict[tuple[str, str], tuple[Groups, Groups]]

  @property
  def compares(self) -> bool:
    """Whether any row can be compared with its baseline."""
    return any(one.differences for found in self.rows.values() for one in found.values())

  @property
  def picture(self) -> str:
    """Name of the file with its figure, if it compares."""
    return f"results_{self.study}_{self.data}.png"


def summarise(results: Results) -> list[Section]:
  """All sections, in the order of the studies.

  Raises:
    ValueError: a line is of a study or row that no longer exists.
  """
  unknown = sorted(set(results.studies) - set(STUDIES))
  if unknown:
    raise ValueError(f"results/{unknown[0]}.csv is of no study; there are: {', '.join(STUDIES)}")
  sections = []
  for study in STUDIES:
    groups = collections.defaultdict(list)
    for line in results.lines(study):
      if line["row"] not in STUDIES[study].rows:
        raise ValueError(f"results/{study}.csv: no row {line['row']!r} in this study")
      groups[line["data"], line["fingerprint"], line["split"], line["num_clips"]].append(line)
    kept = results.predictions(study)
    sections += [_section(study, lines, results, kept) for lines in groups.values()]
  return sections


def _section(
  study: str,
  lines: list[Line],
  results: Results,
  kept: dict[tuple[str, ...], dict[str, Predictions]],
) -> Section:
  labels = results.labels(lines[0])
  values = collections.defaultdict(dict)  # by row, branch and metric: by seed
  predictions = collections.defaultdict(dict)  # by row and branch: by seed
  for line in lines:
    for branch in BRANCHES:
      if not line[f"{branch}/f1_mean"]:
        continue
      for metric in TABLE_COLUMNS:
        values[line["row"], branch, metric][line["seed"]] = float(line[f"{branch}/{metric}"])
      found = kept.get(key_of(line), {}).get(branch)
      if found is not None:
        predictions[line["row"], branch][line["seed"]] = found
  resampled = {}
  if labels is not None:
    resampled = {
      name: {seed: resample(p, labels.actions, labels.tree) for seed, p in by_seed.items()}
      for name, by_seed in predictions.items()
    }

  def with_resamples(row: str, branch: str, metric: str) -> dict[str, tuple]:
    by_seed = resampled.get((row, branch), {})
    return {
      seed: (values[row, branch, metric][seed], draws[metric]) for seed, draws in by_seed.items()
    }

  rows, difficulty = {}, {}
  for name, row in STUDIES[study].rows.items():
    branches = [branch for branch in BRANCHES if values.get((name, branch, "f1_mean"))]
    for branch in branches:
      means = {
        metric: over_seeds(list(values[name, branch, metric].values())) for metric in TABLE_COLUMNS
      }
      differences = {}
      if row.against:
        for metric in TABLE_COLUMNS:
          found = difference(
            with_resamples(name, branch, metric), with_resamples(row.against, branch, metric)
          )
          if found is not None:
            differences[metric] = found
      rows.setdefault(name, {})[branch] = Summarised(means, differences, _why(name, branch, lines))
      common = predictions[name, branch].keys() & predictions[row.against, branch].keys()
      if study == "headline" and common and labels is not None:
        both = [
          [predictions[which, branch][seed] for seed in sorted(common)]
          for which in (name, row.against)
        ]
        difficulty[name, branch] = tuple(
          gains_by_difficulty(*both, labels.actions, labels.tree, honest=honest)
          for honest in (True, False)
        )
  seconds = sum(
    float(line["training_seconds"]) + float(line["evaluation_seconds"]) for line in lines
  )
  return Section(
    study=study,
    data=lines[0]["data"],
    fingerprint=lines[0]["fingerprint"],
    split=lines[0]["split"],
    num_clips=lines[0]["num_clips"],
    clips=len(labels.actions) if labels is not None else 0,
    runs=len(lines),
    hours=seconds / 3600,
    machines=sorted({_machine(line) for line in lines}),
    rows=rows,
    difficulty=difficulty,
  )


def _why(row: str, branch: str, lines: list[Line]) -> dict[str, float]:
  why = {}
  for name in explain.NAMES if branch in explain.STREAMS else ():
    given = [line[f"{branch}/{name}"] for line in lines if line["row"] == row]
    if all(given):
      why[name] = float(np.mean([float(value) for value in given]))
  return why


def _machine(line: Line) -> str:
  device = line["cpu"] if "cpu" in line["device"].lower() else line["device"]
  return f"{device} ({counted(line['cores'], 'core')}, JAX {line['jax']})"


def counted(number: int | str, noun: str) -> str:
  """A number of things, such as `1 run` or `2 runs`."""
  return f"{number} {noun}" if str(number) == "1" else f"{number} {noun}s"

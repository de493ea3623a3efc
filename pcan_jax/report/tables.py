"""The rows of the paper's table 1 for a run, as Markdown, LaTeX and table cells."""

import dataclasses
from collections.abc import Sequence

from pcan_jax.evaluation.origins import Ensemble
from pcan_jax.evaluation.results import TABLE_COLUMNS
from pcan_jax.labels import get_tree
from pcan_jax.report import style
from pcan_jax.report.evaluated_run import EvaluatedRun
from pcan_jax.text_tables import in_latex

_PAPER = {
  ("PoseConv3D", "rgb"): (77.77, 56.30, 86.11, 69.87, 77.77, 35.80, 56.30, 59.93),
  ("PoseConv3D", "pose"): (74.60, 50.93, 84.98, 67.31, 74.60, 31.07, 50.93, 55.98),
  ("PoseConv3D", "fused"): (80.95, 63.52, 90.23, 74.96, 80.95, 47.20, 63.52, 66.66),
  ("PCAN", "rgb"): (79.36, 60.03, 87.65, 72.37, 79.36, 43.29, 60.03, 63.76),
  ("PCAN", "pose"): (76.99, 56.51, 87.13, 71.33, 76.99, 42.28, 56.51, 61.78),
  ("PCAN", "fused"): (82.30, 66.74, 91.75, 77.02, 82.30, 53.83, 66.74, 69.97),
}
"""Table 1 of the PCAN paper: in % on MA-52's test split, in the order of `TABLE_COLUMNS`."""

HEADER = ("method", "streams", *TABLE_COLUMNS.values())


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table.

  Attributes:
    method: a run, or a method of the paper.
    streams: the streams that the scores are from.
    values: in per cent, in the order of `TABLE_COLUMNS`.
    source: "run", "baseline" or "paper".
  """

  method: str
  streams: str
  values: tuple[float, ...]
  source: str

  @property
  def cells(self) -> tuple[str, ...]:
    return (self.method, self.streams, *(f"{value:.2f}" for value in self.values))


def table_rows(run: EvaluatedRun, baseline: EvaluatedRun | None) -> list[Row]:
  """The rows of the run, the baseline and, if the labels are MA-52's, the paper."""
  rows = []
  runs = {"run": run} if baseline is None else {"run": run, "baseline": baseline}
  for source, one in runs.items():
    for branch in one.branches:
      metrics = one.results.metrics[branch]
      values = tuple(100 * metrics[name] for name in TABLE_COLUMNS)
      rows.append(Row(one.name, one.name_of(branch), values, source))
  return rows + paper_rows() if run.tree == get_tree("ma52") else rows


def member_rows(ensemble: Ensemble) -> list[list[str]]:
  """Of each member of an ensemble name, weight and, in %, the metrics, if there are labels."""
  return [
    [
      member.name,
      f"{member.weight:.3f}",
      *(f"{100 * member.metrics[name]:.2f}" for name in TABLE_COLUMNS),
    ]
    for member in ensemble.members
  ]


def member_facts(ensemble: Ensemble) -> list[list[str]]:
  """Which checkpoint and data set each member of an ensemble is."""
  return [
    [m.name, str(m.origin.step), m.origin.checkpoint, m.data_path, m.origin.dataset]
    for m in ensemble.members
  ]


def paper_rows() -> list[Row]:
  """Table 1 of the paper."""
  return [
    Row(f"{method}, MA-52 test", style.BRANCH_NAMES[branch], values, "paper")
    for (method, branch), values in _PAPER.items()
  ]


def markdown(rows: Sequence[Row]) -> str:
  """The table in Markdown; values are in per cent."""
  lines = [HEADER, ["---", "---", *["---:"] * len(TABLE_COLUMNS)]]
  lines += [[cell.replace("|", "\\|") for cell in row.cells] for row in rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def latex(rows: Sequence[Row]) -> str:
  """The table in LaTeX, for the package booktabs; values are in per cent."""
  head = " & ".join(in_latex(cell) for cell in HEADER)
  lines = [f"\\begin{{tabular}}{{ll{'r' * len(TABLE_COLUMNS)}}}", "\\toprule", f"{head} \\\\"]
  source = None
  for row in rows:
    if row.source != source:
      lines.append("\\midrule")
      source = row.source
    lines.append(" & ".join(in_latex(cell) for cell in row.cells) + " \\\\")
  return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"

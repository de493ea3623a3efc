"""The figure of a section: every row's difference to its baseline, with its interval."""

import pathlib

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure  # noqa: E402

from benchmarks.study.lines import BRANCHES  # noqa: E402
from benchmarks.study.summaries import Section  # noqa: E402
from benchmarks.study.tables import STUDIES  # noqa: E402
from pcan_jax.report import style  # noqa: E402


def draw_differences(section: Section) -> Figure:
  """A line per row and branch: mean difference in F1 mean, interval, zero."""
  entries = [
    (f"{name}, {branch}", branch, found[branch].differences["f1_mean"])
    for name in STUDIES[section.study].rows
    for found in [section.rows.get(name, {})]
    for branch in BRANCHES
    if branch in found and "f1_mean" in found[branch].differences
  ]
  figure = Figure(figsize=(6.4, 0.7 + 0.24 * max(len(entries), 2)), layout="constrained")
  axes = figure.subplots()
  axes.axvline(0, color=style.GREY, linewidth=1)
  for height, (_, branch, change) in enumerate(reversed(entries)):
    colour = style.BRANCHES[branch]
    axes.plot([100 * change.low, 100 * change.high], [height, height], color=colour, linewidth=1.6)
    axes.plot(100 * change.mean, height, "o", color=colour, markersize=4)
  axes.set_ylim(-0.6, len(entries) - 0.4)
  axes.set_yticks(range(len(entries)), [name for name, _, _ in reversed(entries)], fontsize=8)
  axes.set_xlabel("points of F1 mean above the baseline, 95 % interval")
  axes.spines[["top", "right"]].set_visible(False)
  return figure


def save_figures(sections: list[Section], folder: pathlib.Path) -> None:
  """Writes the figure of every section that compares rows."""
  folder.mkdir(parents=True, exist_ok=True)
  for section in sections:
    if section.compares:
      draw_differences(section).savefig(folder / section.picture, dpi=130)

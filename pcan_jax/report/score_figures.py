"""Figures of predicted probabilities: calibration, single clips, differences between runs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure

from pcan_jax.evaluation.calibration import Calibration
from pcan_jax.labels import LabelTree
from pcan_jax.report import style

_SHOWN_ACTIONS, _SHOWN_BODIES = 5, 4


def reliability_figure(
  levels: dict[str, dict[str, Calibration]], colours: dict[str, str]
) -> Figure:
  """Reliability diagrams above histograms of confidence.

  Args:
    levels: per level of the label tree, the calibration of each run, by name.
    colours: of the runs.
  """
  figure = style.new_figure(3.6 * len(levels), 4.9)
  grid = figure.subplots(
    2, len(levels), sharex=True, height_ratios=[3, 1], squeeze=False, gridspec_kw={"hspace": 0.05}
  )
  for (level, runs), (upper, lower) in zip(levels.items(), grid.T):
    upper.plot([0, 1], [0, 1], color=style.GREY, lw=0.9, ls=(0, (4, 3)))
    for index, (name, found) in enumerate(reversed(runs.items())):
      seen = found.count > 0
      confidence, accuracy = found.confidence[seen], found.accuracy[seen]
      upper.plot(confidence, accuracy, color=colours[name], lw=0.9)
      upper.scatter(
        confidence,
        accuracy,
        8 + 90 * found.count[seen] / found.count.sum(),
        color=colours[name],
        marker="os"[index % 2],
        clip_on=False,
        zorder=3 + index,
      )
      upper.annotate(
        f"{style.short(name)}: ECE {100 * found.error:.1f} %",
        (1, 1.02 + 0.055 * index),
        xycoords="axes fraction",
        ha="right",
        size=8,
        color=colours[name],
        weight="bold",
      )
      share = found.count / found.count.sum()
      lower.stairs(share, found.edges, color=colours[name], lw=1.3, fill=False)
    upper.set_title(style.LEVEL_NAMES[level])
    upper.set_xlim(0, 1.01)
    upper.set_ylim(0, 1.01)
    upper.set_yticks(np.arange(0, 1.01, 0.2))
    style.percent_axis(upper)
    style.percent_axis(upper, "y")
    style.percent_axis(lower, "y")
    style.percent_axis(lower)
    lower.set_ylim(0)
    lower.set_xlabel("confidence in %")
  grid[0, 0].set_ylabel("accuracy in %")
  grid[1, 0].set_ylabel("% of clips")
  return figure


def clip_figure(
  tree: LabelTree,
  true: int,
  columns: dict[str, dict[str, Float[np.ndarray, " _"]]],
  frames: UInt8[np.ndarray, "f s s 3"] | None,
) -> Figure:
  """Predicted distributions of one clip, side by side below its frames (figure 4).

  Args:
    tree: the labels.
    true: the true action.
    columns: per run or stream, by name, probabilities of actions [A] and body parts [B].
    frames: of the clip in order, if available.
  """
  first = next(iter(columns.values()))
  actions = _shown(true, columns)
  bodies = np.argsort(-first["body"], kind="stable")[:_SHOWN_BODIES]
  bodies = np.array([*dict.fromkeys([tree.parents[true], *bodies])])[:_SHOWN_BODIES]
  labels = [tree.actions[a] for a in actions] + [tree.bodies[b] for b in bodies]
  margin = style.label_width(labels)
  width = margin + 1.45 * len(columns)
  strip = 0.0 if frames is None else width / len(frames)
  heights = [len(actions), len(bodies)]
  figure = style.new_figure(width, strip + 0.21 * sum(heights) + 1.0)
  parts = figure.subfigures(
    2 if frames is not None else 1,
    1,
    squeeze=False,
    height_ratios=[strip, 0.21 * sum(heights) + 1.0] if frames is not None else None,
  )[:, 0]
  if frames is not None:
    for axis, frame in zip(parts[0].subplots(1, len(frames), squeeze=False)[0], frames):
      axis.imshow(frame)
      axis.set_axis_off()
  grid = parts[-1].subplots(
    2, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=heights
  )
  for column, (name, probabilities) in enumerate(columns.items()):
    for axis, level, classes, own, names in (
      (grid[0, column], "action", actions, true, tree.actions),
      (grid[1, column], "body", bodies, tree.parents[true], tree.bodies),
    ):
      values = probabilities[level]
      best = int(values.argmax())
      y = np.arange(len(classes))
      colours = [
        style.RIGHT if c == own else style.WRONG if c == best else style.PALE for c in classes
      ]
      axis.barh(y, values[classes], height=0.7, color=colours)
      for y_of_bar, c in zip(y, classes):
        axis.annotate(
          f"{100 * values[c]:.0f}",
          (values[c], y_of_bar),
          (2, 0),
          textcoords="offset points",
          va="center",
          size=7,
          weight="bold" if c == best else "normal",
        )
      axis.set_xlim(0, 1.18)
      axis.set_ylim(len(classes) - 0.4, -0.6)
      axis.set_xticks([])
      axis.tick_params(length=0)
      axis.spines["bottom"].set_visible(False)
      axis.set_yticks(y, [style.short(names[c]) for c in classes])
      if column == 0:
        for text, c in zip(axis.get_yticklabels(), classes):
          text.set_weight("bold" if c == own else "normal")
    grid[0, column].set_title(style.short(name), size=9)
  return figure


def _shown(
  true: int, columns: dict[str, dict[str, Float[np.ndarray, " _"]]]
) -> Int[np.ndarray, " _"]:
  """The actions to show: the most likely of the first column, the true one, all predicted ones."""
  first = next(iter(columns.values()))["action"]
  likeliest: Sequence[int] = np.argsort(-first, kind="stable")[:_SHOWN_ACTIONS].tolist()
  others = [int(column["action"].argmax()) for column in columns.values()]
  chosen = np.array([*dict.fromkeys([true, *likeliest, *others])])
  return chosen[np.argsort(-first[chosen], kind="stable")]


def difference_figure(
  differences: dict[str, dict[str, tuple[float, float, float]]], names: tuple[str, str]
) -> Figure:
  """Differences between two runs, with intervals.

  Args:
    differences: per metric and branch, the difference and the ends of its interval.
    names: of the run and of the baseline.
  """
  branches = list(next(iter(differences.values())))
  step = 0.8 / max(len(branches), 2)
  figure = style.new_figure(6.6, 0.2 + 0.36 * len(differences) + 0.9)
  axis = figure.subplots()
  axis.axvline(0, color=style.INK, lw=0.8)
  for index, branch in enumerate(branches):
    y = np.arange(len(differences)) + (index - (len(branches) - 1) / 2) * step
    centre, low, high = np.array([of_metric[branch] for of_metric in differences.values()]).T
    colour = style.BRANCHES[branch]
    axis.hlines(y, low, high, color=colour, lw=1.3)
    axis.plot(
      centre,
      y,
      "osD"[index],
      ms=4.5,
      color=colour,
      ls="none",
      label=style.BRANCH_NAMES[branch],
    )
  axis.set_yticks(range(len(differences)), differences)
  axis.tick_params(axis="y", length=0)
  axis.spines["left"].set_visible(False)
  axis.set_ylim(len(differences) - 0.4, -0.6)
  style.percent_axis(axis)
  run, baseline = (style.short(name) for name in names)
  axis.set_xlabel(f"{run} minus {baseline}, in percentage points")
  if len(branches) > 1:
    figure.legend(loc="outside upper right", ncols=len(branches))
  return figure

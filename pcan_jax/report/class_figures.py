"""Figures of accuracy by class: every action, gains over a baseline, difficulty groups."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcan_jax.labels import LabelTree
from pcan_jax.report import statistics, style

_ROW = 0.19  # inches


@dataclasses.dataclass(frozen=True)
class Rows:
  """Actions listed under the names of their body parts.

  Attributes:
    actions: from top to bottom.
    y: of the actions on the y axis, which points down.
    headings: names of body parts and their y.
  """

  actions: Int[np.ndarray, " k"]
  y: Float[np.ndarray, " k"]
  headings: list[tuple[str, float]]

  @property
  def height(self) -> float:
    """In inches."""
    return _ROW * (self.y[-1] + 1.5)


def arrange(tree: LabelTree, rank: Float[np.ndarray, " k"] | Int[np.ndarray, " k"]) -> Rows:
  """Groups actions by body part, sorted within each by descending rank, NaN last."""
  actions, ys, headings = [], [], []
  y = 0.0
  for body in dict.fromkeys(sorted(tree.parents)):
    members = np.flatnonzero(np.asarray(tree.parents) == body)
    keys = np.where(np.isnan(rank[members]), -np.inf, rank[members])
    headings.append((tree.bodies[body], y))
    for action in members[np.argsort(-keys, kind="stable")]:
      y += 1
      actions.append(action)
      ys.append(y)
    y += 1.4
  return Rows(np.array(actions), np.array(ys), headings)


def _label_rows(axis: Axes, rows: Rows, tree: LabelTree) -> None:
  labels = [style.short(tree.actions[action]) for action in rows.actions]
  axis.set_yticks(rows.y, labels)
  axis.tick_params(axis="y", length=0)
  axis.spines["left"].set_visible(False)
  axis.set_ylim(rows.y[-1] + 0.8, -0.8)
  for name, y in rows.headings:
    axis.annotate(
      style.short(name),
      (0, y),
      xycoords=("axes fraction", "data"),
      xytext=(-4, 0),
      textcoords="offset points",
      ha="right",
      va="center",
      weight="bold",
      size=8.5,
    )


def accuracy_figure(
  tree: LabelTree,
  confusion: Int[np.ndarray, "k k"],
  train_support: Int[np.ndarray, " k"] | None,
  baseline_accuracy: Float[np.ndarray, " k"] | None,
) -> Figure:
  """Accuracy of every action with Wilson's interval, beside its number of clips.

  Args:
    tree: the labels.
    confusion: of actions, in the evaluated split.
    train_support: training clips per action, if known; they determine the order.
    baseline_accuracy: per action, NaN for an action without clips.
  """
  support = confusion.sum(axis=1)
  accuracy = statistics.class_accuracy(confusion)
  rows = arrange(tree, support if train_support is None else train_support)
  supports = {"evaluated": support}
  if train_support is not None:
    supports = {"training": train_support} | supports
  figure = style.new_figure(
    style.label_width(tree.actions) + 4.0 + 1.3 * len(supports), rows.height + 0.6
  )
  axes = figure.subplots(
    1, 1 + len(supports), sharey=True, width_ratios=[4.0, *[1.3] * len(supports)]
  )
  left = axes[0]
  _label_rows(left, rows, tree)
  right = np.diag(confusion)
  low, high = statistics.wilson_interval(right, support)
  left.barh(rows.y, accuracy[rows.actions], height=0.62, color=style.RUN)
  left.hlines(rows.y, low[rows.actions], high[rows.actions], color=style.BLACK, lw=0.8)
  if baseline_accuracy is not None:
    left.plot(
      baseline_accuracy[rows.actions],
      rows.y,
      "D",
      ms=4.5,
      mfc="white",
      mec=style.BLACK,
      mew=0.9,
      ls="none",
      clip_on=False,
    )
  for action, y in zip(rows.actions, rows.y):
    if not support[action]:
      left.text(0.01, y, "no clips", va="center", size=7, color=style.GREY)
  left.set_xlim(0, 1.01)
  left.set_xticks(np.arange(0, 1.01, 0.2))
  style.percent_axis(left)
  left.set_xlabel("accuracy in %")
  for axis, (name, counts) in zip(axes[1:], supports.items()):
    axis.barh(rows.y, counts[rows.actions], height=0.62, color=style.PALE)
    for y, count in zip(rows.y, counts[rows.actions]):
      axis.annotate(
        f"{count:,}", (count, y), (2, 0), textcoords="offset points", va="center", size=7
      )
    axis.set_xlim(0, max(counts.max(), 1) * 1.35)
    axis.set_xlabel(f"clips, {name}")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_color(style.PALE)
    axis.locator_params(axis="x", nbins=3)
  return figure


def gain_figure(
  tree: LabelTree,
  gain: Float[np.ndarray, " k"],
  support: Int[np.ndarray, " k"],
  names: tuple[str, str],
) -> Figure:
  """Gain of every action's accuracy over the baseline, sorted within body parts (figure 5).

  Args:
    tree: the labels.
    gain: in accuracy, NaN for an action without clips.
    support: clips per action.
    names: of the run and of the baseline.
  """
  rows = arrange(tree, gain)
  figure = style.new_figure(style.label_width(tree.actions) + 5.2, rows.height + 0.6)
  axis = figure.subplots()
  _label_rows(axis, rows, tree)
  values = np.nan_to_num(gain[rows.actions])
  colours = [style.RIGHT if value > 0 else style.WRONG for value in values]
  axis.barh(rows.y, values, height=0.62, color=colours)
  for action, y, value in zip(rows.actions, rows.y, values):
    text = f"{100 * value:+.1f}" if value else "0"
    axis.annotate(
      f"{text}  ({support[action]})" if support[action] else "no clips",
      (value, y),
      (3 if value >= 0 else -3, 0),
      textcoords="offset points",
      ha="left" if value >= 0 else "right",
      va="center",
      size=7,
    )
  axis.axvline(0, color=style.INK, lw=0.8)
  span = max(np.ptp([*values, 0.0]), 0.05)
  room = 0.25 * span  # for the numbers
  axis.set_xlim(min(values.min(), 0) - room, max(values.max(), 0) + room)
  style.percent_axis(axis)
  run, baseline = (style.short(name) for name in names)
  axis.set_xlabel(f"accuracy of {run} minus {baseline}, in percentage points (clips)")
  return figure


def difficulty_figure(
  groups: dict[str, Int[np.ndarray, " _"]],
  run_accuracy: Float[np.ndarray, " k"],
  baseline_accuracy: Float[np.ndarray, " k"] | None,
  names: tuple[str, str],
) -> Figure:
  """Mean accuracy of the classes of every difficulty group (figure 3).

  Args:
    groups: the classes of each group.
    run_accuracy: per class.
    baseline_accuracy: per class; None without a baseline.
    names: of the run and of the baseline.
  """
  figure = style.new_figure(6.2, 3.0)
  axis = figure.subplots()
  bars = [(names[0], run_accuracy, style.RUN)]
  if baseline_accuracy is not None:
    bars.insert(0, (names[1], baseline_accuracy, style.BASELINE))
  width = 0.76 / len(bars)
  for index, (name, accuracy, colour) in enumerate(bars):
    for group, classes in enumerate(groups.values()):
      if not classes.size:
        continue
      mean = accuracy[classes].mean()
      x = group + (index - (len(bars) - 1) / 2) * width
      axis.bar(x, mean, width * 0.94, color=colour, label=style.short(name))
      axis.annotate(
        f"{100 * mean:.1f}", (x, mean), (0, 2), textcoords="offset points", ha="center", size=8
      )
  labels = []
  for name, classes in groups.items():
    count = f"{len(classes)} class{'es' * (len(classes) != 1)}" if classes.size else "no classes"
    labels.append(f"{name}\n{count}")
  axis.set_xticks(range(len(groups)), labels)
  axis.tick_params(axis="x", length=0, labelsize=9)
  axis.set_xlim(-0.5, len(groups) - 0.5)
  axis.set_ylim(0, 1.08)
  axis.set_yticks(np.arange(0, 1.01, 0.2))
  style.percent_axis(axis, "y")
  axis.set_ylabel("mean accuracy in %")
  if len(bars) > 1:
    handles, texts = axis.get_legend_handles_labels()
    unique = dict(zip(texts, handles))
    axis.legend(unique.values(), unique.keys(), loc="upper left", bbox_to_anchor=(1.0, 1.0))
  return figure

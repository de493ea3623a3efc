"""Figures of a training run: losses, accuracies, sizes of the ambiguous sets."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pcan_jax.report import style
from pcan_jax.report.evaluated_run import Curve

_SETS = {
  "num_tp": "TP: action and body part right",
  "num_fn_a1": "FN A1: only body part right",
  "num_fn_a2": "FN A2: both wrong",
  "num_fn_a3": "FN A3: only action right",
  "num_fp": "FP: taken for another action",
  "num_body_tp": "body part right (TP)",
  "num_body_fp": "body part wrong (FN, FP)",
}
_LOSSES = {
  "ce_action": "cross-entropy, actions",
  "ce_body": "cross-entropy, body parts",
  "hp": "hierarchical loss (HP)",
  "pcc_action": "calibration, actions (PCC)",
  "pcc_body": "calibration, body parts (PCC)",
  "pda": "diversity (PDA)",
  "f1_action": "soft F1, actions",
  "f1_body": "soft F1, body parts",
  "ce_frames": "cross-entropy, time steps",
}
_ACCURACIES = {"action_top1": "top-1 of actions in %", "body_top1": "top-1 of body parts in %"}
_EVALUATION = {"marker": "o", "ls": (0, (1, 1.5)), "ms": 3.5, "mfc": "white", "lw": 1}
_COLUMNS = 4


def _panels(count: int) -> tuple[Figure, Sequence[Axes]]:
  columns = min(_COLUMNS, count)
  rows = -(-count // columns)
  figure = style.new_figure(2.45 * columns, 1.75 * rows + 0.3)
  axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
  for axis in axes[count:]:
    axis.set_axis_off()
  for index in range(count):
    if index + columns >= count:  # nothing below it
      axes[index].tick_params(labelbottom=True)
      axes[index].set_xlabel("step")
    axes[index].grid(True, axis="y")
    axes[index].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes[index].yaxis.set_major_locator(MaxNLocator(4))
  return figure, axes[:count].tolist()


def sets_figure(curves: dict[str, Curve], streams: Sequence[str], batch_size: int) -> Figure:
  """Sizes of the ambiguous sets over training, as shares of a batch."""
  names = [name for name in _SETS if f"{streams[0]}/{name}" in curves]
  figure, axes = _panels(len(names))
  for axis, name in zip(axes, names):
    _plot_streams(axis, curves, streams, name, scale=1 / batch_size, lw=1.3)
    axis.set_title(_SETS[name], size=8)
    axis.set_ylim(0)
    style.percent_axis(axis, "y")
  _name_streams(figure, streams)
  figure.supylabel("% of a batch", size=9, color=style.INK)
  return figure


def training_figure(curves: dict[str, Curve], streams: Sequence[str]) -> Figure:
  """Losses, accuracies, learning rate and gradient norm over training."""
  per_stream = {
    name: title
    for name, title in (_ACCURACIES | _LOSSES).items()
    if any(f"{stream}/{name}" in curves for stream in streams)
  }
  whole = {
    name: title
    for name, title in (
      ("loss", "total loss"),
      ("gradient_norm", "norm of the gradient"),
      ("learning_rate", "learning rate"),
    )
    if name in curves
  }
  figure, axes = _panels(len(per_stream) + len(whole))
  for axis, (name, title) in zip(axes, per_stream.items()):
    _plot_streams(axis, curves, streams, name, lw=1.3)
    axis.set_title(title, size=8)
    axis.set_ylim(0)
    if name in _ACCURACIES:
      _plot_streams(axis, curves, streams, name, prefix="eval/", **_EVALUATION)
      axis.set_ylim(0, 1.03)
      style.percent_axis(axis, "y")
  for axis, (name, title) in zip(axes[len(per_stream) :], whole.items()):
    axis.plot(curves[name].steps, curves[name].values, color=style.INK, lw=1.2)
    axis.set_title(title, size=8)
    axis.set_ylim(0)
  _name_streams(figure, streams)
  return figure


def _plot_streams(
  axis: Axes,
  curves: dict[str, Curve],
  streams: Sequence[str],
  name: str,
  *,
  prefix: str = "",
  scale: float = 1.0,
  **line: Any,
) -> None:
  """Draws the existing curves PREFIX + STREAM/NAME, as lines with some properties."""
  for stream in streams:
    curve = curves.get(f"{prefix}{stream}/{name}")
    if curve is not None:
      axis.plot(curve.steps, curve.values * scale, color=style.BRANCHES[stream], **line)


def _name_streams(figure: Figure, streams: Sequence[str]) -> None:
  handles = [
    figure.axes[0].plot([], [], color=style.BRANCHES[stream], lw=2)[0] for stream in streams
  ]
  figure.legend(
    handles,
    [style.BRANCH_NAMES[stream] for stream in streams],
    loc="outside upper left",
    ncols=len(streams),
  )

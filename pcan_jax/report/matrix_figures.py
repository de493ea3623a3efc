"""Figures of matrices over classes: confusions, similarities of prototypes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pcan_jax.report import style

_FEW, _MANY = 12, 30  # classes


def confusion_figure(
  confusion: Int[np.ndarray, "k k"], names: Sequence[str], parents: Sequence[int] | None = None
) -> Figure:
  """Shares of each class's clips by predicted class.

  Args:
    confusion: clips by true class (rows) and predicted class.
    names: of the classes.
    parents: body parts of actions, by which rows and columns are grouped.
  """
  order = _order(names, parents)
  ordered = confusion[order][:, order]
  shares = ordered / np.maximum(ordered.sum(axis=1, keepdims=True), 1)
  count = len(names)
  side = max((0.42 if count <= _FEW else 0.28 if count <= _MANY else 0.185) * count, 2.0)
  margin = style.label_width(names, 7.0)
  figure = style.new_figure(side + margin + 1.1, side + margin + 0.6, "compressed")
  axis = figure.subplots()
  norm = PowerNorm(0.5, 0, 1)
  image = axis.imshow(shares, cmap=style.SHARES, norm=norm, interpolation="nearest")
  _label(axis, names, parents, 8.0 if count <= _MANY else 6.5)
  axis.set_xlabel("predicted")
  axis.set_ylabel("true")
  if count <= _MANY:
    for row, column in np.argwhere(ordered > 0):
      share = shares[row, column]
      axis.text(
        column,
        row,
        f"{100 * share:.0f}",
        ha="center",
        va="center",
        size=8 if count <= _FEW else 6,
        color="white" if norm(share) > 0.6 else style.BLACK,
      )
  _add_scale(
    figure,
    image,
    [axis],
    side,
    "% of the true class's clips",
    {0.0: "0", 0.05: "5", 0.2: "20", 0.5: "50", 1.0: "100"},
  )
  return figure


def similarity_figure(
  prototypes: dict[str, Float[np.ndarray, "k _"]],
  names: Sequence[str],
  parents: Sequence[int] | None = None,
) -> Figure:
  """Cosine similarities of prototypes, one matrix per stream, without the diagonal.

  Args:
    prototypes: per stream.
    names: of the classes.
    parents: body parts of actions, by which rows and columns are grouped.
  """
  order = _order(names, parents)
  count = len(names)
  side = max((0.3 if count <= _FEW else 0.17 if count <= _MANY else 0.145) * count, 1.6)
  size = 8.0 if count <= _FEW else 7.0 if count <= _MANY else 6.0
  margin = style.label_width(names, size)
  figure = style.new_figure(
    side * len(prototypes) + margin + 1.2, side + margin + 0.8, "compressed"
  )
  axes = figure.subplots(1, len(prototypes), sharey=True, squeeze=False)[0].tolist()
  matrices = [cosines(vectors)[order][:, order] for vectors in prototypes.values()]
  for matrix in matrices:
    np.fill_diagonal(matrix, np.nan)
  seen = np.concatenate([matrix[~np.isnan(matrix)] for matrix in matrices] + [[0.0]])
  low, high = float(seen.min()), float(max(seen.max(), seen.min() + 0.1))
  for axis, stream, matrix in zip(axes, prototypes, matrices):
    image = axis.imshow(matrix, cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
    axis.set_title(style.BRANCH_NAMES[stream])
    _label(axis, names, parents, size)
  _add_scale(figure, image, axes, side, "cosine similarity")
  return figure


def cosines(vectors: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k k"]:
  """Cosines of all pairs of vectors, 0 for a zero vector."""
  directions = unit(vectors.astype(np.float64))
  return directions @ directions.T


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  """Normalises vectors; a zero vector stays zero."""
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(lengths > 0, lengths, 1)


def _order(names: Sequence[str], parents: Sequence[int] | None) -> Int[np.ndarray, " k"]:
  """The order of the classes, grouped by body part if they have one."""
  return np.arange(len(names)) if parents is None else np.argsort(parents, kind="stable")


def _label(axis: Axes, names: Sequence[str], parents: Sequence[int] | None, size: float) -> None:
  """Labels rows and columns, frames the matrix, and draws lines between body parts."""
  order = _order(names, parents)
  labels = [style.short(names[index]) for index in order]
  axis.set_xticks(range(len(names)), labels, rotation=90, size=size)
  axis.set_yticks(range(len(names)), labels, size=size)
  axis.tick_params(length=0)
  if parents is not None:
    for edge in np.flatnonzero(np.diff(np.asarray(parents)[order])) + 0.5:
      axis.axhline(edge, color=style.INK, lw=0.6)
      axis.axvline(edge, color=style.INK, lw=0.6)
  axis.spines[:].set_visible(True)
  axis.spines[:].set_color(style.INK)
  axis.spines[:].set_linewidth(0.6)


def _add_scale(
  figure: Figure,
  image: AxesImage,
  axes: Sequence[Axes],
  side: float,
  label: str,
  ticks: dict[float, str] | None = None,
) -> None:
  """Adds a colour bar to matrices of the given size in inches, with labels at some values."""
  bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2.6 / side), pad=0.02, aspect=16)
  if ticks is not None:
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
  bar.set_label(label)
  bar.outline.set_visible(False)

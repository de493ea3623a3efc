"""Figures of the space in which prototypes live: how alike they are, and where clips lie."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from pcan_jax.labels import LabelTree
from pcan_jax.report import style
from pcan_jax.report.class_figures import separate

MOST_CLIPS = 2000
_FEWEST_FOR_TSNE = 50
_PERPLEXITY = 30.0
_NAMED_CLASSES = 12
_LINE = 0.155  # inches
_LINES_PER_COLUMN = 45


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  """Vectors of length one; a zero vector stays zero."""
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(lengths > 0, lengths, 1)


def similarity_figure(
  prototypes: dict[str, Float[np.ndarray, "k _"]],
  names: Sequence[str],
  parents: Sequence[int] | None = None,
) -> Figure:
  """Cosine similarities of prototypes, a matrix per stream; the diagonal is left out.

  Args:
    prototypes: per stream.
    names: of the classes.
    parents: body parts of actions, by which rows and columns are grouped.
  """
  order = np.argsort(parents, kind="stable") if parents is not None else np.arange(len(names))
  count = len(names)
  cell = 0.3 if count <= 12 else 0.17 if count <= 30 else 0.145
  size = 8.0 if count <= 12 else 7.0 if count <= 30 else 6.0
  side = max(cell * count, 1.6)
  margin = style.label_width(names, size)
  figure = style.new_figure(
    side * len(prototypes) + margin + 1.2, side + margin + 0.8, "compressed"
  )
  axes = figure.subplots(1, len(prototypes), sharey=True, squeeze=False)[0]
  matrices = []
  for vectors in prototypes.values():
    directions = unit(vectors.astype(np.float64))[order]
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, np.nan)
    matrices.append(cosines)
  labels = [style.short(names[index]) for index in order]
  seen = np.concatenate([matrix[~np.isnan(matrix)] for matrix in matrices] + [[0.0]])
  low, high = float(seen.min()), float(max(seen.max(), seen.min() + 0.1))
  for axis, stream, matrix in zip(axes, prototypes, matrices):
    image = axis.imshow(matrix, cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
    axis.set_title(style.BRANCH_NAMES[stream])
    axis.set_xticks(range(count), labels, rotation=90, size=size)
    axis.set_yticks(range(count), labels, size=size)
    axis.tick_params(length=0)
    edges = [] if parents is None else np.flatnonzero(np.diff(np.asarray(parents)[order])) + 0.5
    separate(axis, edges)
  bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2.6 / side), pad=0.02, aspect=16)
  bar.set_label("cosine similarity")
  bar.outline.set_visible(False)
  return figure


def spread_out(
  clips: Float[np.ndarray, "n d"], prototypes: Float[np.ndarray, "k d"]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "k 2"], str]:
  """Directions of embeddings and prototypes on a plane.

  Lengths are taken out, as prototypes act by cosine similarity. t-SNE keeps neighbours together;
  few points are projected on their two principal axes instead.

  Returns:
    Places of the clips and of the prototypes, and the name of the method.
  """
  directions = np.concatenate([unit(clips), unit(prototypes)]).astype(np.float32)
  if len(directions) < _FEWEST_FOR_TSNE:
    method, plane = "PCA", PCA(n_components=2, random_state=0)
  else:
    perplexity = min(_PERPLEXITY, (len(directions) - 1) / 4)
    method = "t-SNE"
    plane = TSNE(
      n_components=2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=0
    )
  # On one thread, for sums to be the same everywhere; few points gain little by more.
  with threadpool_limits(1):
    places = plane.fit_transform(directions)
  return places[: len(clips)], places[len(clips) :], method


def subset(num_clips: int) -> Int[np.ndarray, " _"]:
  """All clips, or as many as a map has room for, drawn with a fixed seed."""
  if num_clips <= MOST_CLIPS:
    return np.arange(num_clips)
  return np.sort(np.random.default_rng(0).choice(num_clips, MOST_CLIPS, replace=False))


def map_figure(
  tree: LabelTree,
  clips: Float[np.ndarray, "n 2"],
  actions: Int[np.ndarray, " n"],
  prototypes: Float[np.ndarray, "k 2"],
) -> Figure:
  """Clips and prototypes on a plane, by body part; prototypes bear the number of their action.

  Args:
    tree: the labels.
    clips: places of the clips.
    actions: their true actions.
    prototypes: places of the prototypes.
  """
  lines = tree.num_actions + tree.num_bodies
  columns = 1 if lines <= _LINES_PER_COLUMN else 2
  height = max(4.6, _LINE * (lines / columns + 1))
  key_width = style.label_width([*tree.actions, *tree.bodies], 8.0) + 0.4
  plot_width = max(height, 5.0)
  figure = style.new_figure(plot_width + columns * key_width, height)
  axis, key = figure.subplots(1, 2, width_ratios=[plot_width, columns * key_width])
  parents = np.asarray(tree.parents)
  for body in range(tree.num_bodies):
    own = parents[actions] == body
    colour, marker = style.body_colour(body), style.body_marker(body)
    axis.scatter(*clips[own].T, s=9, color=colour, marker=marker, alpha=0.45, lw=0)
  for action, (x, y) in enumerate(prototypes):
    axis.text(
      x,
      y,
      style.short(tree.actions[action]) if tree.num_actions <= _NAMED_CLASSES else str(action),
      ha="center",
      va="center",
      size=7.5,
      weight="bold",
      color=style.text_on(style.body_colour(int(parents[action]))),
      bbox={
        "boxstyle": "round,pad=0.22",
        "facecolor": style.body_colour(int(parents[action])),
        "edgecolor": style.BLACK,
        "linewidth": 0.7,
      },
    )
  axis.set_xticks([])
  axis.set_yticks([])
  axis.spines[:].set_visible(False)
  axis.set_aspect("equal", adjustable="datalim")
  _write_key(key, tree, columns, key_width)
  return figure


def _write_key(axis: Axes, tree: LabelTree, columns: int, width: float) -> None:
  """Lists the actions with their numbers below their body parts, in columns of so many inches."""
  lines: list[tuple[int, int | None]] = []  # body part, and action if it is not a heading
  for body in range(tree.num_bodies):
    lines.append((body, None))
    lines += [(body, action) for action, parent in enumerate(tree.parents) if parent == body]
  per_column = -(-len(lines) // columns)
  axis.set_axis_off()
  axis.set_xlim(0, columns * width)
  axis.set_ylim(max(per_column, axis.figure.get_figheight() / _LINE - 1), -0.5)
  for index, (body, action) in enumerate(lines):
    column, line = divmod(index, per_column)
    if action is None:
      colour, marker = style.body_colour(body), style.body_marker(body)
      axis.scatter(column * width + 0.1, line, s=22, color=colour, marker=marker)
      label, font = style.short(tree.bodies[body]), {"size": 8, "weight": "bold"}
    else:
      label, font = f"{action} {style.short(tree.actions[action])}", {"size": 7}
    axis.text(column * width + 0.22, line, label, va="center", **font)

"""Maps of the embedding space: clips and prototypes on a plane."""

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from pcan_jax.labels import LabelTree
from pcan_jax.report import style
from pcan_jax.report.label_places import place_labels
from pcan_jax.report.matrix_figures import unit

MOST_CLIPS = 2000
_FEWEST_FOR_TSNE = 50
_PERPLEXITY = 30.0
_NAMED_CLASSES = 12
_GAP = 0.03  # inches between labels
_LINE = 0.155  # inches
_LINES_PER_COLUMN = 45


def spread_out(
  clips: Float[np.ndarray, "n d"], prototypes: Float[np.ndarray, "k d"]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "k 2"], str]:
  """Projects the directions of embeddings and prototypes onto a plane.

  Vectors are normalised, because prototypes act by cosine similarity. The projection is t-SNE,
  which preserves neighbours, or PCA if there are few points.

  Returns:
    Coordinates of the clips and of the prototypes, and the name of the method.
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
  # One thread, so that sums are the same everywhere; few points gain little from more.
  with threadpool_limits(1):
    points = plane.fit_transform(directions)
  return points[: len(clips)], points[len(clips) :], method


def subset(num_clips: int) -> Int[np.ndarray, " _"]:
  """All clips, or as many as fit on a map, drawn with a fixed seed."""
  if num_clips <= MOST_CLIPS:
    return np.arange(num_clips)
  return np.sort(np.random.default_rng(0).choice(num_clips, MOST_CLIPS, replace=False))


def map_figure(
  tree: LabelTree,
  clips: Float[np.ndarray, "n 2"],
  actions: Int[np.ndarray, " n"],
  prototypes: Float[np.ndarray, "k 2"],
) -> Figure:
  """Clips and prototypes on a plane, by body part; prototypes are labelled with their action.

  Labels that would cover each other are moved, with a line to the point of the prototype.

  Args:
    tree: the labels.
    clips: their coordinates.
    actions: their true actions.
    prototypes: their coordinates.
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
  axis.scatter(*prototypes.T, s=7, color=style.BLACK, lw=0, zorder=3)
  labels = [
    _write_label(axis, tree, action, (float(x), float(y)))
    for action, (x, y) in enumerate(prototypes)
  ]
  axis.set_xticks([])
  axis.set_yticks([])
  axis.spines[:].set_visible(False)
  axis.set_aspect("equal", adjustable="datalim")
  _write_key(key, tree, columns, key_width)
  _move_apart(axis, labels, prototypes)
  return figure


def _write_label(axis: Axes, tree: LabelTree, action: int, point: tuple[float, float]) -> Text:
  """Writes an action, or the number of it, in a box where its prototype is."""
  colour = style.body_colour(tree.parents[action])
  label = axis.text(
    *point,
    style.short(tree.actions[action]) if tree.num_actions <= _NAMED_CLASSES else str(action),
    ha="center",
    va="center",
    size=7.5,
    weight="bold",
    color=style.text_on(colour),
    zorder=5,
    bbox={
      "boxstyle": "round,pad=0.22",
      "facecolor": colour,
      "edgecolor": style.BLACK,
      "linewidth": 0.7,
    },
  )
  label.set_in_layout(False)  # it moves after the layout, and stays within the axis
  return label


def _move_apart(axis: Axes, labels: list[Text], points: Float[np.ndarray, "k 2"]) -> None:
  """Moves labels that overlap, with a line to what they are of."""
  figure = axis.figure
  figure.draw_without_rendering()  # only now there are sizes
  figure.set_layout_engine("none")  # and now they stay
  axis.autoscale(False)
  boxes = [label.get_bbox_patch().get_window_extent() for label in labels]
  gap = _GAP * figure.dpi
  places = place_labels(
    axis.transData.transform(points),
    np.array([box.size for box in boxes]) + gap,
    axis.get_window_extent().get_points(),
  )
  for label, point, (x, y) in zip(labels, points, axis.transData.inverted().transform(places)):
    label.set_position((x, y))
    axis.plot([point[0], x], [point[1], y], color=style.INK, lw=0.7, zorder=4)


def _write_key(axis: Axes, tree: LabelTree, columns: int, width: float) -> None:
  """Lists the numbered actions by body part, in columns of the given width in inches."""
  lines: list[tuple[int, int | None]] = []  # body part, and action if it is not a heading
  for body in range(tree.num_bodies):
    lines.append((body, None))
    lines += [(body, action) for action, parent in enumerate(tree.parents) if parent == body]
  per_column = -(-(len(lines) + columns - 1) // columns)  # with a heading on each
  if columns > 1 and lines[per_column][1] is not None:
    lines.insert(per_column, (lines[per_column][0], None))
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

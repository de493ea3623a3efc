import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pcan_jax.labels import LabelTree
from pcan_jax.report import class_figures, map_figures, matrix_figures, score_figures, style

LONG = "scratching or touching the back of the head"


def make_tree(num_actions, num_bodies):
  return LabelTree(
    tuple(
      f"{LONG} {index}" if index % 5 == 0 else f"action {index}" for index in range(num_actions)
    ),
    tuple(f"body part {index}" for index in range(num_bodies)),
    tuple(index * num_bodies // num_actions for index in range(num_actions)),
  )


def make_figure(kind, num_actions, num_bodies):
  tree = make_tree(num_actions, num_bodies)
  rng = np.random.default_rng(0)
  confusion = rng.integers(0, 9, (num_actions, num_actions)) + 20 * np.eye(num_actions, dtype=int)
  confusion[1] = 0  # an action without clips
  if kind == "accuracy":
    return class_figures.accuracy_figure(tree, confusion, confusion.sum(axis=0), None)
  if kind == "gain":
    gain = rng.uniform(-1, 1, num_actions)
    gain[1] = np.nan
    return class_figures.gain_figure(tree, gain, confusion.sum(axis=1), ("pcan", "posec3d"))
  if kind == "confusion":
    return matrix_figures.confusion_figure(confusion, tree.actions, tree.parents)
  prototypes = {"rgb": rng.normal(size=(num_actions, 16)), "pose": np.zeros((num_actions, 8))}
  return matrix_figures.similarity_figure(prototypes, tree.actions, tree.parents)


@pytest.mark.parametrize("kind", ["accuracy", "gain", "confusion", "similarity"])
@pytest.mark.parametrize("num_actions, num_bodies", [(3, 2), (52, 7)])
def test_labels_can_be_read_whatever_the_tree(kind, num_actions, num_bodies):
  with style.applied():
    figure = make_figure(kind, num_actions, num_bodies)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
  axis = figure.axes[0]
  labels = [label.get_window_extent(renderer) for label in axis.get_yticklabels()]
  assert len(labels) == num_actions
  low, high = axis.get_xlim()
  below = zip(axis.get_xticks(), axis.get_xticklabels())
  below = [label.get_window_extent(renderer) for x, label in below if low <= x <= high]
  for label in [*labels, *below]:
    assert label.x0 >= 0 and label.y0 >= 0
    assert label.x1 <= figure.bbox.width and label.y1 <= figure.bbox.height
  centres = np.sort([(label.y0 + label.y1) / 2 for label in labels])
  points = axis.get_yticklabels()[0].get_fontsize() * figure.dpi / 72
  assert np.diff(centres).min() >= points, "labels overlap"


def test_actions_are_below_their_body_part_with_the_most_frequent_first():
  tree = LabelTree(("a", "b", "c", "d", "e"), ("x", "y"), (0, 1, 0, 1, 1))
  rows = class_figures.arrange(tree, np.array([1.0, 7.0, 3.0, np.nan, 9.0]))
  assert rows.actions.tolist() == [2, 0, 4, 1, 3]
  assert [name for name, _ in rows.headings] == ["x", "y"]
  assert rows.headings[1][1] < rows.y[2] and rows.headings[1][1] > rows.y[1]


def test_all_streams_show_the_same_actions_and_the_true_one_is_among_them():
  tree = LabelTree(tuple("abcdefghijklmnopqrst"), tuple("wxyz"), tuple(i // 5 for i in range(20)))
  rng = np.random.default_rng(0)
  columns = {
    name: {"action": rng.dirichlet(np.ones(20)), "body": rng.dirichlet(np.ones(4))}
    for name in ("both streams", "RGB", "pose")
  }
  true = int(columns["both streams"]["action"].argmin())
  with style.applied():
    figure = score_figures.clip_figure(tree, true, columns, None)
  shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
  assert tree.actions[true] in shown
  for axis, column in zip(figure.axes, columns.values()):
    assert tree.actions[column["action"].argmax()] in shown
    widths = [bar.get_width() for bar in axis.patches]
    np.testing.assert_allclose(
      widths, [column["action"][tree.actions.index(name)] for name in shown]
    )


@pytest.mark.parametrize("num_clips, method", [(6, "PCA"), (90, "t-SNE")])
def test_clips_lie_near_their_prototype_on_the_map(num_clips, method):
  rng = np.random.default_rng(0)
  prototypes = 3 * np.eye(3, 8)
  own = np.arange(num_clips) % 3
  clips = 0.5 * prototypes[own] + 0.02 * rng.normal(size=(num_clips, 8))
  at, of_prototypes, used = map_figures.spread_out(clips, prototypes)
  distances = np.linalg.norm(at[:, None] - of_prototypes, axis=-1)
  assert used == method
  assert (distances.argmin(axis=1) == own).all()
  again, _, _ = map_figures.spread_out(clips, prototypes)
  np.testing.assert_array_equal(at, again)


def test_figures_are_the_same_files_every_time_with_fonts_embedded(tmp_path):
  tree = make_tree(3, 2)
  files = []
  for name in ("one", "two"):
    with style.applied():
      figure = class_figures.gain_figure(
        tree, np.array([0.5, np.nan, -0.25]), np.array([4, 0, 8]), ("$a_b", "c")
      )
      style.save(figure, tmp_path / name)
    files.append([(tmp_path / f"{name}.{kind}").read_bytes() for kind in ("png", "pdf")])
  assert files[0] == files[1]
  assert b"/FontFile2" in files[0][1] and b"/Type3" not in files[0][1]


@pytest.mark.parametrize("num_actions, spread", [(12, 0.1), (52, 0.0), (52, 0.1), (52, 1.0)])
def test_no_label_covers_another_one_on_the_map(num_actions, spread):
  tree = make_tree(num_actions, 7)
  rng = np.random.default_rng(0)
  prototypes = spread * rng.normal(size=(num_actions, 2))
  actions = np.arange(2 * num_actions) % num_actions
  with style.applied():
    figure = map_figures.map_figure(tree, rng.normal(size=(len(actions), 2)), actions, prototypes)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
  axis = figure.axes[0]
  boxes = [label.get_bbox_patch().get_window_extent(renderer) for label in axis.texts]
  assert len(boxes) == num_actions
  for index, box in enumerate(boxes):
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.x1 <= figure.axes[1].bbox.x0 and box.y1 <= figure.bbox.height
    assert not box.count_overlaps(boxes[:index])
  lines = [line.get_xydata() for line in axis.lines]
  np.testing.assert_allclose([line[0] for line in lines], prototypes)
  np.testing.assert_allclose(
    [line[1] for line in lines], [label.get_position() for label in axis.texts]
  )

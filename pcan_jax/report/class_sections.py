"""The sections on single classes."""

import numpy as np
from jaxtyping import Float, Int

from pcan_jax.report import class_figures, matrix_figures, statistics
from pcan_jax.report.page import Picture, Section, Table
from pcan_jax.report.report_data import ReportData

_MOST_CONFUSIONS = 10


def accuracies(data: ReportData) -> Section:
  """Accuracy and support of every action."""
  tree, accuracy, support = data.tree, data.accuracy, data.support
  seen = np.flatnonzero(support)
  worst, best = seen[accuracy[seen].argmin()], seen[accuracy[seen].argmax()]
  paragraphs = [
    f"The accuracy of actions ranges from {100 * accuracy[worst]:.0f} % ({tree.actions[worst]}) to "
    f"{100 * accuracy[best]:.0f} % ({tree.actions[best]}); the mean over actions is "
    f"{100 * accuracy[seen].mean():.1f} %."
  ]
  if len(seen) < tree.num_actions:
    paragraphs.append(f"{tree.num_actions - len(seen)} action(s) have no clips in this split.")
  if data.dataset.train_support is None:
    paragraphs.append(f"Numbers of training clips are missing. {data.dataset.train_note}".strip())
  order = "training" if data.dataset.train_support is not None else "evaluated"
  caption = (
    f"Share of correctly recognised clips per action, with Wilson's 95 % interval; sorted within "
    f"body parts by the number of {order} clips."
  )
  if data.baseline is not None:
    caption += f" Diamonds: {data.names[1]}."
  picture = Picture(
    "class_accuracy",
    class_figures.accuracy_figure(
      tree, data.run.confusions["action"], data.dataset.train_support, data.baseline_accuracy
    ),
    caption,
    f"Bars of the accuracy of {tree.num_actions} actions by body part. {paragraphs[0]} The table "
    "above has the same numbers.",
  )
  return Section(
    "accuracy",
    "Accuracy by action",
    paragraphs,
    [_class_table(data)],
    [picture],
  )


def _class_table(data: ReportData) -> Table:
  tree = data.tree
  rows = class_figures.arrange(
    tree, data.support if data.dataset.train_support is None else data.dataset.train_support
  )
  header = ["action", "id", "body part", "clips evaluated", *_headings(data, "accuracy")]
  if data.dataset.train_support is not None:
    header.insert(3, "clips in training")
  lines = []
  for action in rows.actions:
    line = [tree.actions[action], str(action), tree.bodies[tree.parents[action]]]
    if data.dataset.train_support is not None:
      line.append(str(data.dataset.train_support[action]))
    line.append(str(data.support[action]))
    lines.append(line + _compare(data, np.array([action])))
  return Table("All actions", header, lines, folded=True)


def confusions(data: ReportData) -> Section:
  """Both confusion matrices, and the most frequent confusions."""
  tree = data.tree
  actions, bodies = data.run.confusions["action"], data.run.confusions["body"]
  wrong = actions - np.diag(np.diag(actions))
  pairs = [divmod(int(index), tree.num_actions) for index in np.argsort(-wrong, axis=None)]
  pairs = [(true, predicted) for true, predicted in pairs if wrong[true, predicted]]
  parents = np.asarray(tree.parents)
  within = int(sum(wrong[t, p] for t, p in pairs if parents[t] == parents[p]))
  total = int(wrong.sum())
  paragraphs = [
    f"{total:,} of {actions.sum():,} clips are assigned a wrong action; for "
    f"{within:,} ({100 * within / max(total, 1):.0f} %) of these, its body part is right."
  ]
  table = Table(
    "The most frequent confusions",
    ["true action", "predicted action", "same body part", "clips", "% of the true action's"],
    [
      [
        tree.actions[true],
        tree.actions[predicted],
        "yes" if parents[true] == parents[predicted] else "no",
        str(wrong[true, predicted]),
        f"{100 * wrong[true, predicted] / actions[true].sum():.0f}",
      ]
      for true, predicted in pairs[:_MOST_CONFUSIONS]
    ],
    text_columns=3,
  )
  how = "Rows are true classes and add up to 100 %; the colour scale is stretched at its lower end."
  pictures = [
    Picture(
      "confusion_body",
      matrix_figures.confusion_figure(bodies, tree.bodies),
      f"Body parts, predicted by their own classifier. {how}",
      f"Confusion matrix of {tree.num_bodies} body parts; "
      f"{100 * np.trace(bodies) / bodies.sum():.1f} % of the clips are on its diagonal.",
    ),
    Picture(
      "confusion_action",
      matrix_figures.confusion_figure(actions, tree.actions, tree.parents),
      f"Actions, grouped by body part. {how}",
      f"Confusion matrix of {tree.num_actions} actions; "
      f"{100 * np.trace(actions) / actions.sum():.1f} % of the clips are on its diagonal. The most "
      "frequent confusions are in the table above.",
    ),
  ]
  return Section("confusion", "Confusions", paragraphs, [table] * bool(pairs), pictures)


def difficulty(data: ReportData) -> Section:
  """Difficulty groups by the baseline's accuracy (figure 3)."""
  reference = data.baseline_accuracy
  judge = data.names[1] if reference is not None else "the run itself"
  groups = statistics.difficulty_groups(reference if reference is not None else data.accuracy)
  low, high = (round(100 * x) for x in (statistics.HARD_BELOW, statistics.EASY_ABOVE))
  paragraphs = [
    f"Actions are hard if {judge} recognises less than {low} % of their clips, easy above "
    f"{high} %, and medium otherwise, as in figure 3 of the paper."
  ]
  if reference is None:
    paragraphs.append(
      "Without a baseline (--baseline=WORKDIR), the groups are defined by the run's own accuracy, "
      "so their means differ by construction."
    )
  else:
    paragraphs.append(
      "The groups are defined on the same clips that are compared, as in the paper. A class on "
      "which the baseline happens to do badly counts as hard, so part of that group's gain is "
      "regression to the mean."
    )
  rows = []
  for name, classes in groups.items():
    counts = [str(len(classes)), str(int(data.support[classes].sum()))]
    rows.append([name, *counts, *_compare(data, classes)])
  header = ["group", "actions", "clips", *_headings(data, data.names[0])]
  picture = Picture(
    "difficulty",
    class_figures.difficulty_figure(groups, data.accuracy, reference, data.names),
    "Mean accuracy of the actions of each group.",
    "Bars of the mean accuracy of hard, medium and easy actions; the table above has the numbers.",
  )
  table = Table("Mean accuracy of the actions of each group", header, rows)
  return Section("difficulty", "Hard, medium and easy actions", paragraphs, [table], [picture])


def gains(data: ReportData) -> Section:
  """Gain of every action over the baseline (figure 5)."""
  anchor, title = "gain", "Gain by action"
  if data.baseline_accuracy is None:
    return Section(anchor, title, ["No baseline was given (--baseline=WORKDIR)."])
  gain = data.accuracy - data.baseline_accuracy
  seen = gain[data.support > 0]
  up, down = int((seen > 0).sum()), int((seen < 0).sum())
  sentence = (
    f"Of {len(seen)} actions, {up} improve, {len(seen) - up - down} stay the same and {down} get "
    "worse."
  )
  picture = Picture(
    "class_gain",
    class_figures.gain_figure(data.tree, gain, data.support, data.names),
    f"Accuracy of {data.names[0]} minus that of {data.names[1]}, sorted within body parts; "
    "the number of clips in brackets.",
    f"Bars of the gain of every action. {sentence}",
  )
  few = "Actions with few clips change in large steps; see the number of clips in brackets."
  return Section(anchor, title, [sentence, few], pictures=[picture])


def _headings(data: ReportData, own: str) -> list[str]:
  """Headings of the columns that `_compare` fills."""
  return [f"{own} in %"] + ([] if data.baseline is None else [f"{data.names[1]} in %", "gain"])


def _compare(data: ReportData, actions: Int[np.ndarray, " _"]) -> list[str]:
  """The mean accuracy of actions, the baseline's, and the difference."""
  own = _mean(data.accuracy[actions])
  if data.baseline_accuracy is None:
    return [_percent(own)]
  baseline = _mean(data.baseline_accuracy[actions])
  return [_percent(own), _percent(baseline), _percent(own - baseline, "+.1f")]


def _mean(values: Float[np.ndarray, " _"]) -> float:
  return float(values.mean()) if values.size else float("nan")


def _percent(value: float | np.floating, form: str = ".1f") -> str:
  """A fraction in per cent; a dash if there are no clips."""
  return "-" if np.isnan(value) else f"{100 * value:{form}}"

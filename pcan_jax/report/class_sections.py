"""The sections that look at classes one by one."""

import numpy as np
from jaxtyping import Float

from pcan_jax.report import class_figures, statistics
from pcan_jax.report.material import Material
from pcan_jax.report.page import Picture, Section, Table

_MOST_CONFUSIONS = 10


def accuracies(material: Material) -> Section:
  """Accuracy and support of every action."""
  tree, accuracy, support = material.tree, material.accuracy, material.support
  seen = np.flatnonzero(support)
  worst, best = seen[accuracy[seen].argmin()], seen[accuracy[seen].argmax()]
  paragraphs = [
    f"Accuracy of actions lies between {100 * accuracy[worst]:.0f} % ({tree.actions[worst]}) and "
    f"{100 * accuracy[best]:.0f} % ({tree.actions[best]}); its mean over actions is "
    f"{100 * accuracy[seen].mean():.1f} %."
  ]
  if len(seen) < tree.num_actions:
    paragraphs.append(f"{tree.num_actions - len(seen)} action(s) have no clips in this split.")
  if material.train_support is None:
    paragraphs.append(f"Training clips are not counted. {material.data_note}".strip())
  order = "training" if material.train_support is not None else "evaluated"
  caption = (
    f"Share of each action's clips that were recognised, with Wilson's 95 % interval; within a "
    f"body part by the number of {order} clips."
  )
  if material.baseline is not None:
    caption += f" Diamonds: {material.names[1]}."
  picture = Picture(
    "class_accuracy",
    class_figures.accuracy_figure(
      tree, material.confusions["action"], material.train_support, material.baseline_accuracy
    ),
    caption,
    f"Bars of the accuracy of {tree.num_actions} actions by body part. {paragraphs[0]} The same "
    "figures are in the table above.",
  )
  return Section(
    "accuracy",
    "Accuracy by action",
    paragraphs,
    [_class_table(material)],
    [picture],
  )


def _class_table(material: Material) -> Table:
  tree = material.tree
  rows = class_figures.arrange(
    tree, material.support if material.train_support is None else material.train_support
  )
  header = ["action", "id", "body part", "clips evaluated", "accuracy in %"]
  if material.train_support is not None:
    header.insert(3, "clips in training")
  if material.baseline is not None:
    header += [f"{material.names[1]} in %", "gain"]
  lines = []
  for action in rows.actions:
    line = [tree.actions[action], str(action), tree.bodies[tree.parents[action]]]
    if material.train_support is not None:
      line.append(str(material.train_support[action]))
    line.append(str(material.support[action]))
    accuracy = material.accuracy[action]
    line.append(_percent(accuracy))
    if material.baseline_accuracy is not None:
      baseline = material.baseline_accuracy[action]
      line += [_percent(baseline), _percent(accuracy - baseline, "+.1f")]
    lines.append(line)
  return Table("Every action in numbers", header, lines, folded=True)


def confusions(material: Material) -> Section:
  """Both confusion matrices, and the most frequent confusions."""
  tree = material.tree
  actions, bodies = material.confusions["action"], material.confusions["body"]
  wrong = actions - np.diag(np.diag(actions))
  pairs = [divmod(int(index), tree.num_actions) for index in np.argsort(-wrong, axis=None)]
  pairs = [(true, predicted) for true, predicted in pairs if wrong[true, predicted]]
  parents = np.asarray(tree.parents)
  within = int(sum(wrong[t, p] for t, p in pairs if parents[t] == parents[p]))
  total = int(wrong.sum())
  paragraphs = [
    f"{total:,} of {actions.sum():,} clips get a wrong action; of these, "
    f"{within:,} ({100 * within / max(total, 1):.0f} %) one of the right body part."
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
  how = (
    "Rows are true classes and add up to 100 %; the scale of colours is stretched at its lower end."
  )
  pictures = [
    Picture(
      "confusion_body",
      class_figures.confusion_figure(bodies, tree.bodies),
      f"Body parts, by their own classifier. {how}",
      f"Confusion matrix of {tree.num_bodies} body parts; "
      f"{100 * np.trace(bodies) / bodies.sum():.1f} % of the clips are on its diagonal.",
    ),
    Picture(
      "confusion_action",
      class_figures.confusion_figure(actions, tree.actions, tree.parents),
      f"Actions, grouped by body part. {how}",
      f"Confusion matrix of {tree.num_actions} actions; "
      f"{100 * np.trace(actions) / actions.sum():.1f} % of the clips are on its diagonal. The most "
      "frequent confusions are in the table above.",
    ),
  ]
  return Section("confusion", "Confusions", paragraphs, [table] * bool(pairs), pictures)


def difficulty(material: Material) -> Section:
  """Difficulty groups by the baseline's accuracy (figure 3)."""
  reference = material.baseline_accuracy
  judge = material.names[1] if reference is not None else "the run itself"
  groups = statistics.difficulty_groups(reference if reference is not None else material.accuracy)
  low, high = (round(100 * x) for x in (statistics.HARD_BELOW, statistics.EASY_ABOVE))
  paragraphs = [
    f"Actions are hard if {judge} recognises less than {low} % of their clips, easy above "
    f"{high} %, else medium, as in figure 3 of the paper."
  ]
  if reference is None:
    paragraphs.append(
      "Without a baseline (--baseline=WORKDIR) the run's own accuracy makes the groups, so their "
      "means are high and low by construction."
    )
  else:
    paragraphs.append(
      "The groups are made on the clips that are compared, as in the paper. A class on which "
      "the baseline had bad luck counts as hard, so part of that group's gain is regression to the "
      "mean."
    )
  rows = []
  for name, classes in groups.items():
    line = [name, str(len(classes)), str(int(material.support[classes].sum()))]
    mean = _mean(material.accuracy[classes])
    line.append(_percent(mean))
    if reference is not None:
      before = _mean(reference[classes])
      line += [_percent(before), _percent(mean - before, "+.1f")]
    rows.append(line)
  header = ["group", "actions", "clips", f"{material.names[0]} in %"]
  if reference is not None:
    header += [f"{material.names[1]} in %", "gain"]
  picture = Picture(
    "difficulty",
    class_figures.difficulty_figure(groups, material.accuracy, reference, material.names),
    "Mean of the accuracies of the actions of each group.",
    "Bars of the mean accuracy of hard, medium and easy actions; the table above has the figures.",
  )
  table = Table("Mean accuracy of the actions of each group", header, rows)
  return Section("difficulty", "Hard, medium and easy actions", paragraphs, [table], [picture])


def gains(material: Material) -> Section:
  """Gain of every action over the baseline (figure 5)."""
  anchor, title = "gain", "Gain by action"
  if material.baseline_accuracy is None:
    return Section(anchor, title, ["No baseline was given; --baseline=WORKDIR names one."])
  gain = material.accuracy - material.baseline_accuracy
  seen = gain[material.support > 0]
  up, down = int((seen > 0).sum()), int((seen < 0).sum())
  sentence = (
    f"Of {len(seen)} actions, {up} gain, {len(seen) - up - down} stay and {down} lose accuracy."
  )
  picture = Picture(
    "class_gain",
    class_figures.gain_figure(material.tree, gain, material.support, material.names),
    f"Accuracy of {material.names[0]} minus that of {material.names[1]}, sorted within body parts; "
    "in brackets the number of clips.",
    f"Bars of the gain of every action. {sentence}",
  )
  few = "Actions with few clips move in large steps: look at the number of clips in brackets."
  return Section(anchor, title, [sentence, few], pictures=[picture])


def _mean(values: Float[np.ndarray, " _"]) -> float:
  return float(values.mean()) if values.size else float("nan")


def _percent(value: float | np.floating, form: str = ".1f") -> str:
  """A fraction in per cent; a dash where there are no clips."""
  return "-" if np.isnan(value) else f"{100 * value:{form}}"

"""The sections on training and the trained model: curves, sets, prototypes."""

import numpy as np

from pcan_jax.report import map_figures, matrix_figures, style, training_figures
from pcan_jax.report.page import Picture, Section, Table
from pcan_jax.report.report_data import ReportData

_NO_PROTOTYPES = "This run has no prototypes (config.model.prototypes is false)."
_NO_EVENTS = "There are no TensorBoard events in the working directory."
_OF_MEMBERS = "An ensemble has none of its own; see the reports on its members."
_MOST_ALIKE = 8
_CLASSES_SIDE_BY_SIDE = 30


def ambiguous_sets(data: ReportData) -> Section:
  """Sizes of the ambiguous sets over training."""
  anchor, title = "sets", "Ambiguous sets over training"
  if data.run.ensemble:
    return Section(anchor, title, [_OF_MEMBERS])
  streams = [stream for stream in data.streams if f"{stream}/num_tp" in data.curves]
  if not streams:
    return Section(anchor, title, [_NO_EVENTS])
  batch_size = data.run.spec.config.optimizer.batch_size
  sentences = []
  for stream in streams:
    values = data.curves[f"{stream}/num_tp"].values / batch_size
    sentences.append(
      f"In the {style.BRANCH_NAMES[stream]} stream, the share of confident clips (TP) changes from "
      f"{100 * values[0]:.0f} to {100 * values[-1]:.0f} % of a batch."
    )
  picture = Picture(
    "ambiguous_sets",
    training_figures.sets_figure(data.curves, streams, batch_size),
    "Every panel has its own scale. TP and the three FN sets make up a batch; FP contains the "
    "clips of A1 and A2 again, assigned to the action they were mistaken for.",
    " ".join(["Sizes of the ambiguous sets over training.", *sentences]),
  )
  paragraphs = [
    "Training sorts each batch by the predictions for its augmented clips (PCAN section 3.2). "
    + " ".join(sentences)
  ]
  if not data.prototypes:
    paragraphs.append(f"{_NO_PROTOTYPES} The sets are counted, but have no effect.")
  return Section(anchor, title, paragraphs, pictures=[picture])


def similarities(data: ReportData) -> Section:
  """Cosine similarities of prototypes."""
  anchor, title = "prototypes", "Similarity of prototypes"
  if data.run.ensemble:
    return Section(anchor, title, [_OF_MEMBERS])
  if not data.prototypes:
    return Section(anchor, title, [_NO_PROTOTYPES])
  tree = data.tree
  pictures = []
  sentences = []
  parents = np.asarray(tree.parents)
  siblings = (parents[:, None] == parents) & ~np.eye(len(parents), dtype=bool)
  strangers = parents[:, None] != parents
  alike = []
  for stream in data.streams:
    cosines = matrix_figures.cosines(data.prototypes[stream]["action"])
    means = [
      f"{cosines[pairs].mean():+.2f} {where}"
      for pairs, where in ((siblings, "within a body part"), (strangers, "across body parts"))
      if pairs.any()
    ]
    if means:
      name = style.BRANCH_NAMES[stream]
      sentences.append(f"{name}: the mean cosine of two actions is {' and '.join(means)}.")
    for first, second in zip(*np.triu_indices(len(parents), 1)):
      alike.append((cosines[first, second], stream, first, second))
  alike.sort(key=lambda pair: -pair[0])
  for level, names, groups in (("action", tree.actions, tree.parents), ("body", tree.bodies, None)):
    matrices = {s: data.prototypes[s][level] for s in data.streams}
    together = len(names) <= _CLASSES_SIDE_BY_SIDE
    for figure_streams in [list(matrices)] if together else [[stream] for stream in matrices]:
      suffix = "" if together else f"_{figure_streams[0]}"
      pictures.append(
        Picture(
          f"prototypes_{level}{suffix}",
          matrix_figures.similarity_figure(
            {stream: matrices[stream] for stream in figure_streams}, names, groups
          ),
          f"Cosine similarity of the prototypes of {style.LEVEL_NAMES[level]}"
          + (", grouped by body part" if groups is not None else "")
          + "; without the diagonal, which is always 1.",
          f"Similarity matrix of the prototypes of {len(names)} {style.LEVEL_NAMES[level]}. "
          + " ".join(sentences),
        )
      )
  table = Table(
    "The most similar prototypes of actions",
    ["action", "action", "stream", "cosine"],
    [
      [tree.actions[first], tree.actions[second], style.BRANCH_NAMES[stream], f"{cosine:+.2f}"]
      for cosine, stream, first, second in alike[:_MOST_ALIKE]
    ],
    text_columns=3,
  )
  return Section(
    anchor,
    title,
    [
      "Similar prototypes belong to actions that look similar to the network. "
      + " ".join(sentences)
    ],
    [table] * bool(alike),
    pictures,
  )


def embeddings(data: ReportData) -> Section:
  """Maps of embedded clips with the prototypes."""
  anchor, title = "map", "Map of clips and prototypes"
  if data.run.ensemble:
    return Section(anchor, title, [_OF_MEMBERS])
  if not data.prototypes:
    return Section(anchor, title, [_NO_PROTOTYPES])
  run, tree = data.run, data.tree
  actions = run.labels["action"]
  chosen = map_figures.subset(len(actions))
  pictures, methods = [], set()
  for stream in data.streams:
    clips, prototypes, method = map_figures.spread_out(
      run.results.outputs[stream]["action"]["embedding"][chosen], data.prototypes[stream]["action"]
    )
    methods.add(method)
    name = style.BRANCH_NAMES[stream]
    pictures.append(
      Picture(
        f"map_{stream}",
        map_figures.map_figure(tree, clips, actions[chosen], prototypes),
        f"Stream {name}: action embeddings of {len(chosen):,} clips, and the prototypes in boxes, "
        "with a line from those that made room for others.",
        f"{method} map of the action embeddings of {len(chosen)} clips of the {name} stream with "
        f"{tree.num_actions} prototypes, coloured by body part.",
      )
    )
  paragraph = (
    f"Directions of embeddings, projected onto a plane by {' and '.join(sorted(methods))} with a "
    "fixed seed. Neighbourhoods are meaningful, distances between groups are not."
  )
  if len(chosen) < len(actions):
    paragraph += f" Shown are {len(chosen):,} of {len(actions):,} clips, drawn at random."
  return Section(anchor, title, [paragraph], pictures=pictures)


def training(data: ReportData) -> Section:
  """Losses and accuracies over training."""
  anchor, title = "training", "Training"
  if data.run.ensemble:
    return Section(anchor, title, [_OF_MEMBERS])
  curves = data.curves
  streams = [stream for stream in data.streams if f"{stream}/action_top1" in curves]
  if not streams or "loss" not in curves:
    return Section(anchor, title, [_NO_EVENTS])
  loss = curves["loss"]
  evaluated = any(name.startswith("eval/") for name in curves)
  caption = "Averages over the steps since the previous point; losses are unweighted."
  if evaluated:
    caption += " Circles: evaluation with one sample per clip."
  picture = Picture(
    "training",
    training_figures.training_figure(curves, streams),
    caption,
    f"Losses and accuracies over {loss.steps[-1]:,} steps. The total loss changes from "
    f"{loss.values[0]:.2f} to {loss.values[-1]:.2f}.",
  )
  return Section(anchor, title, pictures=[picture])

"""The sections on overall results, the comparison with the baseline, and single clips."""

from collections.abc import Sequence

from pcan_jax.evaluation.calibration import CALIBRATION_BINS, calibrate
from pcan_jax.evaluation.metrics import measure
from pcan_jax.evaluation.origins import Ensemble
from pcan_jax.evaluation.results import TABLE_COLUMNS
from pcan_jax.report import score_figures, statistics, style, tables
from pcan_jax.report.page import Picture, Section, Table
from pcan_jax.report.report_data import ReportData
from pcan_jax.report.tables import Row

_RESAMPLING = (
  f"{statistics.RESAMPLES:,} resamples of the clips. The real uncertainty is larger, because clips "
  "of the same person are alike and results depend on the training seed."
)


def results(data: ReportData, rows: Sequence[Row]) -> Section:
  """The row of table 1, with confidence intervals."""
  run = data.run
  predictions = [run.predictions[branch] for branch in run.branches]
  drawn = statistics.bootstrap(predictions, run.labels["action"], run.tree)
  intervals = []
  for branch, values in zip(run.branches, drawn):
    cells = []
    for metric in TABLE_COLUMNS:
      low, high = statistics.interval(values[metric])
      cells.append(f"{100 * low:.1f} to {100 * high:.1f}")
    intervals.append([run.name_of(branch), *cells])
  paragraphs = ["The metrics of table 1 of the PCAN paper (arXiv 2412.14719)."]
  if data.yardstick is not None:
    paragraphs.append(
      f"Yardstick, what a simple classifier gets on the same clips, in %: {data.yardstick}."
    )
  if len(data.streams) == 1:
    paragraphs.append("The run has one stream, so there is nothing to fuse.")
  if any(row.source == "paper" for row in rows):
    paragraphs.append(
      "Because the labels are MA-52's, the paper's rows are included. They are for MA-52's test "
      "split; only runs evaluated on it are comparable."
    )
  return Section(
    "results",
    "Results",
    paragraphs,
    [
      Table(
        "Accuracy and F1 in %; also in table.md and table.tex.",
        tables.HEADER,
        [row.cells for row in rows],
        text_columns=2,
      ),
      Table(
        f"95 % bootstrap intervals of the run's metrics in %: {_RESAMPLING}",
        ["streams", *TABLE_COLUMNS.values()],
        intervals,
      ),
      *(_members(run.ensemble) if run.ensemble else ()),
    ],
  )


def _members(ensemble: Ensemble) -> list[Table]:
  """What an ensemble is made of."""
  return [
    Table(
      f"The members of the ensemble, each alone, in %. Weights: {ensemble.weights_from()}.",
      ["member", "weight", *TABLE_COLUMNS.values()],
      tables.member_rows(ensemble),
    ),
    Table(
      "Their checkpoints and data sets, by digest and fingerprint.",
      ["member", "step", "checkpoint", "data set", "fingerprint"],
      tables.member_facts(ensemble),
      text_columns=5,
    ),
  ]


def differences(data: ReportData) -> Section:
  """Differences from the baseline on the same clips."""
  anchor, title = "differences", "Differences from the baseline"
  run, baseline = data.run, data.baseline
  if baseline is None:
    return Section(anchor, title, ["No baseline was given (--baseline=WORKDIR)."])
  # Runs with different streams are compared by their fused predictions.
  branches = run.branches if run.branches == baseline.branches else ("fused",)
  actions = run.labels["action"]
  predictions = [one.predictions[branch] for branch in branches for one in (run, baseline)]
  drawn = statistics.bootstrap(predictions, actions, run.tree)
  metrics, tests = [], []
  found = {name: {} for name in TABLE_COLUMNS.values()}
  for index, branch in enumerate(branches):
    which = f", {style.BRANCH_NAMES[branch]}" if len(branches) > 1 else ""
    ours, theirs = (
      measure(one, actions, run.tree) for one in predictions[2 * index : 2 * index + 2]
    )
    for metric, name in TABLE_COLUMNS.items():
      difference = ours[metric] - theirs[metric]
      low, high = statistics.interval(drawn[2 * index][metric] - drawn[2 * index + 1][metric])
      found[name][branch] = (difference, low, high)
      metrics.append(
        [
          name + which,
          f"{100 * ours[metric]:.2f}",
          f"{100 * theirs[metric]:.2f}",
          f"{100 * difference:+.2f}",
          f"{100 * low:+.2f} to {100 * high:+.2f}",
        ]
      )
    for level in run.labels:
      test = statistics.mcnemar(run.right(level, branch), baseline.right(level, branch))
      p_value = f"{test.p_value:.3f}" if test.p_value >= 0.001 else f"{test.p_value:.1e}"
      tests.append(
        [style.LEVEL_NAMES[level] + which, str(test.only_run), str(test.only_baseline), p_value]
      )
  paragraphs = [_in_words(metrics[0], metrics[1], tests[0])]
  if run.results.num_clips != baseline.results.num_clips:
    paragraphs.append(
      f"The comparison is unfair: scores are averaged over {run.results.num_clips} samples per "
      f"clip for the run, but over {baseline.results.num_clips} for the baseline."
    )
  names = [style.short(name) for name in data.names]
  header = ["", *names, "difference", "95 % interval"]
  count = len(TABLE_COLUMNS)
  tables_of_metrics = [
    Table(
      f"In %, differences in percentage points with paired 95 % bootstrap intervals: {_RESAMPLING}",
      header,
      metrics[:count],
    )
  ]
  if len(branches) > 1:
    tables_of_metrics.append(Table("The same for single streams", header, metrics[count:], True))
  return Section(
    anchor,
    title,
    paragraphs,
    [
      *tables_of_metrics,
      Table(
        "McNemar's exact, two-sided test of top-1 predictions on the same clips.",
        ["", *(f"only {name} right" for name in names), "p"],
        tests,
      ),
    ],
    [
      Picture(
        "differences",
        score_figures.difference_figure(found, data.names),
        "Differences with 95 % intervals; an interval without 0 is evidence against chance.",
        f"Differences of the metrics with intervals. {paragraphs[0]}",
      )
    ],
  )


def _in_words(body: Sequence[str], action: Sequence[str], test: Sequence[str]) -> str:
  return (
    f"Top-1 accuracy changes by {action[3]} points for actions ({action[4]}) and by {body[3]} "
    f"for body parts ({body[4]}). The actions of {test[1]} clips are recognised only by the run, "
    f"of {test[2]} only by the baseline (McNemar, p = {test[3]})."
  )


def ambiguous_clips(data: ReportData) -> Section:
  """Predicted distributions of ambiguous clips with their frames (figure 4)."""
  run, baseline, tree = data.run, data.baseline, data.tree
  pictures = []
  for number, example in enumerate(data.examples, start=1):
    clip = run.results.ids[example.row]
    true = int(run.labels["action"][example.row])
    sources = {run.name_of(branch): (run, branch) for branch in run.branches}
    if baseline is not None:
      sources["baseline"] = (baseline, "fused")
    columns = {
      name: {level: one.probabilities(level, branch)[example.row] for level in run.labels}
      for name, (one, branch) in sources.items()
    }
    scores = next(iter(columns.values()))["action"]
    best = int(scores.argmax())
    pictures.append(
      Picture(
        f"clip_{number}",
        score_figures.clip_figure(tree, true, columns, data.dataset.frames.get(clip)),
        f"{clip}: {tree.actions[true]} ({tree.bodies[tree.parents[true]]}). {example.kind}.",
        f"Probabilities for clip {clip}. True action: {tree.actions[true]}, "
        f"{100 * scores[true]:.0f} %. Predicted: {tree.actions[best]}, "
        f"{100 * scores[best]:.0f} %.",
      )
    )
  paragraphs = [
    "The most ambiguous clips of each kind: those whose two most likely actions differ least in "
    "probability. Bars are probabilities in %; true classes are blue, wrong predictions "
    "vermillion."
  ]
  if data.dataset.frames_note:
    paragraphs.append(f"Frames are missing. {data.dataset.frames_note}")
  return Section("clips", "Ambiguous clips", paragraphs, pictures=pictures)


def calibration(data: ReportData) -> Section:
  """Calibration of the predicted probabilities."""
  run, baseline = data.run, data.baseline
  runs = {data.names[0]: (run, style.RUN)}
  if baseline is not None:
    runs[data.names[1]] = (baseline, style.BASELINE)
  levels = {
    level: {name: calibrate(one.probabilities(level), true) for name, (one, _) in runs.items()}
    for level, true in run.labels.items()
  }
  rows = []
  for branch in run.branches:
    errors = [
      calibrate(run.probabilities(level, branch), true).error for level, true in run.labels.items()
    ]
    rows.append([run.name_of(branch), *(f"{100 * error:.1f}" for error in errors)])
  found = levels["action"][data.names[0]]
  mean_confidence = float(run.probabilities("action").max(axis=1).mean())
  accuracy = float(run.right("action").mean())
  tendency = "over" if mean_confidence > accuracy else "under"
  picture = Picture(
    "calibration",
    score_figures.reliability_figure(levels, {name: colour for name, (_, colour) in runs.items()}),
    f"Top: accuracy of predictions by confidence, in {CALIBRATION_BINS} bins of equal "
    "width; the area of a dot grows with its number of clips, and the dashed line is perfect "
    "calibration. Bottom: histogram of confidence.",
    f"Reliability diagrams. Expected calibration error of actions {100 * found.error:.1f} %; mean "
    f"confidence {100 * mean_confidence:.1f} %, accuracy {100 * accuracy:.1f} %.",
  )
  return Section(
    "calibration",
    "Calibration",
    [
      f"Actions are predicted with a mean confidence of {100 * mean_confidence:.1f} %, and "
      f"{100 * accuracy:.1f} % are right; overall, the run is {tendency}confident."
    ],
    [
      Table(
        "Expected calibration error in percentage points (Guo et al., ICML 2017).",
        ["streams", "actions", "body parts"],
        rows,
      )
    ],
    [picture],
  )

"""The content of the page: title, facts and sections in order."""

import json
from collections.abc import Sequence

from pcan_jax.report import class_sections, model_sections, result_sections
from pcan_jax.report.evaluated_run import EvaluatedRun
from pcan_jax.report.page import Section
from pcan_jax.report.report_data import ReportData
from pcan_jax.report.tables import Row


def title(data: ReportData) -> str:
  """The title of the page."""
  run, baseline = data.names
  return f"Report on {run}" + (f", compared with {baseline}" if baseline else "")


def facts(data: ReportData) -> dict[str, str]:
  """Facts about the run, by name."""
  run = data.run
  found = {
    "Evaluated": f"{len(run.results.ids):,} clips of the split {run.split!r}, {_samples(run)}",
    "Data set": str(run.spec.config.data.path),
    "Labels": f"{run.tree.num_actions} actions of {run.tree.num_bodies} body parts",
    "Network": _network(data),
    "Checkpoint": _checkpoint(run),
  }
  if run.ensemble:
    members = run.ensemble.members
    found["Data set"] = ", ".join(dict.fromkeys(member.data_path for member in members))
    found["Weights"] = run.ensemble.weights_from()
  if data.baseline is not None:
    found["Baseline"] = f"{_checkpoint(data.baseline)}, {_samples(data.baseline)}"
  return found


def _network(data: ReportData) -> str:
  """What predicts."""
  if data.run.ensemble:
    return f"an ensemble of {len(data.run.ensemble.members)} checkpoints, see the results"
  config = data.run.spec.config
  prototypes = "with prototypes" if config.model.prototypes else "without prototypes"
  fusion = f", joined by {config.model.fusion} fusion" if len(data.streams) > 1 else ""
  return f"{data.run.spec.method}, {prototypes}; {' and '.join(data.streams)}{fusion}"


def _checkpoint(run: EvaluatedRun) -> str:
  """Where it comes from."""
  if run.ensemble is None:
    return f"{run.workdir}, step {run.step:,}"
  shown = (f"{member.weight:.3f} x {member.name}" for member in run.ensemble.members)
  return f"{run.workdir}: {' + '.join(shown)}"


def _samples(run: EvaluatedRun) -> str:
  """How the scores of a run were computed."""
  samples = run.results.num_clips
  return f"scores averaged over {samples} samples per clip" if samples > 1 else "sampled once each"


def sections(data: ReportData, rows: Sequence[Row]) -> list[Section]:
  """All sections; a section without content says why."""
  return [
    result_sections.results(data, rows),
    result_sections.differences(data),
    class_sections.accuracies(data),
    class_sections.confusions(data),
    class_sections.difficulty(data),
    class_sections.gains(data),
    result_sections.ambiguous_clips(data),
    model_sections.ambiguous_sets(data),
    model_sections.similarities(data),
    model_sections.embeddings(data),
    result_sections.calibration(data),
    model_sections.training(data),
    _config(data.run),
  ]


def _config(run: EvaluatedRun) -> Section:
  """The settings of the run."""
  if run.ensemble:
    text = (
      "The members of the ensemble with their complete configs, as stored in their checkpoints."
    )
    content = run.ensemble.to_json()
  else:
    text = "The complete config of the run, as stored in its checkpoint."
    content = run.spec.to_json()["config"]
  return Section("config", "Configuration", [text], code=json.dumps(content, indent=2))

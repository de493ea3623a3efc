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
  run, config = data.run, data.run.spec.config
  streams = " and ".join(data.streams)
  model = "PCAN, with prototypes" if config.model.prototypes else "PoseConv3D, without prototypes"
  found = {
    "Evaluated": f"{len(run.results.ids):,} clips of the split {run.split!r}, {_samples(run)}",
    "Data set": str(config.data.path),
    "Labels": f"{run.tree.num_actions} actions of {run.tree.num_bodies} body parts",
    "Network": f"{model}; {streams}"
    + (f", joined by {config.model.fusion} fusion" if len(data.streams) > 1 else ""),
    "Checkpoint": f"{run.workdir}, step {run.step:,}",
  }
  if data.baseline is not None:
    other = data.baseline
    found["Baseline"] = f"{other.workdir}, step {other.step:,}, {_samples(other)}"
  return found


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
    Section(
      "config",
      "Configuration",
      ["The complete config of the run, as stored in its checkpoint."],
      code=json.dumps(data.run.spec.to_json()["config"], indent=2),
    ),
  ]

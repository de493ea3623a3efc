"""What the page says of a run: its sections in their order."""

import json
from collections.abc import Sequence

from pcan_jax.report import class_sections, model_sections, result_sections
from pcan_jax.report.material import Material
from pcan_jax.report.page import Section
from pcan_jax.report.run import Run
from pcan_jax.report.tables import Row


def title(material: Material) -> str:
  """The title of the page."""
  run, baseline = material.names
  return f"Report on {run}" + (f", compared with {baseline}" if baseline else "")


def facts(material: Material) -> dict[str, str]:
  """What the page is about, by name."""
  run, config = material.run, material.run.description.config
  streams = " and ".join(material.streams)
  model = "PCAN, with prototypes" if config.model.prototypes else "PoseConv3D, without prototypes"
  found = {
    "Evaluated": f"{len(run.results.ids):,} clips of the split {run.split!r}, {_samples(run)}",
    "Data set": str(config.data.path),
    "Labels": f"{run.tree.num_actions} actions of {run.tree.num_bodies} body parts",
    "Network": f"{model}; {streams}"
    + (f", joined by {config.model.fusion} fusion" if len(material.streams) > 1 else ""),
    "Checkpoint": f"{run.workdir}, step {run.step:,}",
  }
  if material.baseline is not None:
    other = material.baseline
    found["Baseline"] = f"{other.workdir}, step {other.step:,}, {_samples(other)}"
  return found


def _samples(run: Run) -> str:
  """How its scores came about."""
  samples = run.results.num_clips
  return f"scores averaged over {samples} samples of each" if samples > 1 else "sampled once each"


def sections(material: Material, rows: Sequence[Row]) -> list[Section]:
  """All sections; one that a run has nothing for says why."""
  return [
    result_sections.results(material, rows),
    result_sections.differences(material),
    class_sections.accuracies(material),
    class_sections.confusions(material),
    class_sections.difficulty(material),
    class_sections.gains(material),
    result_sections.ambiguous_clips(material),
    model_sections.ambiguous_sets(material),
    model_sections.similarities(material),
    model_sections.embeddings(material),
    result_sections.calibration(material),
    model_sections.training(material),
    Section(
      "config",
      "Configuration",
      ["The complete config of the run, as its checkpoint holds it."],
      code=json.dumps(material.run.description.to_json()["config"], indent=2),
    ),
  ]

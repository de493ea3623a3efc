"""Writes the report about a run: one HTML page, figures as PNG and PDF, the table for a paper."""

import logging
import os
import pathlib

import numpy as np

from pcan_jax.feed import input_pipeline
from pcan_jax.feed.input_pipeline import Dataset
from pcan_jax.feed.shard_labels import read_actions
from pcan_jax.report import examples, page, sections, style, tables
from pcan_jax.report.material import Material
from pcan_jax.report.run import Run, align, read_curves, read_prototypes, read_run

_log = logging.getLogger(__name__)


def write_report(
  workdir: str | os.PathLike[str],
  *,
  baseline: str | os.PathLike[str] | None = None,
  split: str | None = None,
  data_path: str | os.PathLike[str] | None = None,
  output: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
  """Writes the report about an evaluated run.

  Args:
    workdir: of the run, with a checkpoint and the results of `--mode=eval`.
    baseline: working directory of a run evaluated on the same clips, to compare with.
    split: the evaluated split; by default the config's `data.eval_split`.
    data_path: data set to take frames and training counts from; by default the config's
      `data.path`. The report does without, and says so, if there is none.
    output: where to write; by default `WORKDIR/report`.

  Returns:
    The page: `index.html`, with `table.md`, `table.tex` and `figures/` beside it.

  Raises:
    FileNotFoundError: a run has no checkpoint, or has not been evaluated on the split.
    ValueError: the split has no labels, or the baseline was evaluated on other clips, on other
      labels or with another label tree.
  """
  run = read_run(workdir, split)
  compared = align(read_run(baseline, run.split), run) if baseline is not None else None
  chosen = examples.choose_examples(run, compared)
  material = Material(
    run=run,
    baseline=compared,
    prototypes=read_prototypes(run),
    curves=read_curves(run.workdir),
    examples=chosen,
    **_from_dataset(run, chosen, data_path),
  )
  folder = pathlib.Path(output) if output is not None else run.workdir / "report"
  folder.mkdir(parents=True, exist_ok=True)
  rows = tables.table_rows(run, compared)
  (folder / "table.md").write_text(tables.markdown(rows), encoding="utf-8")
  (folder / "table.tex").write_text(tables.latex(rows), encoding="utf-8")
  with style.applied():
    page.write_page(
      folder / "index.html",
      title=sections.title(material),
      facts=sections.facts(material),
      sections=sections.sections(material, rows),
      figures=folder / "figures",
    )
  _log.info("%s: report in %s", run.workdir, folder)
  return folder / "index.html"


def _from_dataset(
  run: Run, chosen: list[examples.Example], data_path: str | os.PathLike[str] | None
) -> dict[str, object]:
  """The parts of `Material` that come from the data set."""
  config = run.description.config.data
  path = data_path if data_path is not None else config.path
  try:
    dataset = input_pipeline.open_dataset(path)
  except FileNotFoundError:
    if data_path is not None:
      raise
    return _without_frames(f"There is no data set at {path}; --data names another place.")
  if dataset.tree != run.tree:
    return _without_frames(f"The data set at {path} has another label tree.")
  if run.split not in dataset.builder.info.splits:
    return _without_frames(f"The data set at {path} has no split {run.split!r}.")
  ids = [run.results.ids[example.row] for example in chosen]
  frames = examples.read_frames(dataset, run.split, ids)
  missing = [clip for clip in ids if clip not in frames]
  note = f"The data set at {path} lacks {', '.join(missing)}." if missing else ""
  return {
    "train_support": _count_training_clips(dataset, config.train_split, run.tree.num_actions),
    "frames": frames,
    "data_note": note,
  }


def _without_frames(note: str) -> dict[str, object]:
  return {"train_support": None, "frames": {}, "data_note": note}


def _count_training_clips(dataset: Dataset, split: str, num_actions: int) -> np.ndarray | None:
  if split not in dataset.builder.info.splits:
    return None
  info = dataset.builder.info.splits[split]
  actions = read_actions(info.filepaths, info.shard_lengths)
  return np.bincount(actions[actions >= 0], minlength=num_actions)

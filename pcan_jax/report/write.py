"""Writes the report about a run: an HTML page, figures as PNG and PDF, a table for a paper."""

import logging
import os
import pathlib

from pcan_jax.report import page, sections, style, tables
from pcan_jax.report.report_data import read_report_data
from pcan_jax.writing import require_writable

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
    data_path: data set with frames and training counts; by default the config's `data.path`. If the
      latter does not exist, the report omits them and says so.
    output: where to write; by default `WORKDIR/report`.

  Returns:
    The page: `index.html`, next to `table.md`, `table.tex` and `figures/`.

  Raises:
    FileNotFoundError: a run has no checkpoint, or has not been evaluated on the split, or there is
      no data set at `data_path`.
    ValueError: the split has no labels, the results are of another data set, or the baseline was
      evaluated with other clips, labels or another label tree.
    OSError: the page cannot be written.
  """
  data = read_report_data(workdir, baseline=baseline, split=split, data_path=data_path)
  folder = pathlib.Path(output) if output is not None else data.run.workdir / "report"
  require_writable(folder)
  rows = tables.table_rows(data.run, data.baseline)
  (folder / "table.md").write_text(tables.markdown(rows), encoding="utf-8")
  (folder / "table.tex").write_text(tables.latex(rows), encoding="utf-8")
  with style.applied():
    page.write_page(
      folder / "index.html",
      title=sections.title(data),
      facts=sections.facts(data),
      sections=sections.sections(data, rows),
      figures=folder / "figures",
    )
  _log.info("%s: report in %s", data.run.workdir, folder)
  return folder / "index.html"

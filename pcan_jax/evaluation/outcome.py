"""Writes the results of an evaluation with what follows from them, and prints them."""

import logging
import pathlib
from collections.abc import Sequence

import jax

from pcan_jax.evaluation.calibration import Temperature, fit_temperature
from pcan_jax.evaluation.origins import Ensemble
from pcan_jax.evaluation.results import Results
from pcan_jax.evaluation.runs import Run, deviations, is_last
from pcan_jax.evaluation.submission import write_submission

_log = logging.getLogger(__name__)


def keep(
  results: Results,
  runs: Sequence[Run],
  folder: pathlib.Path,
  output: pathlib.Path,
  *,
  split: str,
) -> None:
  """Writes results, their temperature or, without labels, a submission; prints the table.

  Args:
    results: of one checkpoint or an ensemble.
    runs: what they are of.
    folder: where they go.
    output: the working directory; if it is that of the one checkpoint and that was evaluated as it
      is meant to be, predictions use the temperature.
    split: that was evaluated.
  """
  origin, first = results.origin, runs[0]
  assert origin is not None
  temperature = fit_temperature(
    results.outputs["fused"]["action"]["probabilities"],
    results.actions,
    split=split,
    checkpoint=origin.checkpoint,
    step=origin.step,
  )
  if jax.process_index() == 0:
    results.write(folder, first.spec.tree)
    if temperature:
      temperature.write(folder)
      # For predictions: not where others may not write.
      own = len(runs) == 1 and first.saved.folder.resolve() == output.resolve()
      if own and _is_usual(first, split, results.num_clips):
        temperature.write(output)
    if not results.metrics:
      write_submission(results, first.spec.tree, folder)
  _log.info(
    "%s: %d videos of split %r, %d clip(s) per video%s%s, in %%\n\n%s\n\n%s%swritten to %s",
    f"{first.path}, step {origin.step}" if len(runs) == 1 else f"ensemble of {len(runs)}",
    len(results.ids),
    split,
    results.num_clips,
    ", mirrored ones too" if first.spec.config.eval.flip else "",
    "" if first.rectify else ", not rectified",
    results.table(),
    _listing(origin) if isinstance(origin, Ensemble) else "",
    _said(temperature),
    folder,
  )
  for run in runs:
    seen = run.trained_on(split)
    if seen:
      _log.warning(
        "%s was trained on %d of these videos (data.train_split=%r): the figures say nothing about "
        "others",
        run.path,
        seen,
        run.spec.config.data.train_split,
      )


def _is_usual(run: Run, split: str, num_clips: int) -> bool:
  """Whether the last step was evaluated as it is meant to be, on clips that it has not seen."""
  return (
    is_last(run.saved)
    and split == run.saved.spec.config.data.eval_split
    and not deviations([run], num_clips)
    and not run.moved
    and not run.trained_on(split)
  )


def _listing(ensemble: Ensemble) -> str:
  """The members of an ensemble, a line each, and where the weights come from."""
  lines = [f"weights: {ensemble.weights_from()}"]
  lines += [
    f"  {member.weight:.3f}  {member.name}: step {member.origin.step}, checkpoint "
    f"{member.origin.checkpoint}, data set {member.data_path} ({member.origin.dataset})"
    for member in ensemble.members
  ]
  return "\n".join(lines) + "\n\n"


def _said(temperature: Temperature | None) -> str:
  """A line about a temperature, or nothing."""
  if temperature is None:
    return ""
  nll, ece = (
    f"{before:.3f} -> {after:.3f}"
    for before, after in (
      (temperature.nll_before, temperature.nll_after),
      (temperature.ece_before, temperature.ece_after),
    )
  )
  return (
    f"temperature {temperature.temperature:.3f}: NLL of actions {nll}, expected "
    f"calibration error {ece}\n\n"
  )

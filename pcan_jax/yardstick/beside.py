"""The yardstick beside an evaluation: measured once, kept with the results."""

import dataclasses
import json
import logging
import os
import pathlib
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from pcan_jax.checkpoints import locate
from pcan_jax.evaluation.protocol import open_evaluated
from pcan_jax.evaluation.results import Results
from pcan_jax.extras import needed_by
from pcan_jax.feed.dataset import Dataset
from pcan_jax.saved_steps import SavedStep
from pcan_jax.writing import replace_file

if TYPE_CHECKING:
  from pcan_jax.yardstick.measured import Yardstick

MAX_CLIPS = 3000
"""Most training clips of data sets that are measured beside an evaluation; it takes a minute."""

VERSION = 2
"""Increases with every change of what is measured."""

_log = logging.getLogger(__name__)


def print_beside(
  results: Results,
  checkpoint: str | os.PathLike[str],
  workdir: pathlib.Path,
  *,
  split: str | None = None,
  data_path: str | None = None,
) -> None:
  """Prints, below the table of an evaluation, what a simple classifier gets on the same clips.

  Nothing is printed for splits without labels, for the training clips themselves, and where these
  are more than `MAX_CLIPS`.

  Args:
    results: of the evaluation.
    checkpoint: that was evaluated, as for `checkpoints.locate`.
    workdir: where the results are; the yardstick is kept in its folder `eval`.
    split, data_path: as for `evaluate_checkpoint`.
  """
  if not results.metrics:
    return
  config = SavedStep(*locate(checkpoint)).spec.config.data
  dataset = open_evaluated(config, data_path)
  split, train = split or config.eval_split, config.train_split
  if not dataset.has_split(train) or dataset.num_clips(train) > MAX_CLIPS:
    return
  if dataset.shared_clips(train, split):
    return
  try:
    found = _kept_or_measured(dataset, config, split, workdir)
  except (ModuleNotFoundError, ValueError) as error:
    _log.info("no yardstick: %s", error)
    return
  _log.info("yardstick, in %%: %s", found)
  if results.metrics["fused"]["action_top1"] < found.metrics["action_top1"]:
    _log.warning(
      "the model gets less than this simple classifier; docs/SMALL_DATA.md says what helps"
    )


def read_kept(
  workdir: pathlib.Path, split: str, fingerprint: str, config: ConfigDict
) -> dict[str, Any] | None:
  """What was measured beside an evaluation, as `Yardstick` holds it; None if nothing was.

  Args:
    workdir: of the evaluation.
    split: that was evaluated.
    fingerprint: of the data set.
    config: the part `data` of the run's config, which says what it was trained on.
  """
  try:
    kept = json.loads(_path(workdir, split).read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return None
  fits = all(kept.get(name) == value for name, value in _about(fingerprint, config).items())
  return kept["yardstick"] if fits else None


def _about(fingerprint: str, config: ConfigDict) -> dict[str, Any]:
  """What is measured is of."""
  return {
    "version": VERSION,
    "dataset": fingerprint,
    "train_split": config.train_split,
    "held_out": list(config.held_out),
    "label_share": config.label_share,
  }


def require_scikit_learn() -> None:
  """Says how to install what the yardstick needs, if it is missing.

  Raises:
    ModuleNotFoundError: it is.
  """
  with needed_by("it needs", "report"):
    import sklearn  # noqa: F401


def _kept_or_measured(
  dataset: Dataset, config: ConfigDict, split: str, workdir: pathlib.Path
) -> "Yardstick":
  require_scikit_learn()
  from pcan_jax.yardstick.measured import Yardstick, measure_yardstick

  kept = read_kept(workdir, split, dataset.fingerprint, config)
  if kept is not None:
    return Yardstick(**kept)
  found = measure_yardstick(dataset, config.train_split, split, config.label_share)
  content = _about(dataset.fingerprint, config) | {"yardstick": dataclasses.asdict(found)}
  replace_file(_path(workdir, split), json.dumps(content, indent=2) + "\n")
  return found


def _path(workdir: pathlib.Path, split: str) -> pathlib.Path:
  return workdir / "eval" / f"yardstick-{split}.json"

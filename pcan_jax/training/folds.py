"""Cross-validation by person: a run per fold, each evaluated on people that it has not seen.

Every run is an ordinary one in `WORKDIR/fold-N`, which goes on where it ended, with the people of
its fold in `config.data.held_out`. The sum is over people: they are what is drawn at random.
"""

import json
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict
from scipy import stats

from pcan_jax.evaluation.metrics import Predictions, measure
from pcan_jax.evaluation.results import Results
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.feed.person_folds import person_folds
from pcan_jax.labels import LabelTree
from pcan_jax.text_tables import aligned
from pcan_jax.writing import replace_file

MAX_FOLDS = 10
"""With more people, several share a fold."""

SUMMARY = "folds.json"

_METRICS = {
  "action_top1": "action top-1",
  "body_top1": "body top-1",
  "f1_action_macro": "F1 action macro",
  "f1_mean": "F1 mean",
}
_COVERAGE = 0.95

_log = logging.getLogger(__name__)

RunFold = Callable[[ConfigDict, pathlib.Path], Results]


def cross_validate(config: ConfigDict, workdir: pathlib.Path, run: RunFold) -> str:
  """Trains and evaluates every fold, and sums up.

  Writes `folds.json` to `workdir`, with the metrics of every person.

  Args:
    config: of the runs; all labelled clips of its data set are used.
    workdir: of all folds.
    run: trains a config in a working directory, or goes on, and evaluates it.

  Returns:
    A table for people.

  Raises:
    FileNotFoundError: there is no data set.
    ValueError: it does not say who is in its clips, or shows one person only; or the config holds
      people out already.
  """
  if config.data.held_out:
    raise ValueError("--folds chooses who is held out; leave config.data.held_out empty")
  dataset = open_dataset(config.data.path, config.data.instructions)
  person_of = {
    clip: person
    for split in dataset.labelled_splits
    for clip, person in zip(dataset.clip_ids(split), dataset.persons(split))
  }
  folds = person_folds(list(person_of.values()), MAX_FOLDS)
  of_person: dict[str, dict[str, float]] = {}
  for number, people in enumerate(folds, start=1):
    _log.info("\nfold %d of %d, held out: %s", number, len(folds), ", ".join(people))
    results = run(_config(config, people), workdir / f"fold-{number}")
    of_person |= _by_person(results, person_of, dataset.tree)
  means = {name: summarise([values[name] for values in of_person.values()]) for name in _METRICS}
  summary = {
    "dataset": dataset.fingerprint,
    "folds": folds,
    "people": of_person,
    "mean": {name: dict(zip(("mean", "low", "high"), found)) for name, found in means.items()},
  }
  workdir.mkdir(parents=True, exist_ok=True)
  replace_file(workdir / SUMMARY, json.dumps(summary, indent=2) + "\n")
  return _table(of_person, means)


def summarise(values: Sequence[float]) -> tuple[float, float, float]:
  """The mean over people and its 95 % interval, by Student's t; NaN for the interval of one."""
  mean, count = float(np.mean(values)), len(values)
  if count < 2:
    return mean, float("nan"), float("nan")
  half = float(stats.t.ppf((1 + _COVERAGE) / 2, count - 1) * np.std(values, ddof=1) / count**0.5)
  return mean, mean - half, mean + half


def _config(config: ConfigDict, people: Sequence[str]) -> ConfigDict:
  config = config.copy_and_resolve_references()
  config.data.held_out = tuple(people)
  config.data.train_split, config.data.eval_split = "train", "val"
  return config


def _by_person(
  results: Results, person_of: Mapping[str, str], tree: LabelTree
) -> dict[str, dict[str, float]]:
  """The metrics of each person in some results."""

  def scores(level: str) -> Float[np.ndarray, "n _"]:
    return results.outputs["fused"][level]["probabilities"]

  found = Predictions.of_scores(scores("action"), scores("body"), results.actions, tree)
  shown = np.array([person_of[clip] for clip in results.ids])
  return {
    str(person): measure(found, results.actions, tree, np.flatnonzero(shown == person))
    for person in np.unique(shown)
  }


def _table(
  of_person: Mapping[str, Mapping[str, float]], means: Mapping[str, tuple[float, float, float]]
) -> str:
  rows = [["held out", *_METRICS.values()]]
  rows += [
    [person, *(f"{100 * values[name]:.2f}" for name in _METRICS)]
    for person, values in sorted(of_person.items())
  ]
  rows.append(["mean", *(f"{100 * means[name][0]:.2f}" for name in _METRICS)])
  intervals = ([100 * edge for edge in means[name][1:]] for name in _METRICS)
  rows.append(["95 % interval", *(f"{low:.1f} to {high:.1f}" for low, high in intervals)])
  return aligned(rows)

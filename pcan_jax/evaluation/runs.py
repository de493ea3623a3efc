"""Checkpoints to evaluate, each with its data set, and whether several fit together."""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pcan_jax.checkpoints import BEST
from pcan_jax.evaluation.origins import Origin
from pcan_jax.evaluation.results import Results
from pcan_jax.feed.dataset import Dataset
from pcan_jax.labels import LabelTree
from pcan_jax.saved_steps import SavedStep, find_steps
from pcan_jax.spec import ModelSpec

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
  """A checkpoint and what it is evaluated on.

  Attributes:
    path: of the checkpoint, as it was given.
    saved: the checkpoint.
    spec: of its model, with the config's `eval.flip` as it is evaluated.
    dataset: the data set.
    moved: whether that is another one than it was trained on; where the checkpoint does not record
      that, as in earlier versions, than the config's.
    branch: of the outputs that is meant.
    rectify: whether the prototypes correct the predictions.
  """

  path: str
  saved: SavedStep
  spec: ModelSpec
  dataset: Dataset
  moved: bool
  branch: str
  rectify: bool

  @functools.cached_property
  def origin(self) -> Origin:
    """What results of it are of."""
    return Origin(
      self.saved.step,
      self.saved.digest,
      self.dataset.fingerprint,
      rectified=self.rectify,
      mirrored=self.spec.config.eval.flip,
    )

  def trained_on(self, split: str) -> int:
    """How many clips of a split of its data set it was trained on."""
    train_split = self.spec.config.data.train_split
    if self.moved or not self.dataset.has_split(train_split):
      return 0
    return self.dataset.shared_clips(train_split, split)

  def find(self, folders: Sequence[pathlib.Path], split: str, num_clips: int) -> Results | None:
    """Reads its results on a split from the first folder that holds them; None if none does."""
    for folder in folders:
      try:
        found = Results.read(folder)
      except (FileNotFoundError, ValueError):
        continue
      same = (found.origin, found.num_clips) == (self.origin, num_clips)
      if same and sorted(found.ids) == sorted(self.dataset.clip_ids(split)):
        _log.info("%s: results read from %s", self.path, folder)
        return found
    return None


def which_checkpoint(saved: SavedStep, path: str | os.PathLike[str]) -> str:
  """Which of the checkpoints of its run one is, for the name of a folder: `best` or `step-N`.

  Args:
    saved: the checkpoint.
    path: by which it was found.

  Returns:
    The name; empty for the last one.
  """
  if pathlib.Path(path).name == BEST:
    return BEST
  return "" if is_last(saved) else f"step-{saved.step}"


def is_last(saved: SavedStep) -> bool:
  """Whether there is no later checkpoint of the same run."""
  return saved.step == find_steps(saved.directory)[0].step


def deviations(runs: Sequence[Run], num_clips: int) -> list[str]:
  """How an evaluation differs from what the configs of the checkpoints say, for names of folders.

  Args:
    runs: what is evaluated.
    num_clips: clips of a video.
  """
  usual = [run.saved.spec.config.eval for run in runs]
  found = []
  if num_clips != usual[0].num_clips and len({config.num_clips for config in usual}) == 1:
    found.append(f"{num_clips}clip")
  if not all(run.rectify for run in runs):
    found.append("norectify")
  flip = runs[0].spec.config.eval.flip
  if any(run.spec.config.eval.flip != config.flip for run, config in zip(runs, usual)):
    found.append("flip" if flip else "noflip")
  return found


def one_each(given: Sequence[Any], count: int, flag: str) -> Sequence[Any]:
  """A value per checkpoint, of which there may be one for all."""
  if len(given) not in (1, count):
    raise ValueError(
      f"--{flag} names {len(given)} for {count} checkpoint(s): name one, or one each"
    )
  return [*given] * (count // len(given))


def shared(values: Mapping[str, Any], flag: str) -> Any:
  """The setting that all checkpoints share."""
  if len({*values.values()}) > 1:
    listing = ", ".join(f"{path}: {value}" for path, value in values.items())
    raise ValueError(f"the configs of the checkpoints differ ({listing}): choose with --{flag}")
  return next(iter(values.values()))


def require_choosable(
  runs: Sequence[Run], weights: Sequence[float] | None, fit_split: str | None, split: str
) -> None:
  """Refuses flags about weights or branches that contradict each other, or mean nothing.

  Raises:
    ValueError: they do, or the weights would be chosen on the evaluated split, or on one without
      labels.
  """
  if len(runs) == 1 and (fit_split or runs[0].branch != "fused"):
    raise ValueError("--fit_weights and --branches mean nothing with one checkpoint")
  if fit_split and weights is not None:
    raise ValueError("--weights and --fit_weights contradict each other: leave out one")
  if fit_split == split:
    raise ValueError(
      f"--fit_weights={split} is the split that is evaluated: weights chosen on it make its "
      "figures too good. Name another one"
    )
  if fit_split and (runs[0].dataset.actions(fit_split) < 0).any():
    raise ValueError(
      f"the clips of {fit_split!r} have no labels to choose weights by; name another split with "
      "--fit_weights"
    )
  trained = [run.path for run in runs if fit_split and run.trained_on(fit_split)]
  if trained:
    _log.warning(
      "trained on %r: %s. Weights chosen there favour what remembers its clips best",
      fit_split,
      ", ".join(trained),
    )


def require_alike(runs: Sequence[Run], output: pathlib.Path, splits: Sequence[str]) -> None:
  """Refuses checkpoints that cannot be averaged, before anything is computed.

  Args:
    runs: two or more.
    output: where the results would go.
    splits: in which the data sets must have the same clips, with the same labels.

  Raises:
    ValueError: a label tree, clip or label differs, a data set lacks a split, a checkpoint is
      there twice, or `output` belongs to a run; the message names it.
  """
  own = {run.saved.folder.resolve() for run in runs}
  if (output / "checkpoints").is_dir() or output.resolve() in own:
    raise ValueError(
      f"{output} is the working directory of a run, whose own results would be replaced; give the "
      "ensemble another --workdir"
    )
  seen: dict[tuple[Origin, str], str] = {}
  for run in runs:
    key = (run.origin, run.branch)
    if key in seen:
      raise ValueError(
        f"{seen[key]} and {run.path} are the same checkpoint, {run.origin.checkpoint}, with the "
        "same data set: leave out one, or name different --branches"
      )
    seen[key] = run.path
    _require_same_labels(runs[0], run)
    for split in splits:
      _require_same_clips(runs[0], run, split)


def _require_same_labels(first: Run, other: Run) -> None:
  """Refuses checkpoints with different label trees, and names the first difference."""
  ours, theirs = first.spec.tree, other.spec.tree
  if ours == theirs:
    return
  difference = (
    f"{theirs.num_actions} actions of {theirs.num_bodies} body parts instead of "
    f"{ours.num_actions} of {ours.num_bodies}"
  )
  if (ours.num_actions, ours.num_bodies) == (theirs.num_actions, theirs.num_bodies):
    names = [
      [*tree.bodies, *(f"{tree.bodies[p]}/{a}" for p, a in zip(tree.parents, tree.actions))]
      for tree in (ours, theirs)
    ]
    our, their = next(pair for pair in zip(*names) if pair[0] != pair[1])
    difference = f"{their!r} in place of {our!r}"
  raise ValueError(
    f"{other.path} has another label tree than {first.path}: {difference}. Only checkpoints with "
    "the same labels, in the same order, can be averaged"
  )


def _require_same_clips(first: Run, other: Run, split: str) -> None:
  """Refuses data sets with other clips or labels in a split, and names one that differs."""
  ours, theirs = (_labels(one, split) for one in (first, other))
  lacking = [name for name in ours if name not in theirs]
  extra = [name for name in theirs if name not in ours]
  if lacking or extra:
    poorer, richer, names = (other, first, lacking) if lacking else (first, other, extra)
    raise ValueError(
      f"{poorer.dataset.path}, the data set of {poorer.path}, lacks {len(names)} of the clips "
      f"of {split!r} in {richer.dataset.path}, that of {richer.path}, such as {names[0]!r}. "
      "Clips are matched by id; name data sets that were built of the same clips, one for each "
      "checkpoint: --data=DIR,DIR"
    )
  differ = [name for name, action in ours.items() if theirs[name] != action]
  if differ:
    there, here = (_named(labels[differ[0]], first.spec.tree) for labels in (theirs, ours))
    raise ValueError(
      f"{len(differ)} clip(s) of {split!r} have other labels in {other.dataset.path} than in "
      f"{first.dataset.path}, such as {differ[0]!r}: {there} instead of {here}. Build both of the "
      "same labels"
    )


def _named(action: int, tree: LabelTree) -> str:
  return repr(tree.actions[action]) if action >= 0 else "none"


def _labels(run: Run, split: str) -> dict[str, int]:
  """The action of every clip by its id."""
  ids = run.dataset.clip_ids(split)
  labels = dict(zip(ids, run.dataset.actions(split).tolist()))
  if len(labels) != len(ids):
    repeated = next(name for name in labels if ids.count(name) > 1)
    raise ValueError(
      f"{run.dataset.path} has two clips of {split!r} with the id {repeated!r}, by which the clips "
      "of an ensemble are matched; build it again"
    )
  return labels

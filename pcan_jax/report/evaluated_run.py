"""Reads the working directory of a run for a report: model, results, curves, prototypes.

That of an ensemble has only results. A baseline is read the same way, and its clips are put in the
order of the run's.
"""

import dataclasses
import functools
import json
import os
import pathlib

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from pcan_jax.checkpoints import load_model, locate
from pcan_jax.evaluation.metrics import Predictions, confusion_matrix
from pcan_jax.evaluation.origins import Ensemble
from pcan_jax.evaluation.results import Results, results_folder
from pcan_jax.labels import LabelTree
from pcan_jax.report import style
from pcan_jax.saved_steps import SavedStep
from pcan_jax.spec import ModelSpec


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
  """An evaluated run, or an ensemble of several.

  Attributes:
    workdir: its working directory.
    spec: of the model in its latest checkpoint, or of the first member of an ensemble.
    step: of that checkpoint; None for an ensemble.
    split: the evaluated split.
    results: of the evaluation; every clip has a label.
  """

  workdir: pathlib.Path
  spec: ModelSpec
  step: int | None
  split: str
  results: Results

  @property
  def name(self) -> str:
    return self.workdir.resolve().name

  @property
  def tree(self) -> LabelTree:
    return self.spec.tree

  @property
  def ensemble(self) -> Ensemble | None:
    """What was averaged, if it is an ensemble."""
    return self.results.origin if isinstance(self.results.origin, Ensemble) else None

  @property
  def branches(self) -> tuple[str, ...]:
    """`fused` and the streams, or the only stream; of an ensemble `fused`."""
    streams = tuple(b for b in ("rgb", "pose") if b in self.results.outputs)
    return streams if len(streams) == 1 else ("fused", *streams)

  def name_of(self, branch: str) -> str:
    """What a branch is called on the page."""
    return "ensemble" if self.ensemble else style.BRANCH_NAMES[branch]

  def probabilities(self, level: str, branch: str = "fused") -> Float[np.ndarray, "n _"]:
    """The probabilities of every clip and class of a level."""
    return self.results.outputs[branch][level]["probabilities"]

  @functools.cached_property
  def labels(self) -> dict[str, Int[np.ndarray, " n"]]:
    """The true classes per level; body parts are those of the true actions."""
    actions = self.results.actions.astype(np.int64)
    return {"action": actions, "body": np.asarray(self.tree.parents)[actions]}

  @functools.cached_property
  def predictions(self) -> dict[str, Predictions]:
    """The predictions of every branch."""
    return {
      branch: Predictions.of_scores(
        self.probabilities("action", branch),
        self.probabilities("body", branch),
        self.labels["action"],
        self.tree,
      )
      for branch in self.results.outputs
    }

  def right(self, level: str, branch: str = "fused") -> Bool[np.ndarray, " n"]:
    """Whether the predicted class of each clip is the true one."""
    return getattr(self.predictions[branch], level) == self.labels[level]

  @functools.cached_property
  def confusions(self) -> dict[str, Int[np.ndarray, "_ _"]]:
    """Per level, the confusion matrix [true, predicted] of the fused predictions."""
    fused, tree = self.predictions["fused"], self.tree
    return {
      "action": confusion_matrix(self.labels["action"], fused.action, tree.num_actions),
      "body": confusion_matrix(self.labels["body"], fused.body, tree.num_bodies),
    }


@dataclasses.dataclass(frozen=True)
class Curve:
  """A TensorBoard scalar over training.

  Attributes:
    steps: of the values.
    values: averages since the previous step.
  """

  steps: Int[np.ndarray, " s"]
  values: Float[np.ndarray, " s"]


def read_run(workdir: str | os.PathLike[str], split: str | None = None) -> EvaluatedRun:
  """Reads a run that has been evaluated.

  Args:
    workdir: of training, or of the evaluation of an ensemble.
    split: the evaluated split; by default the config's `data.eval_split`, or the only one with
      labels on which the ensemble was evaluated.

  Raises:
    FileNotFoundError: there is no checkpoint, or no evaluation of that split.
    ValueError: the checkpoint is damaged, the split has no labels, or the results are of another
      checkpoint; or an ensemble was evaluated on several splits.
  """
  workdir = pathlib.Path(workdir)
  if not (workdir / "checkpoints").is_dir():
    ensemble = _read_ensemble(workdir, split)
    if ensemble is not None:
      return ensemble
  saved = SavedStep(*locate(workdir))
  spec = saved.spec
  split = split or spec.config.data.eval_split
  folder = results_folder(workdir, split)
  results = Results.read(folder)
  assert results.origin is not None
  if (results.origin.step, results.origin.checkpoint) != (saved.step, saved.digest):
    raise ValueError(
      f"{folder} holds results of step {results.origin.step}, but the latest checkpoint, of step "
      f"{saved.step}, is another: run pcan --mode=eval with this --workdir again"
    )
  if not results.origin.follows(spec.config.eval.flip):
    raise ValueError(  # of versions that kept all results in one place
      f"{folder} holds results with --norectify, or with another --flip than eval.flip="
      f"{spec.config.eval.flip}: run pcan --mode=eval with this --workdir again"
    )
  _require_labels(results, folder)
  classes = results.outputs["fused"]["action"]["probabilities"].shape[1]
  if classes != spec.tree.num_actions:
    raise ValueError(
      f"{folder} holds {classes} actions, the checkpoint {spec.tree.num_actions}: "
      "run pcan --mode=eval with this --workdir again"
    )
  return EvaluatedRun(workdir, spec, saved.step, split, results)


def _read_ensemble(workdir: pathlib.Path, split: str | None) -> EvaluatedRun | None:
  """Reads the results of an ensemble; None if there are none in the folder."""
  usual, labelled, any_results = [], [], False
  for path in sorted((workdir / "eval").glob("*/metrics.json")):
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if "ensemble" in metrics:
      any_results = True
      if path.parent.name == metrics["ensemble"]["split"]:  # not SPLIT-1clip
        usual.append(path.parent.name)
        labelled += usual[-1:] * ("fused" in metrics)
  if not any_results:
    return None
  wanted = [split] if split else labelled or usual
  if len(wanted) > 1:
    raise ValueError(f"{workdir} was evaluated on {', '.join(wanted)}: choose one with --split")
  if not wanted or wanted[0] not in usual:
    raise FileNotFoundError(
      f"no results of the ensemble {workdir} on {split or 'any split'} with the usual number of "
      "clips: run pcan --mode=eval with this --workdir first"
    )
  folder = workdir / "eval" / wanted[0]
  results = Results.read(folder)
  _require_labels(results, folder)
  spec = ModelSpec.from_json(results.origin.members[0].description)
  return EvaluatedRun(workdir, spec, None, wanted[0], results)


def _require_labels(results: Results, folder: pathlib.Path) -> None:
  if not results.ids or (np.asarray(results.actions) < 0).any():
    raise ValueError(f"{folder} holds no labels to compare with; choose a labelled split (--split)")


def align(baseline: EvaluatedRun, run: EvaluatedRun) -> EvaluatedRun:
  """Sorts the clips of a baseline in the order of a run's.

  Raises:
    ValueError: the two were not evaluated on the same clips with the same labels.
  """
  if baseline.tree != run.tree:
    raise ValueError(f"baseline {baseline.workdir} has another label tree than {run.workdir}")
  there = set(baseline.results.ids)
  lacking = [clip for clip in run.results.ids if clip not in there]
  extra = there - set(run.results.ids)
  if lacking or extra:
    example = lacking[0] if lacking else min(extra)
    raise ValueError(
      f"baseline {baseline.workdir} and {run.workdir} were evaluated on different clips of "
      f"{run.split!r}: {len(lacking)} are only in the run, {len(extra)} only in the baseline, "
      f"such as {example!r}. Evaluate both on one data set: --mode=eval --data=DIR"
    )
  reordered = baseline.results.in_order(run.results.ids)
  differ = np.flatnonzero(reordered.actions != run.results.actions)
  if differ.size:
    clip = run.results.ids[differ[0]]
    raise ValueError(
      f"baseline {baseline.workdir} and {run.workdir} were evaluated with different labels for "
      f"{differ.size} clips, such as {clip!r}"
    )
  return dataclasses.replace(baseline, results=reordered)


def read_prototypes(run: EvaluatedRun) -> dict[str, dict[str, Float[np.ndarray, "_ _"]]]:
  """Per stream the prototypes of `action` [A, D] and `body` [B, D']; empty if there are none."""
  if run.ensemble or not run.spec.config.model.prototypes:
    return {}
  _, variables, _ = load_model(run.workdir)
  return jax.tree.map(np.asarray, jax.device_get(dict(variables["prototypes"])))


def read_curves(workdir: str | os.PathLike[str]) -> dict[str, Curve]:
  """All scalars of a run's TensorBoard events by name; empty if it has no events."""
  if not any(pathlib.Path(workdir).glob("events.out.tfevents.*")):
    return {}
  events = EventAccumulator(str(workdir), size_guidance={"tensors": 0}).Reload()
  curves = {}
  for name in events.Tags()["tensors"]:
    written = events.Tensors(name)
    values = [tensor_util.make_ndarray(event.tensor_proto) for event in written]
    if all(value.ndim == 0 for value in values):
      curves[name] = Curve(
        np.array([event.step for event in written], np.int64), np.array(values, np.float64)
      )
  return curves

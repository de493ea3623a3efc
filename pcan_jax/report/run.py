"""What the working directory of a run holds for a report: description, results, curves, prototypes.

A baseline is read in the same way and brought into the order of the run that it is compared with.
"""

import dataclasses
import os
import pathlib

import jax
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Int
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pcan_jax import spec as inference
from pcan_jax.checkpoints import Checkpoints, Description, locate
from pcan_jax.evaluation.results import Results, results_folder
from pcan_jax.labels import LabelTree


@dataclasses.dataclass(frozen=True)
class Run:
  """An evaluated run.

  Attributes:
    workdir: its working directory.
    description: what its latest checkpoint was made for.
    step: of that checkpoint.
    split: that was evaluated.
    results: of the evaluation; every clip has a label.
  """

  workdir: pathlib.Path
  description: Description
  step: int
  split: str
  results: Results

  @property
  def name(self) -> str:
    return self.workdir.resolve().name

  @property
  def tree(self) -> LabelTree:
    return self.description.tree

  @property
  def actions(self) -> Int[np.ndarray, " n"]:
    """The true actions."""
    return self.results.actions.astype(np.int64)

  @property
  def bodies(self) -> Int[np.ndarray, " n"]:
    """The body parts of the true actions."""
    return np.asarray(self.tree.parents)[self.actions]

  @property
  def branches(self) -> tuple[str, ...]:
    """`fused` and the streams; of a run with one stream only that."""
    streams = tuple(b for b in ("rgb", "pose") if b in self.results.probabilities)
    return ("fused", *streams) if len(streams) > 1 else streams

  def predicted(self, level: str, branch: str = "fused") -> Int[np.ndarray, " n"]:
    """The likeliest class of every clip; the first of equal ones."""
    return self.results.probabilities[branch][level].argmax(axis=1)


@dataclasses.dataclass(frozen=True)
class Curve:
  """A TensorBoard scalar over training.

  Attributes:
    steps: at which it was written.
    values: averages since the step before.
  """

  steps: Int[np.ndarray, " s"]
  values: Float[np.ndarray, " s"]


def read_run(workdir: str | os.PathLike[str], split: str | None = None) -> Run:
  """Reads a run that has been evaluated.

  Args:
    workdir: of training.
    split: the evaluated split; by default the config's `data.eval_split`.

  Raises:
    FileNotFoundError: there is no checkpoint, or no evaluation of that split.
    ValueError: the split has no labels, or the results are not of the checkpoint's label tree.
  """
  workdir = pathlib.Path(workdir)
  directory, step = locate(workdir)
  with Checkpoints(directory) as checkpoints:
    description = checkpoints.describe(step)
  split = split or description.config.data.eval_split
  clips = description.config.eval.num_clips
  folder = results_folder(workdir, split, clips, clips)
  results = Results.read(folder)
  if not results.ids or (np.asarray(results.actions) < 0).any():
    raise ValueError(f"{folder} holds no labels to compare with: report a split that has them")
  classes = results.probabilities["fused"]["action"].shape[1]
  if classes != description.tree.num_actions:
    raise ValueError(
      f"{folder} holds {classes} actions, the checkpoint {description.tree.num_actions}: "
      "run launch.py --mode=eval with this --workdir again"
    )
  return Run(workdir, description, step, split, results)


def align(baseline: Run, run: Run) -> Run:
  """The baseline with its clips in the order of the run's.

  Raises:
    ValueError: the two were not evaluated on the same clips with the same labels.
  """
  if baseline.tree != run.tree:
    raise ValueError(f"baseline {baseline.workdir} has another label tree than {run.workdir}")
  rows = {clip: row for row, clip in enumerate(baseline.results.ids)}
  lacking = [clip for clip in run.results.ids if clip not in rows]
  extra = rows.keys() - set(run.results.ids)
  if lacking or extra:
    example = lacking[0] if lacking else min(extra)
    raise ValueError(
      f"baseline {baseline.workdir} and {run.workdir} were evaluated on different clips of "
      f"{run.split!r}: {len(lacking)} are only in the run, {len(extra)} only in the baseline, "
      f"such as {example!r}. Evaluate both on one data set: --mode=eval --data=DIR"
    )
  order = np.array([rows[clip] for clip in run.results.ids])
  reordered = dataclasses.replace(
    baseline.results,
    ids=list(run.results.ids),
    actions=baseline.results.actions[order],
    probabilities=jax.tree.map(lambda values: values[order], baseline.results.probabilities),
    embeddings=jax.tree.map(lambda values: values[order], baseline.results.embeddings),
  )
  differ = np.flatnonzero(reordered.actions != run.results.actions)
  if differ.size:
    clip = run.results.ids[differ[0]]
    raise ValueError(
      f"baseline {baseline.workdir} and {run.workdir} were evaluated with different labels for "
      f"{differ.size} clips, such as {clip!r}"
    )
  return dataclasses.replace(baseline, results=reordered)


def read_prototypes(run: Run) -> dict[str, dict[str, Float[np.ndarray, "_ _"]]]:
  """Per stream the prototypes of `action` [A, D] and `body` [B, D']; empty for a run without."""
  if not run.description.config.model.prototypes:
    return {}
  _, variables, _, _ = inference.load(run.workdir)
  return jax.tree.map(np.asarray, jax.device_get(dict(variables["prototypes"])))


def read_curves(workdir: str | os.PathLike[str]) -> dict[str, Curve]:
  """All scalars of a run's TensorBoard events by name; empty if it has no events."""
  if not any(pathlib.Path(workdir).glob("events.out.tfevents.*")):
    return {}
  events = EventAccumulator(str(workdir), size_guidance={"tensors": 0}).Reload()
  curves = {}
  for name in events.Tags()["tensors"]:
    written = events.Tensors(name)
    values = [tf.make_ndarray(event.tensor_proto) for event in written]
    if all(value.ndim == 0 for value in values):
      curves[name] = Curve(
        np.array([event.step for event in written], np.int64), np.array(values, np.float64)
      )
  return curves

"""The evaluation protocol: runs a model on every video of a split and tabulates the results."""

import dataclasses
import functools
import itertools
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from pcan_jax.checkpoints import BEST, load_model, locate
from pcan_jax.evaluation.calibration import Temperature, fit_temperature
from pcan_jax.evaluation.metrics import Predictions, measure
from pcan_jax.evaluation.results import Origin, Results, results_folder
from pcan_jax.evaluation.submission import write_submission
from pcan_jax.feed.dataset import Dataset, open_dataset
from pcan_jax.feed.pipeline import evaluation_batches
from pcan_jax.labels import LabelTree
from pcan_jax.mesh import data_mesh, jit_step, local_rows, send
from pcan_jax.saved_steps import SavedStep
from pcan_jax.spec import HostOutputs, ModelSpec
from pcan_jax.writing import require_writable

PyTree = Any

_log = logging.getLogger(__name__)


class Evaluator:
  """Evaluates states of one model on one data set.

  Raises:
    ValueError: the data set has other labels, keypoints or stored sizes than the model.
  """

  def __init__(self, spec: ModelSpec, dataset: Dataset) -> None:
    _require_same_data(spec, dataset)
    self._spec = spec
    self._dataset = dataset
    self._mesh = data_mesh()
    self._predict = jit_step(functools.partial(_predict_with_facts, spec), self._mesh)

  def __call__(
    self, variables: PyTree, split: str, num_clips: int, max_batches: int | None = None
  ) -> Results:
    """Evaluates a split.

    Args:
      variables: of the model.
      split: the split.
      num_clips: test clips per video.
      max_batches: stop after this many batches; by default every video is evaluated.
    """
    # The config's batch size counts clips; use at least one video per device.
    videos = max(self._spec.config.eval.batch_size // num_clips, 1)
    batch_size = -(-videos // self._mesh.size) * self._mesh.size
    batches = evaluation_batches(
      self._dataset,
      split,
      self._spec.frame_sampling(num_clips),
      batch_size=batch_size,
      rows=local_rows(self._mesh, batch_size),
    )
    total = -(-self._dataset.num_clips(split) // batch_size)
    progress = tqdm(
      itertools.islice(batches, max_batches),
      total=total,
      unit="batch",
      desc="evaluating",
      disable=None,
      leave=False,
    )
    predicted = []
    sent = (self._predict(variables, send(batch, self._mesh)) for batch in progress)
    for found in _one_behind(sent):
      real = np.flatnonzero(found.pop("mask"))
      predicted.append(jax.tree.map(lambda values, rows=real: values[rows], found))
    found = jax.tree.map(lambda *parts: np.concatenate(parts), *predicted)
    ids = self._dataset.clip_ids(split)
    actions, outputs = found["action"].astype(np.int64), found["outputs"]
    metrics = _metrics(outputs, actions, self._spec.tree)
    return Results([ids[index] for index in found["index"]], actions, num_clips, outputs, metrics)


def _one_behind(outputs: Iterator[PyTree]) -> Iterator[PyTree]:
  """Fetches the outputs of a batch when the next one has been dispatched: no device waits."""
  previous = None
  for newest in outputs:
    jax.tree.map(lambda values: values.copy_to_host_async(), newest)
    if previous is not None:
      yield jax.device_get(previous)
    previous = newest
  if previous is not None:
    yield jax.device_get(previous)


def _predict_with_facts(
  spec: ModelSpec, variables: PyTree, batch: dict[str, jax.Array]
) -> dict[str, PyTree]:
  """The outputs of a batch, with what says of which clips: only the devices know the order."""
  facts = {name: batch[name] for name in ("index", "action", "mask")}
  stored = {name: values for name, values in batch.items() if name not in facts}
  return facts | {"outputs": spec.predict(variables, stored)}


def _metrics(
  outputs: HostOutputs, actions: np.ndarray, tree: LabelTree
) -> dict[str, dict[str, float]]:
  """The metrics of every branch; empty without labels."""
  if (actions < 0).all():
    return {}
  metrics = {}
  for branch, levels in outputs.items():
    scores = (levels[level]["probabilities"] for level in ("action", "body"))
    metrics[branch] = measure(Predictions.of_scores(*scores, actions, tree), actions, tree)
  return metrics


def evaluate_checkpoint(
  path: str | os.PathLike[str],
  output: pathlib.Path,
  *,
  data_path: str | None = None,
  split: str | None = None,
  num_clips: int | None = None,
  rectify: bool = True,
) -> Results:
  """Evaluates a checkpoint, prints the table and writes `OUTPUT/eval/SPLIT/`.

  For a split without labels it also writes a submission for the challenges, see
  `pcan_jax.evaluation.submission`.

  Args:
    path: as for `checkpoints.locate`.
    output: where the results go.
    data_path, split, num_clips: other values than those of the checkpoint's config.
    rectify: whether the prototypes correct the predictions.

  Raises:
    FileNotFoundError: there is no checkpoint or no data set.
    ValueError: the checkpoint is damaged, or does not fit the data set.
    OSError: `output` cannot be written to, which is tried first.
  """
  saved = SavedStep(*locate(path))
  spec, variables, step = load_model(saved.path)
  config = spec.config
  dataset = open_evaluated(config.data, data_path)
  split = split or config.data.eval_split
  num_clips = num_clips or config.eval.num_clips
  best = pathlib.Path(path).name == BEST
  folder = results_folder(output, split, num_clips, config.eval.num_clips, best=best)
  if jax.process_index() == 0:
    require_writable(folder)
  if not rectify:
    config = config.copy_and_resolve_references()
    config.eval.gamma.update(rgb=0.0, pose=0.0)
    spec = dataclasses.replace(spec, config=config)
  results = dataclasses.replace(
    Evaluator(spec, dataset)(variables, split, num_clips),
    origin=Origin(step, saved.digest, dataset.fingerprint),
  )
  temperature = fit_temperature(
    results.outputs["fused"]["action"]["probabilities"],
    results.actions,
    split=split,
    checkpoint=saved.digest,
    step=step,
  )
  if jax.process_index() == 0:
    results.write(folder, spec.tree)
    if temperature:
      temperature.write(folder)
      # For predictions: as the model is meant to be evaluated, and not where others may not write.
      usual = split == config.data.eval_split and rectify and data_path in (None, config.data.path)
      if usual and saved.folder.resolve() == output.resolve():
        temperature.write(output)
    if not results.metrics:
      write_submission(results, spec.tree, folder)
  _log.info(
    "%s, step %d: %d videos of split %r, %d clip(s) per video%s, in %%\n\n%s\n\n%swritten to %s",
    path,
    step,
    len(results.ids),
    split,
    num_clips,
    "" if rectify else ", not rectified",
    results.table(),
    _said(temperature),
    folder,
  )
  return results


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


def open_evaluated(config: ConfigDict, path: str | os.PathLike[str] | None = None) -> Dataset:
  """The data set of a run, or another one, with the split that the run held out.

  Args:
    config: the part `data` of the run's config.
    path: of another data set; who was held out is held out there, too, if all of them are in it.

  Raises:
    FileNotFoundError, ValueError: see `open_dataset`.
  """
  dataset = open_dataset(path or config.path, config.instructions)
  if config.held_out and (path is None or dataset.shows(config.held_out)):
    dataset = dataset.hold_out(config.held_out)
  return dataset


def _require_same_data(spec: ModelSpec, dataset: Dataset) -> None:
  where = dataset.path
  if spec.frame_sampling(None).rgb_frames:
    dataset.require_videos()
  if dataset.tree != spec.tree:
    raise ValueError(
      f"{where} has {dataset.tree.num_actions} actions and {dataset.tree.num_bodies} body parts, "
      f"the model {spec.tree.num_actions} and {spec.tree.num_bodies}, or their names "
      "differ; set config.data.path to a data set with the model's label tree"
    )
  if dataset.layout != spec.layout:
    raise ValueError(
      f"{where} has keypoints {dataset.layout.name!r}, the model {spec.layout.name!r}"
    )
  if dataset.stored_size != spec.stored_size:
    raise ValueError(
      f"{where} stores frames of {dataset.stored_size} px, the model was trained from "
      f"{spec.stored_size} px; build the data set with --side {spec.stored_size}"
    )

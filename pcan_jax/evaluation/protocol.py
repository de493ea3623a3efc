"""The evaluation protocol: runs a model on every video of a split and tabulates the results."""

import dataclasses
import functools
import itertools
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from pcan_jax.checkpoints import BEST, load_model, locate
from pcan_jax.evaluation.ensembles import combine, fit_weights, normalise_weights
from pcan_jax.evaluation.metrics import measure_branches
from pcan_jax.evaluation.outcome import keep
from pcan_jax.evaluation.results import Results, results_folder
from pcan_jax.evaluation.runs import (
  Run,
  deviations,
  one_each,
  require_alike,
  require_choosable,
  shared,
  which_checkpoint,
)
from pcan_jax.feed.dataset import Dataset, open_dataset
from pcan_jax.feed.pipeline import evaluation_batches
from pcan_jax.mesh import data_mesh, jit_step, local_rows, send
from pcan_jax.saved_steps import SavedStep
from pcan_jax.spec import ModelSpec
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
    metrics = measure_branches(outputs, actions, self._spec.tree)
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


def evaluate_checkpoint(
  path: str | os.PathLike[str],
  output: pathlib.Path,
  *,
  data_path: str | None = None,
  split: str | None = None,
  num_clips: int | None = None,
  rectify: bool = True,
  flip: bool | None = None,
) -> Results:
  """Evaluates one checkpoint; see `evaluate_checkpoints` for arguments and errors."""
  return evaluate_checkpoints(
    [path],
    output,
    data_paths=[data_path],
    split=split,
    num_clips=num_clips,
    rectify=rectify,
    flip=flip,
  )


def evaluate_checkpoints(
  paths: Sequence[str | os.PathLike[str]],
  output: pathlib.Path,
  *,
  data_paths: Sequence[str | None] = (None,),
  branches: Sequence[str] = ("fused",),
  weights: Sequence[float] | None = None,
  fit_split: str | None = None,
  split: str | None = None,
  num_clips: int | None = None,
  rectify: bool = True,
  flip: bool | None = None,
) -> Results:
  """Evaluates a checkpoint or an ensemble, prints the table and writes `OUTPUT/eval/SPLIT/`.

  The probabilities of several checkpoints are averaged. Their own results are those in their
  working directories, if they are of the same checkpoint, data set and settings; others are
  computed, and kept in `OUTPUT/members`.

  For a split without labels it also writes a submission for the challenges, see
  `pcan_jax.evaluation.submission`.

  Args:
    paths: of one checkpoint or several, as for `checkpoints.locate`.
    output: where the results go.
    data_paths: a data set per checkpoint, or one for all; None is that of the checkpoint's config.
    branches: per checkpoint, or one for all, whose probabilities are averaged: `fused` or a stream.
    weights: per checkpoint, at least 0, which are made to add up to 1; by default equal ones.
    fit_split: choose the weights on this split, see `ensembles.fit_weights`.
    split, num_clips: other values than those of the checkpoints' configs.
    rectify: whether the prototypes correct the predictions.
    flip: whether every clip is averaged with its mirror image, if not as the configs' `eval.flip`.

  Raises:
    FileNotFoundError: there is no checkpoint or no data set.
    ValueError: a checkpoint is damaged, or does not fit its data set; or several do not fit each
      other, or the weights are wrong; or mirrored clips would be of other actions.
    OSError: `output` cannot be written to, which is tried first.
  """
  runs = _open_runs(paths, data_paths, branches, rectify, flip)
  shares, fit = normalise_weights(weights, len(runs)), None
  split = split or shared({run.path: run.spec.config.data.eval_split for run in runs}, "split")
  usual = {run.path: run.spec.config.eval.num_clips for run in runs}
  num_clips = num_clips or shared(usual, "num_clips")
  require_choosable(runs, weights, fit_split, split)
  if len(runs) > 1:
    require_alike(runs, output, [split, *([fit_split] if fit_split else [])])
  of = which_checkpoint(runs[0].saved, runs[0].path) if len(runs) == 1 else ""
  folder = results_folder(output, split, of=of, deviations=deviations(runs, num_clips))
  if jax.process_index() == 0:
    require_writable(folder)
  if len(runs) == 1:
    results = _evaluate(runs[0], split, num_clips)
  else:
    scored = _score(runs, split, num_clips, output)
    if fit_split:
      shares, fit = fit_weights(runs, _score(runs, fit_split, num_clips, output), fit_split)
    results = combine(runs, scored, shares, split, fit)
  keep(results, runs, folder, output, split=split)
  return results


def _open_runs(
  paths: Sequence[str | os.PathLike[str]],
  data_paths: Sequence[str | None],
  branches: Sequence[str],
  rectify: bool,
  flip: bool | None,
) -> list[Run]:
  """Finds checkpoints and opens their data sets."""
  runs = []
  for path, data_path, branch in zip(
    paths,
    one_each(data_paths, len(paths), "data"),
    one_each(branches, len(paths), "branches"),
  ):
    saved = SavedStep(*locate(path))
    spec = saved.spec
    if flip is not None:
      config = spec.config.copy_and_resolve_references()
      config.eval.flip = flip
      spec = dataclasses.replace(spec, config=config)
    known = ("fused", *spec.config.model.streams)
    if branch not in known:
      raise ValueError(f"{path} has no branch {branch!r} (--branches); it has {', '.join(known)}")
    dataset = open_evaluated(spec.config.data, data_path)
    _require_same_data(spec, dataset)
    moved = (
      data_path not in (None, spec.config.data.path)
      if saved.trained_on is None
      else saved.trained_on != dataset.fingerprint
    )
    if moved and data_path is None:
      _log.warning("%s is not the data set that %s was trained on", dataset.path, path)
    runs.append(Run(os.fspath(path), saved, spec, dataset, moved, branch, rectify))
  return runs


def _evaluate(run: Run, split: str, num_clips: int) -> Results:
  """Computes the results of a checkpoint."""
  spec, (_, variables, _) = run.spec, load_model(run.saved.path)
  if not run.rectify:
    config = spec.config.copy_and_resolve_references()
    config.eval.gamma.update(rgb=0.0, pose=0.0)
    spec = dataclasses.replace(spec, config=config)
  results = Evaluator(spec, run.dataset)(variables, split, num_clips)
  return dataclasses.replace(results, origin=run.origin)


def _score(runs: Sequence[Run], split: str, num_clips: int, output: pathlib.Path) -> list[Results]:
  """The results of every checkpoint, found or computed, all in the order of the first one's."""
  scored: list[Results] = []
  for run in runs:
    place = functools.partial(results_folder, split=split, deviations=deviations([run], num_clips))
    kept = place(output / "members" / run.origin.checkpoint)
    found = None
    if jax.process_count() == 1:  # several hosts might not find the same
      places = (place(run.saved.folder, of=of) for of in ("", BEST, f"step-{run.saved.step}"))
      found = run.find([*places, kept], split, num_clips)
    if found is None:
      found = _evaluate(run, split, num_clips)
      if jax.process_index() == 0:
        found.write(kept, run.spec.tree)
    scored.append(found.in_order(scored[0].ids) if scored else found)
  return scored


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
      "differ; name a data set with the model's label tree (--data=DIR)"
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

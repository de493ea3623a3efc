"""The evaluation protocol: runs a model on every video of a split and tabulates the results."""

import dataclasses
import itertools
import logging
import os
import pathlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from pcan_jax.checkpoints import load_model
from pcan_jax.evaluation.metrics import Predictions, measure
from pcan_jax.evaluation.results import Results, results_folder
from pcan_jax.evaluation.submission import write_submission
from pcan_jax.feed.dataset import Dataset, open_dataset
from pcan_jax.feed.pipeline import evaluation_batches
from pcan_jax.labels import LabelTree
from pcan_jax.mesh import data_mesh, jit_step, send
from pcan_jax.spec import HostOutputs, ModelSpec

PyTree = Any

_log = logging.getLogger(__name__)
_MAX_ID_BYTES = 512


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
    self._predict = jit_step(spec.predict, self._mesh)

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
      num_hosts=jax.process_count(),
      host=jax.process_index(),
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
    ids, actions, outputs = [], [], []
    for batch in progress:
      about = _of_all_hosts({name: batch.pop(name) for name in ("id", "action", "mask")})
      real = np.flatnonzero(about["mask"])
      ids += [clip_id.decode() for clip_id in about["id"][real]]
      actions.append(about["action"][real])
      predicted = jax.device_get(self._predict(variables, send(batch, self._mesh)))
      outputs.append(jax.tree.map(lambda values, rows=real: values[rows], predicted))
    actions = np.concatenate(actions).astype(np.int64)
    outputs = jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)
    metrics = _metrics(outputs, actions, self._spec.tree)
    return Results(ids, actions, num_clips, outputs, metrics)


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


def _of_all_hosts(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Joins the hosts' shares of a batch, in the order of the devices."""
  if jax.process_count() == 1:
    return values
  ids = values["id"].astype(f"S{_MAX_ID_BYTES}")
  if (np.char.str_len(ids) >= _MAX_ID_BYTES).any():
    raise ValueError(f"ids must be shorter than {_MAX_ID_BYTES} bytes to evaluate on several hosts")
  as_bytes = ids.view(np.uint8).reshape(-1, _MAX_ID_BYTES)
  gathered = multihost_utils.process_allgather(values | {"id": as_bytes}, tiled=True)
  return gathered | {"id": gathered["id"].view(f"S{_MAX_ID_BYTES}")[:, 0]}


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
    output: folder for the results.
    data_path, split, num_clips: override the values of the checkpoint's config.
    rectify: whether to correct predictions by the prototypes.
  """
  spec, variables, step = load_model(path)
  config = spec.config
  dataset = open_dataset(data_path or config.data.path, config.data.instructions)
  split = split or config.data.eval_split
  num_clips = num_clips or config.eval.num_clips
  if not rectify:
    config = config.copy_and_resolve_references()
    config.eval.gamma.update(rgb=0.0, pose=0.0)
    spec = dataclasses.replace(spec, config=config)
  results = Evaluator(spec, dataset)(variables, split, num_clips)
  folder = results_folder(output, split, num_clips, config.eval.num_clips)
  if jax.process_index() == 0:
    results.write(folder, spec.tree)
    if not results.metrics:
      write_submission(results, spec.tree, folder)
  _log.info(
    "%s, step %d: %d videos of split %r, %d clip(s) per video%s, in %%\n\n%s\n\nwritten to %s",
    path,
    step,
    len(results.ids),
    split,
    num_clips,
    "" if rectify else ", not rectified",
    results.table(),
    folder,
  )
  return results


def _require_same_data(spec: ModelSpec, dataset: Dataset) -> None:
  where = dataset.path
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

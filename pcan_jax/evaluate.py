"""Evaluation: every video of a split through the network, and the tables of what came out."""

import functools
import itertools
import logging
import os
import pathlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from tqdm import tqdm

from pcan_jax import input_pipeline
from pcan_jax.checkpoints import Description
from pcan_jax.inference import ByLevel, data_mesh, load, predict_step, preprocessing
from pcan_jax.input_pipeline import Clips, Dataset
from pcan_jax.labels import LabelTree
from pcan_jax.metrics import ClassificationCounts
from pcan_jax.pcan import PCAN
from pcan_jax.results import Results, results_folder
from pcan_jax.submission import write_submission

PyTree = Any

_log = logging.getLogger(__name__)
_MAX_ID_BYTES = 512


def clips(config: ConfigDict, num_clips: int | None) -> Clips:
  """What the model of a config reads of every video."""
  streams = config.model.streams
  return Clips(
    rgb_frames=config.input.rgb_frames if "rgb" in streams else 0,
    pose_frames=config.input.pose_frames if "pose" in streams else 0,
    num_clips=num_clips,
    max_persons=config.input.max_persons,
  )


class Evaluator:
  """Evaluates states of one model on one data set.

  Raises:
    ValueError: the data set has other labels, keypoints or stored sizes than the model.
  """

  def __init__(self, model: PCAN, description: Description, dataset: Dataset) -> None:
    _require_same_data(description, dataset)
    self._config = description.config
    self._dataset = dataset
    mesh = data_mesh()
    self._replicated = NamedSharding(mesh, PartitionSpec())
    self._sharded = NamedSharding(mesh, PartitionSpec("data"))
    self._num_devices = mesh.size
    self._step = jax.jit(
      functools.partial(
        predict_step,
        model=model,
        sizes=preprocessing(description),
        gamma=self._config.eval.gamma.to_dict(),
      ),
      in_shardings=(self._replicated, self._sharded),
      out_shardings=self._replicated,
    )

  def __call__(
    self, variables: PyTree, split: str, num_clips: int, max_batches: int | None = None
  ) -> Results:
    """Evaluates a split.

    Args:
      variables: of the model.
      split: which one.
      num_clips: test clips per video.
      max_batches: stop after so many; by default every video is evaluated.
    """
    # As many videos as make the clips that the config takes at once, and at least one per device.
    videos = max(self._config.eval.batch_size // num_clips, 1)
    batch_size = -(-videos // self._num_devices) * self._num_devices
    batches = input_pipeline.evaluation_batches(
      self._dataset,
      split,
      clips(self._config, num_clips),
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
    ids, actions, scores = [], [], []
    for batch in progress:
      about = _of_all_hosts({name: batch.pop(name) for name in ("id", "action", "mask")})
      real = np.flatnonzero(about["mask"])
      ids += [clip_id.decode() for clip_id in about["id"][real]]
      actions.append(about["action"][real])
      on_device = {
        name: jax.make_array_from_process_local_data(self._sharded, values)
        for name, values in batch.items()
      }
      predicted = jax.device_get(self._step(variables, on_device))
      scores.append(jax.tree.map(lambda values, rows=real: values[rows], predicted))
    actions = np.concatenate(actions)
    scores = jax.tree.map(lambda *parts: np.concatenate(parts), *scores)
    return Results(
      ids=ids,
      actions=actions,
      num_clips=num_clips,
      probabilities=scores["probabilities"],
      embeddings=scores["embeddings"],
      metrics=_metrics(scores["probabilities"], actions, self._dataset.tree),
    )


def _metrics(
  probabilities: ByLevel, actions: np.ndarray, tree: LabelTree
) -> dict[str, dict[str, float]]:
  """The metrics of every branch; none without labels."""
  if (actions < 0).all():
    return {}
  metrics = {}
  for branch, levels in probabilities.items():
    counts = ClassificationCounts(tree)
    counts.add(levels["action"], levels["body"], actions)
    metrics[branch] = counts.summarize()
  return metrics


def _of_all_hosts(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Joins the hosts' shares of a batch in the order in which devices hold its arrays."""
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

  Of a split without labels, that is what the challenges ask for, see `pcan_jax.submission`.

  Args:
    path: as for `checkpoints.locate`.
    output: where the results go.
    data_path, split, num_clips: other values than those of the checkpoint's config.
    rectify: whether the prototypes correct the predictions.
  """
  model, variables, description, step = load(path)
  config = description.config
  dataset = input_pipeline.open_dataset(data_path or config.data.path, config.data.instructions)
  split = split or config.data.eval_split
  num_clips = num_clips or config.eval.num_clips
  if not rectify:
    config.eval.gamma.update(rgb=0.0, pose=0.0)
  results = Evaluator(model, description, dataset)(variables, split, num_clips)
  folder = results_folder(output, split, num_clips, config.eval.num_clips)
  if jax.process_index() == 0:
    results.write(folder, description.tree)
    if not results.metrics:
      write_submission(results, description, folder)
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


def _require_same_data(description: Description, dataset: Dataset) -> None:
  where = dataset.builder.data_path
  if dataset.tree != description.tree:
    raise ValueError(
      f"{where} has {dataset.tree.num_actions} actions and {dataset.tree.num_bodies} body parts, "
      f"the model {description.tree.num_actions} and {description.tree.num_bodies}, or their names "
      "differ; set config.data.path to a data set with the model's label tree"
    )
  if dataset.layout != description.layout:
    raise ValueError(
      f"{where} has keypoints {dataset.layout.name!r}, the model {description.layout.name!r}"
    )
  if dataset.stored_size != description.stored_size:
    raise ValueError(
      f"{where} stores frames of {dataset.stored_size} px, the model was trained from "
      f"{description.stored_size} px; build the data set with --side {description.stored_size}"
    )

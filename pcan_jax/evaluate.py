"""Evaluation: rectify, average over clips, fuse the streams, count, and write the tables."""

import csv
import dataclasses
import functools
import json
import logging
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from pcan_jax import input_pipeline, losses
from pcan_jax.checkpoints import Checkpoints, Description, locate
from pcan_jax.input_pipeline import Clips, Dataset
from pcan_jax.metrics import ClassificationCounts
from pcan_jax.pcan import PCAN, build_model
from pcan_jax.preprocess import Augmentation, Preprocessing, preprocess

PyTree = Any
# Per branch ("fused", "rgb", "pose") and level ("action", "body") an array [N, classes].
Probabilities = dict[str, dict[str, Any]]

_log = logging.getLogger(__name__)
_MAX_ID_BYTES = 512

TABLE_COLUMNS = {
  "body_top1": "body top-1",
  "action_top1": "action top-1",
  "action_top5": "action top-5",
  "f1_body_macro": "F1 body macro",
  "f1_body_micro": "F1 body micro",
  "f1_action_macro": "F1 action macro",
  "f1_action_micro": "F1 action micro",
  "f1_mean": "F1 mean",
}


@dataclasses.dataclass(frozen=True)
class Results:
  """What an evaluation found.

  Attributes:
    metrics: per branch, the metrics of `ClassificationCounts.summarize`, as fractions.
    ids: of the videos [N].
    actions: true actions [N].
    probabilities: of every branch and level, averaged over the clips of a video.
    num_clips: test clips per video.
  """

  metrics: dict[str, dict[str, float]]
  ids: list[str]
  actions: np.ndarray
  probabilities: Probabilities
  num_clips: int

  def table(self) -> str:
    """The metrics in per cent, a row per branch, the columns of the paper's table 1."""
    rows = [["", *TABLE_COLUMNS.values()]]
    rows += [
      [branch, *(f"{100 * values[key]:.2f}" for key in TABLE_COLUMNS)]
      for branch, values in self.metrics.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

  def write(self, directory: pathlib.Path, description: Description) -> None:
    """Writes `metrics.json`, and `predictions.csv` with the five best actions of every video."""
    directory.mkdir(parents=True, exist_ok=True)
    summary = {"num_videos": len(self.ids), "num_clips": self.num_clips} | self.metrics
    (directory / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    tree = description.tree
    top = min(5, tree.num_actions)
    fused = self.probabilities["fused"]
    best = np.argsort(-fused["action"], axis=1, kind="stable")[:, :top]
    with (directory / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["id", "action", *(f"top{i + 1}" for i in range(top)), "body"])
      for row, clip_id in enumerate(self.ids):
        action = int(self.actions[row])
        writer.writerow(
          [
            clip_id,
            tree.actions[action] if action >= 0 else "",
            *(tree.actions[i] for i in best[row]),
            tree.bodies[int(fused["body"][row].argmax())],
          ]
        )


def preprocessing(
  description: Description, train_augmentation: Augmentation | None = None
) -> Preprocessing:
  """The preprocessing of a model, for training if `train_augmentation` is given."""
  config = description.config.input
  size = config.test_size if train_augmentation is None else config.train_size
  if size % config.heatmap_scale:
    raise ValueError(
      f"input sizes must be multiples of input.heatmap_scale={config.heatmap_scale}, not {size}"
    )
  return Preprocessing(
    stored_size=description.stored_size,
    rgb_size=size,
    heatmap_size=size // config.heatmap_scale,
    layout=description.layout,
    sigma=config.sigma,
    heatmaps=config.get("heatmaps", "joints"),  # older checkpoints do not name it
    augmentation=train_augmentation,
  )


def clips(config: ConfigDict, num_clips: int | None) -> Clips:
  """What the model of a config reads of every video."""
  streams = config.model.streams
  return Clips(
    rgb_frames=config.input.rgb_frames if "rgb" in streams else 0,
    pose_frames=config.input.pose_frames if "pose" in streams else 0,
    num_clips=num_clips,
    max_persons=config.input.max_persons,
  )


def example_inputs(
  model: PCAN, config: ConfigDict, sizes: Preprocessing, batch_size: int = 1
) -> dict[str, jax.Array]:
  """Zeros in the shapes of the network's inputs."""
  inputs = {}
  if model.rgb is not None:
    inputs["rgb"] = jnp.zeros((batch_size, config.rgb_frames, sizes.rgb_size, sizes.rgb_size, 3))
  if model.pose is not None:
    side = sizes.heatmap_size
    inputs["heatmaps"] = jnp.zeros(
      (batch_size, config.pose_frames, side, side, len(sizes.heatmap_channels))
    )
  return inputs


def data_mesh() -> Mesh:
  """All devices along one axis, `data`."""
  return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def predict_step(
  variables: PyTree,
  batch: dict[str, Any],
  *,
  model: PCAN,
  sizes: Preprocessing,
  gamma: dict[str, float],
) -> Probabilities:
  """Probabilities of a batch.

  Args:
    variables: `params`, `batch_stats`, `prototypes`.
    batch: as `input_pipeline.evaluation_batches` yields it, with [B, K] clips.
    model, sizes: the network and its preprocessing.
    gamma: weight of the prototypes per stream (PCAN eq. 10 and 11).

  Returns:
    Per stream the softmax of the rectified action logits [B, A] and of the body logits [B, B'],
    averaged over clips; `fused` is the mean of the streams.
  """
  num_clips = next(iter(batch.values())).shape[1]
  flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in batch.items()}
  outputs = model.apply(variables, preprocess(flat, sizes), train=False)
  probabilities = {}
  for stream, out in outputs.items():
    logits = out["action_logits"]
    if model.has_prototypes:
      prototypes = variables["prototypes"][stream]["action"]
      logits = losses.rectify(logits, out["action_embedding"], prototypes, gamma[stream])
    probabilities[stream] = {
      level: jax.nn.softmax(scores).reshape(-1, num_clips, scores.shape[-1]).mean(axis=1)
      for level, scores in (("action", logits), ("body", out["body_logits"]))
    }
  fused = jax.tree.map(lambda *streams: sum(streams) / len(streams), *probabilities.values())
  return {"fused": fused} | probabilities


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
    self._batch_size = -(-self._config.eval.batch_size // mesh.size) * mesh.size
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

  def __call__(self, variables: PyTree, split: str, num_clips: int) -> Results:
    """Evaluates every video of a split, with `num_clips` test clips each."""
    ids, actions, probabilities = [], [], []
    for batch in input_pipeline.evaluation_batches(
      self._dataset,
      split,
      clips(self._config, num_clips),
      batch_size=self._batch_size,
      num_hosts=jax.process_count(),
      host=jax.process_index(),
    ):
      about = _of_all_hosts({name: batch.pop(name) for name in ("id", "action", "mask")})
      real = np.flatnonzero(about["mask"])
      ids += [clip_id.decode() for clip_id in about["id"][real]]
      actions.append(about["action"][real])
      on_device = {
        name: jax.make_array_from_process_local_data(self._sharded, values)
        for name, values in batch.items()
      }
      predicted = jax.device_get(self._step(variables, on_device))
      probabilities.append(jax.tree.map(lambda values, rows=real: values[rows], predicted))
    actions = np.concatenate(actions)
    probabilities = jax.tree.map(lambda *parts: np.concatenate(parts), *probabilities)
    counts = {branch: ClassificationCounts(self._dataset.tree) for branch in probabilities}
    for branch, levels in probabilities.items():
      counts[branch].add(levels["action"], levels["body"], actions)
    return Results(
      metrics={branch: count.summarize() for branch, count in counts.items()},
      ids=ids,
      actions=actions,
      probabilities=probabilities,
      num_clips=num_clips,
    )


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


def load(path: str | os.PathLike[str]) -> tuple[PCAN, PyTree, Description, int]:
  """Loads a model from a checkpoint, wherever and on how many devices it was trained.

  Args:
    path: as for `checkpoints.locate`.

  Returns:
    The network, its variables, what it was made for, and the step.
  """
  directory, step = locate(path)
  with Checkpoints(directory) as checkpoints:
    description = checkpoints.describe(step)
    model = build_model(description.config.model, description.tree)
    inputs = example_inputs(model, description.config.input, preprocessing(description))
    replicated = NamedSharding(data_mesh(), PartitionSpec())
    variables = jax.eval_shape(lambda: dict(model.init(jax.random.key(0), inputs, train=False)))
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
      {"prototypes": {}} | variables,
    )
    return model, checkpoints.restore(step, model=target)["model"], description, step


def evaluate_checkpoint(
  path: str | os.PathLike[str],
  output: pathlib.Path,
  *,
  data_path: str | None = None,
  split: str | None = None,
  num_clips: int | None = None,
) -> Results:
  """Evaluates a checkpoint, prints the table and writes `OUTPUT/eval/SPLIT/`.

  Args:
    path: as for `checkpoints.locate`.
    output: where the results go.
    data_path, split, num_clips: other values than those of the checkpoint's config.
  """
  model, variables, description, step = load(path)
  config = description.config
  dataset = input_pipeline.open_dataset(data_path or config.data.path, config.data.instructions)
  split = split or config.data.eval_split
  num_clips = num_clips or config.eval.num_clips
  results = Evaluator(model, description, dataset)(variables, split, num_clips)
  results.write(output / "eval" / split, description)
  _log.info(
    "%s, step %d: %d videos of split %r, %d clip(s) per video, in %%\n\n%s\n",
    path,
    step,
    len(results.ids),
    split,
    num_clips,
    results.table(),
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

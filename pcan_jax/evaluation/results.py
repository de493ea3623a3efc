"""The results of an evaluation: as tables and as files."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from pcan_jax.evaluation.origins import Ensemble, Origin
from pcan_jax.labels import LabelTree
from pcan_jax.spec import HostOutputs, flatten_outputs, unflatten_outputs
from pcan_jax.text_tables import aligned
from pcan_jax.writing import replace_file

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
  """The results of an evaluation.

  Attributes:
    ids: of the videos [N].
    actions: true actions [N], -1 if unknown.
    num_clips: test clips per video, over which scores are averaged.
    outputs: per branch and level `probabilities` [N, C] and, per stream, `logits` [N, C] and
      `embedding` [N, D], see `ModelSpec.predict`.
    metrics: per branch those of `metrics.measure`; empty if the split has no labels.
    origin: what they are of; None for a state in training, whose results are not written. Those
      of an ensemble have no other branch than `fused`.
  """

  ids: list[str]
  actions: np.ndarray
  num_clips: int
  outputs: HostOutputs
  metrics: dict[str, dict[str, float]]
  origin: Origin | Ensemble | None = None

  def table(self) -> str:
    """The metrics in per cent: one row per branch, the columns of the paper's table 1.

    Below an ensemble there is a row for each of its members.
    """
    if not self.metrics:
      return "no labels, no metrics"
    metrics = [*self.metrics.items()]
    if isinstance(self.origin, Ensemble):
      metrics = [("ensemble", self.metrics["fused"])]
      metrics += [(f"{m.name} x {m.weight:.3f}", m.metrics) for m in self.origin.members]
    rows = [["", *TABLE_COLUMNS.values()]]
    rows += [[name, *(f"{100 * of[key]:.2f}" for key in TABLE_COLUMNS)] for name, of in metrics]
    return aligned(rows)

  def in_order(self, ids: Sequence[str]) -> "Results":
    """The same videos in another order."""
    rows = {name: row for row, name in enumerate(self.ids)}
    order = np.array([rows[name] for name in ids], np.int64)
    return dataclasses.replace(
      self,
      ids=list(ids),
      actions=self.actions[order],
      outputs=jax.tree.map(lambda values: values[order], self.outputs),
    )

  def write(self, directory: pathlib.Path, tree: LabelTree) -> None:
    """Writes the results, which have an origin, to a directory, which is made.

    `metrics.json` holds the metrics, `predictions.csv` the five most likely actions of every video,
    `scores.npz` everything, for `read`.
    """
    assert self.origin is not None
    directory.mkdir(parents=True, exist_ok=True)
    counts = {"num_videos": len(self.ids), "num_clips": self.num_clips}
    summary = self.origin.summary() | counts | self.metrics
    if isinstance(self.origin, Ensemble):
      origin = {"ensemble": json.dumps(self.origin.to_json())}
    else:
      origin = self.origin.summary()
    scores = io.BytesIO()
    np.savez_compressed(
      scores,
      ids=np.array(self.ids, np.str_),
      actions=self.actions,
      num_clips=self.num_clips,
      metrics=json.dumps(self.metrics),
      **origin,
      **flatten_outputs(self.outputs),
    )
    replace_file(directory / "scores.npz", scores.getvalue())
    replace_file(directory / "metrics.json", json.dumps(summary, indent=2) + "\n")
    replace_file(directory / "predictions.csv", self._predictions(tree))

  @classmethod
  def read(cls, directory: str | os.PathLike[str]) -> "Results":
    """Reads results written by `write`.

    Raises:
      FileNotFoundError: there are no results; the message says how to create them.
      ValueError: the file is damaged, or was written by an earlier version.
    """
    directory = pathlib.Path(directory)
    scores = directory / "scores.npz"
    if not scores.is_file():
      raise FileNotFoundError(f"no {scores}: run pcan --mode=eval with this --workdir first")
    again = "run pcan --mode=eval with this --workdir again"
    try:
      with scores.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        results = {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError) as error:
      raise ValueError(f"{scores} is damaged ({error}): {again}") from error
    if "fused/action/probabilities" not in results or not {"checkpoint", "ensemble"} & {*results}:
      raise ValueError(f"{scores} was written by an earlier version: {again}")
    outputs = unflatten_outputs(results)
    if "metrics" in results:
      metrics = json.loads(str(results["metrics"]))
    else:  # of an earlier version
      metrics = _read_metrics(directory / "metrics.json", again)
    return cls(
      ids=results["ids"].tolist(),
      actions=results["actions"],
      num_clips=int(results["num_clips"]),
      outputs=outputs,
      metrics={branch: metrics[branch] for branch in metrics if branch in outputs},
      origin=_origin(results),
    )

  def _predictions(self, tree: LabelTree) -> str:
    top = min(5, tree.num_actions)
    fused = self.outputs["fused"]
    best = np.argsort(-fused["action"]["probabilities"], axis=1, kind="stable")[:, :top]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "action", *(f"top{i + 1}" for i in range(top)), "body"])
    for row, (clip_id, action) in enumerate(zip(self.ids, self.actions)):
      writer.writerow(
        [
          clip_id,
          tree.actions[action] if action >= 0 else "",
          *(tree.actions[i] for i in best[row]),
          tree.bodies[int(fused["body"]["probabilities"][row].argmax())],
        ]
      )
    return text.getvalue()


def _read_metrics(path: pathlib.Path, again: str) -> dict[str, Any]:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise ValueError(f"{path} is missing: {again}") from error
  except ValueError as error:
    raise ValueError(f"{path} is damaged ({error}): {again}") from error


def _origin(stored: dict[str, np.ndarray]) -> Origin | Ensemble:
  """What the arrays in a file of results say that they are of."""
  if "ensemble" in stored:
    return Ensemble.from_json(json.loads(str(stored["ensemble"])))
  rectified = bool(stored["rectified"]) if "rectified" in stored else None
  mirrored = bool(stored.get("mirrored", False))
  step, checkpoint, dataset = int(stored["step"]), str(stored["checkpoint"]), str(stored["dataset"])
  return Origin(step, checkpoint, dataset, rectified, mirrored)


def results_folder(
  workdir: pathlib.Path, split: str, *, of: str = "", deviations: Sequence[str] = ()
) -> pathlib.Path:
  """Where the results of a split are.

  Those of a checkpoint that is not the last one, and those that were not computed as the config
  says, have folders of their own.

  Args:
    workdir: of the run, or of an ensemble.
    split: that was evaluated.
    of: which checkpoint, see `runs.which_checkpoint`.
    deviations: see `runs.deviations`.
  """
  return workdir / "eval" / "-".join([split, *([of] if of else []), *deviations])

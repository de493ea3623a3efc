"""The results of an evaluation: as tables and as files."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import zipfile
import zlib

import numpy as np

from pcan_jax.labels import LabelTree
from pcan_jax.spec import HostOutputs, flatten_outputs, unflatten_outputs
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
class Origin:
  """What was evaluated on what.

  Attributes:
    step: of the checkpoint.
    checkpoint: its digest, `SavedStep.digest`.
    dataset: fingerprint of the data set.
  """

  step: int
  checkpoint: str
  dataset: str


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
    origin: what they are of; None for a state in training, whose results are not written.
  """

  ids: list[str]
  actions: np.ndarray
  num_clips: int
  outputs: HostOutputs
  metrics: dict[str, dict[str, float]]
  origin: Origin | None = None

  def table(self) -> str:
    """The metrics in per cent: one row per branch, the columns of the paper's table 1."""
    if not self.metrics:
      return "no labels, no metrics"
    rows = [["", *TABLE_COLUMNS.values()]]
    rows += [
      [branch, *(f"{100 * values[key]:.2f}" for key in TABLE_COLUMNS)]
      for branch, values in self.metrics.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

  def write(self, directory: pathlib.Path, tree: LabelTree) -> None:
    """Writes the results, which have an origin, to a directory, which is made.

    `metrics.json` holds the metrics, `predictions.csv` the five most likely actions of every video,
    `scores.npz` everything, for `read`.
    """
    assert self.origin is not None
    directory.mkdir(parents=True, exist_ok=True)
    origin = dataclasses.asdict(self.origin)
    summary = origin | {"num_videos": len(self.ids), "num_clips": self.num_clips} | self.metrics
    scores = io.BytesIO()
    np.savez_compressed(
      scores,
      ids=np.array(self.ids, np.str_),
      actions=self.actions,
      num_clips=self.num_clips,
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
    if "fused/action/probabilities" not in results or "checkpoint" not in results:
      raise ValueError(f"{scores} was written by an earlier version: {again}")
    metrics = json.loads((directory / "metrics.json").read_text())
    return cls(
      ids=results["ids"].tolist(),
      actions=results["actions"],
      num_clips=int(results["num_clips"]),
      outputs=unflatten_outputs(results),
      metrics={branch: values for branch, values in metrics.items() if isinstance(values, dict)},
      origin=Origin(int(results["step"]), str(results["checkpoint"]), str(results["dataset"])),
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


def results_folder(
  workdir: pathlib.Path, split: str, num_clips: int, usual: int, *, best: bool = False
) -> pathlib.Path:
  """Where the results of a split are.

  Those of the best checkpoint, and those with an unusual number of clips, have folders of their
  own.
  """
  name = f"{split}-best" if best else split
  return workdir / "eval" / (name if num_clips == usual else f"{name}-{num_clips}clip")

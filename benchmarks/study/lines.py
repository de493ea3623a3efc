"""Results on disk: one line per run, the predictions of its clips, and the labels of a data set.

    results/STUDY.csv           a line per run, with every metric of every branch
    results/clips/STUDY.csv     a line per run and branch: the predicted class of every clip
    results/labels/DATA.json    the label tree and the true action of every clip

Together they are all that docs/RESULTS.md is made of. Files only grow, by lines and by columns.
"""

import base64
import csv
import dataclasses
import io
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

from benchmarks.study import explain
from pcan_jax.evaluation.metrics import Predictions
from pcan_jax.evaluation.results import TABLE_COLUMNS
from pcan_jax.labels import LabelTree
from pcan_jax.writing import replace_file

BRANCHES = ("fused", "rgb", "pose")
KEY = ("digest", "fingerprint", "seed")
_ABOUT = (
  "row",
  "seed",
  "config",
  "data",
  "fingerprint",
  "split",
  "num_clips",
  "digest",
  "commit",
  "date",
  "device",
  "cpu",
  "cores",
  "python",
  "jax",
  "jaxlib",
  "flax",
  "tensorflow",
  "training_seconds",
  "evaluation_seconds",
)
COLUMNS = (
  *_ABOUT,
  *(f"{branch}/{metric}" for branch in BRANCHES for metric in TABLE_COLUMNS),
  *(f"{stream}/{name}" for stream in explain.STREAMS for name in explain.NAMES),
)
_CLIP_COLUMNS = (*KEY, "branch", "action", "body", "action_in_top5")

Line = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Labels:
  """The truth about the clips of a split: the label tree, and N actions."""

  tree: LabelTree
  actions: Int[np.ndarray, " n"]


class Results:
  """The results in a folder."""

  def __init__(self, folder: pathlib.Path) -> None:
    self._folder = folder

  @property
  def studies(self) -> list[str]:
    """Names of the studies that have lines."""
    return sorted(path.stem for path in self._folder.glob("*.csv"))

  def lines(self, study: str) -> list[Line]:
    """The lines of a study, in the order in which they were written."""
    empty = dict.fromkeys(COLUMNS, "")  # files of earlier versions have fewer
    return [empty | line for line in _read(self._folder / f"{study}.csv")]

  def find(self, study: str, key: Sequence[str]) -> Line | None:
    """The line of a run, in this study or in any other; a run may belong to several."""
    for name in sorted(self.studies, key=lambda name: name != study):
      for line in self.lines(name):
        if key_of(line) == tuple(key):
          return line | {"study": name}
    return None

  def predictions(self, study: str) -> dict[tuple[str, ...], dict[str, Predictions]]:
    """The predictions of the runs of a study, by the run's key and by branch."""
    found = {}
    for line in _read(self._folder / "clips" / f"{study}.csv"):
      found.setdefault(key_of(line), {})[line["branch"]] = Predictions(
        action=_unpack(line["action"]).astype(np.int64),
        body=_unpack(line["body"]).astype(np.int64),
        action_in_top5=_unpack(line["action_in_top5"]).astype(bool),
      )
    return found

  def labels(self, line: Line) -> Labels | None:
    """The labels of the split that a line is about; None if they have not been kept."""
    path = self._labels_path(line)
    if not path.is_file():
      return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    actions = _unpack(stored["actions"]).astype(np.int64)
    return Labels(LabelTree.from_dict(stored["tree"]), actions)

  def add(
    self, study: str, line: Line, predictions: dict[str, Predictions], labels: Labels
  ) -> None:
    """Appends a run; its predictions first, so that a line never lacks them.

    Raises:
      ValueError: the file has columns that this version does not write, or the labels of the data
        set are not those of before.
    """
    path = self._labels_path(line)
    content = {"tree": labels.tree.to_dict(), "actions": _pack(labels.actions)}
    if not path.is_file():
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(content)):
      raise ValueError(f"{path} has other labels than the clips that were just evaluated")
    about = {name: line[name] for name in KEY}
    rows = [
      about
      | {
        "branch": branch,
        "action": _pack(one.action),
        "body": _pack(one.body),
        "action_in_top5": _pack(one.action_in_top5),
      }
      for branch, one in predictions.items()
    ]
    if key_of(line) not in self.predictions(study):  # two rows may be the same run
      _append(self._folder / "clips" / f"{study}.csv", _CLIP_COLUMNS, rows)
    _append(self._folder / f"{study}.csv", COLUMNS, [line])

  def copy(self, line: Line, study: str, row: str) -> None:
    """Enters a run of another study under the name that it has in this one."""
    key, other = key_of(line), line["study"]
    labels = self.labels(line)
    if labels is None:
      raise ValueError(f"no {self._labels_path(line)}, although results/{other}.csv needs it")
    own = {name: line[name] for name in COLUMNS} | {"row": row}
    self.add(study, own, self.predictions(other)[key], labels)

  def _labels_path(self, line: Line) -> pathlib.Path:
    name = f"{line['data']}-{line['split']}-{line['fingerprint'][:8]}.json"
    return self._folder / "labels" / name


def key_of(line: Line) -> tuple[str, ...]:
  """What identifies a run: equal keys are the same run."""
  return tuple(line[name] for name in KEY)


def _read(path: pathlib.Path) -> list[Line]:
  if not path.is_file():
    return []
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def _append(path: pathlib.Path, columns: Sequence[str], rows: Sequence[Line]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  exists = path.is_file() and path.stat().st_size > 0
  if exists:
    header = next(_header(path))
    unknown = set(header) - set(columns)
    if unknown:
      raise ValueError(f"{path} has columns that this version does not write: {sorted(unknown)}")
    if tuple(header) != tuple(columns):  # of an earlier version
      replace_file(path, _table(columns, _read(path)))
  text = _table(columns, rows)
  with path.open("a", newline="", encoding="utf-8") as file:
    file.write(text.partition("\n")[2] if exists else text)
    file.flush()
    os.fsync(file.fileno())


def _table(columns: Sequence[str], rows: Sequence[Line]) -> str:
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def _header(path: pathlib.Path) -> Iterator[list[str]]:
  with path.open(newline="", encoding="utf-8") as file:
    yield from csv.reader(file)


def _pack(values: Int[np.ndarray, " n"] | Bool[np.ndarray, " n"]) -> str:
  """Text of an array of small numbers, compressed."""
  return base64.b85encode(zlib.compress(values.astype("<u2").tobytes(), 9)).decode()


def _unpack(text: str) -> Int[np.ndarray, " n"]:
  return np.frombuffer(zlib.decompress(base64.b85decode(text)), "<u2")

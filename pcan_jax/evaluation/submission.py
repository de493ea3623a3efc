"""Submissions to the Micro-Action Analysis challenges, which keep the test labels secret.

  pcan submission submission.zip --data datasets/ma52 --split test

`submission.zip` holds only `prediction.csv`. Its columns are vid, action_pred_1 to 5 and
body_pred_1 to 5: the name of a video (`test0000.mp4`) and the ids of its most likely classes, best
first. The rows are in the order of the official list of videos, which is sorted by name.
"""

import argparse
import collections
import csv
import io
import os
import pathlib
import sys
import zipfile
from collections.abc import Sequence

import numpy as np

from pcan_jax.console import leave_out_keras, quiet_libraries
from pcan_jax.evaluation.results import Results
from pcan_jax.labels import LEVELS, LabelTree
from pcan_jax.writing import replace_file

TABLE, ARCHIVE = "prediction.csv", "submission.zip"
TOP = 5
"""Number of classes per level and video; a tree with fewer lists all."""

_VIDEO_SUFFIX = ".mp4"
_MAX_BYTES = 1 << 28
_SHOWN = 5


def write_submission(
  results: Results, tree: LabelTree, directory: str | os.PathLike[str]
) -> pathlib.Path:
  """Writes `prediction.csv` and `submission.zip`, and checks them.

  Args:
    results: of an evaluation of the split; the fused probabilities are used.
    tree: the labels.
    directory: target; it is created.

  Returns:
    The path of the archive.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  fused = results.outputs["fused"]
  best = np.concatenate(
    [
      np.argsort(-fused[level]["probabilities"], axis=1, kind="stable")[:, :TOP] for level in LEVELS
    ],
    axis=1,
  )
  table = io.StringIO()
  rows = csv.writer(table)
  rows.writerow(_header(tree))
  for index in np.argsort(results.ids):
    rows.writerow([results.ids[index] + _VIDEO_SUFFIX, *best[index].tolist()])
  content = io.BytesIO()
  with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as zipped:
    zipped.writestr(TABLE, table.getvalue())
  archive = directory / ARCHIVE
  replace_file(directory / TABLE, table.getvalue())
  replace_file(archive, content.getvalue())
  check_submission(archive, results.ids, tree)
  return archive


def check_submission(path: str | os.PathLike[str], ids: Sequence[str], tree: LabelTree) -> None:
  """Checks that a submission has the form that the challenge expects.

  Args:
    path: of the archive, or of the table in it.
    ids: of the videos that it must cover, in any order.
    tree: the labels.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: files, columns, videos or their order are wrong, or a value is not a class; the
      message names the line.
  """
  path = pathlib.Path(path)
  where, lines = _read(path)
  header = _header(tree)
  if not lines or lines[0] != header:
    raise ValueError(f"{where}: the first line must be {','.join(header)}")
  expected = [clip_id + _VIDEO_SUFFIX for clip_id in sorted(ids)]
  if len(set(expected)) != len(expected):
    raise ValueError("the data set has two videos with the same id; build it again")
  found = [line[0] if line else "" for line in lines[1:]]
  _check_videos(found, expected, where)
  classes = [tree.num_actions if "action" in name else tree.num_bodies for name in header[1:]]
  for number, line in enumerate(lines[1:], start=2):
    if len(line) != len(header):
      raise ValueError(f"{where}, line {number}: {len(line)} cells instead of {len(header)}")
    for name, count, cell in zip(header[1:], classes, line[1:]):
      if cell not in map(str, range(count)):
        raise ValueError(
          f"{where}, line {number}: {name} is {cell[:40]!r}, not a class in 0..{count - 1}"
        )


def _check_videos(found: Sequence[str], expected: Sequence[str], where: str) -> None:
  """Requires the same videos in the same order, each once."""
  counts = collections.Counter(found)
  for problem, videos in (
    ("not in the split", counts.keys() - set(expected)),
    ("missing", set(expected) - counts.keys()),
    ("repeated", {video for video, count in counts.items() if count > 1}),
  ):
    if videos:
      shown = ", ".join(repr(video[:60]) for video in sorted(videos)[:_SHOWN])
      more = f" and {len(videos) - _SHOWN} more" if len(videos) > _SHOWN else ""
      raise ValueError(f"{where}: {len(videos)} videos are {problem}: {shown}{more}")
  for number, (video, right) in enumerate(zip(found, expected), start=2):
    if video != right:
      raise ValueError(
        f"{where}, line {number}: {video!r} where {right!r} is expected; "
        "rows must be sorted by name"
      )


def _read(path: pathlib.Path) -> tuple[str, list[list[str]]]:
  """The lines of a table, in an archive or not, and its name for error messages."""
  if not path.is_file():
    raise FileNotFoundError(f"no submission at {path}")
  where = str(path)
  if zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
      if names != [TABLE]:
        raise ValueError(f"{path} must hold {TABLE} and nothing else, not {names[:_SHOWN]}")
      if archive.getinfo(TABLE).file_size > _MAX_BYTES:
        raise ValueError(f"{path}: {TABLE} is far too large")
      content = archive.read(TABLE)
    where += f":{TABLE}"
  elif path.suffix.lower() == ".zip":
    raise ValueError(f"{path} is not a zip archive, or is damaged")
  else:
    content = path.read_bytes()
  try:
    return where, list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(f"{where} is not a CSV file in UTF-8: {error}") from error


def _header(tree: LabelTree) -> list[str]:
  return [
    "vid",
    *(f"action_pred_{rank + 1}" for rank in range(min(TOP, tree.num_actions))),
    *(f"body_pred_{rank + 1}" for rank in range(min(TOP, tree.num_bodies))),
  ]


def read_split(data: str | os.PathLike[str], split: str) -> tuple[list[str], LabelTree]:
  """The ids of all videos of a split of a built data set, and its labels.

  Raises:
    FileNotFoundError: there is no data set.
    ValueError: there is no such split, or the data set was built without some of its videos.
  """
  from pcan_jax.feed.dataset import open_dataset  # TensorFlow takes seconds

  dataset = open_dataset(data)
  ids = dataset.clip_ids(split)
  skipped = dataset.num_skipped(split)
  if skipped:
    raise ValueError(
      f"{dataset.path} was built without {skipped} bad videos of the split {split!r}, "
      "but a submission must cover all of them; fix them and build again"
    )
  return ids, dataset.tree


def main(argv: Sequence[str] | None = None) -> None:
  """Checks the submission given on the command line."""
  parser = argparse.ArgumentParser(
    prog="pcan submission",
    description="Checks a submission against the videos and labels of a data set.",
  )
  parser.add_argument("file", help="submission.zip or prediction.csv")
  parser.add_argument("--data", required=True, help="data set built from the official videos")
  parser.add_argument("--split", default="test", help="of the data set (%(default)s)")
  arguments = parser.parse_args(argv)
  quiet_libraries()
  leave_out_keras()
  try:
    ids, tree = read_split(arguments.data, arguments.split)
    check_submission(arguments.file, ids, tree)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(f"{arguments.file}: {len(ids)} videos, valid for the challenge")

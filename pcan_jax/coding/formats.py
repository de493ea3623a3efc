"""One door to the files of annotation tools: `read_codings` and `write_codings`."""

import os
import pathlib
from collections.abc import Callable, Sequence

from pcan_jax.coding import boris, boris_tables, csv_codings, eaf, label_studio, vtt
from pcan_jax.coding.events import Coding
from pcan_jax.coding.reading import Tell, read_bytes
from pcan_jax.labels import LabelTree

_Writer = Callable[[Sequence[Coding], LabelTree, pathlib.Path], list[pathlib.Path]]

WRITERS: dict[str, _Writer] = {
  "eaf": eaf.write_eaf,
  "boris": boris.write_boris,
  "boris_tsv": boris_tables.write_boris_table,
  "vtt": vtt.write_vtt,
  "label_studio": label_studio.write_label_studio,
  "csv": csv_codings.write_csv,
  "detections": csv_codings.write_detections,
}
"""The formats that are written, by name."""

READ = (
  "ELAN (.eaf), BORIS (.boris, and its tabular and aggregated events as .csv or .tsv), WebVTT "
  "(.vtt), Label Studio (.json), tables (.csv, .tsv) with the columns video,start,end,label or "
  "video_id,t_start,t_end,class,score"
)
"""The formats that are read, for people."""

SUFFIXES = (".boris", ".csv", ".eaf", ".tsv", ".vtt")
"""By which files of codings are known in a folder; others have to be named."""

WINDOWS = "predictions.csv"
"""The table of windows that prediction writes beside its codings; it is none."""


def find_codings(path: pathlib.Path) -> list[pathlib.Path]:
  """All files of codings in a folder and its subfolders, sorted by path; or a file as it is.

  Hidden files and folders are left out, and in a folder of predictions the table of windows.

  Raises:
    FileNotFoundError: there is none in the folder.
  """
  if not path.is_dir():
    return [path]
  files = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
  shown = (p for p in files if not any(q.startswith(".") for q in p.relative_to(path).parts))
  found = sorted(p for p in shown if p.name != WINDOWS)
  if not found:
    raise FileNotFoundError(f"no file of codings in {path} ({' '.join(SUFFIXES)})")
  return found


def read_codings(
  path: str | os.PathLike[str],
  *,
  point_seconds: float | None = None,
  tree: LabelTree | None = None,
  tell: Tell = lambda line: None,
) -> list[Coding]:
  """Reads all codings in a file, whose format is seen from its name and content.

  Args:
    path: of the file.
    point_seconds: length that point events get, around their times; None: they are an error.
    tree: names the actions of files that have only their ids, which the challenge's is; None
      makes the ids the labels.
    tell: called with a line for everything that is left out or not taken as it is written.

  Returns:
    A coding per video and coder. `Coding.video` is what the file calls it, which may be a path on
    another computer: compare `reading.media_name` of it.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: an optional package is missing; the message says how to install it.
    ValueError: the format is unknown, or the file is damaged; the message names the file.
  """
  path = pathlib.Path(path)
  content = read_bytes(path)
  suffix = path.suffix.lower()
  for own, fits, read in (
    (".eaf", eaf.is_eaf, eaf.read_eaf),
    (".boris", boris.is_boris, boris.read_boris),
    (".vtt", vtt.is_vtt, vtt.read_vtt),
    (None, label_studio.is_label_studio, label_studio.read_label_studio),
  ):
    if suffix == own or fits(content):
      return read(content, path, point_seconds, tell)
  if suffix in (".csv", ".tsv", ".txt"):
    rows = csv_codings.read_table(content, path)
    header = rows[0] if rows else []
    if csv_codings.is_detections(header):
      return csv_codings.read_detections(rows, path, point_seconds, tell, tree)
    if csv_codings.is_csv(header):
      return csv_codings.read_csv(rows, path, point_seconds, tell)
    if boris_tables.header_row(rows) is not None:
      return boris_tables.read_boris_table(rows, path, point_seconds, tell)
  raise ValueError(f"{path}: not a file of codings that is read: {READ}")


def write_codings(
  format_name: str,
  codings: Sequence[Coding],
  tree: LabelTree,
  output_dir: str | os.PathLike[str],
) -> list[pathlib.Path]:
  """Writes codings as files of an annotation tool, with times to the millisecond.

  Args:
    format_name: a key of `WRITERS`.
    codings: at most one per video.
    tree: vocabulary of the files; its body parts are their tiers.
    output_dir: created if it is missing.

  Returns:
    The files written.

  Raises:
    ImportError: an optional package is missing; the message says how to install it.
    ValueError: the format is unknown, or cannot hold a name.
  """
  if format_name not in WRITERS:
    raise ValueError(f"unknown format {format_name!r}: expected one of {', '.join(WRITERS)}")
  output_dir = pathlib.Path(output_dir)
  output_dir.mkdir(parents=True, exist_ok=True)
  return WRITERS[format_name](codings, tree, output_dir)

"""Cuts coded recordings into clips: `pcan import_annotations SESSIONS --videos DIR --out SOURCE`.

Reads the files of annotation tools (`pcan_jax.coding.formats`), cuts what is coded out of the long
videos, and their poses along, and hands the clips to `import_clips`, which writes a directory in
MA-52's layout, for `pcan check` and `pcan build`.
"""

import argparse
import collections
import dataclasses
import itertools
import pathlib
import random
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import tqdm

from pcan_jax.clips.pose_files import PoseFiles, open_poses
from pcan_jax.clips.problems import Problem
from pcan_jax.clips.video import Measured
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree, get_tree
from pcan_jax.writing import require_writable

from .coded_labels import BACKGROUND, Labels, read_mapping, understand
from .coded_sessions import Session, read_sessions
from .coded_splits import SPLIT_BY, draw_splits, group_by
from .cut_clips import (
  cut_poses,
  cut_videos,
  measure_videos,
  name_clips,
  write_record,
  write_table,
)
from .findings import Finding, print_findings
from .import_arguments import add_import_arguments, check_poses, print_next_steps
from .import_clips import import_clips
from .stretches import Cutting, Stretch, background_of, stretches_of

Background: TypeAlias = bool | int | str
"""How many stretches without codings are taken, see `import_annotations`."""

_ALL, _FREQUENT = "all", "frequent"  # values of --background


@dataclasses.dataclass
class Result:
  """What came of an import.

  Attributes:
    notes: on the result, line by line.
    findings: what is wrong, or was not taken as it was coded.
  """

  notes: list[str]
  findings: list[Finding]

  @property
  def errors(self) -> list[Finding]:
    return [finding for finding in self.findings if finding.is_error]


def import_annotations(
  sessions: Sequence[pathlib.Path],
  videos: pathlib.Path,
  out: pathlib.Path,
  *,
  poses: pathlib.Path | None,
  layout: str = "openpose-28",
  tree: pathlib.Path | None = None,
  mapping: pathlib.Path | None = None,
  split_by: str | None = None,
  background: Background = False,
  point_seconds: float | None = None,
  min_seconds: float = 0.0,
  max_seconds: float = 10.0,
  overlaps: str = "keep",
  val_share: float = 0.2,
  seed: int = 0,
  jobs: int = 0,
) -> Result:
  """Writes a source directory of coded stretches.

  Args:
    sessions: files of codings, or folders of them.
    videos: folder of the recordings.
    out: the source directory; must not exist.
    poses: of the whole recordings, see `pcan_jax.clips.pose_files`; None as for `import_clips`.
    layout: of the keypoints.
    tree: as for `get_tree`; None creates a tree from what is coded.
    mapping: table that says what tiers and labels mean, see `data.coded_labels`.
    split_by: one of `SPLIT_BY`; None is the first of them that there are two of.
    background: add stretches in which nothing is coded: a number, so many at most; True, as many as
      the most frequent action has; "all", every one found.
    point_seconds: length of point events; None makes them errors.
    min_seconds, max_seconds, overlaps: see `data.stretches.Cutting`; `overlaps` is keep or drop.
    val_share: share of the clips for validation.
    seed: for drawing that share, and the background.
    jobs: processes; 0 is one per core.

  Returns:
    Notes and findings. If there are errors among them, nothing was written.

  Raises:
    FileNotFoundError: a file or folder is missing.
    FileExistsError: `out` exists.
    ImportError: an optional package is missing.
    ValueError: an argument or the poses are wrong, or clips are bad; nothing is left at `out`.
    OSError: `out` cannot be written to, which is tried before videos are read.
  """
  if out.exists():
    raise FileExistsError(f"{out} exists; delete it or choose another directory")
  for name, value in (("min_seconds", min_seconds), ("max_seconds", max_seconds)):
    if not 0 <= value < float("inf") or value == 0 and name == "max_seconds":
      raise ValueError(f"--{name} must be a length in seconds, not {value}")
  if min_seconds > max_seconds:
    raise ValueError(f"--min_seconds={min_seconds} is more than --max_seconds={max_seconds}")
  _check_background(background)
  result = Result([], [])
  label_tree = get_tree(tree) if tree else None
  rows = read_mapping(mapping) if mapping else []
  found = read_sessions(sessions, videos, point_seconds, label_tree, result.findings)
  pose_files = _open_poses(poses, layout, found, result.findings)
  labels = understand(
    (event for session in found for event in session.events), rows, label_tree, result.findings
  )
  result.notes += ["what was coded is taken as", *labels.describe()]
  if result.errors:
    return result
  require_writable(out.parent)
  measured = _measure(found, jobs, result.findings)
  cutting = Cutting(min_seconds, max_seconds, overlaps == "keep")
  stretches = [
    stretch
    for session in found
    if session.id in measured
    for stretch in stretches_of(
      session, labels, measured[session.id].times, cutting, result.findings
    )
  ]
  if not stretches and not result.errors:
    result.findings.append(Finding("nothing to cut", str(videos), "no coding is left", True))
  if result.errors:
    return result
  split_by = group_by(stretches, split_by)
  if background:
    stretches += _background(found, measured, stretches, labels, background, split_by, seed, result)
  splits, notes = draw_splits(stretches, split_by, val_share, seed)
  result.notes += notes
  work = out.with_name(f"{out.name}.cutting")
  shutil.rmtree(work, ignore_errors=True)
  work.mkdir(parents=True)
  try:
    clips = name_clips(stretches)
    if pose_files:
      cut_poses(pose_files, found, clips, measured, work / "poses.pkl")
    cuts = cut_videos(found, clips, measured, work / "videos", jobs)
    for problem in tqdm.tqdm(cuts, "cutting", len(found), disable=None):
      if problem is not None:
        raise ValueError(f"{problem.id}: {problem.reason}")
    write_table(work / "clips.csv", clips, splits)
    if label_tree:
      _with_background(label_tree, bool(background)).write_csv(work / "tree.csv")
    notes = import_clips(
      work / "clips.csv",
      work / "videos",
      out,
      poses=work / "poses.pkl" if poses else None,
      layout=layout,
      tree=work / "tree.csv" if tree else None,
      copy=True,
      jobs=jobs,
    )
    write_record(out / "annotations" / "codings.csv", found, clips, measured, splits)
  finally:
    shutil.rmtree(work, ignore_errors=True)
  for given, ours in ((poses, "poses.pkl"), (tree, "tree.csv")):
    notes = [note.replace(str(work / ours), str(given)) for note in notes]
  result.notes += [note for note in notes if not note.startswith("split from the column")]
  return result


def _open_poses(
  path: pathlib.Path | None, layout: str, sessions: Sequence[Session], findings: list[Finding]
) -> PoseFiles | None:
  if path is None:
    return None
  only = sessions[0].id if len(sessions) == 1 else None
  poses = open_poses(path, get_layout(layout), only_clip=only)
  for session in sessions:
    if session.id not in poses.clip_ids:
      detail = f"no pose in {path}; estimate it, or give --no_poses"
      findings.append(Finding("no pose", session.id, detail, is_error=True))
  return poses


def _measure(
  sessions: Sequence[Session], jobs: int, findings: list[Finding]
) -> dict[str, Measured]:
  """Measures the videos of all sessions; those that cannot be read are errors."""
  measured = {}
  read = measure_videos(sessions, jobs)
  for session, one in zip(sessions, tqdm.tqdm(read, "measuring", len(sessions), disable=None)):
    if isinstance(one, Problem):
      findings.append(Finding("unreadable video", str(session.video), one.reason, is_error=True))
      continue
    measured[session.id] = one
    if one.damage:
      detail = "; ".join(one.damage)
      findings.append(Finding("damaged video", str(session.video), detail, is_error=False))
  return measured


def _background(
  sessions: Sequence[Session],
  measured: Mapping[str, Measured],
  coded: Sequence[Stretch],
  labels: Labels,
  wanted: Background,
  split_by: str,
  seed: int,
  result: Result,
) -> list[Stretch]:
  """As many of the stretches without codings as are wanted, if there are."""
  rng = random.Random(seed)

  def seconds(stretch: Stretch) -> float:
    times = measured[stretch.session].times
    return float(times[stretch.stop] - times[stretch.first])

  lengths = sorted(map(seconds, coded))
  found: list[Stretch] = []
  skipped = False
  for session in sessions:
    of_one = background_of(session, labels, measured[session.id].times, lengths, rng)
    if of_one and split_by == "person" and not of_one[0].person:
      detail = (
        "no background is taken: several people were coded in it; --split_by=session allows it"
      )
      result.findings.append(Finding("whose background", session.id, detail, is_error=False))
      skipped = True
      continue
    found += of_one
  if not found and not skipped:
    detail = "the gaps between codings are shorter than half a clip; there is no class for it"
    result.findings.append(Finding("no background", "all sessions", detail, is_error=False))
  if not found:
    return []
  number, reason = _number(wanted, coded, len(found))
  indices = sorted(rng.sample(range(len(found)), number))
  chosen = [found[index] for index in indices]
  result.notes.append(
    f"background: {number} of {len(found)} stretches found between codings, "
    f"{sum(map(seconds, chosen)):.0f} s in all: {reason}"
  )
  named = {action: body for body, action in filter(None, labels.meanings.values())}
  body = named.get(BACKGROUND, BACKGROUND)
  return [dataclasses.replace(stretch, body=body) for stretch in chosen]


def _number(wanted: Background, coded: Sequence[Stretch], found: int) -> tuple[int, str]:
  """How many of the stretches found are taken, and why."""
  if wanted == _ALL:
    return found, "every one, as --background=all asks for"
  if wanted is True:
    action, most = collections.Counter(stretch.action for stretch in coded).most_common(1)[0]
    if found < most:
      return found, f"every one; {action!r}, the most frequent action, has {most} clips"
    return most, f"as many as {action!r} has, the most frequent action"
  most = int(wanted)
  if found < most:
    return found, f"every one; there are no more, though --background={most} asks for them"
  return most, f"as many as --background={most} asks for"


def _check_background(wanted: Background) -> None:
  if wanted == _ALL or isinstance(wanted, bool) or isinstance(wanted, int) and wanted > 0:
    return
  raise ValueError(
    f"--background={wanted}: give a number of stretches, 1 or more, as in --background=300, or "
    "--background=all for every one found; --background alone takes as many as the most frequent "
    "action has clips"
  )


def _with_background(tree: LabelTree, background: bool) -> LabelTree:
  if not background or BACKGROUND in tree.actions:
    return tree
  bodies = tuple(dict.fromkeys((*tree.bodies, BACKGROUND)))
  return LabelTree((*tree.actions, BACKGROUND), bodies, (*tree.parents, bodies.index(BACKGROUND)))


def _amount(text: str) -> Background:
  if text == _FREQUENT:
    return True
  return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text


def _alone(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
  """Writes out what `--background` alone means, since the next word may be one of the sessions."""
  for word, after in itertools.pairwise(words):
    is_value = word == "--background" and re.fullmatch(rf"{_ALL}|-?[0-9]+", after)
    if is_value and not pathlib.Path(after).exists():
      parser.error(f"--background {after}: write --background={after}, with an equals sign")
  return [f"{word}={_FREQUENT}" if word == "--background" else word for word in words]


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="pcan import_annotations",
    description="Cuts what was coded out of long videos, for `pcan check` and `pcan build`. "
    "docs/CODING.md describes the formats.",
  )
  parser.add_argument(
    "sessions", type=pathlib.Path, nargs="+", help="files of codings, or folders of them"
  )
  add_import_arguments(parser)
  parser.add_argument(
    "--mapping", type=pathlib.Path, help="CSV file tier,label,body,action: what codings mean"
  )
  parser.add_argument(
    "--split_by", choices=SPLIT_BY, help="what is not in both splits (default: the first with two)"
  )
  parser.add_argument(
    "--background",
    nargs="?",
    type=_amount,
    const=True,
    default=False,
    metavar="=N",
    help="add stretches without codings as a class: as many as the most frequent action has; "
    "with =300, so many at most, with =all, every one found",
  )
  parser.add_argument(
    "--point_seconds", type=float, help="length of point events (default: they are errors)"
  )
  parser.add_argument(
    "--min_seconds", type=float, default=0.0, help="lengthen shorter codings (%(default)s)"
  )
  parser.add_argument(
    "--max_seconds", type=float, default=10.0, help="divide longer codings (%(default)s)"
  )
  parser.add_argument(
    "--overlaps",
    choices=("keep", "drop"),
    default="keep",
    help="codings that another one of the same person covers for the most part (%(default)s)",
  )
  parser.add_argument(
    "--show", type=int, default=5, help="findings listed of each kind (%(default)s)"
  )
  arguments = vars(parser.parse_args(_alone(sys.argv[1:] if argv is None else argv, parser)))
  check_poses(parser, arguments)
  shown = arguments.pop("show")
  try:
    result = import_annotations(**arguments)
  except (ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print("\n".join(result.notes))
  print_findings(result.findings, shown)
  if result.errors:
    first = result.errors[0]
    sys.exit(f"\nnothing was written; first error: {first.clip}: {first.detail}")
  print()
  print_next_steps(arguments["out"], arguments["layout"])


if __name__ == "__main__":
  main()

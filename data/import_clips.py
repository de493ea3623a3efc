"""Arranges your own clips as a source directory: `pcan import_clips CLIPS.csv ...`.

From a table (`clip_table`), a folder of videos, and poses in any format of `clips.pose_files` it
writes a directory in MA-52's layout, for `pcan check` and `pcan build`; without videos, one of
skeletons.
"""

import argparse
import collections
import csv
import dataclasses
import pathlib
import pickle
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from pcan_jax.clips import source_layout
from pcan_jax.clips.parallel import map_clips
from pcan_jax.clips.pose_files import PoseFiles, open_poses
from pcan_jax.clips.problems import Problem, describe_problems, write_problems
from pcan_jax.clips.source_layout import SPLITS, UNLABELLED_SPLIT, ClipSource
from pcan_jax.clips.video import Measured, measure_video
from pcan_jax.clips.video_files import FilesByName, composed
from pcan_jax.keypoints import KeypointLayout, get_layout
from pcan_jax.labels import LabelTree, get_tree, similar_names
from pcan_jax.writing import require_writable, told_shortly

from .clip_table import Row, label_rows, read_rows, unlabelled_rows
from .draw_split import draw_split
from .import_arguments import add_import_arguments, check_poses, print_next_steps


@dataclasses.dataclass(frozen=True)
class _Plan:
  """The content of the table, with splits drawn; videos and poses have not been opened."""

  tree: LabelTree
  clips: dict[str, list[ClipSource]]  # by split, without poses
  notes: list[str]


def import_clips(
  table: pathlib.Path,
  videos: pathlib.Path | None,
  out: pathlib.Path,
  *,
  poses: pathlib.Path | None,
  layout: str = "openpose-28",
  tree: pathlib.Path | None = None,
  copy: bool = False,
  val_share: float = 0.2,
  seed: int = 0,
  fps: float | None = None,
  jobs: int = 0,
) -> list[str]:
  """Writes a source directory.

  Args:
    table: CSV file, see `data.clip_table`; or the folder of the videos once more, for clips without
      labels.
    videos: folder of the videos; None is a source of skeletons.
    out: the source directory; must not exist.
    poses: see `pcan_jax.clips.pose_files`; None gives every clip keypoints with score 0, so that
      the network sees the whole frame.
    layout: of the keypoints, a key of `pcan_jax.keypoints.LAYOUTS` or the path of a JSON file.
    tree: as for `get_tree`; None creates a tree from the labels in the table, or is that of MA-52
      without a table.
    copy: copy the videos instead of linking to them.
    val_share: share of the clips for validation if the table has no column `split`.
    seed: for drawing that share.
    fps: frames per second of poses without videos, where neither the table nor their file says so;
      None is `source_layout.SKELETON_FPS`.
    jobs: processes; 0 is one per core.

  Returns:
    Notes on the result, line by line.

  Raises:
    FileNotFoundError: a file or folder is missing.
    FileExistsError: `out` exists.
    ValueError: the table or the poses are wrong, or clips are bad; nothing is left at `out`.
    OSError: `out` cannot be written to, which is tried before videos are read.
  """
  if out.exists():
    raise FileExistsError(f"{out} exists; delete it or choose another directory")
  if videos is None and poses is None:
    raise ValueError("without videos there must be poses; give --poses")
  if videos is not None and fps is not None:
    raise ValueError("--fps means nothing with --videos, which say when their frames appear")
  source_layout.skeleton_rate(fps)
  if videos and not videos.is_dir():
    raise FileNotFoundError(f"no folder of videos at {videos}")
  keypoint_layout = get_layout(layout)
  plan = _plan(table, videos, tree, val_share, seed)
  require_writable(out.parent)
  if poses and not videos:
    entries, pose_notes = _read_skeletons(plan, poses, keypoint_layout, out, fps)
  else:
    entries, pose_notes = _read_poses(plan, poses, keypoint_layout, out, jobs)
  partial = out.with_name(f"{out.name}.partial")
  if partial.exists():
    shutil.rmtree(partial)
  with told_shortly(f"{out} cannot be written"):
    for split, clips in plan.clips.items():
      _write_split(partial, split, clips, entries[split], copy)
    plan.tree.write_csv(partial / "annotations" / "actions.csv")
    _write_persons(partial, [clip for of_split in plan.clips.values() for clip in of_split])
  for split in plan.clips:  # what a build will read
    source_layout.read_split(partial, split, plan.tree, keypoint_layout)
  partial.replace(out)
  return [*plan.notes, *pose_notes]


def _plan(
  table: pathlib.Path,
  videos: pathlib.Path | None,
  tree_path: pathlib.Path | None,
  val_share: float,
  seed: int,
) -> _Plan:
  unlabelled = table.is_dir()
  rows, unused = (
    (unlabelled_rows(table), []) if unlabelled else read_rows(table, videos=videos is not None)
  )
  try:
    if unlabelled:
      tree_path = tree_path or pathlib.Path("ma52")  # a data set has labels, even if unused
    tree, actions = label_rows(rows, get_tree(tree_path) if tree_path else None)
    splits, notes = _splits(rows, actions, tree, val_share, seed)
    if unlabelled:
      notes = [
        "no labels, all in the split test: for pretraining (docs/VIDEOMAE.md) and prediction"
      ]
  except ValueError as error:
    named = str(error).startswith((str(table), str(tree_path)))
    raise error if named else ValueError(f"{table}: {error}") from error
  found = _find_videos(rows, videos) if videos else dict.fromkeys(rows)
  unknown = np.zeros((0, 0, 0, 2), np.float32)
  clips: dict[str, list[ClipSource]] = {split: [] for split in SPLITS if split in splits}
  for row, action, split in zip(rows, actions, splits):
    clips[split].append(
      ClipSource(
        row.id,
        split,
        found[row],
        action,
        unknown,
        unknown[..., 0],
        img_shape=None,
        fps=float(row.fps) if row.fps and not videos else None,
        person=row.person,
      )
    )
  counts = ", ".join(f"{len(of_split)} {split}" for split, of_split in clips.items())
  origin = f"from {tree_path}" if tree_path else "from the labels in the table"
  notes = [
    f"{_count(len(rows), 'clip')}: {counts}",
    *notes,
    f"label tree: {_count(tree.num_actions, 'action')} of {_count(tree.num_bodies, 'body part')}, "
    f"{origin}",
  ]
  similar = {
    "labels": similar_names(tree.actions) + similar_names(tree.bodies),
    "persons": similar_names(row.person for row in rows),
  }
  notes += [
    f"warning: {what} that are nearly the same: {', '.join(pairs)}"
    for what, pairs in similar.items()
    if pairs
  ]
  if unused:
    notes.append(f"unused columns: {', '.join(unused)}")
  return _Plan(tree, clips, notes)


def _find_videos(rows: Sequence[Row], videos: pathlib.Path) -> dict[Row, pathlib.Path]:
  files = FilesByName()
  found = {row: files.find(videos / row.video, below=videos) for row in rows}
  missing = [row for row, video in found.items() if video is None]
  if missing:
    more = f", and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
    raise FileNotFoundError(f"{missing[0].where}: no video at {videos / missing[0].video}{more}")
  return {row: video for row, video in found.items() if video}


def _count(number: int, noun: str) -> str:
  return f"{number} {noun}{'s' * (number != 1)}"


def _splits(
  rows: Sequence[Row], actions: Sequence[int], tree: LabelTree, val_share: float, seed: int
) -> tuple[list[str], list[str]]:
  """The split of every row, and notes on it."""
  persons = [row.person for row in rows] if rows[0].person else None
  if not rows[0].split:
    chosen = draw_split(actions, persons, val_share, seed)
    splits = ["val" if is_chosen else "train" for is_chosen in chosen]
    drawn = f"split drawn with seed {seed}, about {val_share:.0%} of every action for val"
    if "val" not in splits:
      notes = ["warning: no action has two clips, so none is drawn for val; add a column 'split'"]
    elif persons:
      people = sorted({person for person, is_chosen in zip(persons, chosen) if is_chosen})
      notes = [f"{drawn}, no person in both parts; in val: {', '.join(people)}"]
    else:
      notes = [
        f"{drawn}, clip by clip; persons may be in both parts, which makes scores too high: "
        "add a column 'person' or 'split'"
      ]
  else:
    splits = [row.split for row in rows]
    notes = [f"split from the column 'split'{_shared_persons(rows)}"]
    unread = sum(row.split == UNLABELLED_SPLIT and bool(row.label) for row in rows)
    if unread:
      notes.append(
        f"the labels of {_count(unread, 'test clip')} are not kept; clips to be scored go to val"
      )
  trained = {action for action, split in zip(actions, splits) if split == "train"}
  untrained = [name for action, name in enumerate(tree.actions) if action not in trained]
  if untrained:
    notes.append(f"actions without a clip in train: {', '.join(untrained)}")
  return splits, notes


def _shared_persons(rows: Sequence[Row]) -> str:
  splits_of: dict[str, set[str]] = collections.defaultdict(set)
  for row in rows:
    splits_of[row.person].add(row.split)
  shared = sorted(person for person, splits in splits_of.items() if person and len(splits) > 1)
  return f"; persons in more than one: {', '.join(shared)}" if shared else ""


def _read_poses(
  plan: _Plan, path: pathlib.Path | None, layout: KeypointLayout, out: pathlib.Path, jobs: int
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
  """The entries of every split's pickle, and notes on them."""
  clips = [clip for of_split in plan.clips.values() for clip in of_split]
  only = clips[0].id if len(clips) == 1 else None
  poses = open_poses(path, layout, only_clip=only) if path else None
  measured = map_clips(_measure, clips, jobs)
  entries: dict[str, list[dict[str, Any]]] = {split: [] for split in plan.clips}
  problems: list[Problem] = []
  damaged: list[str] = []
  for clip, found in zip(clips, tqdm.tqdm(measured, "videos", len(clips), disable=None)):
    if isinstance(found, Problem):
      problems.append(found)
      continue
    if found.damage and clip.video:
      damaged.append(f"{clip.video.name}: {'; '.join(found.damage)}")
    try:
      if poses:
        keypoints, scores = poses.read(clip.id, found.num_frames, found.size)
      else:
        keypoints = np.zeros((1, found.num_frames, layout.num_keypoints, 2), np.float32)
        scores = keypoints[..., 0]
    except (FileNotFoundError, ValueError) as error:
      problems.append(Problem(clip.id, clip.split, str(error)))
      continue
    entries[clip.split].append(_entry(clip, keypoints, scores, found.size))
  _refuse_bad_clips(out, problems)
  notes = []
  if damaged:
    more = f"; and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    notes.append(f"warning: {_count(len(damaged), 'damaged video')}: {damaged[0]}{more}")
  if not poses:
    return entries, [*notes, f"no poses: keypoints of the layout {layout.name} with the score 0"]
  notes.append(f"poses from {path}, layout {layout.name}")
  return entries, notes + _without_person(poses, entries)


def _read_skeletons(
  plan: _Plan,
  path: pathlib.Path,
  layout: KeypointLayout,
  out: pathlib.Path,
  fps: float | None,
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
  """As `_read_poses`, of clips without videos; one process reads them all."""
  default = source_layout.skeleton_rate(fps)
  clips = [clip for of_split in plan.clips.values() for clip in of_split]
  poses = open_poses(path, layout, only_clip=clips[0].id if len(clips) == 1 else None)
  entries: dict[str, list[dict[str, Any]]] = {split: [] for split in plan.clips}
  problems: list[Problem] = []
  rates = set()
  for clip in tqdm.tqdm(clips, "poses", disable=None):
    try:
      found = poses.read_alone(clip.id, default)
    except (FileNotFoundError, ValueError) as error:
      problems.append(Problem(clip.id, clip.split, str(error)))
      continue
    rates.add(clip.fps or found.fps)
    entry = _entry(clip, found.keypoints, found.scores, found.size)
    entries[clip.split].append(entry | {"fps": clip.fps or found.fps})
  _refuse_bad_clips(out, problems)
  shown = " to ".join(f"{rate:g}" for rate in sorted({min(rates), max(rates)}))
  told = "" if fps else "; --fps, or a column fps, says otherwise"
  notes = [
    f"skeletons without videos, poses from {path}, layout {layout.name}",
    f"{shown} frames per second{told}",
  ]
  return entries, notes + _without_person(poses, entries)


def _entry(
  clip: ClipSource, keypoints: np.ndarray, scores: np.ndarray, size: tuple[int, int]
) -> dict[str, Any]:
  """A clip as pyskl's pickles hold it."""
  return {
    "frame_dir": f"{clip.split}/{clip.id}",
    "label": clip.action,
    "total_frames": keypoints.shape[1],
    "img_shape": size,
    "keypoint": keypoints,
    "keypoint_score": scores,
  }


def _refuse_bad_clips(out: pathlib.Path, problems: Sequence[Problem]) -> None:
  bad_clips = out.with_name(f"{out.name}.bad_clips.csv")
  write_problems(bad_clips, problems)
  if problems:
    raise ValueError(
      f"{describe_problems('cannot import the clips', problems)}\n"
      f"All of them: {bad_clips}. Fix them, or remove them from the table"
    )


def _without_person(poses: PoseFiles, entries: dict[str, list[dict[str, Any]]]) -> list[str]:
  """A note on the frames in which nobody was found."""
  empty = {clip_id: count for clip_id, count in poses.frames_without_person.items() if count}
  if not empty:
    return []
  frames = [entry["total_frames"] for of_split in entries.values() for entry in of_split]
  worst = max(empty, key=lambda clip_id: empty[clip_id])
  return [
    f"no person in {sum(empty.values())} of {sum(frames)} frames, "
    f"in {len(empty)} of {len(frames)} clips; most in {worst!r}: {empty[worst]}"
  ]


def _measure(clip: ClipSource) -> Measured:
  assert clip.video is not None
  return measure_video(clip.video)


def _write_split(
  source: pathlib.Path,
  split: str,
  clips: Sequence[ClipSource],
  entries: list[dict[str, Any]],
  copy: bool,
) -> None:
  folder = source / "raw_videos" / split
  for directory in (source / "pose", source / "annotations"):
    directory.mkdir(parents=True, exist_ok=True)
  for clip in clips:
    if clip.video is None:
      continue
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / composed(clip.video.name)
    if copy:
      shutil.copyfile(clip.video, place)
    else:
      place.symlink_to(clip.video.resolve())
  with (source / "pose" / f"own_{split}.pkl").open("wb") as file:
    pickle.dump(entries, file, protocol=4)
  # Labels of test are placeholders.
  names = (composed(clip.video.name) if clip.video else clip.id for clip in clips)
  lines = (f"{name} {max(clip.action, 0)}\n" for name, clip in zip(names, clips))
  (source / "annotations" / f"{split}_list_videos.txt").write_text("".join(lines), encoding="utf-8")


def _write_persons(source: pathlib.Path, clips: Sequence[ClipSource]) -> None:
  """Writes who is in the clips, if the table says so."""
  if not clips[0].person:
    return
  path = source / "annotations" / source_layout.PERSONS_FILE
  with path.open("w", newline="", encoding="utf-8") as file:
    rows = csv.writer(file)
    rows.writerow(["id", "person"])
    rows.writerows((clip.id, clip.person) for clip in clips)


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="pcan import_clips",
    description="Arranges your own videos in MA-52's layout, for `pcan check` and `pcan build`. "
    "docs/DATA.md describes the table.",
  )
  parser.add_argument(
    "table",
    type=pathlib.Path,
    help="CSV file: video,label and optionally body,split,person,fps; "
    "or the folder of the videos, for clips without labels",
  )
  add_import_arguments(parser, needs_videos=False)
  parser.add_argument("--copy", action="store_true", help="copy the videos instead of linking them")
  parser.add_argument(
    "--fps",
    type=float,
    help="frames per second of poses without videos, unless they or the table state it "
    f"(default: {source_layout.SKELETON_FPS:g})",
  )
  arguments = vars(parser.parse_args(argv))
  check_poses(parser, arguments)
  try:
    notes = import_clips(**arguments)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print("\n".join(notes))
  print_next_steps(arguments["out"], arguments["layout"])


if __name__ == "__main__":
  main()

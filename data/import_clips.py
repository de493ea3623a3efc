"""Arranges your own clips as a source directory: `pcan import_clips CLIPS.csv ...`.

From a table (`clip_table`), a folder of videos, and poses in any format of `clips.pose_files` it
writes a directory in MA-52's layout, for `pcan check` and `pcan build`.
"""

import argparse
import collections
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
from pcan_jax.clips.pose_files import open_poses
from pcan_jax.clips.problems import Problem, describe_problems, write_problems
from pcan_jax.clips.source_layout import SPLITS, UNLABELLED_SPLIT, ClipSource
from pcan_jax.clips.video import decode_video
from pcan_jax.clips.video_files import FilesByName, composed
from pcan_jax.keypoints import KeypointLayout, get_layout
from pcan_jax.labels import LabelTree, get_tree

from .clip_table import Row, label_rows, read_rows, similar_labels, unlabelled_rows
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
  videos: pathlib.Path,
  out: pathlib.Path,
  *,
  poses: pathlib.Path | None,
  layout: str = "openpose-28",
  tree: pathlib.Path | None = None,
  copy: bool = False,
  val_share: float = 0.2,
  seed: int = 0,
  jobs: int = 0,
) -> list[str]:
  """Writes a source directory.

  Args:
    table: CSV file, see `data.clip_table`; or the folder of the videos once more, for clips without
      labels.
    videos: folder of the videos.
    out: the source directory; must not exist.
    poses: see `pcan_jax.clips.pose_files`; None gives every clip keypoints with score 0, so that
      the network sees the whole frame.
    layout: of the keypoints, a key of `pcan_jax.keypoints.LAYOUTS` or the path of a JSON file.
    tree: as for `get_tree`; None creates a tree from the labels in the table, or is that of MA-52
      without a table.
    copy: copy the videos instead of linking to them.
    val_share: share of the clips for validation if the table has no column `split`.
    seed: for drawing that share.
    jobs: processes; 0 is one per core.

  Returns:
    Notes on the result, line by line.

  Raises:
    FileNotFoundError: a file or folder is missing.
    FileExistsError: `out` exists.
    ValueError: the table or the poses are wrong, or clips are bad; nothing is left at `out`.
  """
  if out.exists():
    raise FileExistsError(f"{out} exists; delete it or choose another directory")
  if not videos.is_dir():
    raise FileNotFoundError(f"no folder of videos at {videos}")
  keypoint_layout = get_layout(layout)
  plan = _plan(table, videos, tree, val_share, seed)
  entries, pose_notes = _read_poses(plan, poses, keypoint_layout, out, jobs)
  partial = out.with_name(f"{out.name}.partial")
  if partial.exists():
    shutil.rmtree(partial)
  for split, clips in plan.clips.items():
    _write_split(partial, split, clips, entries[split], copy)
  plan.tree.write_csv(partial / "annotations" / "actions.csv")
  for split in plan.clips:  # what a build will read
    source_layout.read_split(partial, split, plan.tree, keypoint_layout)
  partial.replace(out)
  return [*plan.notes, *pose_notes]


def _plan(
  table: pathlib.Path,
  videos: pathlib.Path,
  tree_path: pathlib.Path | None,
  val_share: float,
  seed: int,
) -> _Plan:
  unlabelled = table.is_dir()
  rows, unused = (unlabelled_rows(table), []) if unlabelled else read_rows(table)
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
  files = FilesByName()
  found = {row: files.find(videos / row.video, below=videos) for row in rows}
  missing = [row for row, video in found.items() if video is None]
  if missing:
    more = f", and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
    raise FileNotFoundError(f"{missing[0].where}: no video at {videos / missing[0].video}{more}")
  unknown = np.zeros((0, 0, 0, 2), np.float32)
  clips: dict[str, list[ClipSource]] = {split: [] for split in SPLITS if split in splits}
  for row, action, split in zip(rows, actions, splits):
    clips[split].append(
      ClipSource(row.id, split, found[row], action, unknown, unknown[..., 0], img_shape=None)
    )
  counts = ", ".join(f"{len(of_split)} {split}" for split, of_split in clips.items())
  origin = f"from {tree_path}" if tree_path else "from the labels in the table"
  notes = [
    f"{_count(len(rows), 'clip')}: {counts}",
    *notes,
    f"label tree: {_count(tree.num_actions, 'action')} of {_count(tree.num_bodies, 'body part')}, "
    f"{origin}",
  ]
  similar = similar_labels(tree)
  if similar:
    notes.append(f"warning: labels that are nearly the same: {', '.join(similar)}")
  if unused:
    notes.append(f"unused columns: {', '.join(unused)}")
  return _Plan(tree, clips, notes)


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
    if persons:
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
    num_frames, size, damage = found
    if damage:
      damaged.append(f"{clip.video.name}: {'; '.join(damage)}")
    try:
      if poses:
        keypoints, scores = poses.read(clip.id, num_frames, size)
      else:
        keypoints = np.zeros((1, num_frames, layout.num_keypoints, 2), np.float32)
        scores = keypoints[..., 0]
    except (FileNotFoundError, ValueError) as error:
      problems.append(Problem(clip.id, clip.split, str(error)))
      continue
    entries[clip.split].append(
      {
        "frame_dir": f"{clip.split}/{clip.id}",
        "label": clip.action,
        "total_frames": num_frames,
        "img_shape": size,
        "keypoint": keypoints,
        "keypoint_score": scores,
      }
    )
  bad_clips = out.with_name(f"{out.name}.bad_clips.csv")
  write_problems(bad_clips, problems)
  if problems:
    raise ValueError(
      f"{describe_problems('cannot import the clips', problems)}\n"
      f"All of them: {bad_clips}. Fix them, or remove them from the table"
    )
  notes = []
  if damaged:
    more = f"; and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    notes.append(f"warning: {_count(len(damaged), 'damaged video')}: {damaged[0]}{more}")
  if not poses:
    return entries, [*notes, f"no poses: keypoints of the layout {layout.name} with the score 0"]
  empty = {clip_id: count for clip_id, count in poses.frames_without_person.items() if count}
  total = sum(entry["total_frames"] for of_split in entries.values() for entry in of_split)
  notes.append(f"poses from {path}, layout {layout.name}")
  if empty:
    worst = max(empty, key=empty.get)
    notes.append(
      f"no person in {sum(empty.values())} of {total} frames, "
      f"in {len(empty)} of {len(clips)} clips; most in {worst!r}: {empty[worst]}"
    )
  return entries, notes


def _measure(clip: ClipSource) -> tuple[int, tuple[int, int], list[str]]:
  """The number of frames of a video, their size (h, w), and damage."""
  frames = decode_video(clip.video)
  sizes = [frame.shape[:2] for frame in frames]
  return len(sizes), sizes[0], frames.damage


def _write_split(
  source: pathlib.Path,
  split: str,
  clips: Sequence[ClipSource],
  entries: list[dict[str, Any]],
  copy: bool,
) -> None:
  folder = source / "raw_videos" / split
  for directory in (folder, source / "pose", source / "annotations"):
    directory.mkdir(parents=True, exist_ok=True)
  for clip in clips:
    place = folder / composed(clip.video.name)
    if copy:
      shutil.copyfile(clip.video, place)
    else:
      place.symlink_to(clip.video.resolve())
  with (source / "pose" / f"own_{split}.pkl").open("wb") as file:
    pickle.dump(entries, file, protocol=4)
  # Labels of test are placeholders.
  lines = (f"{composed(clip.video.name)} {max(clip.action, 0)}\n" for clip in clips)
  (source / "annotations" / f"{split}_list_videos.txt").write_text("".join(lines), encoding="utf-8")


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
    help="CSV file: video,label and optionally body,split,person; "
    "or the folder of the videos, for clips without labels",
  )
  add_import_arguments(parser)
  parser.add_argument("--copy", action="store_true", help="copy the videos instead of linking them")
  arguments = vars(parser.parse_args(argv))
  check_poses(parser, arguments)
  try:
    notes = import_clips(**arguments)
  except (FileNotFoundError, FileExistsError, ValueError) as error:
    sys.exit(f"error: {error}")
  print("\n".join(notes))
  print_next_steps(arguments["out"], arguments["layout"])


if __name__ == "__main__":
  main()

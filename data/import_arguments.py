"""What the command lines of `import_clips` and `import_annotations` share."""

import argparse
import pathlib
from typing import Any

from pcan_jax.keypoints import LAYOUTS


def add_import_arguments(parser: argparse.ArgumentParser, *, needs_videos: bool = True) -> None:
  """The arguments of all commands that write a source directory of one's own clips."""
  otherwise = "" if needs_videos else " (default: there are only poses)"
  parser.add_argument(
    "--videos", type=pathlib.Path, required=needs_videos, help=f"folder of the videos{otherwise}"
  )
  parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to write")
  parser.add_argument(
    "--poses", type=pathlib.Path, help="pyskl pickle, .npz, COCO or MMPose .json, or a folder"
  )
  parser.add_argument(
    "--no_poses", action="store_true", help="import without poses, for RGB models"
  )
  parser.add_argument(
    "--layout",
    default="openpose-28",
    help=f"keypoint layout: {', '.join(LAYOUTS)}, or a JSON file (default: openpose-28)",
  )
  parser.add_argument(
    "--tree",
    type=pathlib.Path,
    help="label tree: ma52, or a CSV file (default: from the labels)",
  )
  parser.add_argument(
    "--val_share",
    type=float,
    default=0.2,
    help="share of the clips drawn for val where no split is given (default: 0.2)",
  )
  parser.add_argument("--seed", type=int, default=0, help="for drawing that share (default: 0)")
  parser.add_argument("--jobs", type=int, default=0, help="processes (default: one per core)")


def check_poses(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
  """Takes `no_poses` out of the arguments; exactly one of --poses and --no_poses must be given."""
  videos = arguments["videos"] or "VIDEOS"
  if arguments.pop("no_poses") == bool(arguments["poses"]):
    parser.error(
      "give --poses, or --no_poses for an RGB model. If you have no poses, "
      f"`pcan extract_pose {videos} --out poses.pkl` estimates them"
    )


def print_next_steps(source: pathlib.Path, layout: str) -> None:
  """Prints the commands that check and build a source directory."""
  option = "" if layout in LAYOUTS else f" --layout {layout}"
  print(f"next: pcan check {source}{option} --html page.html")
  print(f"      pcan build {source} DATASET{option}")

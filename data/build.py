"""Builds a data set: `pcan build SOURCE OUT`.

SOURCE is a directory in MA-52's layout; the shards are written to OUT/pcan/LAYOUT-SIDE/VERSION.
"""

import argparse
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from pcan_jax.clips import source_layout
from pcan_jax.clips.stored_frames import CLIPS_PER_SHARD, Encoding
from pcan_jax.console import leave_out_keras, quiet_libraries
from pcan_jax.keypoints import LAYOUTS, get_layout
from pcan_jax.writing import told_shortly


def build(
  source: pathlib.Path,
  out: pathlib.Path,
  *,
  side: int = Encoding.side,
  layout: str | None = None,
  tree: pathlib.Path | None = None,
  jpeg_quality: int = Encoding.jpeg_quality,
  clips_per_shard: int = CLIPS_PER_SHARD,
  skip_bad: bool = False,
  fps: float | None = None,
  jobs: int = 0,
) -> pathlib.Path:
  """Builds TFRecord shards from a source directory, unless they already exist.

  A data set that was built of other labels, clips, poses or options is refused, not replaced.

  Args:
    source: directory in MA-52's layout.
    out: folder of data sets.
    side, jpeg_quality, tree, clips_per_shard, skip_bad, jobs: see `PcanConfig`.
    fps: see `PcanConfig`; None is `source_layout.SKELETON_FPS`.
    layout: see `PcanConfig`; None is the known layout with as many keypoints as the source.

  Returns:
    The folder of the shards.

  Raises:
    FileNotFoundError: a file of the source is missing.
    ValueError: a file of the source cannot be read, clips are bad, or the existing data set was
      built from something else.
    OSError: the data set cannot be written.
  """
  # Not at the top: worker processes import this module and do not need TensorFlow.
  import tensorflow_datasets as tfds

  from pcan_jax.feed.dataset import naming_damage
  from pcan_jax.feed.pcan_dataset_builder import Builder, PcanConfig

  source_layout.find_splits(source)
  videos = source_layout.has_videos(source)
  found = get_layout(layout) if layout else source_layout.guess_layout(source)
  config = PcanConfig(
    name=f"{found.name}-{side}",
    side=side,
    jpeg_quality=jpeg_quality,
    layout=layout or found.name,
    tree=str(tree) if tree else None,
    clips_per_shard=clips_per_shard,
    skip_bad=skip_bad,
    videos=videos,
    fps=skeleton_fps(source, fps),
    jobs=jobs,
  )
  with naming_damage(out):
    builder = Builder(data_dir=str(out), config=config)
  with (
    tempfile.TemporaryDirectory() as downloads,  # stays empty, but TFDS requires it
    told_shortly(f"the data set cannot be written to {out}"),
  ):
    builder.download_and_prepare(
      download_dir=downloads,
      download_config=tfds.download.DownloadConfig(manual_dir=str(source)),
    )
  return pathlib.Path(builder.data_path)


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="pcan build",
    description="Builds TFRecord shards from clips in MA-52's layout. Run it again to resume an "
    "interrupted build, or to see what has changed since a data set was built.",
  )
  parser.add_argument("source", type=pathlib.Path, help="directory in MA-52's layout")
  parser.add_argument("out", type=pathlib.Path, help="where to write the data set")
  parser.add_argument(
    "--side", type=int, default=Encoding.side, help="pixels of the stored frames (%(default)s)"
  )
  parser.add_argument(
    "--jpeg_quality", type=int, default=Encoding.jpeg_quality, help="of frames (%(default)s)"
  )
  parser.add_argument(
    "--clips_per_shard", type=int, default=CLIPS_PER_SHARD, help="at most (%(default)s)"
  )
  parser.add_argument("--skip_bad", action="store_true", help="leave out unreadable clips")
  add_source_arguments(parser)
  arguments = parser.parse_args(argv)
  quiet_libraries()
  leave_out_keras()
  try:
    folder = build(**vars(arguments))
  except (OSError, ValueError, RuntimeError) as error:
    sys.exit(f"error: {error}")
  damaged = _count_damaged(folder)
  if damaged:
    print(f"warning: {damaged} of the videos are damaged; `pcan check` names them", file=sys.stderr)
  print(folder)


def skeleton_fps(source: pathlib.Path, fps: float | None) -> float:
  """The rate of poses that do not state theirs, and a default for sources that have none.

  Raises:
    ValueError: a rate is given for videos, or is no rate.
  """
  if fps is not None and source_layout.has_videos(source):
    raise ValueError(f"--fps means nothing for {source}: its videos say when their frames appear")
  return source_layout.skeleton_rate(fps)


def _count_damaged(folder: pathlib.Path) -> int:
  metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
  return sum(counts.get("damaged", 0) for counts in metadata["splits"].values())


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments common to all commands that read a source directory."""
  parser.add_argument(
    "--layout",
    help=f"keypoint layout: {', '.join(LAYOUTS)}, or a JSON file (default: by number of keypoints)",
  )
  parser.add_argument(
    "--tree",
    type=pathlib.Path,
    help="label tree, CSV id,action,body (default: annotations/actions.csv, else MA-52's)",
  )
  parser.add_argument(
    "--fps",
    type=float,
    help="frames per second of skeletons without videos whose poses do not state it "
    f"(default: {source_layout.SKELETON_FPS:g})",
  )
  parser.add_argument("--jobs", type=int, default=0, help="processes (default: one per core)")


if __name__ == "__main__":
  main()

"""Command line: `pcan synthetic --out DIR`."""

import argparse
import dataclasses
import os
import time

from .generate import PRESETS, Settings, generate


def main() -> None:
  """Parses the arguments and generates."""
  parser = argparse.ArgumentParser(
    prog="pcan synthetic",
    description="Writes drawn (not real) micro-action clips in the layout of MA-52's release.",
  )
  parser.add_argument(
    "--preset",
    choices=PRESETS,
    default="demo",
    help="where the other options come from: demo (default), or lookalikes, to compare methods",
  )
  parser.add_argument(
    "--out", required=True, help="new or empty directory; unchanged if it already has these clips"
  )
  parser.add_argument("--seed", type=int, help="determines all clips")
  parser.add_argument("--train", type=int, help="number of training clips")
  parser.add_argument("--val", type=int, help="number of validation clips")
  parser.add_argument(
    "--height",
    type=int,
    help="of the videos in pixels, about 1080 in MA-52; the width is 1.2 times that",
  )
  parser.add_argument(
    "--figures",
    type=int,
    help="number of figures in training; validation has a third as many other figures",
  )
  parser.add_argument(
    "--between",
    type=float,
    help="share of clips between two actions of one body part, some with the wrong label",
  )
  parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (all cores)")
  args = parser.parse_args()
  given = {
    field.name: value
    for field in dataclasses.fields(Settings)
    if (value := getattr(args, field.name)) is not None
  }
  try:
    settings = dataclasses.replace(PRESETS[args.preset], **given)
    start = time.perf_counter()
    written = generate(args.out, settings, args.jobs)
  except (ValueError, FileExistsError) as error:
    parser.error(str(error))
  seconds = time.perf_counter() - start
  clips = settings.train + settings.val
  if not written:
    print(f"{clips} clips of this seed and size are already in {args.out}")
    return
  print(f"{clips} clips in {args.out}, {seconds:.0f} s ({clips / seconds:.1f} clips/s)")


if __name__ == "__main__":
  main()

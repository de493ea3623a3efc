"""Command line: `pcan synthetic --out DIR`."""

import argparse
import os
import time

from .generate import Settings, generate


def main() -> None:
  """Parses the arguments and generates."""
  default = Settings()
  parser = argparse.ArgumentParser(
    prog="pcan synthetic",
    description="Writes drawn (not real) micro-action clips in the layout of MA-52's release.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    "--out", required=True, help="new or empty directory; unchanged if it already has these clips"
  )
  parser.add_argument("--seed", type=int, default=default.seed, help="determines all clips")
  parser.add_argument("--train", type=int, default=default.train, help="number of training clips")
  parser.add_argument("--val", type=int, default=default.val, help="number of validation clips")
  parser.add_argument(
    "--height",
    type=int,
    default=default.height,
    help="of the videos in pixels, about 1080 in MA-52; the width is 1.2 times that",
  )
  parser.add_argument(
    "--figures",
    type=int,
    default=default.figures,
    help="number of figures in training; validation has a third as many other figures",
  )
  parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
  args = parser.parse_args()
  try:
    settings = Settings(args.seed, args.train, args.val, args.height, args.figures)
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

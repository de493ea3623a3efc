"""Command line: `pcan synthetic --out DIR`."""

import argparse
import dataclasses
import os
import time

from .generate import PRESETS, generate
from .interviews import SCHEME, Interviews, generate_interviews

_CLIPS = ("train", "val", "figures", "between")  # what only clips have
_INTERVIEWS = ("interviews", "minutes", "actions")


def main() -> None:
  """Parses the arguments and generates."""
  parser = argparse.ArgumentParser(
    prog="pcan synthetic",
    description="Writes drawn (not real) micro-action clips in the layout of MA-52's release or, "
    "with --interviews, long videos with poses and the true events in them.",
  )
  parser.add_argument(
    "--preset",
    choices=PRESETS,
    help="where the other options come from: demo (default), or lookalikes, to compare methods",
  )
  parser.add_argument(
    "--out", required=True, help="new or empty directory; unchanged if it already has these clips"
  )
  parser.add_argument("--seed", type=int, help="determines everything")
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
  parser.add_argument(
    "--interviews", type=int, help="draw so many long videos instead, each of a figure of its own"
  )
  parser.add_argument("--minutes", type=float, help="with --interviews: length of each (3)")
  parser.add_argument(
    "--actions",
    type=lambda text: tuple(text.split(",")),
    help=f"with --interviews: what may occur, separated by commas ({','.join(SCHEME)})",
  )
  parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (all cores)")
  args = parser.parse_args()
  given = {name: value for name, value in vars(args).items() if value is not None}
  out, jobs = given.pop("out"), given.pop("jobs")
  preset = given.pop("preset", None)
  long = args.interviews is not None
  other = [name for name in (_CLIPS if long else _INTERVIEWS) if name in given]
  if other or preset and long:
    parser.error(
      f"--{(other or ['preset'])[0]} means nothing {'with' if long else 'without'} --interviews"
    )
  try:
    start = time.perf_counter()
    if long:
      interviews = Interviews(**given)
      what, count = f"interviews of {interviews.minutes:g} minutes", interviews.interviews
      written = generate_interviews(out, interviews, jobs)
    else:
      settings = dataclasses.replace(PRESETS[preset or "demo"], **given)
      what, count = "clips", settings.train + settings.val
      written = generate(out, settings, jobs)
  except (ImportError, OSError, ValueError) as error:
    parser.error(str(error))
  seconds = time.perf_counter() - start
  if not written:
    print(f"{count} {what} of this seed and size are already in {out}")
    return
  print(f"{count} {what} in {out}, {seconds:.0f} s ({count / seconds:.1f}/s)")


if __name__ == "__main__":
  main()

"""Command line: `python -m benchmarks.study NAME` runs a study, `--render` makes its page."""

import argparse
import logging
import pathlib
import subprocess
import sys

from benchmarks.study.tables import STUDIES
from pcan_jax import shipped
from pcan_jax.console import quiet_libraries

ROOT = pathlib.Path(__file__).parents[2]
_DATA = pathlib.Path("datasets/lookalikes")


def main() -> None:
  """Parses the arguments, then runs or renders."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.study",
    description="Trains and evaluates the rows of a study, one at a time; what is in results/ "
    "already is not repeated, and a run that was interrupted goes on.",
  )
  parser.add_argument("study", nargs="?", metavar="NAME", help=f"one of {', '.join(STUDIES)}")
  parser.add_argument("--rows", nargs="+", default=(), help="only these rows")
  parser.add_argument("--seeds", default="0-4", help="0-4 or 0,2,3 (0-4)")
  parser.add_argument(
    "--data", type=pathlib.Path, default=_DATA, help=f"folder of the data set ({_DATA})"
  )
  parser.add_argument("--config", help="config for this data set (default: the folder's name)")
  parser.add_argument("--plan", action="store_true", help="list the runs that are missing")
  parser.add_argument("--render", action="store_true", help="write docs/RESULTS.md, run nothing")
  args = parser.parse_args()
  if bool(args.study) == args.render:
    parser.error("name a study, or use --render")
  quiet_libraries()
  logging.basicConfig(format="%(message)s", stream=sys.stdout)
  logging.getLogger("benchmarks").setLevel(logging.INFO)
  try:
    _render() if args.render else _run(args)
  except (ValueError, FileNotFoundError) as error:
    parser.error(str(error))
  except subprocess.CalledProcessError as error:
    sys.exit(f"error: the run ended with status {error.returncode}; what it wrote says why")


def _run(args: argparse.Namespace) -> None:
  from benchmarks.study import runs
  from benchmarks.study.lines import Results
  from pcan_jax.feed.dataset import open_dataset

  config = args.config or args.data.name
  shipped.find_file(config, "configs", ".py", "config")
  place = runs.Place(args.data, config, pathlib.Path("runs/study"), Results(ROOT / "results"))
  seeds = parse_seeds(args.seeds)
  if args.plan:
    fingerprint = open_dataset(args.data).fingerprint
    for run in runs.missing_runs(args.study, place, fingerprint, args.rows, seeds):
      print(f"seed {run.seed}  {run.row}: {config}:{run.what.variant} {' '.join(run.what.flags)}")
    return
  runs.run_study(args.study, place, args.rows, seeds)


def _render() -> None:
  from benchmarks.study.figures import save_figures
  from benchmarks.study.lines import Results
  from benchmarks.study.page import documents, fill_blocks, page
  from benchmarks.study.summaries import summarise

  sections = summarise(Results(ROOT / "results"))
  (ROOT / "docs" / "RESULTS.md").write_text(page(sections), encoding="utf-8")
  for path in documents(ROOT):
    text = path.read_text(encoding="utf-8")
    path.write_text(fill_blocks(text, sections), encoding="utf-8")
  save_figures(sections, ROOT / "docs" / "images")
  print(f"docs/RESULTS.md: {sum(section.runs for section in sections)} runs")


def parse_seeds(text: str) -> list[int]:
  """Seeds from `0-4` or `0,2,3`.

  Raises:
    ValueError: it is neither.
  """
  try:
    seeds = []
    for part in text.split(","):
      first, dash, last = part.partition("-")
      seeds += range(int(first), int(last) + 1) if dash else [int(first)]
  except ValueError:
    seeds = []
  if not seeds:
    raise ValueError(f"--seeds: {text!r} is not like 0-4 or 0,2,3")
  return seeds


if __name__ == "__main__":
  main()

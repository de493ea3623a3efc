"""Says how well two codings of the same videos agree: `pcan agreement A B`.

  pcan agreement first.eaf second.eaf
  pcan agreement coder/ predicted/codings.csv --tree ma52 --out runs/agreement

A and B are files of ELAN, BORIS, the challenge or plain CSV, or folders of them. For the average
precision, A is the truth.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from pcan_jax.agreement import tables
from pcan_jax.coding import agreement
from pcan_jax.coding.comparison import bring_together, video_key
from pcan_jax.coding.events import Coding
from pcan_jax.coding.formats import find_codings, read_codings
from pcan_jax.extras import needed_by
from pcan_jax.labels import LabelTree, get_tree
from pcan_jax.writing import replace_file, require_writable


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    usage="pcan agreement A B [--out DIR] [options]",
    description="Says how well two codings of the same videos agree.",
  )
  parser.add_argument("a", metavar="A", help="a file of codings, or a folder of them; the truth")
  parser.add_argument("b", metavar="B", help="the other coder's, or a model's")
  parser.add_argument("--out", metavar="DIR", help="where to write tables, numbers and a page")
  parser.add_argument(
    "--tree", metavar="NAME", help="labels with their body parts, which become the tiers"
  )
  parser.add_argument(
    "--one_tier", action="store_true", help="compare all events as if they were of one tier"
  )
  parser.add_argument(
    "--unit",
    metavar="S",
    type=float,
    default=agreement.UNIT,
    help="seconds of a time unit (%(default)s)",
  )
  parser.add_argument(
    "--overlap",
    metavar="SHARE",
    type=float,
    default=agreement.OVERLAP,
    help="share of the longer event that two events must share to be one (%(default)s)",
  )
  parser.add_argument(
    "--start", metavar="S", type=float, default=0.0, help="compare from here on, in seconds"
  )
  parser.add_argument("--end", metavar="S", type=float, help="compare up to here, in seconds")
  parser.add_argument(
    "--common", action="store_true", help="leave out videos that only one side has"
  )
  parser.add_argument(
    "--videos", metavar="DIR", help="the videos, whose lengths files of codings do not say"
  )
  parser.add_argument(
    "--point_seconds", metavar="S", type=float, help="the length that point events get"
  )
  parser.add_argument(
    "--seed", type=int, default=0, help="of the bootstrap over videos (%(default)s)"
  )
  arguments = parser.parse_args()
  try:
    _run(arguments)
  except (ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")


def _run(arguments: argparse.Namespace) -> None:
  folder = require_writable(arguments.out) if arguments.out else None
  tree = get_tree(arguments.tree) if arguments.tree else None
  names = arguments.a, arguments.b
  sides = [_read(pathlib.Path(path), arguments.point_seconds, tree) for path in names]
  comparison = bring_together(
    *sides,
    lengths=_lengths(arguments.videos, sum(sides, [])) if arguments.videos else {},
    names=names,
    tree=tree,
    one_tier=arguments.one_tier,
    only_common=arguments.common,
    start=arguments.start,
    end=arguments.end,
  )
  found = agreement.measure(
    comparison, unit=arguments.unit, overlap=arguments.overlap, seed=arguments.seed
  )
  print(tables.text(found, names))
  if folder is not None:
    replace_file(folder / "agreement.md", tables.markdown(found, names))
    replace_file(folder / "agreement.tex", tables.latex(found, names))
    content = {"a": names[0], "b": names[1], **found.to_json()}
    replace_file(folder / "agreement.json", json.dumps(content, indent=1, ensure_ascii=False))
    print(_page(folder, found, names))


def _read(path: pathlib.Path, point_seconds: float | None, tree: LabelTree | None) -> list[Coding]:
  """The codings of a file, or of all files in a folder."""
  return [
    coding
    for file in find_codings(path)
    for coding in read_codings(file, point_seconds=point_seconds, tree=tree, tell=print)
  ]


def _lengths(folder: str, codings: Sequence[Coding]) -> dict[str, float]:
  """Seconds of the videos in a folder that were coded, by the names that `bring_together` pairs."""
  from pcan_jax.clips.video import video_seconds
  from pcan_jax.clips.video_files import find_videos

  coded = {video_key(coding.video) for coding in codings}
  videos = {video_key(path.name): path for path in find_videos(folder)}
  return {key: video_seconds(path) for key, path in videos.items() if key in coded}


def _page(folder: pathlib.Path, found: agreement.Agreement, names: tuple[str, str]) -> str:
  """Writes the page and gives its path, or says what it needs."""
  try:
    with needed_by("no page, which needs", "report"):
      from pcan_jax.agreement.page import write_page
  except ModuleNotFoundError as error:
    return str(error)
  return str(write_page(folder / "agreement.html", found, names))


if __name__ == "__main__":
  main()

"""Writes a page to review a coding on: `pcan review CODING --video V --out DIR`.

CODING is a file of ELAN, BORIS, the challenge or plain CSV, also one that such a page has saved.
"""

import argparse
import pathlib
import sys

from pcan_jax.coding.comparison import video_key
from pcan_jax.coding.events import Coding
from pcan_jax.coding.formats import read_codings
from pcan_jax.coding.reading import media_name
from pcan_jax.labels import get_tree
from pcan_jax.review.write import is_of_another, page_of, write_review


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    usage="pcan review CODING --video V --out DIR [--tree NAME]",
    description="Writes a page on which the events of a video can be reviewed.",
  )
  parser.add_argument("coding", metavar="CODING", help="a file of codings")
  parser.add_argument(
    "--video",
    metavar="V",
    type=pathlib.Path,
    required=True,
    help="the video; it is linked, not copied",
  )
  parser.add_argument(
    "--out", metavar="DIR", type=pathlib.Path, required=True, help="where to write the page"
  )
  parser.add_argument(
    "--tree", metavar="NAME", help="labels to choose from, if not those of the coding"
  )
  parser.add_argument(
    "--point_seconds", metavar="S", type=float, help="the length that point events get"
  )
  arguments = parser.parse_args()
  try:
    tree = get_tree(arguments.tree) if arguments.tree else None
    codings = read_codings(
      arguments.coding, point_seconds=arguments.point_seconds, tree=tree, tell=print
    )
    video, page = arguments.video, page_of(arguments.video, arguments.out)
    if not video.is_file():
      raise FileNotFoundError(f"no video at {video}")
    if is_of_another(page, video):
      raise FileExistsError(
        f"{page} is of another video of this name; choose another folder with --out, or delete it"
      )
    coding = _of_video(codings, video, arguments.coding)
    print(write_review(coding, tree, video, arguments.out))
  except (ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")


def _of_video(codings: list[Coding], video: pathlib.Path, path: str) -> Coding:
  """The coding of a video, by its name; the only one, if there is no other."""
  found = [coding for coding in codings if video_key(coding.video) == video_key(video.name)]
  if len(codings) == 1 and not found:
    print(f"{path} is of {media_name(codings[0].video)}; its events are shown on {video.name}")
    found = codings
  if len(found) != 1:
    names = ", ".join(sorted(media_name(coding.video) for coding in codings)) or "no video"
    raise ValueError(f"{path} has {len(found)} codings of {video.name}, not one; it has {names}")
  return Coding(video.name, found[0].events, found[0].duration)


if __name__ == "__main__":
  main()

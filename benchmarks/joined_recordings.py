"""Joins the clips of each person to a long recording with pauses, of which the events are known.

  python -m benchmarks.joined_recordings SOURCE OUT --people 4 6 8 --person '_s([0-9]+)_'

SOURCE is a source directory (docs/DATA.md) with videos. OUT gets what a person who codes would
have:

    videos/NAME.mp4     a recording per person: clips in random order, between them pauses in which
                        the last frame of the one and the first of the other are held
    poses.pkl           list of dicts (pyskl's schema)
    codings.csv         video, start, end, label, tier
    actions.csv         the label tree
"""

import argparse
import itertools
import pathlib
import pickle
import re
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from pcan_jax.clips.source_layout import (
  ClipSource,
  find_splits,
  guess_layout,
  read_split,
  read_tree,
)
from pcan_jax.clips.video import decode_video, measure_video
from pcan_jax.clips.video_writer import VideoWriter
from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.formats import write_codings
from pcan_jax.labels import LabelTree

PAUSE = (1.0, 8.0)
"""Least and most seconds between two clips."""

_CRF = 18


def clips_by_person(source: pathlib.Path, person: str) -> dict[str, list[ClipSource]]:
  """The clips of all splits, by who is in them, in the order of the lists.

  Args:
    source: a source directory with videos.
    person: a regular expression whose group finds the person in a clip's id, for sources that do
      not say who is who.

  Raises:
    FileNotFoundError, ValueError: as `read_split`; or it is not known who is in a clip.
  """
  tree, layout = read_tree(source), guess_layout(source)
  people: dict[str, list[ClipSource]] = {}
  for split in find_splits(source):
    for clip in read_split(source, split, tree, layout):
      found = re.search(person, clip.id) if person else None
      name = clip.person or (found[1] if found else "")
      if not name:
        raise ValueError(f"who is in clip {clip.id!r}? add annotations/persons.csv, or --person")
      people.setdefault(name, []).append(clip)
  return people


def join(
  clips: Sequence[ClipSource], out: pathlib.Path, tree: LabelTree, rng: np.random.Generator
) -> tuple[Coding, dict[str, object]]:
  """Writes a recording; returns its coding and its poses, of one person.

  Args:
    clips: in any order, of equal frame rate and size.
    out: the mp4.
    tree: the labels of the clips.
    rng: decides the order of the clips and the lengths of the pauses.
  """
  measured = measure_video(clips[0].video)
  fps = measured.num_frames / measured.times[-1]
  events, keypoints, scores = [], [], []
  with VideoWriter(out, measured.size, fps, _CRF) as writer:
    number = itertools.count()

    def add(images: Iterator[np.ndarray], points: np.ndarray, found: np.ndarray) -> None:
      for image in images:
        writer.add(image, next(number) / fps)
      keypoints.append(points)
      scores.append(found)

    for place in rng.permutation(len(clips)):
      clip = clips[place]
      images = list(decode_video(clip.video))
      points, found = clip.keypoints[:1], clip.scores[:1]
      before, after = (round(fps * rng.uniform(*PAUSE) / 2) for _ in range(2))
      add(itertools.repeat(images[0], before), *_held(points, found, 0, before))
      start = sum(array.shape[1] for array in scores) / fps
      add(iter(images), points, found)
      label = tree.actions[clip.action]
      events.append(Event(start, start + len(images) / fps, label, tree.body_of[label]))
      add(itertools.repeat(images[-1], after), *_held(points, found, -1, after))
  total = sum(array.shape[1] for array in scores)
  poses = {
    "frame_dir": out.stem,
    "total_frames": total,
    "img_shape": measured.size,
    "original_shape": measured.size,
    "keypoint": np.concatenate(keypoints, axis=1).astype(np.float32),
    "keypoint_score": np.concatenate(scores, axis=1).astype(np.float32),
  }
  return Coding(out.name, tuple(events), total / fps), poses


def _held(
  points: np.ndarray, found: np.ndarray, frame: int, times: int
) -> tuple[np.ndarray, np.ndarray]:
  """One frame of the keypoints and scores, again and again."""
  frames = [frame] * times
  return points[:, frames], found[:, frames]


def main() -> None:
  """Parses the arguments and writes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("source", type=pathlib.Path, help="a source directory with videos")
  parser.add_argument("out", type=pathlib.Path, help="a new folder")
  parser.add_argument("--people", nargs="+", metavar="NAME", help="only these")
  parser.add_argument(
    "--person",
    default="",
    metavar="REGEX",
    help="finds the person in a clip's id, in a group, if the source does not say who is who",
  )
  parser.add_argument("--seed", type=int, default=0, help="of the order and the pauses")
  arguments = parser.parse_args()
  tree = read_tree(arguments.source)
  try:
    people = clips_by_person(arguments.source, arguments.person)
  except ValueError as error:
    sys.exit(f"error: {error}")
  unknown = set(arguments.people or ()) - people.keys()
  if unknown:
    sys.exit(f"error: nobody called {', '.join(sorted(unknown))}; there are {', '.join(people)}")
  arguments.out.mkdir(parents=True)
  codings, poses = [], []
  for index, name in enumerate(arguments.people or people):
    rng = np.random.default_rng([arguments.seed, index])
    out = arguments.out / "videos" / f"person_{name}.mp4"
    coding, pose = join(people[name], out, tree, rng)
    codings.append(coding)
    poses.append(pose)
    print(f"{out}: {len(coding.events)} events in {coding.duration / 60:.1f} minutes", flush=True)
  write_codings("csv", codings, tree, arguments.out)
  tree.write_csv(arguments.out / "actions.csv")
  (arguments.out / "poses.pkl").write_bytes(pickle.dumps(poses, protocol=4))


if __name__ == "__main__":
  main()

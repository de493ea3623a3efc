"""Finds the event rules with which a model agrees best with people: `pcan tune_events`.

  pcan tune_events runs/mine --videos interviews/ --codings coded/ --pose poses.pkl

It predicts the windows of coded recordings once, tries a grid of rules on them, prints how well
each does, and writes the best to `events.json` beside the checkpoint, where predictions find it.
Take other recordings than those of the training, on which a model is surer. With --check it only
says how well the rules so far do, on recordings that neither training nor tuning has seen.
"""

import argparse
import dataclasses
import itertools
import logging
import pathlib
import sys
import time
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from pcan_jax.checkpoints import locate
from pcan_jax.clips.pose_files import open_poses
from pcan_jax.clips.video_files import clip_id, composed, find_videos
from pcan_jax.coding import agreement
from pcan_jax.coding.comparison import bring_together
from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.formats import find_codings, read_codings
from pcan_jax.coding.matching import iou, pair_events
from pcan_jax.coding.reading import media_name
from pcan_jax.console import show_log
from pcan_jax.labels import LabelTree
from pcan_jax.prediction.event_settings import settings_of, window_scores, write_tuned
from pcan_jax.prediction.events import EventRules, WindowScores, find_events, score_moments
from pcan_jax.prediction.recognizer import Recognizer
from pcan_jax.prediction.videos import Video
from pcan_jax.saved_steps import SavedStep
from pcan_jax.writing import require_writable

IOU = 0.5
"""Least intersection over union of a found event with a coded one of the same class."""

SMOOTHING = (0.0, 0.5, 1.0)
ONSETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
OFFSETS = (0.5, 0.75, 1.0)  # as a share of the onset
SHORTEST = (0.25, 0.5, 1.0, 1.5)
BRIDGES = (0.0, 0.5)
FAR = (0.5, 0.75, 0.9)  # quantiles of the distances to prototypes
"""The grid. Without a class for nothing, distances beyond some quantile count as such."""

_SHOWN = 8

_log = logging.getLogger("pcan_jax")


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
  """A coded recording with the model's scores.

  Attributes:
    name: of the video.
    duration: in seconds.
    truth: its coded events.
    scores: of its windows.
  """

  name: str
  duration: float
  truth: tuple[Event, ...]
  scores: WindowScores


def f1(pairs: Sequence[tuple[Sequence[Event], Sequence[Event]]]) -> float:
  """Event F1 over all recordings and classes, 0 without any event.

  Args:
    pairs: per recording the coded and the found events. One counts as found if a found event of its
      label has an IoU of `IOU` or more with it, each at most once.
  """
  hits = total = 0
  for truth, found in pairs:
    total += len(truth) + len(found)
    for label in {event.label for event in truth}:
      sides = ([event for event in side if event.label == label] for side in (truth, found))
      hits += len(pair_events(*sides, iou, IOU))
  return 2 * hits / total if total else 0.0


def one_per_window(scores: WindowScores, tree: LabelTree, background: str) -> list[Event]:
  """The baseline: windows that follow each other, each an event of its most likely class."""
  events, end = [], -1e-3
  for start, stop, row in zip(scores.starts, scores.ends, scores.probabilities):
    if start >= end - 1e-3:
      action, end = int(row.argmax()), float(stop)
      if tree.actions[action] != background:
        label, sure = tree.actions[action], min(float(row[action]), 1.0)
        events.append(Event(float(start), end, label, tree.body_of[label], "", sure))
  return events


def search(
  recordings: Sequence[Recording], tree: LabelTree, rules: EventRules
) -> list[tuple[float, EventRules]]:
  """Tries all rules of the grid.

  Args:
    recordings: to find the events of.
    tree: the labels.
    rules: whose other values stay.

  Returns:
    F1 and rules, the best first; of equally good ones, those with the least done to the scores.
  """
  tried = []
  far = _distances(recordings, tree, rules)
  grid = itertools.product(far, SMOOTHING)
  for distance, smoothing in tqdm(list(grid), "rules", disable=None, leave=False):
    outer = dataclasses.replace(rules, max_distance=distance, smoothing=smoothing)
    moments = [score_moments(one.scores, outer) for one in recordings]
    for onset, share, shortest, bridge in itertools.product(ONSETS, OFFSETS, SHORTEST, BRIDGES):
      chosen = dataclasses.replace(
        outer, onset=onset, offset=round(onset * share, 4), shortest=shortest, bridge=bridge
      )
      found = [
        find_events(scores, tree, chosen, one.duration) for scores, one in zip(moments, recordings)
      ]
      pairs = [(one.truth, events) for one, events in zip(recordings, found)]
      tried.append((f1(pairs), chosen))
  return sorted(tried, key=lambda one: -one[0])


def _distances(recordings: Sequence[Recording], tree: LabelTree, rules: EventRules) -> list[float]:
  """Limits of the distance to prototypes that are tried."""
  distances = np.concatenate([one.scores.distances for one in recordings])
  if rules.background in tree.actions or np.isnan(distances).any():
    return [2.0]
  return [2.0, *(round(float(limit), 4) for limit in np.quantile(distances, FAR))]


def read_truths(
  paths: Sequence[pathlib.Path], tree: LabelTree, point_seconds: float | None = None
) -> dict[str, Coding]:
  """The codings in files or folders, by clip id; what is no action of the model is left out.

  Args:
    paths: of the files or folders.
    tree: the model's labels.
    point_seconds: length that point events get, around their times; None: they are an error.

  Raises:
    FileNotFoundError: there are none.
    ValueError: a file cannot be read, or a video is coded twice.
  """
  files = [file for path in paths for file in find_codings(path)]
  found: dict[str, Coding] = {}
  unknown: set[str] = set()
  for coding in itertools.chain.from_iterable(
    read_codings(file, point_seconds=point_seconds, tree=tree, tell=_log.warning) for file in files
  ):
    name = composed(clip_id(pathlib.PurePath(media_name(coding.video))))
    if name in found:
      raise ValueError(f"{name} is coded twice in {', '.join(map(str, paths))}; give one coding")
    known = tuple(event for event in coding.events if event.label in tree.actions)
    unknown |= {event.label for event in coding.events} - set(tree.actions)
    found[name] = dataclasses.replace(coding, events=known)
  if not found:
    raise FileNotFoundError(f"nothing is coded in {', '.join(map(str, paths))}")
  if unknown:
    _log.warning("left out, as they are no actions of the model: %s", ", ".join(sorted(unknown)))
  return found


def _recordings(
  recognizer: Recognizer,
  videos: Collection[pathlib.Path],
  truths: dict[str, Coding],
  pose: pathlib.Path | None,
  rules: EventRules,
  temperature: float,
) -> Iterator[Recording]:
  only = clip_id(next(iter(videos))) if len(videos) == 1 else None
  poses = None if pose is None else open_poses(pose, recognizer.layout, only_clip=only)
  recognizer.require_poses(poses)
  for path in videos:
    video = Video.open(path, poses)
    windows = video.windows(rules.window, rules.stride)
    predictions = tqdm(
      recognizer.predict_windows(video, windows),
      path.name,
      total=len(windows),
      unit="window",
      disable=None,
      leave=False,
    )
    scores = window_scores(recognizer, windows, list(predictions), temperature)
    yield Recording(path.name, float(video.times[-1]), truths[clip_id(path)].events, scores)


def tune(
  checkpoint: pathlib.Path,
  videos: pathlib.Path,
  codings: Sequence[pathlib.Path],
  *,
  pose: pathlib.Path | None = None,
  window: float | None = None,
  stride: float | None = None,
  num_clips: int | None = None,
  point_seconds: float | None = None,
  check: bool = False,
) -> EventRules:
  """Tunes the rules of a checkpoint on coded recordings, and writes them beside it.

  Args:
    checkpoint: as for `checkpoints.locate`.
    videos: a video or a folder; those without a coding are left out.
    codings: files of annotation tools, or folders of them.
    pose: poses of the videos, for `pcan_jax.clips.pose_files.open_poses`.
    window, stride: seconds; None is the config's.
    num_clips: test clips per window; None is the config's.
    point_seconds: length that point events get; None: they are an error.
    check: whether to say only how well the rules so far do, and to write nothing.

  Returns:
    The best rules, or those so far.

  Raises:
    FileNotFoundError: a file is missing, or no video has a coding.
    ValueError: something cannot be read or does not fit; the message says what.
  """
  saved = SavedStep(*locate(checkpoint))
  if not check:
    require_writable(saved.folder)
  settings = settings_of(saved).changed(window=window, stride=stride, num_clips=num_clips)
  recognizer = Recognizer.load(saved.path, num_clips=settings.rules.num_clips)
  tree = recognizer.tree
  truths = read_truths(codings, tree, point_seconds)
  coded = [path for path in find_videos(videos) if clip_id(path) in truths]
  if not coded:
    raise FileNotFoundError(f"none of the videos in {videos} has a coding: {', '.join(truths)}")
  started = time.monotonic()
  recordings = list(
    _recordings(recognizer, coded, truths, pose, settings.rules, settings.temperature)
  )
  minutes = sum(one.duration for one in recordings) / 60
  seconds = time.monotonic() - started
  _log.info("%.1f minutes of video predicted in %.0f s; %s", minutes, seconds, settings.origin)
  events = sum(len(one.truth) for one in recordings)
  if not events:
    raise ValueError("nothing is coded in these recordings, so nothing can be compared")
  simple = [one_per_window(one.scores, tree, settings.rules.background) for one in recordings]
  others = {
    "one event per window": simple,
    "rules so far": _found(recordings, tree, settings.rules),
  }
  rules = settings.rules
  if not check:
    tried = search(recordings, tree, rules)
    _log.info("%s", _table(tried))
    rules = tried[0][1]
    others["best rules"] = _found(recordings, tree, rules)
  scores = {name: _compared(recordings, found, tree) for name, found in others.items()}
  for name, values in scores.items():
    _log.info("%-22s%s", name, "  ".join(f"{key} {value:.4f}" for key, value in values.items()))
  if check:
    return rules
  tuned_on = {
    "videos": [one.name for one in recordings],
    "codings": ", ".join(map(str, codings)),
    "num_events": events,
    "minutes": round(minutes, 2),
    "measured": {
      name: {key: round(value, 4) for key, value in values.items()}
      for name, values in scores.items()
    },
    "temperature": settings.temperature,
    "checkpoint": saved.digest,
    "step": saved.step,
  }
  path = write_tuned(saved, rules, tuned_on)
  _log.info("%d events in %d videos; written to %s", events, len(recordings), path)
  return rules


def _found(
  recordings: Sequence[Recording], tree: LabelTree, rules: EventRules
) -> list[list[Event]]:
  return [
    find_events(score_moments(one.scores, rules), tree, rules, one.duration) for one in recordings
  ]


def _compared(
  recordings: Sequence[Recording], found: Sequence[Sequence[Event]], tree: LabelTree
) -> dict[str, float]:
  """Event F1, and kappa as `pcan agreement` computes it, where that is defined."""
  f1_score = f1([(one.truth, events) for one, events in zip(recordings, found)])
  sides = (
    [Coding(one.name, one.truth, one.duration) for one in recordings],
    [Coding(one.name, tuple(events), one.duration) for one, events in zip(recordings, found)],
  )
  overall = agreement.measure(bring_together(*sides, tree=tree)).overall.values
  kappas = {f"kappa, {kind}": overall[f"kappa_{kind}"].value for kind in ("time", "events")}
  return {f"F1@{IOU:g}": f1_score} | {
    name: kappa for name, kappa in kappas.items() if np.isfinite(kappa)
  }


def _table(tried: Sequence[tuple[float, EventRules]]) -> str:
  """The best rules, and how well they do."""
  names = ("onset", "offset", "smoothing", "shortest", "bridge", "max_distance")
  lines = ["".join(f"{name:>14}" for name in (f"F1@{IOU:g}", *names))]
  for score, rules in tried[:_SHOWN]:
    values = (f"{getattr(rules, name):14g}" for name in names)
    lines.append(f"{score:14.4f}{''.join(values)}")
  return "\n".join(lines)


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="pcan tune_events",
    description="Finds the rules of events with which a model agrees best with coded recordings.",
  )
  parser.add_argument("checkpoint", type=pathlib.Path, help="a run, or one of its checkpoints")
  parser.add_argument("--videos", type=pathlib.Path, required=True, help="a video or a folder")
  parser.add_argument(
    "--codings", type=pathlib.Path, required=True, nargs="+", help="ELAN, BORIS, CSV or folders"
  )
  parser.add_argument("--pose", type=pathlib.Path, help="poses of the videos")
  parser.add_argument("--window", type=float, help="seconds per window (the config's)")
  parser.add_argument("--stride", type=float, help="seconds between windows (the config's)")
  parser.add_argument("--num_clips", type=int, help="test clips per window (the config's)")
  parser.add_argument(
    "--point_seconds", metavar="S", type=float, help="the length that point events get"
  )
  parser.add_argument(
    "--check", action="store_true", help="only compare with the rules so far; writes nothing"
  )
  arguments = vars(parser.parse_args())
  show_log()
  try:
    tune(**arguments)
  except (ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  main()

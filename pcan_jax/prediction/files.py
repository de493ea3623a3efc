"""Predicts video files: writes JSON and CSV, and optionally features and overlay videos.

Needs no labels. A file that cannot be predicted is reported, and the others are still predicted.
"""

import csv
import json
import logging
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from pcan_jax.checkpoints import locate
from pcan_jax.clips.pose_files import PoseFiles, open_poses
from pcan_jax.clips.source_layout import skeleton_rate
from pcan_jax.clips.video_files import clip_id, find_videos
from pcan_jax.coding.formats import WINDOWS
from pcan_jax.labels import LEVELS
from pcan_jax.prediction.event_files import EventFiles, check_formats
from pcan_jax.prediction.event_settings import settings_of
from pcan_jax.prediction.overlay import write_overlay
from pcan_jax.prediction.pose_script import estimate_poses
from pcan_jax.prediction.recognizer import Prediction, Recognizer
from pcan_jax.prediction.videos import Video, Window, check_window
from pcan_jax.saved_steps import SavedStep
from pcan_jax.spec import flatten_outputs
from pcan_jax.writing import replace_file, require_writable

TOP = 5
"""Number of actions and body parts written for every window."""

ESTIMATED_POSES = "poses.pkl"
"""Where poses are kept, in the output folder, if none were given."""

_log = logging.getLogger(__name__)
_LONG = 60  # seconds of computing of which it is said beforehand
_BAR = "{percentage:3.0f} %|{bar}| {elapsed}, {remaining} left"

Record = dict[str, Any]


def predict_files(
  checkpoint: str | os.PathLike[str],
  videos: str | os.PathLike[str] | None,
  *,
  output: str | os.PathLike[str],
  pose: str | os.PathLike[str] | None = None,
  window: float | None = None,
  stride: float | None = None,
  num_clips: int | None = None,
  overlay: bool = False,
  features: bool = False,
  events: bool = False,
  formats: Sequence[str] = (),
  review: bool = False,
  fps: float | None = None,
) -> int:
  """Predicts a video, all videos in a folder and its subfolders, or all clips in files of poses.

  Writes `predictions.csv` window by window, and `predictions.json` at the end. Apart from
  keypoints, memory does not grow with the length of a video.

  Args:
    checkpoint: as for `Recognizer.load`.
    videos: a file or a folder; None predicts from poses alone.
    output: folder for the files; it is created.
    pose: poses of the videos, for `pcan_jax.clips.pose_files.open_poses`. If there are none and the
      model needs them, they are estimated and kept in the output folder.
    window: length of a window in seconds; None takes every video as one clip, or is the config's
      for events.
    stride: seconds from window to window; None is half a window, or the config's for events.
    num_clips: test clips per window; None is the number used in evaluation, or the config's for
      events.
    overlay: whether to write NAME.overlay.mp4, the video with skeletons and predictions.
    features: whether to write features.npz, embeddings and logits of every window.
    events: whether to find events and write events.csv and events.json.
    formats: in which to write the events as well, see `pcan_jax.coding.formats`; implies `events`.
    review: whether to write a page per video on which the events are reviewed; implies `events`.
    fps: frames per second of poses without videos that do not state it; None is 30.

  Returns:
    The number of files with a problem: not readable, without a person, or with a single frame.

  Raises:
    FileNotFoundError: the checkpoint, the videos or the poses do not exist.
    ValueError: an argument is invalid; the message says which and what to do.
    OSError: `output` cannot be written to, which is tried before videos are predicted.
  """
  events = events or bool(formats) or review
  check_formats(formats)
  if not events:
    check_window(window, stride)
  _check_what_there_is(videos, pose, overlay=overlay, review=review, fps=fps)
  files: dict[str, pathlib.Path] = {}
  if videos is not None:
    by_name = pose is not None or bool(formats)  # poses, and the files of other tools
    files = _named(pathlib.Path(videos), pathlib.Path(output), by_name=by_name)
  saved, settings = SavedStep(*locate(checkpoint)), None
  if events:
    settings = settings_of(saved).changed(window=window, stride=stride, num_clips=num_clips)
    rules = settings.rules
    window, stride, num_clips = rules.window, rules.stride, rules.num_clips
    _log.info("events: %s", settings.origin)
  recognizer = Recognizer.load(saved.path, num_clips=num_clips)
  output = pathlib.Path(output)
  if videos is not None and pose is None and "pose" in recognizer.streams:
    pose = output / ESTIMATED_POSES
    estimate_poses(pathlib.Path(videos), files.values(), recognizer.layout, pose)
  poses = _open_poses(pose, files, recognizer)
  if videos is None and poses is not None:
    recognizer.require_no_frames()
    files = {name: pathlib.Path(name) for name in poses.clip_ids}
    stated = "" if fps else "; --fps says otherwise"
    _log.info("poses without videos, %g frames per second%s", skeleton_rate(fps), stated)
  require_writable(output)
  found = EventFiles(recognizer, settings) if settings else None
  records = []
  rows = _FeatureRows()
  with (
    # Only on terminals, and only if it takes a while.
    tqdm.tqdm(total=len(files), delay=5, disable=None, bar_format=_BAR) as bar,
    (output / WINDOWS).open("w", newline="", encoding="utf-8") as file,
  ):
    table = csv.writer(file)
    table.writerow(_header())
    for done, (name, path) in enumerate(files.items()):
      record: Record = {"file": name, "error": None, "warnings": [], "windows": []}
      try:
        if videos is None and poses is not None:
          video = Video.of_poses(name, poses, skeleton_rate(fps))
        else:
          video = Video.open(path, poses)
        record |= _facts(video)
        windows, predictions = video.windows(window, stride), []
        for span, prediction in zip(windows, _predicted(recognizer, name, video, windows)):
          if not found:
            _log.info("%s", _line(name, span, prediction))
          predictions.append(prediction)
          record["windows"].append(_window_record(video, span, prediction))
          table.writerow(_row(record, record["windows"][-1]))
          if features:
            rows.add(name, span, prediction)
          bar.update(done + len(predictions) / len(windows) - bar.n)
        if found:
          found.add(name, video, windows, predictions)
        if overlay:
          target = output / pathlib.Path(name).with_name(f"{clip_id(path)}.overlay.mp4")
          write_overlay(video, windows, predictions, recognizer.layout, target)
      except (FileNotFoundError, ValueError) as error:
        record["error"] = str(error)
        table.writerow(_row(record, {}))
      for problem in _problems(record):
        _log.warning("%s  problem: %s", name, problem)
      records.append(record)
      file.flush()
      bar.update(done + 1 - bar.n)
  summary = {
    "checkpoint": str(checkpoint),
    "step": recognizer.step,
    "streams": recognizer.streams,
    "num_clips": recognizer.num_clips,
    "window_seconds": window,
    "stride_seconds": stride if stride or not window else window / 2,
    "pose": None if pose is None else str(pose),
    "videos": records,
  }
  replace_file(output / "predictions.json", json.dumps(summary, indent=1) + "\n")
  if features:
    rows.write(output / "features.npz")
  if found:
    found.write(output, formats, review=review)
  failed = sum(bool(_problems(record)) for record in records)
  _log.info("%s: %d videos, %d with a problem", output / "predictions.json", len(records), failed)
  return failed


def _open_poses(
  pose: str | os.PathLike[str] | None, files: Mapping[str, pathlib.Path], recognizer: Recognizer
) -> PoseFiles | None:
  """The poses, if there are any."""
  if pose is None:
    _log.info("no poses: the model sees whole frames instead of the square around the persons")
    return None
  only = clip_id(next(iter(files.values()))) if len(files) == 1 else None
  return open_poses(pose, recognizer.layout, only_clip=only)


def _predicted(
  recognizer: Recognizer, name: str, video: Video, windows: Sequence[Window]
) -> Iterator[Prediction]:
  """The predictions of the windows of a video; says how long they take."""
  return _announced(
    recognizer.predict_windows(video, windows),
    f"{name}: {float(video.times[-1]):.0f} s of video",
    len(windows),
    recognizer.batch_size(len(windows)),
  )


def _check_what_there_is(
  videos: object | None, pose: object | None, *, overlay: bool, review: bool, fps: float | None
) -> None:
  skeleton_rate(fps)
  if videos is not None and fps is not None:
    raise ValueError("--fps means nothing with --video, which says when its frames appear")
  if videos is None and pose is None:
    raise ValueError("nothing to predict: give --video=PATH, or --pose=PATH of poses alone")
  if videos is None and overlay:
    raise ValueError("--overlay draws on videos; give them with --video=PATH")
  if videos is None and review:
    raise ValueError("--review shows videos; give them with --video=PATH")


def _named(videos: pathlib.Path, output: pathlib.Path, *, by_name: bool) -> dict[str, pathlib.Path]:
  """The videos by their path below the folder, of which `by_name` only the last part counts."""
  found = find_videos(videos)
  if videos.is_file():
    return {videos.name: videos}
  if output.resolve().is_relative_to(videos.resolve()):
    raise ValueError(f"the output {output} is inside the folder of videos {videos}; choose another")
  first: dict[pathlib.PurePath | str, pathlib.Path] = {}
  for path in found:
    key = clip_id(path) if by_name else path.with_name(clip_id(path))
    if key in first:
      raise ValueError(
        f"{first[key]} and {path} have the same name, so their poses or results could be mixed up; "
        "rename one, or predict their folders one by one"
      )
    first[key] = path
  return {path.relative_to(videos).as_posix(): path for path in found}


def _announced(
  predictions: Iterable[Prediction], what: str, count: int, batch: int
) -> Iterator[Prediction]:
  """Passes predictions on, and says how long the rest will take if that is long.

  It is measured from the first batch to the second, which leaves out the compilation.
  """
  first = 0.0
  for done, prediction in enumerate(predictions):
    if done == 0:
      first = time.monotonic()
    if done == batch:
      rest = (time.monotonic() - first) / batch * (count - batch)
      if rest > _LONG:
        _log.info("%s, %d windows: about %.0f minutes from now", what, count, np.ceil(rest / 60))
    yield prediction


def _facts(video: Video) -> Record:
  """Properties of a video, and warnings about unsuitable ones."""
  warnings = list(video.damage)
  if video.num_frames == 1:
    warnings.append("it has a single frame, which is repeated")
  if video.scores is not None and not (video.scores > 0).any():
    warnings.append("no person in any frame; the model sees whole frames and no pose")
  return {
    "warnings": warnings,
    "num_frames": video.num_frames,
    "fps": round(video.fps, 6),
    "height": video.size[0],
    "width": video.size[1],
  }


def _problems(record: Record) -> list[str]:
  return [*([record["error"]] if record["error"] else []), *record["warnings"]]


def _window_record(video: Video, window: Window, prediction: Prediction) -> Record:
  tree, fused = prediction.tree, prediction.outputs["fused"]

  def best(level: str, names: tuple[str, ...]) -> list[Record]:
    probabilities = fused[level]["probabilities"]
    order = np.argsort(-probabilities, kind="stable")[:TOP].tolist()
    return [
      {"id": i, "name": names[i], "probability": round(float(probabilities[i]), 6)} for i in order
    ]

  return {
    "start": round(window.start_seconds, 3),
    "end": round(window.end_seconds, 3),
    "first_frame": window.first,
    "stop_frame": window.stop,
    "person_found": None if video.scores is None else video.has_person(window),
    "actions": best("action", tree.actions),
    "bodies": best("body", tree.bodies),
  }


_WINDOW_COLUMNS = ("start", "end", "first_frame", "stop_frame", "person_found")


def _header() -> list[str]:
  ranked = [
    f"{level}_{rank}{suffix}"
    for level in LEVELS
    for rank in range(1, TOP + 1)
    for suffix in ("", "_probability")
  ]
  return ["file", *_WINDOW_COLUMNS, "problem", *ranked]


def _row(record: Record, window: Record) -> list[Any]:
  """A line of the table; if a tree has few classes, the last cells of a level are empty."""
  cells = [
    record["file"],
    *(window.get(field) for field in _WINDOW_COLUMNS),
    "; ".join(_problems(record)),
  ]
  for level in ("actions", "bodies"):
    best = window.get(level, [])
    ranked = [cell for entry in best for cell in (entry["name"], entry["probability"])]
    cells += ranked + [None] * (2 * TOP - len(ranked))
  return cells


def _line(name: str, window: Window, prediction: Prediction) -> str:
  actions = ", ".join(f"{name} {100 * p:.0f} %" for name, p in prediction.top_actions(3))
  body, probability = prediction.top_bodies(1)[0]
  return (
    f"{name}  {window.start_seconds:.2f}-{window.end_seconds:.2f} s  {actions}"
    f"  | {body} {100 * probability:.0f} %"
  )


class _FeatureRows:
  """Collects the arrays of `features.npz`, window by window."""

  def __init__(self) -> None:
    self._rows: list[dict[str, Any]] = []

  def add(self, name: str, window: Window, prediction: Prediction) -> None:
    self._rows.append(
      {
        "ids": name,
        "windows": (window.start_seconds, window.end_seconds),
        "frames": (window.first, window.stop),
      }
      | flatten_outputs(prediction.outputs)
    )

  def write(self, path: pathlib.Path) -> None:
    fields = self._rows[0] if self._rows else ("ids", "windows", "frames")
    arrays = {field: np.array([row[field] for row in self._rows]) for field in fields}
    np.savez_compressed(path, **arrays)

"""Measures long videos, and cuts clips out of them."""

import collections
import csv
import dataclasses
import functools
import pathlib
import pickle
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pcan_jax.clips.parallel import map_clips
from pcan_jax.clips.pose_files import PoseFiles
from pcan_jax.clips.problems import Problem
from pcan_jax.clips.timing import frame_rate
from pcan_jax.clips.video import Measured, decode_video, measure_video
from pcan_jax.clips.video_writer import VideoWriter

from .coded_sessions import Session
from .stretches import Stretch

_MAX_NAME_BYTES = 200
_RECORD = ("id", "video", "first", "stop", "onset", "offset", "body", "action", "person", "split")
_CRF = 12  # PSNR above 45 dB for most recordings: no difference to be seen


@dataclasses.dataclass(frozen=True)
class Clip:
  """A stretch with an id that can be the name of a file."""

  id: str
  stretch: Stretch


def name_clips(stretches: Sequence[Stretch]) -> list[Clip]:
  """Gives every stretch an id: its session, first and last frame."""
  used: set[str] = set()
  clips = []
  for stretch in stretches:
    base = f"{_file_name(stretch.session)}_{stretch.first:06}-{stretch.stop - 1:06}"
    name, number = base, 2
    while name in used:
      name, number = f"{base}-{number}", number + 1
    used.add(name)
    clips.append(Clip(name, stretch))
  return clips


def _file_name(name: str) -> str:
  """A name without what some file systems, and lists of clips, do not allow."""
  plain = "".join(
    "_" if char in '/\\":*?<>|' or unicodedata.category(char)[0] in "CZ" else char for char in name
  )
  return plain.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip("._") or "session"


def measure_videos(sessions: Sequence[Session], jobs: int) -> Iterator[Measured | Problem]:
  """Decodes the video of every session once, for the times of its frames."""
  return map_clips(_measure, sessions, jobs)


def cut_videos(
  sessions: Sequence[Session],
  clips: Sequence[Clip],
  measured: Mapping[str, Measured],
  folder: pathlib.Path,
  jobs: int,
) -> Iterator[None | Problem]:
  """Writes the clips of every session to `folder/ID.mp4`, with the times of their frames.

  Args:
    sessions: whose videos to cut.
    clips: of all sessions.
    measured: by id of the session.
    folder: of the clips.
    jobs: processes, see `map_clips`.
  """
  of_session = _by_session(clips)
  tasks = [_Task(one, tuple(of_session[one.id]), measured[one.id]) for one in sessions]
  return map_clips(functools.partial(_cut, folder=folder), tasks, jobs)


@dataclasses.dataclass(frozen=True)
class _Task:
  """What must be known to cut one video."""

  session: Session
  clips: tuple[Clip, ...]
  measured: Measured
  split: ClassVar[str] = ""

  @property
  def id(self) -> str:
    return self.session.id

  @property
  def where(self) -> str:
    return self.session.where


def _by_session(clips: Sequence[Clip]) -> Mapping[str, Sequence[Clip]]:
  found: dict[str, list[Clip]] = collections.defaultdict(list)
  for clip in clips:
    found[clip.stretch.session].append(clip)
  return found


def _measure(session: Session) -> Measured:
  return measure_video(session.video)


def _cut(task: _Task, *, folder: pathlib.Path) -> None:
  times, size = task.measured.times, task.measured.size
  waiting = sorted(task.clips, key=lambda clip: clip.stretch.first, reverse=True)
  running: list[tuple[Clip, VideoWriter]] = []
  try:
    for index, frame in enumerate(decode_video(task.session.video)):
      while waiting and waiting[-1].stretch.first == index:
        clip = waiting.pop()
        fps = frame_rate(times[index : clip.stretch.stop + 1])
        running.append((clip, VideoWriter(folder / f"{clip.id}.mp4", size, fps, _CRF)))
      for clip, writer in running:
        writer.add(frame, float(times[index] - times[clip.stretch.first]))
      for clip, writer in running:
        if clip.stretch.stop == index + 1:
          writer.close()
      running = [pair for pair in running if pair[0].stretch.stop > index + 1]
      if not waiting and not running:
        break
  finally:
    for _, writer in running:
      writer.discard()


def cut_poses(
  poses: PoseFiles,
  sessions: Sequence[Session],
  clips: Sequence[Clip],
  measured: Mapping[str, Measured],
  path: pathlib.Path,
) -> None:
  """Writes the poses of the clips in pyskl's format."""
  of_session = _by_session(clips)
  entries: list[dict[str, Any]] = []
  for session in sessions:
    facts = measured[session.id]
    keypoints, scores = poses.read(session.id, facts.num_frames, facts.size)
    for clip in of_session[session.id]:
      frames = slice(clip.stretch.first, clip.stretch.stop)
      entries.append(
        {
          "frame_dir": clip.id,
          "total_frames": frames.stop - frames.start,
          "img_shape": facts.size,
          "keypoint": np.ascontiguousarray(keypoints[:, frames]),
          "keypoint_score": np.ascontiguousarray(scores[:, frames]),
        }
      )
  with path.open("wb") as file:
    pickle.dump(entries, file, protocol=4)


def write_table(path: pathlib.Path, clips: Sequence[Clip], splits: Sequence[str]) -> None:
  """Writes the table for `import_clips`."""
  with path.open("w", newline="", encoding="utf-8") as file:
    rows = csv.writer(file)
    known = all(clip.stretch.person for clip in clips)
    rows.writerow(("video", "label", "body", "split", *["person"] * known))
    for clip, split in zip(clips, splits):
      stretch = clip.stretch
      cells = (f"{clip.id}.mp4", stretch.action, stretch.body, split, *[stretch.person] * known)
      rows.writerow(cells)


def write_record(
  path: pathlib.Path,
  sessions: Sequence[Session],
  clips: Sequence[Clip],
  measured: Mapping[str, Measured],
  splits: Sequence[str],
) -> None:
  """Writes from where every clip was cut."""
  videos = {session.id: session.video.name for session in sessions}
  with path.open("w", newline="", encoding="utf-8") as file:
    rows = csv.writer(file)
    rows.writerow(_RECORD)
    for clip, split in zip(clips, splits):
      stretch = clip.stretch
      frames = stretch.first, stretch.stop
      span = (f"{measured[stretch.session].times[frame]:.3f}" for frame in frames)
      labels = stretch.body, stretch.action, stretch.person
      rows.writerow((clip.id, videos[stretch.session], *frames, *span, *labels, split))

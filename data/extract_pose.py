# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["mediapipe==0.10.21", "av>=17.1,<19", "jaxtyping>=0.3.11,<0.4", "tqdm>=4.66"]
# ///
"""Estimates the pose of one person in videos: body and hands, with the keypoints of MA-52.

    pcan extract_pose VIDEOS --out poses.pkl
    uv run data/extract_pose.py VIDEOS --out poses.pkl      the same without this project's packages

VIDEOS is a video or a folder of videos. The models are part of the package `mediapipe`; nothing
else is downloaded. It needs an older NumPy than the rest of this project and therefore a separate
environment, which `uv run` creates from the lines above. Without uv:

    python3.12 -m venv poses && poses/bin/pip install mediapipe==0.10.21 av jaxtyping tqdm
    poses/bin/python data/extract_pose.py VIDEOS --out poses.pkl

The result is a pickle in the format of pyskl. Keypoints and scores are 0 if nobody is detected or a
joint is not visible, as in OpenPose. Until all videos are done, finished poses are kept in
`poses.pkl.parts`; after an interruption, the same command continues from there. Several processes
share the videos, or the stretches of a long one.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tqdm
from jaxtyping import Float, Float32

if not __package__:  # run as a script, which finds only what lies next to it
  # Last, so that this environment's NumPy takes precedence.
  folders = pathlib.Path(__file__).resolve().parents
  sys.path[:] = [folder for folder in sys.path if folder != str(folders[0])]
  sys.path.append(str(next(folder for folder in folders if (folder / "pcan_jax").is_dir())))

from pcan_jax.clips.parallel import available_cores, map_clips  # noqa: E402
from pcan_jax.clips.problems import Problem  # noqa: E402
from pcan_jax.clips.pyskl import VIDEO_SHA256  # noqa: E402
from pcan_jax.clips.safe_pickle import load_pickle  # noqa: E402
from pcan_jax.clips.video import Frame, decode_video, video_seconds  # noqa: E402
from pcan_jax.clips.video_files import find_videos  # noqa: E402
from pcan_jax.content import sha256  # noqa: E402
from pcan_jax.keypoints import LAYOUTS  # noqa: E402
from pcan_jax.writing import replace_file, require_writable  # noqa: E402

JOINTS = LAYOUTS["openpose-28"].joints
"""Left and right are the person's."""

MIN_VISIBILITY = 0.3
"""MediaPipe guesses invisible joints, such as legs under a table; below this they are dropped."""

BODY = {
  "nose": (0,),
  "neck": (11, 12),
  "right_shoulder": (12,),
  "right_elbow": (14,),
  "right_wrist": (16,),
  "left_shoulder": (11,),
  "left_elbow": (13,),
  "left_wrist": (15,),
  "right_hip": (24,),
  "right_knee": (26,),
  "right_ankle": (28,),
  "left_hip": (23,),
  "left_knee": (25,),
  "left_ankle": (27,),
  "right_eye": (5,),
  "left_eye": (2,),
  "right_ear": (8,),
  "left_ear": (7,),
}
"""For each body joint of OpenPose, the MediaPipe landmarks whose mean it is."""

FINGERTIPS = {"thumb_tip": 4, "index_tip": 8, "middle_tip": 12, "ring_tip": 16, "little_tip": 20}
"""For each fingertip, the landmark of MediaPipe's hand."""

Body = Float[np.ndarray, "33 3"]
"""MediaPipe's pose: (x, y), 0 to 1 within the frame, and visibility."""

Hand = Float[np.ndarray, "21 2"]
"""MediaPipe's hand: (x, y), 0 to 1 within the frame."""

Landmarks = tuple[Body | None, Hand | None, Hand | None]
"""Body, left hand and right hand; None if not detected."""

Tracker = Callable[[Frame], Landmarks]
NewTracker = Callable[[], contextlib.AbstractContextManager[Tracker]]
Entry = dict[str, Any]

CHUNK = 3000
"""Frames whose poses are saved at a time, about two minutes of work."""

_FACTS = "video.pkl"
_DAMAGE = "damage"


def to_openpose(
  landmarks: Landmarks, size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "28 2"], Float32[np.ndarray, "28"]]:
  """Converts the landmarks of one frame to OpenPose's joints.

  The visibility of a landmark becomes the score of its joint. MediaPipe provides none for hands;
  fingertips get that of the wrist. Joints hardly visible or outside the frame count as undetected.

  Args:
    landmarks: of the frame.
    size: (h, w) of the frame in pixels.

  Returns:
    Keypoints in pixels, (0, 0) being the centre of the first, and their scores, 0 to 1; both are 0
    for undetected joints.
  """
  body, *hands = landmarks
  points = np.zeros((len(JOINTS), 2))
  scores = np.zeros(len(JOINTS))
  if body is not None:
    for index, sources in enumerate(BODY.values()):
      points[index] = body[list(sources), :2].mean(axis=0)
      scores[index] = body[list(sources), 2].min()
    for side, hand in zip(("left", "right"), hands):
      if hand is not None:
        tips = slice(JOINTS.index(f"{side}_thumb_tip"), JOINTS.index(f"{side}_little_tip") + 1)
        points[tips] = hand[list(FINGERTIPS.values())]
        scores[tips] = scores[JOINTS.index(f"{side}_wrist")]
  height, width = size
  found = (scores >= MIN_VISIBILITY) & ((points >= 0) & (points <= 1)).all(axis=-1)
  pixels = np.clip(points * (width, height) - 0.5, 0, (width - 1, height - 1))
  return (
    np.where(found[:, None], pixels, 0).astype(np.float32),
    np.where(found, scores, 0).astype(np.float32),
  )


@dataclasses.dataclass(frozen=True)
class Share:
  """What one process does of a video: every `of`-th chunk, from the one with number `index`.

  Attributes:
    id: of the clip.
    video: its path.
    index: of the share, 0 to `of` - 1.
    of: number of shares.
    shown: whether progress is shown frame by frame, on terminals only.
  """

  id: str
  video: pathlib.Path
  index: int = 0
  of: int = 1
  shown: bool = False
  split: ClassVar[str] = "videos"

  @property
  def where(self) -> str:
    """The file, for error messages."""
    return str(self.video)


def estimate(share: Share, parts: pathlib.Path, new_tracker: NewTracker) -> pathlib.Path:
  """Estimates the pose in the frames of a share, unless that has been done.

  Args:
    share: of a video.
    parts: folder for finished poses, kept by the content of their videos.
    new_tracker: opens a tracker, which is called for all frames of a chunk in order. Every chunk
      has its own, so that the result depends neither on interruptions nor on the number of shares.

  Returns:
    The folder of the video, with the poses of every `CHUNK` frames, and what else is known of it.

  Raises:
    VideoError: the video cannot be decoded to its end.
  """
  content = sha256(share.video)
  folder = parts / hashlib.sha256(f"{share.id}/{content}".encode()).hexdigest()[:32]
  if (folder / _FACTS).exists():
    files = _chunk_files(folder, load_pickle(folder / _FACTS)["total_frames"])
    if all(path.exists() for path in files[share.index :: share.of]):
      return folder
  frames = decode_video(share.video)
  size = (0, 0)
  shown = None if share.shown else True
  with tqdm.tqdm(desc=share.id, unit="frame", leave=False, disable=shown) as progress:
    for number, frame in enumerate(frames):
      size = frame.shape[:2]
      chunk = itertools.islice(itertools.chain([frame], frames), CHUNK)
      path = _chunk_file(folder, number)
      if path.exists() or number % share.of != share.index:
        progress.update(sum(1 for _ in chunk))
        continue
      poses = []
      with new_tracker() as track:
        for image in chunk:
          poses.append(to_openpose(track(np.ascontiguousarray(image)), size))
          progress.update()
      keypoints, scores = map(np.stack, zip(*poses))
      _write(path, {"keypoint": keypoints, "keypoint_score": scores})
  facts = {
    "total_frames": len(frames.times) - 1,
    "img_shape": size,
    "original_shape": size,
    VIDEO_SHA256: content,
    _DAMAGE: frames.damage,
  }
  _write(folder / _FACTS, facts)
  return folder


def join_chunks(folder: pathlib.Path) -> Entry:
  """The poses of all frames of a video, as `estimate` has left them, and what is known of it."""
  facts = load_pickle(folder / _FACTS)
  chunks = [load_pickle(path) for path in _chunk_files(folder, facts["total_frames"])]
  fields = ("keypoint", "keypoint_score")
  return facts | {
    field: np.concatenate([chunk[field] for chunk in chunks])[None] for field in fields
  }


def _chunk_file(folder: pathlib.Path, number: int) -> pathlib.Path:
  return folder / f"{number:06}.pkl"


def _chunk_files(folder: pathlib.Path, frames: int) -> list[pathlib.Path]:
  return [_chunk_file(folder, number) for number in range(math.ceil(frames / CHUNK))]


def name_videos(path: pathlib.Path) -> dict[str, pathlib.Path]:
  """The videos at a path, by clip name: their paths within the folder, without suffixes.

  Raises:
    FileNotFoundError: there is no video.
    ValueError: two videos differ only in folder or suffix, which do not identify poses.
  """
  videos = find_videos(path)
  by_stem: dict[str, pathlib.Path] = {}
  for video in videos:
    other = by_stem.setdefault(video.stem, video)
    if other is not video:
      raise ValueError(
        f"{other} and {video} would both be the clip {video.stem!r}; rename one, or estimate the "
        "poses of each folder into a file of its own"
      )
  folder = path if path.is_dir() else path.parent
  return {video.relative_to(folder).with_suffix("").as_posix(): video for video in videos}


@contextlib.contextmanager
def open_tracker() -> Iterator[Tracker]:
  """Opens MediaPipe's Holistic, which tracks one person across the frames of one video."""
  import mediapipe  # not at the top: tests run without it

  # Temporal smoothing would attenuate micro-actions.
  with (
    _mute_native_code(),
    mediapipe.solutions.holistic.Holistic(smooth_landmarks=False) as holistic,
  ):

    def track(frame: Frame) -> Landmarks:
      found = holistic.process(frame)
      return (
        _to_array(found.pose_landmarks, "x", "y", "visibility"),
        _to_array(found.left_hand_landmarks, "x", "y"),
        _to_array(found.right_hand_landmarks, "x", "y"),
      )

    yield track


def _to_array(found: Any, *fields: str) -> np.ndarray | None:
  if found is None:
    return None
  return np.array([[getattr(point, field) for field in fields] for point in found.landmark])


@contextlib.contextmanager
def _mute_native_code() -> Iterator[None]:
  """MediaPipe logs several lines per video from C++, which cannot be turned off."""
  descriptor, python_stderr = sys.__stderr__.fileno(), sys.stderr
  own = os.dup(descriptor)
  with open(own, "w", buffering=1) as sys.stderr, open(os.devnull, "wb") as nowhere:
    os.dup2(nowhere.fileno(), descriptor)
    try:
      yield
    finally:
      os.dup2(own, descriptor)
      sys.stderr = python_stderr


def extract(
  videos: dict[str, pathlib.Path],
  parts: pathlib.Path,
  new_tracker: NewTracker,
  jobs: int = 1,
) -> tuple[list[Entry], list[str]]:
  """Estimates the poses in many videos, and reports frames without a person on standard error.

  Args:
    videos: by clip name.
    parts: folder for finished poses. Those of videos with the same name and content are used.
    new_tracker: opens a tracker, like `open_tracker`; called for each chunk.
    jobs: number of processes; 0 is one per core. If there are fewer videos, several processes share
      each of them.

  Returns:
    The entries of the readable videos, and the errors of the others.
  """
  jobs = jobs or available_cores()
  alone = len(videos) == 1
  counts = {name: _num_shares(video, jobs // len(videos)) for name, video in videos.items()}
  shares = [
    Share(name, videos[name], index, of, shown=alone and index == 0)
    for name, of in counts.items()
    for index in range(of)
  ]
  work = functools.partial(estimate, parts=parts, new_tracker=new_tracker)
  results = map_clips(work, shares, min(jobs, len(shares)))
  entries, unreadable = [], []
  for name, video in tqdm.tqdm(videos.items(), "videos", disable=True if alone else None):
    found = list(itertools.islice(results, counts[name]))
    problem = next((part for part in found if isinstance(part, Problem)), None)
    if problem:
      unreadable.append(problem.reason)
      tqdm.tqdm.write(f"skipped: {problem.reason}", file=sys.stderr)
      continue
    entry = {"frame_dir": name} | join_chunks(found[0])
    warnings = entry.pop(_DAMAGE)
    empty = int((entry["keypoint_score"] == 0).all(axis=(0, 2)).sum())
    if empty:
      warnings.append(f"no person in {empty} of {entry['total_frames']} frames")
    for warning in warnings:
      tqdm.tqdm.write(f"warning: {video}: {warning}", file=sys.stderr)
    entries.append(entry)
  return entries, unreadable


def _num_shares(video: pathlib.Path, most: int) -> int:
  """As many as the video has chunks, going by its header and at 30 frames per second."""
  try:
    chunks = math.ceil(video_seconds(video) * 30 / CHUNK)
  except ValueError:  # reported by the process that decodes it
    chunks = 1
  return max(1, min(chunks, most))


def _write(path: pathlib.Path, content: Any) -> None:
  """Writes a pickle, under a temporary name until it is complete."""
  path.parent.mkdir(parents=True, exist_ok=True)
  replace_file(path, pickle.dumps(content, protocol=4))


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="pcan extract_pose",
    description="Estimates body and hands of one person in every frame of a video, or of all "
    "videos in a folder, with MediaPipe, and writes them as OpenPose's 28 keypoints. After an "
    "interruption, the same command continues. Exits with 1 if a video is unreadable; the poses of "
    "the others are still written.",
  )
  parser.add_argument("videos", type=pathlib.Path, help="a video or a folder of videos")
  parser.add_argument("--out", type=pathlib.Path, required=True, help="pickle to write, *.pkl")
  parser.add_argument("--jobs", type=int, default=0, help="processes (one per core)")
  arguments = parser.parse_args(argv)
  if arguments.out.suffix != ".pkl":
    parser.error(f"--out is {arguments.out}; it must end in .pkl")
  parts = arguments.out.with_name(f"{arguments.out.name}.parts")
  try:
    videos = name_videos(arguments.videos)
    require_writable(arguments.out.parent)
    started = time.monotonic()
    entries, unreadable = extract(videos, parts, open_tracker, arguments.jobs)
    if entries:
      _write(arguments.out, entries)
  except KeyboardInterrupt:
    print(f"stopped; the same command goes on with what is in {parts}", file=sys.stderr)
    sys.exit(128 + signal.SIGINT)
  except ModuleNotFoundError as error:
    if not __package__ or shutil.which("uv") is None:
      sys.exit(
        f"error: {error}; `uv run {__file__}` makes an environment that has it (`pip install uv`), "
        "or see the top of that file"
      )
    words = sys.argv[1:] if argv is None else argv
    sys.exit(subprocess.run(["uv", "run", __file__, *words], check=False).returncode)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  if entries:
    frames = sum(entry["total_frames"] for entry in entries)
    seconds = time.monotonic() - started
    print(f"{arguments.out}: videos {len(entries)}, frames {frames}, seconds {seconds:.0f}")
  shutil.rmtree(parts, ignore_errors=True)
  if unreadable:
    sys.exit(f"{len(unreadable)} of {len(videos)} videos could not be read")


if __name__ == "__main__":
  main()

"""Writes a source directory of synthetic micro-actions, in the layout of MA-52's release.

    raw_videos/{train,val}/ID.mp4           H.264, 30 fps, 45-75 frames
    pose/MA52_{train,val}.pkl               list of dicts (pyskl's schema), 28 keypoints
    annotations/{train,val}_list_videos.txt `ID.mp4 label`, CRLF
    annotations/actions.csv                 MA-52's label tree
    README.txt                              says that this is not MA-52

The clips are drawings. They share with MA-52 only the label tree and the long tail
(`actions.long_tail`). Figures of the validation split do not occur in the training split. The seed
determines everything: every figure and every clip has its own seed sequence, so that a clip depends
neither on the number of processes nor on other clips.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import pathlib
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from pcan_jax.labels import get_tree

from . import actions, lookalikes
from .camera import sample_camera
from .detector import detect
from .figure import Figure, sample_figure
from .rendering import render
from .room import draw_room
from .take import FPS, Performance, Take

Array = np.ndarray
Item = TypeVar("Item")
Result = TypeVar("Result")
SPLITS = ("train", "val")
_LABELS, _FIGURE, _CLIP, _BETWEEN = range(4)  # kinds of seed sequences
_README = """Synthetic micro-actions, drawn by a program. Not MA-52, and no real people.

Label tree, long tail and file layout are those of MA-52's release; everything else is made up.
Command: pcan synthetic {options}
"""


@dataclasses.dataclass(frozen=True)
class Settings:
  """What to generate.

  Attributes:
    seed: determines everything.
    train, val: number of clips.
    height: of the videos in pixels, even; the width is 1.2 times that, as mostly in MA-52.
    figures: number of figures in the training split; the validation split has a third as many.
    between: the share of clips that lie between two actions (`lookalikes`), among the clips of
      actions for which there are any.
  """

  seed: int = 0
  train: int = 1200
  val: int = 400
  height: int = 180
  figures: int = 90
  between: float = 0.0

  def __post_init__(self) -> None:
    width_for(self.height)
    if min(self.train, self.val) < 1 or self.figures < 1:
      raise ValueError("train, val and figures must be at least 1")
    if not 0 <= self.between <= 1:
      raise ValueError(f"between is a share, at least 0 and at most 1, not {self.between}")

  @property
  def width(self) -> int:
    """Of the videos."""
    return width_for(self.height)

  @property
  def options(self) -> str:
    """Of the command that writes these clips."""
    values = dataclasses.asdict(self)
    if not self.between:
      del values["between"]
    return " ".join(f"--{name} {value}" for name, value in values.items())


def width_for(height: int) -> int:
  """The width of videos of a height, in pixels, even.

  Raises:
    ValueError: the height is odd or too small.
  """
  if height < 64 or height % 2:
    raise ValueError(f"height must be an even number of at least 64 pixels, not {height}")
  return 2 * round(0.6 * height)


PRESETS = {
  "demo": Settings(),
  "lookalikes": Settings(train=1000, val=2000, height=96, figures=240, between=0.8),
}
"""By name: clips for a demonstration; clips to compare methods, with actions hard to tell apart."""


@dataclasses.dataclass(frozen=True)
class Clip:
  """The specification of one clip."""

  split: str
  index: int
  name: str
  label: int
  figure: int


def _rng(settings: Settings, split: str, kind: int, index: int = 0) -> np.random.Generator:
  entropy = [settings.seed, SPLITS.index(split), kind, index]
  return np.random.default_rng(np.random.SeedSequence(entropy))


def plan(settings: Settings, split: str) -> list[Clip]:
  """The clips of a split: long-tailed labels, shuffled, each with a figure.

  Actions have at least 4 clips in training and 2 in validation if the totals allow it.
  """
  total, least, num_figures = {
    "train": (settings.train, 4, settings.figures),
    "val": (settings.val, 2, max(1, settings.figures // 3)),
  }[split]
  rng = _rng(settings, split, _LABELS)
  labels = np.repeat(np.arange(len(actions.ACTIONS)), actions.long_tail(total, least))
  labels = rng.permutation(labels)
  figures = rng.integers(num_figures, size=total)
  start = 0 if split == "train" else settings.train
  return [
    Clip(split, i, f"synthetic_{start + i:06d}", int(labels[i]), int(figures[i]))
    for i in range(total)
  ]


@functools.lru_cache(maxsize=512)
def figure_of(settings: Settings, split: str, index: int) -> Figure:
  """Samples a figure of a split."""
  return sample_figure(_rng(settings, split, _FIGURE, index))


def perform(settings: Settings, clip: Clip) -> tuple[Performance, Figure, np.random.Generator]:
  """Performs a clip; also returns the clip's generator, for further draws."""
  figure = figure_of(settings, clip.split, clip.figure)

  def act(motion: lookalikes.Motion) -> tuple[Take, np.random.Generator]:
    rng = _rng(settings, clip.split, _CLIP, clip.index)
    take = Take(figure.body, rng, int(rng.integers(45, 76)))
    motion(take)
    return take, rng

  motion = actions.ACTIONS[clip.label].perform
  take, rng = act(motion)
  others = lookalikes.siblings(motion)
  chance = _rng(settings, clip.split, _BETWEEN, clip.index)
  if others and chance.random() < settings.between:
    sibling, _ = act(others[chance.integers(len(others))])
    lookalikes.move_towards(take, sibling, lookalikes.draw_position(chance))
  return take.perform(), figure, rng


def make_clip(
  settings: Settings, clip: Clip
) -> tuple[list[UInt8[Array, "h w 3"]], dict[str, object]]:
  """Frames (RGB) and pose annotation of a clip."""
  performance, figure, rng = perform(settings, clip)
  setting = np.random.default_rng(figure.setting)
  camera = sample_camera(rng, setting, settings.height, settings.width)
  camera = camera.framed(performance.outermost())
  keypoint, score = detect(performance, camera, rng)
  room = draw_room(camera, setting, rng, figure.body.seat)
  frames = render(performance, camera, figure, room, rng)
  shape = (settings.height, settings.width)
  return frames, {
    "frame_dir": f"{clip.split}/{clip.name}",
    "total_frames": len(frames),
    "img_shape": shape,
    "original_shape": shape,
    "label": clip.label,
    "keypoint": keypoint[None].astype(np.float16),
    "keypoint_score": score[None].astype(np.float16),
  }


def write_video(path: pathlib.Path, frames: Iterable[UInt8[Array, "h w 3"]]) -> None:
  """Writes RGB frames as H.264 mp4."""
  frames = iter(frames)
  first = next(frames)
  height, width = first.shape[:2]
  # One thread: x264's output depends on their number.
  options = {"preset": "ultrafast", "crf": "23", "threads": "1"}
  with av.open(str(path), "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=FPS, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    for frame in itertools.chain([first], frames):
      planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
    container.mux(stream.encode())


def _write_clip(out: pathlib.Path, settings: Settings, clip: Clip) -> dict[str, object]:
  frames, annotation = make_clip(settings, clip)
  write_video(out / "raw_videos" / clip.split / f"{clip.name}.mp4", frames)
  return annotation


def in_processes(
  write: Callable[[Item], Result], items: Sequence[Item], jobs: int, together: int = 1
) -> list[Result]:
  """Calls `write` for every item, in `jobs` processes that take so many at a time; keeps the order.

  Raises:
    ValueError: `jobs` is not positive.
  """
  if jobs < 1:
    raise ValueError(f"jobs must be at least 1, not {jobs}")
  if jobs == 1:
    return [write(item) for item in items]
  # Spawned, because forking a process with threads (JAX, TensorFlow) may deadlock.
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(
    jobs, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
  ) as pool:
    return list(pool.map(write, items, chunksize=together))


@contextlib.contextmanager
def new_directory(
  out: str | os.PathLike[str], readme: str, folders: Sequence[str]
) -> Iterator[pathlib.Path | None]:
  """A directory to write to, which is renamed to `out` when it is complete.

  Args:
    out: a directory that does not exist, is empty, or is complete.
    readme: what `README.txt` says; its last line tells whether a directory is the one asked for.
    folders: to make in it.

  Yields:
    The directory, OUT.partial; None if `out` is complete.

  Raises:
    FileExistsError: `out` has other contents.
  """
  out = pathlib.Path(out)
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    note = out / "README.txt"
    if note.is_file() and note.read_text(encoding="utf-8").endswith(readme.splitlines()[-1] + "\n"):
      yield None
      return
    raise FileExistsError(f"{out} has other contents; delete it or choose another directory")
  partial = out.with_name(out.name + ".partial")
  if partial.exists():
    shutil.rmtree(partial)
  for folder in folders:
    (partial / folder).mkdir(parents=True)
  yield partial
  (partial / "README.txt").write_text(readme, encoding="utf-8")
  if out.exists():
    out.rmdir()
  partial.rename(out)


def generate(out: str | os.PathLike[str], settings: Settings, jobs: int = 1) -> bool:
  """Writes the source directory.

  Args:
    out: a directory that does not exist, is empty, or already has clips of these settings.
    settings: what to generate.
    jobs: number of processes; does not change the output.

  Returns:
    False if the clips already existed and nothing was done.

  Raises:
    FileExistsError: `out` has other contents.
    ValueError: `jobs` is not positive.
  """
  folders = ["pose", "annotations", *(f"raw_videos/{split}" for split in SPLITS)]
  with new_directory(out, _README.format(options=settings.options), folders) as partial:
    if partial is None:
      return False
    get_tree("ma52").write_csv(partial / "annotations" / "actions.csv")
    clips = [clip for split in SPLITS for clip in plan(settings, split)]
    write = functools.partial(_write_clip, partial, settings)
    annotations = in_processes(write, clips, jobs, together=8)
    for split in SPLITS:
      chosen = [i for i, clip in enumerate(clips) if clip.split == split]
      with (partial / "pose" / f"MA52_{split}.pkl").open("wb") as file:
        pickle.dump([annotations[i] for i in chosen], file, protocol=4)
      lines = "".join(f"{clips[i].name}.mp4 {clips[i].label}\r\n" for i in chosen)
      (partial / "annotations" / f"{split}_list_videos.txt").write_bytes(lines.encode())
  return True

"""Writes long recordings: a seated figure rests, acts, and acts again; with what it did and when.

    videos/NAME.mp4        H.264, 30 fps
    poses.pkl              list of dicts (pyskl's schema), 28 keypoints in every frame
    codings/NAME.eaf       the true events, as a person codes them in ELAN
    codings.csv            the same of all videos: video, start, end, label, tier
    actions.csv            the label tree: the actions that may occur
    README.txt             says that nobody real is in it

An event lasts from the first frame in which the figure leaves its rest to the first at rest again.
The seed determines everything, and every interview has a figure of its own.
"""

import dataclasses
import functools
import os
import pathlib
import pickle
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.formats import write_codings
from pcan_jax.labels import LabelTree, get_tree

from . import skeleton
from .actions import ACTIONS
from .camera import sample_camera
from .detector import detect
from .figure import Figure, sample_figure
from .generate import in_processes, new_directory, width_for, write_video
from .rendering import render
from .room import draw_room
from .skeleton import HandPosture, Posture
from .take import FPS, Performance, Take, ease, perform

Array = np.ndarray
SCHEME = (
  "nodding",
  "shaking head",
  "shrugging",
  "shaking body",
  "waving",
  "putting hands together",
  "crossing arms",
  "scratching or touching face",
  "playing or tidying hair",
  "crossing legs",
)
"""The actions of an interview unless others are asked for: as many as a person codes at a time."""

ACT = (45, 90)
"""Least and most frames of an event."""

PAUSE = (1.0, 2.5)
"""Least seconds of rest between two events, and how much longer it is on average."""

RAMP = 12
"""Frames in which a figure leaves its rest, and as many in which it returns."""

_STRETCH = 300  # frames drawn at a time
_FIGURE, _COURSE, _ACT, _CAMERA = range(4)  # kinds of seed sequences
_README = """Synthetic interviews, drawn by a program. No real people, and nobody says anything.

Command: pcan synthetic {options}
"""


@dataclasses.dataclass(frozen=True)
class Interviews:
  """What to generate.

  Attributes:
    seed: determines everything.
    interviews: number of videos, each of another figure.
    minutes: length of each.
    height: of the videos in pixels, even; the width is 1.2 times that.
    actions: what the figures do, by the names of MA-52's label tree.
  """

  seed: int = 0
  interviews: int = 2
  minutes: float = 3.0
  height: int = 180
  actions: tuple[str, ...] = SCHEME

  def __post_init__(self) -> None:
    width_for(self.height)
    if self.interviews < 1 or not 0.1 <= self.minutes <= 600:
      raise ValueError("interviews must be at least 1, and minutes between 0.1 and 600")
    known = get_tree("ma52").actions
    unknown = [name for name in self.actions if name not in known]
    if unknown or not self.actions:
      raise ValueError(f"no action {', '.join(unknown) or 'given'}; there are {', '.join(known)}")

  @property
  def width(self) -> int:
    """Of the videos."""
    return width_for(self.height)

  @property
  def options(self) -> str:
    """Of the command that writes these interviews."""
    return (
      f"--seed {self.seed} --interviews {self.interviews} --minutes {self.minutes} "
      f"--height {self.height} --actions '{','.join(self.actions)}'"
    )

  @property
  def tree(self) -> LabelTree:
    """The actions, and the body parts to which they belong."""
    return get_tree("ma52").subset(self.actions)


@dataclasses.dataclass(frozen=True)
class Act:
  """An action from its first frame to the one after its last."""

  first: int
  stop: int
  action: str


def _rng(settings: Interviews, *entropy: int) -> np.random.Generator:
  return np.random.default_rng(np.random.SeedSequence([settings.seed, *entropy]))


def plan(settings: Interviews, index: int) -> list[Act]:
  """What happens when in an interview: every action about equally often, in random order."""
  rng = _rng(settings, _COURSE, index)
  num_frames = round(60 * FPS * settings.minutes)
  acts, waiting = [], []
  stop = 0
  while True:
    first = stop + round(FPS * (PAUSE[0] + rng.exponential(PAUSE[1])))
    stop = first + int(rng.integers(ACT[0], ACT[1] + 1))
    if stop + FPS // 2 > num_frames:
      return acts
    waiting = waiting or rng.permutation(settings.actions).tolist()
    acts.append(Act(first, stop, waiting.pop()))


def perform_interview(settings: Interviews, index: int) -> tuple[Performance, list[str], Figure]:
  """Performs an interview; also returns the object in the hands in every frame, or empty."""
  figure = sample_figure(_rng(settings, _FIGURE, index))
  num_frames = round(60 * FPS * settings.minutes)
  rest = Take(figure.body, _rng(settings, _COURSE, index, 1), num_frames)
  hands = rest.hands(skeleton.trunk(figure.body, rest.posture))
  actions = dict(zip(get_tree("ma52").actions, ACTIONS))
  props, glasses = [""] * num_frames, False
  for number, act in enumerate(plan(settings, index)):
    take = rest.excerpt(act.first, act.stop, _rng(settings, _ACT, index, number))
    actions[act.action].perform(take)
    moved = take.hands(skeleton.trunk(figure.body, take.posture))
    frames = slice(act.first, act.stop)
    share = _share(act.stop - act.first)
    _move(rest.posture, take.posture, frames, share)
    for own, other in zip(hands, moved):
      _move(own, other, frames, share)
    props[frames] = [take.prop if there == 1 else "" for there in share]
    glasses |= take.glasses
  trunk = skeleton.trunk(figure.body, rest.posture)
  return perform(trunk, hands, "", glasses), props, figure


def _share(num_frames: int) -> Float[Array, "t"]:
  """From rest to the action, at 1 in between, and back."""
  frame = np.arange(num_frames)
  return ease((frame + 1) / RAMP) * ease((num_frames - frame) / RAMP)


def _move(
  own: Posture | HandPosture,
  other: Posture | HandPosture,
  frames: slice,
  share: Float[Array, "t"],
) -> None:
  """Moves frames of a posture towards those of another, in place."""
  for field in dataclasses.fields(own):
    values, there = np.array(getattr(own, field.name)), getattr(other, field.name)
    weight = share.reshape(-1, *(1,) * (values.ndim - 1))
    values[frames] += weight * (there - values[frames])
    setattr(own, field.name, values)


def _draw(
  settings: Interviews, index: int
) -> tuple[Iterator[UInt8[Array, "h w 3"]], tuple[Array, Array]]:
  """The frames (RGB), drawn as they are asked for, and keypoints [t, 28, 2] and scores [t, 28]."""
  performance, props, figure = perform_interview(settings, index)
  setting = np.random.default_rng(figure.setting)
  rng = _rng(settings, _CAMERA, index)
  camera = sample_camera(rng, setting, settings.height, settings.width)
  camera = camera.framed(performance.outermost())
  keypoint, score = detect(performance, camera, rng)
  room = draw_room(camera, setting, rng, figure.body.seat)

  def frames() -> Iterator[UInt8[Array, "h w 3"]]:
    first = 0
    while first < len(props):
      stop = first + 1
      while stop < min(first + _STRETCH, len(props)) and props[stop] == props[first]:
        stop += 1
      part = dataclasses.replace(performance.excerpt(first, stop), prop=props[first])
      # The same generator each time: one camera has one blur and one noise.
      yield from render(part, camera, figure, room, _rng(settings, _CAMERA, index, 1))
      first = stop

  return frames(), (keypoint, score)


def _entry(settings: Interviews, index: int, keypoint: Array, score: Array) -> dict[str, object]:
  """The poses of an interview in pyskl's format."""
  shape = (settings.height, settings.width)
  return {
    "frame_dir": name_of(index),
    "total_frames": len(keypoint),
    "img_shape": shape,
    "original_shape": shape,
    "keypoint": keypoint[None].astype(np.float16),
    "keypoint_score": score[None].astype(np.float16),
  }


def name_of(index: int) -> str:
  """The name of an interview, without a suffix."""
  return f"interview_{index + 1:02d}"


def coding_of(settings: Interviews, index: int) -> Coding:
  """The true events of an interview."""
  body_of = settings.tree.body_of
  events = tuple(
    Event(act.first / FPS, act.stop / FPS, act.action, body_of[act.action])
    for act in plan(settings, index)
  )
  return Coding(f"{name_of(index)}.mp4", events, round(60 * FPS * settings.minutes) / FPS)


def _write_interview(out: pathlib.Path, settings: Interviews, index: int) -> tuple[Array, Array]:
  frames, poses = _draw(settings, index)
  write_video(out / "videos" / f"{name_of(index)}.mp4", frames)
  return poses


def generate_interviews(out: str | os.PathLike[str], settings: Interviews, jobs: int = 1) -> bool:
  """Writes the interviews.

  Args:
    out: a directory that does not exist, is empty, or already has these interviews.
    settings: what to generate.
    jobs: number of processes; does not change the output.

  Returns:
    False if the interviews already existed and nothing was done.

  Raises:
    FileExistsError: `out` has other contents.
    ImportError: what writes ELAN's files is not installed; the message says how to install it.
    ValueError: `jobs` is not positive.
  """
  with new_directory(out, _README.format(options=settings.options), ("videos", "codings")) as new:
    if new is None:
      return False
    settings.tree.write_csv(new / "actions.csv")
    codings = [coding_of(settings, index) for index in range(settings.interviews)]
    write_codings("csv", codings, settings.tree, new)
    videos = [dataclasses.replace(one, video=str(new / "videos" / one.video)) for one in codings]
    for document in write_codings("eaf", videos, settings.tree, new / "codings"):
      text = document.read_text(encoding="utf-8")  # links to where the videos will be
      document.write_text(text.replace(new.name, pathlib.Path(out).name), encoding="utf-8")
    write = functools.partial(_write_interview, new, settings)
    found = in_processes(write, range(settings.interviews), min(jobs, settings.interviews))
    poses = [_entry(settings, index, *arrays) for index, arrays in enumerate(found)]
    (new / "poses.pkl").write_bytes(pickle.dumps(poses, protocol=4))
  return True

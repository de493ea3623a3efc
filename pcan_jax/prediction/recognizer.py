"""Recognises micro-actions in arrays and videos with a checkpoint.

  recognizer = Recognizer.load("runs/demo")
  prediction = recognizer.predict_video("clip.mp4", pose="poses.pkl")
  print(prediction.top_actions(), prediction.top_bodies())
  print(prediction.outputs["rgb"]["action"]["logits"])

The network receives the same inputs as from a built data set: the same square around the persons,
the same resizing and JPEG compression, the same frames in every test clip.
"""

import collections
import dataclasses
import functools
import itertools
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike

from pcan_jax.checkpoints import load_model
from pcan_jax.clips.person_box import crop_box, extent
from pcan_jax.clips.persons import strongest_persons
from pcan_jax.clips.pose import Pose
from pcan_jax.clips.pose_files import PoseFiles, open_poses
from pcan_jax.clips.sampling import FrameSampling, test_clips
from pcan_jax.clips.stored_frames import Encoding, encode_frame, move_keypoints
from pcan_jax.clips.timing import evenly_in_time
from pcan_jax.clips.video_files import clip_id
from pcan_jax.keypoints import KeypointLayout
from pcan_jax.labels import LabelTree
from pcan_jax.prediction.pretrained import find_pretrained
from pcan_jax.prediction.videos import Video, Window
from pcan_jax.spec import HostOutputs, ModelSpec, PyTree

_log = logging.getLogger(__name__)

NO_POSES = (
  "the model needs poses, and none were given: estimate them with "
  "`pcan extract_pose VIDEO --out FILE.pkl`, then pass them (--pose=FILE)"
)

CLIPS_PER_BATCH = 64
"""Test clips that an accelerator gets at a time; a CPU gets as many as in evaluation."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
  """Predictions for one video or window, averaged over its test clips.

  Attributes:
    tree: names of the classes.
    outputs: arrays by branch, level and kind, `outputs["rgb"]["action"]["logits"]`. Branches are
      `fused` and the streams, levels `action` and `body`. Every branch has `probabilities` [C].
      Streams also have `logits` [C], for actions rectified by the prototypes, and, if the model
      has prototypes, `embedding` [D].
  """

  tree: LabelTree
  outputs: HostOutputs

  def top_actions(self, count: int = 5, branch: str = "fused") -> list[tuple[str, float]]:
    """The most likely actions and their probabilities, best first."""
    return _top(self.outputs[branch]["action"]["probabilities"], self.tree.actions, count)

  def top_bodies(self, count: int = 5, branch: str = "fused") -> list[tuple[str, float]]:
    """The most likely body parts and their probabilities, best first."""
    return _top(self.outputs[branch]["body"]["probabilities"], self.tree.bodies, count)


def _top(
  probabilities: Float[np.ndarray, " c"], names: Sequence[str], count: int
) -> list[tuple[str, float]]:
  best = np.argsort(-probabilities, kind="stable")[:count]
  return [(names[index], float(probabilities[index])) for index in best]


class Recognizer:
  """A model ready for predictions.

  The first prediction compiles the network, later ones reuse it. It runs on one device.

  Attributes:
    tree: the labels.
    layout: the expected keypoints.
    streams: "rgb", "pose", or both.
    step: training step of the checkpoint.
    num_clips: test clips per video or window, over which a prediction is averaged.
    spec: what the model was made for, its config included.
  """

  def __init__(
    self, spec: ModelSpec, variables: PyTree, step: int, num_clips: int | None = None
  ) -> None:
    if spec.reads_features:
      raise ValueError(
        "the model reads stored features of another network, not videos; store those of the clips "
        "with pcan import_features and evaluate (--mode=eval --data=DIR)"
      )
    self.spec = spec
    self.tree: LabelTree = spec.tree
    self.layout: KeypointLayout = spec.layout
    self.streams: tuple[str, ...] = spec.model.streams
    self.step = step
    self.num_clips: int = num_clips or spec.config.eval.num_clips
    self._new_collector = functools.partial(
      _ClipCollector, spec.frame_sampling(self.num_clips), spec.stored_size
    )
    self._variables = jax.device_put(variables, jax.local_devices()[0])
    # Not the method itself, for which JAX could reuse a trace, see `mesh.jit_step`.
    self._predict_batch = jax.jit(functools.partial(spec.predict))

  @classmethod
  def load(cls, path: str | os.PathLike[str], *, num_clips: int | None = None) -> "Recognizer":
    """Loads a checkpoint.

    Args:
      path: a working directory (its latest checkpoint), or one checkpoint, DIR/checkpoints/STEP.
      num_clips: test clips per video; None is the number used in evaluation.

    Raises:
      FileNotFoundError: there is no checkpoint.
    """
    return cls(*load_model(path), num_clips=num_clips)

  @classmethod
  def from_pretrained(
    cls,
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    num_clips: int | None = None,
  ) -> "Recognizer":
    """Loads a shared model from the Hugging Face Hub, or one on this machine.

    Nothing that is fetched is executed; see `pcan_jax.prediction.pretrained`.

    Args:
      name: `user/model`, as `pcan hub push` shares it, or a path as for `load`.
      revision: branch, tag or commit on the hub; None is the latest.
      num_clips: as for `load`.

    Raises:
      FileNotFoundError: there is no such model.
      ValueError: it is damaged.
      OSError: the hub cannot be reached.
    """
    return cls.load(find_pretrained(name, revision), num_clips=num_clips)

  @property
  def prototypes(self) -> dict[str, dict[str, np.ndarray]]:
    """Per stream, those of actions [A, D] and body parts [B, D']; empty for a baseline."""
    return jax.device_get(self._variables["prototypes"])

  def predict(
    self,
    frames: ArrayLike | None = None,
    keypoints: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    *,
    size: tuple[int, int] | None = None,
  ) -> Prediction:
    """Recognises the action in one clip, given as arrays or nested lists.

    The frames are assumed to be evenly spaced in time.

    Args:
      frames: uint8 [T, H, W, 3], RGB. Not needed by pose models.
      keypoints: [M, T, V, 2], (x, y) in pixels of the frames. An RGB model only uses them to crop
        to the persons; without them it sees the whole frame.
      scores: [M, T, V], 0 or less for keypoints that were not detected.
      size: (H, W) of the frames that keypoints are of, if there are no frames; by default the
        smallest that holds all keypoints. It only counts where nobody was detected.

    Raises:
      ValueError: an array is missing, has the wrong shape, or holds numbers that pose files may not
        hold either; the message says which.
    """
    frames, pose, num_frames, size = self._checked(frames, keypoints, scores, size)
    collector = self._new_collector(
      np.arange(num_frames), size, *((pose.keypoints, pose.scores) if pose else (None, None))
    )
    for index in collector.wanted:
      collector.add(index, frames[index])
    return next(self._predict([collector], 1))

  def predict_video(
    self, path: str | os.PathLike[str], pose: str | os.PathLike[str] | PoseFiles | None = None
  ) -> Prediction:
    """Recognises the action in one video, taken as one clip.

    Damage that leaves it readable, such as a missing end, is logged as a warning.

    Args:
      path: of the video.
      pose: path of its poses, for `pcan_jax.clips.pose_files.open_poses`, or opened poses.

    Raises:
      FileNotFoundError, ValueError: the video or its poses cannot be read, or the model needs poses
        and none are given.
    """
    if isinstance(pose, str | os.PathLike):
      pose = open_poses(pose, self.layout, only_clip=clip_id(pathlib.Path(path)))
    self.require_poses(pose)
    video = Video.open(path, pose)
    for damage in video.damage:
      _log.warning("%s: %s", path, damage)
    return next(self.predict_windows(video, video.windows()))

  def predict_windows(self, video: Video, windows: Sequence[Window]) -> Iterator[Prediction]:
    """Recognises the actions in windows of a video, which is read once for all of them.

    Memory holds the test clips of two batches, and of windows that overlap.

    Args:
      video: a video, with poses if the model needs them.
      windows: of the video, sorted by first and by last frame.

    Yields:
      The predictions, in the order of the windows.

    Raises:
      ValueError: the video has changed since it was opened.
    """
    return self._predict(self._collected(video, windows), self.batch_size(len(windows)))

  def batch_size(self, num_windows: int) -> int:
    """How many windows the device gets at a time: a power of two for few windows."""
    backend = jax.default_backend()
    clips = self.spec.config.eval.batch_size
    full = max((clips if backend == "cpu" else max(clips, CLIPS_PER_BATCH)) // self.num_clips, 1)
    return min(full, 1 << max(num_windows - 1, 0).bit_length())

  def _collected(self, video: Video, windows: Sequence[Window]) -> Iterator["_ClipCollector"]:
    """The test clips of windows, in their order; reads a video once."""
    if "rgb" not in self.streams:
      for window in windows:
        yield self._collector(video, window)
      return
    waiting = collections.deque(windows)
    open_windows: collections.deque[tuple[Window, _ClipCollector]] = collections.deque()
    for index, frame in enumerate(video.frames()):
      while waiting and waiting[0].first == index:
        open_windows.append((waiting[0], self._collector(video, waiting.popleft())))
      for window, collector in open_windows:
        collector.add(index - window.first, frame)
      while open_windows and open_windows[0][0].stop == index + 1:
        yield open_windows.popleft()[1]
    if waiting or open_windows:
      raise ValueError(f"{video.path} has fewer frames than when it was opened; do not change it")

  def require_poses(self, poses: object | None) -> None:
    """Checks that poses are given if the model needs them.

    Raises:
      ValueError: they are missing; the message says how to estimate them.
    """
    if "pose" in self.streams and poses is None:
      raise ValueError(NO_POSES)

  def require_no_frames(self) -> None:
    """Checks that the model needs nothing but poses.

    Raises:
      ValueError: it has a stream of RGB frames.
    """
    if "rgb" in self.streams:
      raise ValueError(
        f"the model sees RGB frames (streams {' + '.join(self.streams)}): give the videos, too "
        "(--video=PATH); only a model of poses alone predicts without them"
      )

  def _checked(
    self,
    frames: ArrayLike | None,
    keypoints: ArrayLike | None,
    scores: ArrayLike | None,
    size: tuple[int, int] | None,
  ) -> tuple[np.ndarray | None, Pose | None, int, tuple[int, int]]:
    """Checks the arrays; returns frames, pose, the number of frames and their (H, W)."""
    if frames is None and "rgb" in self.streams:
      raise ValueError("the model needs RGB frames: give frames, uint8 [T, H, W, 3]")
    if (keypoints is None) != (scores is None):
      raise ValueError("give both keypoints and scores, or neither")
    self.require_poses(keypoints)
    if frames is not None:
      frames = _as_array(frames, "frames")
      if frames.dtype.kind == "i" and frames.size and frames.min() >= 0 and frames.max() <= 255:
        frames = frames.astype(np.uint8)  # nested lists
      if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(
          f"frames must be uint8 [T, H, W, 3], not {frames.dtype} {list(frames.shape)}"
        )
      size = frames.shape[1:3]
    elif size is not None and (len(size) != 2 or min(size) < 1):
      raise ValueError(f"size must be (height, width) in pixels, not {size}")
    if keypoints is None:
      return frames, None, len(frames), size
    arrays = _as_array(keypoints, "keypoints"), _as_array(scores, "scores")
    pose = Pose(*arrays, img_shape=None, where="the clip").checked(self.layout)
    num_frames = pose.keypoints.shape[1]
    if not num_frames or frames is not None and len(frames) != num_frames:
      count = "" if frames is None else f"there are {len(frames)} frames, but "
      raise ValueError(f"{count}keypoints of {num_frames}")
    size = size or extent(pose.keypoints)
    pose.check_fit(num_frames, size)
    return frames, pose, num_frames, size

  def _collector(self, video: Video, window: Window) -> "_ClipCollector":
    keypoints, scores = video.keypoints, video.scores
    if keypoints is not None:
      keypoints = keypoints[:, window.first : window.stop]
      scores = scores[:, window.first : window.stop]
    order = evenly_in_time(video.times[window.first : window.stop + 1])
    return self._new_collector(order, video.size, keypoints, scores)

  def _predict(self, collectors: Iterable["_ClipCollector"], size: int) -> Iterator[Prediction]:
    """Predictions of windows; while the device computes, the next batch is collected."""
    collectors = iter(collectors)
    computing: tuple[Any, int] | None = None
    while group := list(itertools.islice(collectors, size)):
      rows = [collector.clips for collector in group]
      rows += rows[:1] * (size - len(rows))  # the last batch is filled up, not compiled for
      batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
      submitted = self._predict_batch(self._variables, batch), len(group)
      if computing:
        yield from self._rows(*computing)
      computing = submitted
    if computing:
      yield from self._rows(*computing)

  def _rows(self, outputs: Any, count: int) -> Iterator[Prediction]:
    outputs = jax.device_get(outputs)
    for row in range(count):
      yield Prediction(self.tree, jax.tree.map(lambda values, row=row: values[row], outputs))


def _as_array(values: ArrayLike, name: str) -> np.ndarray:
  try:
    return np.asarray(values)
  except ValueError as error:  # lists of different lengths
    raise ValueError(f"{name} cannot be made an array: {error}") from error


class _ClipCollector:
  """Collects the test clips of one window from its frames and poses.

  Args:
    sampling: of the test clips.
    side: S.
    order: indices in the window of T frames that are evenly spaced in time.
    size: (h, w) of the frames.
    keypoints, scores: of the frames of the window; None without poses.

  Attributes:
    clips: of K test clips `rgb` uint8 [K, T, S, S, 3], and/or `keypoints` [K, T', M, V, 2] in
      pixels of these and `keypoint_scores` [K, T', M, V].
    wanted: indices of the frames that `add` needs.
  """

  def __init__(
    self,
    sampling: FrameSampling,
    side: int,
    order: np.ndarray,
    size: tuple[int, int],
    keypoints: np.ndarray | None,
    scores: np.ndarray | None,
  ) -> None:
    self._encoding = Encoding(side)
    # The whole frame without poses.
    self._box = (0, 0, size[1], size[0])
    if keypoints is not None:
      self._box = crop_box(keypoints, scores, size, "the clip")
    # For each frame index, its positions in the clips: (test clip, time).
    self._positions: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
    self.clips: dict[str, np.ndarray] = {}
    indices = {
      stream: order[test_clips(len(order), length, sampling.num_clips)]
      for stream, length in sampling.lengths.items()
    }
    if "rgb" in indices:
      self.clips["rgb"] = np.zeros((*indices["rgb"].shape, side, side, 3), np.uint8)
      for position, index in np.ndenumerate(indices["rgb"]):
        self._positions[int(index)].append(position)
    if "pose" in indices:
      moved = move_keypoints(keypoints, scores, self._box, side)
      keypoints, scores = strongest_persons(*moved, sampling.max_persons)
      self.clips["keypoints"] = keypoints[indices["pose"]]
      self.clips["keypoint_scores"] = scores[indices["pose"]]

  @property
  def wanted(self) -> list[int]:
    return sorted(self._positions)

  def add(self, index: int, frame: UInt8[np.ndarray, "h w 3"]) -> None:
    """Adds the frame with this index, counted from the start of the window."""
    if index not in self._positions:
      return
    jpeg = np.frombuffer(encode_frame(frame, self._box, self._encoding), np.uint8)
    image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]
    for position in self._positions[index]:
      self.clips["rgb"][position] = image

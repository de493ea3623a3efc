"""Poses in JSON files, one record per person and frame: OpenPose's folders and COCO's files.

Joints are selected by name. If the estimator has no neck, it is computed as the midpoint of the
shoulders, which is OpenPose's definition. Any other joint of the layout that the estimator lacks is
an error, because the network was not trained on such a skeleton.
"""

import collections
import json
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from pcan_jax.clips.link_persons import Persons, link_persons
from pcan_jax.clips.pose import FRAME_COUNT_TOLERANCE, Pose
from pcan_jax.keypoints import LAYOUTS, KeypointLayout

MAX_PERSONS = 64
"""Limit for one frame."""

MAX_FILE_BYTES = 1 << 28
"""Parsed JSON takes up to twenty times this size in memory."""

_MAX_NUMBER = 1e9


_SIDES = ("left", "right")
_FINGERS = ("thumb", "index", "middle", "ring", "little")
_HAND_JOINTS = 21

_BODY_25 = """
  nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist hip_centre
  right_hip right_knee right_ankle left_hip left_knee left_ankle
  right_eye left_eye right_ear left_ear
  left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel
""".split()
_COCO_18 = list(LAYOUTS["openpose-18"].joints)
_COCO_17 = list(LAYOUTS["coco-17"].joints)


def _hand(side: str) -> list[str]:
  """OpenPose's and COCO's 21 hand joints: the root, then four per finger up to the tip."""
  names = [f"{side}_hand_{index}" for index in range(_HAND_JOINTS)]
  for finger, name in enumerate(_FINGERS, start=1):
    names[4 * finger] = f"{side}_{name}_tip"
  return names


# COCO-WholeBody: body, feet, face, hands.
_COCO_133 = [
  *_COCO_17,
  *"left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel".split(),
  *(f"face_{index}" for index in range(68)),
  *_hand("left"),
  *_hand("right"),
]


class OpenPoseFolder:
  """Output of OpenPose's `--write_json`: `NAME_000000000012_keypoints.json` for frame 12.

  The files of a clip are in a folder named after the clip's id, or the files of all clips are in
  one folder and NAME is the clip's id.

  Args:
    path: of the folder.
    layout: of the keypoints to return.

  Raises:
    ValueError: the folder has no such file, or the layout has joints that OpenPose lacks.
  """

  def __init__(self, path: pathlib.Path, layout: KeypointLayout) -> None:
    self._path = path
    self._layout = layout
    joints = (*_BODY_25, *_hand("left"), *_hand("right"))
    _indices(joints, layout, f"{path}: OpenPose")
    self._frames: dict[str, dict[int, pathlib.Path]] = {}
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    for folder in (path, *folders):
      for file in sorted(folder.glob("*_keypoints.json")):
        name, number = _split_number(file.name.removesuffix("_keypoints.json"))
        if number is None:
          raise ValueError(
            f"{file}: its name has no frame number; expected NAME_NUMBER_keypoints.json"
          )
        in_common = folder == path and name
        frames = self._frames.setdefault(name if in_common else folder.name, {})
        if number in frames:
          raise ValueError(f"{file} and {frames[number].name} are the same frame of one clip")
        frames[number] = file
    if not self._frames:
      raise ValueError(
        f"{path} holds no poses: expected CLIP/CLIP_000000000000_keypoints.json and so on, "
        "as OpenPose writes with --write_json"
      )

  @property
  def clip_ids(self) -> Collection[str]:
    return self._frames.keys()

  def pose(self, clip_id: str, num_frames: int) -> Pose:
    files = self._frames[clip_id]
    where = f"{self._path}: clip {clip_id!r}"
    first = _first_frame(files, num_frames, where)
    frames = {
      number - first: _read_openpose_frame(file, self._layout) for number, file in files.items()
    }
    return _link(frames, num_frames, self._layout, None, where)


def _read_openpose_frame(path: pathlib.Path, layout: KeypointLayout) -> Persons:
  content = _read_json(path)
  people = content.get("people") if isinstance(content, dict) else None
  if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
    raise ValueError(f"{path}: no list 'people'; expected what OpenPose writes with --write_json")
  if len(people) > MAX_PERSONS:
    raise ValueError(f"{path}: {len(people)} people in one frame, more than {MAX_PERSONS}")
  persons = []
  for index, person in enumerate(people):
    where = f"{path}: person {index}"
    points = _triples(person.get("pose_keypoints_2d"), f"{where}: 'pose_keypoints_2d'")
    if len(points) not in (len(_BODY_25), len(_COCO_18)):
      raise ValueError(
        f"{where}: 'pose_keypoints_2d' has {len(points)} keypoints; OpenPose's models BODY_25 and "
        "COCO have 25 and 18"
      )
    names = list(_BODY_25 if len(points) == len(_BODY_25) else _COCO_18)
    for side in _SIDES:
      field = f"hand_{side}_keypoints_2d"
      hand = _triples(person.get(field, []), f"{where}: {field!r}")
      if len(hand) not in (0, _HAND_JOINTS):
        raise ValueError(f"{where}: {field!r} has {len(hand)} keypoints, not {_HAND_JOINTS}")
      if len(hand):
        names += _hand(side)
        points = np.concatenate([points, hand])
    hint = "" if len(names) > len(_BODY_25) else "; was OpenPose run without --hand?"
    persons.append(_choose(points[None], names, layout, where, hint))
  return np.concatenate(persons) if persons else np.zeros((0, layout.num_keypoints, 3))


class CocoFile:
  """COCO annotations of video frames, or the list of results that detectors write for COCO.

  An annotation has `keypoints` (x, y, v for every joint) and `image_id`: the id of one of `images`,
  or a file name, as AlphaPose writes it. The file name identifies the frame: `CLIP/12.jpg`,
  `CLIP/anything_12.jpg`, `CLIP_12.jpg`, or `12.jpg` if the JSON file is named after its only clip.
  v is a score of at most 1, or one of COCO's flags 0, 1, 2, where 0 is not labelled and the others
  count as 1.

  The joints are those listed in `categories`, or else the layout's if their number is the same, or
  else COCO's 17 or COCO-WholeBody's 133.

  Args:
    path: of the file.
    layout: of the keypoints to return.

  Raises:
    ValueError: the file is damaged or of another format, or lacks joints of the layout.
  """

  def __init__(self, path: pathlib.Path, layout: KeypointLayout) -> None:
    self._path = path
    self._layout = layout
    content = _read_json(path)
    is_table = isinstance(content, dict)
    annotations = content.get("annotations") if is_table else content
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
      raise ValueError(
        f"{path}: expected COCO annotations, a list of objects with 'image_id' and 'keypoints', "
        "or an object with one under 'annotations'"
      )
    self._named_joints = _category_joints(content, path) if is_table else None
    # Annotations with their indices, by clip and frame.
    self._frames: dict[str, dict[int, list[tuple[int, Mapping[str, Any]]]]] = {}
    self._sizes: dict[str, set[tuple[int, int]]] = collections.defaultdict(set)
    self._places: dict[Any, tuple[str, int]] = {}
    for index, image in enumerate(_images(content, path) if is_table else []):
      self._add_image(image, f"{path}: image {index}")
    has_images = bool(self._places)
    for index, annotation in enumerate(annotations):
      where = f"{path}: annotation {index}"
      image_id = annotation.get("image_id")
      if isinstance(image_id, str) and not has_images:
        clip_id, number = self._place(image_id, where)
      elif isinstance(image_id, str | int) and image_id in self._places:
        clip_id, number = self._places[image_id]
      else:
        raise ValueError(
          f"{where}: its 'image_id' {str(image_id)[:40]!r} is neither the id of one of 'images' "
          "nor the name of a file"
        )
      frames = self._frames.setdefault(clip_id, {})
      frames.setdefault(number, []).append((index, annotation))

  @property
  def clip_ids(self) -> Collection[str]:
    return self._frames.keys()

  def pose(self, clip_id: str, num_frames: int) -> Pose:
    where = f"{self._path}: clip {clip_id!r}"
    sizes = self._sizes[clip_id]
    if len(sizes) > 1:
      raise ValueError(
        f"{where}: its 'images' have different sizes (height, width): {sorted(sizes)}"
      )
    first = _first_frame(self._frames[clip_id], num_frames, where)
    frames = {
      number - first: self._persons(annotations)
      for number, annotations in self._frames[clip_id].items()
    }
    img_shape = next(iter(sizes), None)
    return _link(frames, num_frames, self._layout, img_shape, where)

  def _add_image(self, image: Mapping[str, Any], where: str) -> None:
    image_id, name = image.get("id"), image.get("file_name")
    if not isinstance(image_id, str | int) or not isinstance(name, str):
      raise ValueError(f"{where} has no 'id' or no 'file_name'")
    clip_id, number = self._place(name, where)
    frames = self._frames.setdefault(clip_id, {})
    if image_id in self._places or number in frames:
      raise ValueError(f"{where}, {name[:80]!r}: its id, or this frame of its clip, occurs twice")
    frames[number] = []
    self._places[image_id] = clip_id, number
    height, width = image.get("height"), image.get("width")
    if isinstance(height, int) and isinstance(width, int):
      self._sizes[clip_id].add((height, width))

  def _place(self, name: str, where: str) -> tuple[str, int]:
    """The clip and the frame number encoded in a file name."""
    *folders, file = name.replace("\\", "/").split("/")
    prefix, number = _split_number(file.rpartition(".")[0] or file)
    if number is None:
      raise ValueError(f"{where}: the file name {name[:80]!r} does not end in a frame number")
    folder = folders[-1] if folders else ""
    return folder or prefix or self._path.stem, number

  def _persons(self, annotations: Sequence[tuple[int, Mapping[str, Any]]]) -> Persons:
    if len(annotations) > MAX_PERSONS:
      raise ValueError(
        f"{self._path}: annotation {annotations[0][0]}: {len(annotations)} persons in one frame, "
        f"more than {MAX_PERSONS}"
      )
    persons = [np.zeros((0, self._layout.num_keypoints, 3))]
    for index, annotation in annotations:
      where = f"{self._path}: annotation {index}"
      points = _triples(annotation.get("keypoints"), f"{where}: 'keypoints'")
      points[:, 2] = np.minimum(points[:, 2], 1)
      joints = self._joints(len(points), where)
      persons.append(_choose(points[None], joints, self._layout, where))
    return np.concatenate(persons)

  def _joints(self, count: int, where: str) -> Sequence[str]:
    by_count = {len(joints): joints for joints in (_COCO_17, _COCO_133, self._layout.joints)}
    joints = self._named_joints or by_count.get(count, ())
    if len(joints) != count:
      expected = f"{len(joints)} as in 'categories'" if joints else f"one of {sorted(by_count)}"
      raise ValueError(f"{where}: 'keypoints' has {count} keypoints, expected {expected}")
    return joints


def _images(content: Mapping[str, Any], path: pathlib.Path) -> list[Mapping[str, Any]]:
  images = content.get("images", [])
  if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
    raise ValueError(f"{path}: 'images' is not a list of objects")
  return images


def _category_joints(content: Mapping[str, Any], path: pathlib.Path) -> list[str] | None:
  """The joints listed in the first category with keypoints, if there is one."""
  categories = content.get("categories", [])
  if not isinstance(categories, list) or not all(isinstance(c, dict) for c in categories):
    raise ValueError(f"{path}: 'categories' is not a list of objects")
  for category in categories:
    joints = category.get("keypoints")
    if joints:
      if not isinstance(joints, list) or not all(isinstance(joint, str) for joint in joints):
        raise ValueError(f"{path}: the 'keypoints' of a category are not a list of names")
      return joints
  return None


def _split_number(name: str) -> tuple[str, int | None]:
  """`clip_0012` is frame 12 of `clip`."""
  found = re.fullmatch(r"(.*?)[_-]?([0-9]{1,12})", name, re.DOTALL)
  return (found[1], int(found[2])) if found else (name, None)


def _first_frame(numbers: Collection[int], num_frames: int, where: str) -> int:
  """The number of the first frame of a clip, 0 or 1."""
  if not numbers or min(numbers) == 0:
    return 0
  if max(numbers) == num_frames:
    return 1
  raise ValueError(
    f"{where}: the frame numbers run from {min(numbers)} to {max(numbers)}, and its video has "
    f"{num_frames} frames: neither 0 nor {num_frames} occurs, so it is not clear whether "
    "they count from 0 or 1. Estimate the poses of this video again, or list every frame"
  )


def _link(
  frames: Mapping[int, Persons],
  num_frames: int,
  layout: KeypointLayout,
  img_shape: tuple[int, int] | None,
  where: str,
) -> Pose:
  """Links the persons of all frames into one array."""
  if max(frames, default=0) >= num_frames + FRAME_COUNT_TOLERANCE:
    raise ValueError(
      f"{where} has a pose for frame {max(frames)}, but its video has {num_frames} frames, "
      "the first is 0; estimate the poses again from this video"
    )
  within = {number: frame for number, frame in frames.items() if number < num_frames}
  points = link_persons(within, num_frames, layout.num_keypoints)
  return Pose(points[..., :2], points[..., 2], img_shape, where)


def _choose(
  points: Persons, joints: Sequence[str], layout: KeypointLayout, where: str, hint: str = ""
) -> Persons:
  """Selects the joints of the layout, in its order."""
  if "neck" in layout.joints and "neck" not in joints:
    points, joints = _with_neck(points, joints)
  return points[:, _indices(joints, layout, where, hint)]


def _with_neck(points: Persons, joints: Sequence[str]) -> tuple[Persons, Sequence[str]]:
  if not {"left_shoulder", "right_shoulder"} <= set(joints):
    return points, joints
  shoulders = points[:, [joints.index("left_shoulder"), joints.index("right_shoulder")]]
  neck = shoulders.mean(axis=1, keepdims=True)
  neck[..., 2] = shoulders[..., 2].min(axis=1, keepdims=True)
  neck[neck[..., 2] <= 0] = 0
  return np.concatenate([points, neck], axis=1), [*joints, "neck"]


def _indices(
  joints: Sequence[str], layout: KeypointLayout, where: str, hint: str = ""
) -> list[int]:
  missing = [joint for joint in layout.joints if joint not in joints]
  if missing:
    raise ValueError(
      f"{where} has no {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}, "
      f"but these are joints of the layout {layout.name}{hint}"
    )
  return [joints.index(joint) for joint in layout.joints]


def _read_json(path: pathlib.Path) -> Any:
  if path.stat().st_size > MAX_FILE_BYTES:
    raise ValueError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; split it by clips")
  try:
    return json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path}: not JSON, or damaged ({str(error)[:200]})") from error


def _triples(values: Any, where: str) -> Float[np.ndarray, "n 3"]:
  """Parses a flat list x, y, score, x, y, score and so on."""
  if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
    raise ValueError(f"{where} is missing, or not a list of numbers")
  if len(values) % 3:
    raise ValueError(f"{where} has {len(values)} numbers, not x, y, score for every keypoint")
  # JSON integers are unbounded.
  if not all(-_MAX_NUMBER < value < _MAX_NUMBER for value in values):
    raise ValueError(f"{where} holds NaN, infinity, or a number too large for a pixel")
  return np.array(values, np.float64).reshape(-1, 3)

"""Poses in JSON files, one record per person and frame: OpenPose's folders and COCO's files.

Joints are selected by name (`pcan_jax.clips.joint_names`).
"""

import collections
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from pcan_jax.clips import joint_names
from pcan_jax.clips.joint_names import choose_joints, joints_by_number
from pcan_jax.clips.link_persons import Persons
from pcan_jax.clips.pose import MAX_SCORE, Pose
from pcan_jax.clips.pose_frames import MAX_PERSONS, first_frame, link_frames, read_json, triples
from pcan_jax.clips.video_files import composed
from pcan_jax.keypoints import KeypointLayout

_ALPHAPOSE_NAME = "alphapose-results"


class OpenPoseFolder:
  """Output of OpenPose's `--write_json`: `NAME_000000000012_keypoints.json` for frame 12.

  The files of a clip are in a folder named after the clip's id, or the files of all clips are in
  one folder and NAME is the clip's id.

  Args:
    path: of the folder.
    layout: of the keypoints to return.

  Raises:
    ValueError: a file has no frame number, or the layout has joints that OpenPose lacks.
  """

  def __init__(self, path: pathlib.Path, layout: KeypointLayout) -> None:
    self._path = path
    self._layout = layout
    joint_names.joint_indices(joint_names.OPENPOSE, layout, f"{path}: OpenPose")
    self._frames: dict[str, dict[int, pathlib.Path]] = {}
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    for folder in (path, *folders):
      for file in sorted(folder.glob("[!.]*_keypoints.json")):
        name, number = _split_number(file.name.removesuffix("_keypoints.json"))
        if number is None:
          raise ValueError(
            f"{file}: its name has no frame number; expected NAME_NUMBER_keypoints.json"
          )
        in_common = folder == path and name
        frames = self._frames.setdefault(composed(name if in_common else folder.name), {})
        if number in frames:
          raise ValueError(f"{file} and {frames[number].name} are the same frame of one clip")
        frames[number] = file

  @property
  def clip_ids(self) -> Collection[str]:
    return self._frames.keys()

  def pose(self, clip_id: str, num_frames: int | None) -> Pose:
    files = self._frames[clip_id]
    where = f"{self._path}: clip {clip_id!r}"
    first = first_frame(files, num_frames, where)
    frames = {
      number - first: _read_openpose_frame(file, self._layout) for number, file in files.items()
    }
    return link_frames(frames, num_frames, self._layout, None, where)


def _read_openpose_frame(path: pathlib.Path, layout: KeypointLayout) -> Persons:
  content = read_json(path)
  people = content.get("people") if isinstance(content, dict) else None
  if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
    raise ValueError(f"{path}: no list 'people'; expected what OpenPose writes with --write_json")
  if len(people) > MAX_PERSONS:
    raise ValueError(f"{path}: {len(people)} people in one frame, more than {MAX_PERSONS}")
  persons = []
  for index, person in enumerate(people):
    where = f"{path}: person {index}"
    points = triples(person.get("pose_keypoints_2d"), f"{where}: 'pose_keypoints_2d'")
    if len(points) not in (len(joint_names.OPENPOSE_25), len(joint_names.OPENPOSE_18)):
      raise ValueError(
        f"{where}: 'pose_keypoints_2d' has {len(points)} keypoints; OpenPose's models BODY_25 and "
        "COCO have 25 and 18"
      )
    is_body_25 = len(points) == len(joint_names.OPENPOSE_25)
    names = list(joint_names.OPENPOSE_25 if is_body_25 else joint_names.OPENPOSE_18)
    for side in joint_names.SIDES:
      field = f"hand_{side}_keypoints_2d"
      hand = triples(person.get(field, []), f"{where}: {field!r}")
      if len(hand) not in (0, joint_names.HAND_JOINTS):
        raise ValueError(
          f"{where}: {field!r} has {len(hand)} keypoints, not {joint_names.HAND_JOINTS}"
        )
      if len(hand):
        names += joint_names.hand(side)
        points = np.concatenate([points, hand])
    hint = "" if len(names) > len(joint_names.OPENPOSE_25) else "; was OpenPose run without --hand?"
    persons.append(choose_joints(points[None], names, layout, where, hint))
  return np.concatenate(persons) if persons else np.zeros((0, layout.num_keypoints, 3))


class CocoFile:
  """COCO annotations of video frames, or the list of results that detectors write for COCO.

  An annotation has `keypoints` (x, y, v for every joint) and `image_id`: the id of one of `images`,
  or a file name, as AlphaPose writes it. The file name identifies the frame: `CLIP/12.jpg`,
  `CLIP/anything_12.jpg`, `CLIP_12.jpg`, or `12.jpg` if the JSON file is named after its only clip.
  v is a score of at most 1, or one of COCO's flags 0, 1, 2, where 0 is not labelled and the others
  count as 1.

  The joints are those listed in `categories`, or else the layout's if their number is the same, or
  COCO's 17, COCO-WholeBody's 133, or Halpe's 26 or 136.

  AlphaPose names the frames of a video `12.jpg`, counts them from 0, and omits those without a
  person. The clip id of its `alphapose-results.json` is the name of the folder.

  Args:
    path: of the file.
    content: parsed JSON.
    layout: what the keypoints shall be.
    only_clip: id of the clip if the file has AlphaPose's default name.

  Raises:
    ValueError: the file is of another format, or lacks joints of the layout.
  """

  def __init__(
    self, path: pathlib.Path, content: Any, layout: KeypointLayout, only_clip: str | None = None
  ) -> None:
    self._path = path
    self._layout = layout
    is_alphapose = path.stem == _ALPHAPOSE_NAME
    self._only_clip = (only_clip or path.resolve().parent.name) if is_alphapose else path.stem
    is_table = isinstance(content, dict)
    self._plainly_numbered = not is_table
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

  def pose(self, clip_id: str, num_frames: int | None) -> Pose:
    where = f"{self._path}: clip {clip_id!r}"
    sizes = self._sizes[clip_id]
    if len(sizes) > 1:
      raise ValueError(
        f"{where}: its 'images' have different sizes (height, width): {sorted(sizes)}"
      )
    first = first_frame(
      self._frames[clip_id], num_frames, where, as_alphapose=self._plainly_numbered
    )
    frames = {
      number - first: self._persons(annotations)
      for number, annotations in self._frames[clip_id].items()
    }
    img_shape = next(iter(sizes), None)
    return link_frames(frames, num_frames, self._layout, img_shape, where)

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
    self._plainly_numbered &= re.fullmatch(r"(0|[1-9][0-9]*)\.[a-z]+", name) is not None
    return composed((folders[-1] if folders else "") or prefix or self._only_clip), number

  def _persons(self, annotations: Sequence[tuple[int, Mapping[str, Any]]]) -> Persons:
    if len(annotations) > MAX_PERSONS:
      raise ValueError(
        f"{self._path}: annotation {annotations[0][0]}: {len(annotations)} persons in one frame, "
        f"more than {MAX_PERSONS}"
      )
    persons = [np.zeros((0, self._layout.num_keypoints, 3))]
    for index, annotation in annotations:
      where = f"{self._path}: annotation {index}"
      points = triples(annotation.get("keypoints"), f"{where}: 'keypoints'")
      scores = points[:, 2]
      points[:, 2] = np.where(scores > MAX_SCORE, scores, np.minimum(scores, 1))
      joints = self._joints(len(points), where)
      persons.append(choose_joints(points[None], joints, self._layout, where))
    return np.concatenate(persons)

  def _joints(self, count: int, where: str) -> Sequence[str]:
    joints = self._named_joints or joints_by_number(count, self._layout, where)
    if len(joints) != count:
      raise ValueError(
        f"{where}: 'keypoints' has {count} keypoints, expected {len(joints)} as in 'categories'"
      )
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
      return joint_names.named_here(joints)
  return None


def _split_number(name: str) -> tuple[str, int | None]:
  """`clip_0012` is frame 12 of `clip`."""
  found = re.fullmatch(r"(.*?)[_-]?([0-9]{1,12})", name, re.DOTALL)
  return (found[1], int(found[2])) if found else (name, None)

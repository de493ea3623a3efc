"""Reads the JSON files that MMPose's inferencer and demos write, one per video."""

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from pcan_jax.clips.joint_names import choose_joints, joints_by_number, named_here
from pcan_jax.clips.link_persons import Persons
from pcan_jax.clips.pose import Pose
from pcan_jax.clips.pose_frames import MAX_PERSONS, first_frame, link_frames, triples
from pcan_jax.clips.video_files import composed
from pcan_jax.keypoints import KeypointLayout


class MMPoseFile:
  """A list of frames, or an object with one under `instance_info`; the file name is the clip id.

  A frame has `frame_id`, counted from 0 or 1, and `instances`, each with `keypoints` [V, 2] and
  `keypoint_scores` [V]. Joints are named by `keypoint_id2name` in `meta_info`, or else recognised
  by their number.

  Args:
    path: of the file.
    content: parsed JSON.
    layout: of the keypoints to return.

  Raises:
    ValueError: it is not such a file.
  """

  def __init__(self, path: pathlib.Path, content: Any, layout: KeypointLayout) -> None:
    self._path = path
    self._layout = layout
    self._joints = None
    frames = content
    if isinstance(content, dict):
      frames = content["instance_info"]
      self._joints = _named_joints(content.get("meta_info"), path)
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
      raise ValueError(f"{path}: 'instance_info' is not a list of frames")
    self._frames: dict[int, list[Mapping[str, Any]]] = {}
    for index, frame in enumerate(frames):
      number, instances = frame.get("frame_id"), frame.get("instances")
      if type(number) is not int or number < 0:
        raise ValueError(f"{path}: frame {index} has no 'frame_id', the number of the frame")
      if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        raise ValueError(f"{path}: frame {index} has no list 'instances'")
      if number in self._frames:
        raise ValueError(f"{path}: frame {index}: its 'frame_id' {number} came before")
      self._frames[number] = instances

  @staticmethod
  def fits(content: Any) -> bool:
    """Whether parsed JSON looks like MMPose's."""
    if isinstance(content, dict):
      return "instance_info" in content
    return isinstance(content, list) and content[:1] != [] and _is_frame(content[0])

  @property
  def clip_ids(self) -> Collection[str]:
    return [composed(self._path.stem)]

  def pose(self, clip_id: str, num_frames: int | None) -> Pose:
    """The pose of the clip."""
    where = f"{self._path}: clip {clip_id!r}"
    first = first_frame(self._frames, num_frames, where)
    frames = {
      number - first: self._persons(number, instances) for number, instances in self._frames.items()
    }
    return link_frames(frames, num_frames, self._layout, None, where)

  def _persons(self, number: int, instances: Sequence[Mapping[str, Any]]) -> Persons:
    if len(instances) > MAX_PERSONS:
      raise ValueError(
        f"{self._path}: frame {number}: {len(instances)} persons in one frame, more than "
        f"{MAX_PERSONS}"
      )
    persons = [np.zeros((0, self._layout.num_keypoints, 3))]
    for index, instance in enumerate(instances):
      where = f"{self._path}: frame {number}: instance {index}"
      points, scores = instance.get("keypoints"), instance.get("keypoint_scores")
      if (
        not isinstance(points, list)
        or not isinstance(scores, list)
        or len(points) != len(scores)
        or not all(isinstance(point, list) and len(point) == 2 for point in points)
      ):
        raise ValueError(f"{where}: expected 'keypoints' [V, 2] and 'keypoint_scores' [V]")
      flat = [number for point, score in zip(points, scores) for number in (*point, score)]
      found = triples(flat, f"{where}: 'keypoints'")
      joints = self._joints or joints_by_number(len(found), self._layout, where)
      if len(joints) != len(found):
        raise ValueError(
          f"{where}: 'keypoints' has {len(found)} keypoints, 'meta_info' names {len(joints)}"
        )
      persons.append(choose_joints(found[None], joints, self._layout, where))
    return np.concatenate(persons)


def _is_frame(entry: Any) -> bool:
  return isinstance(entry, dict) and "instances" in entry


def _named_joints(about: Any, path: pathlib.Path) -> list[str] | None:
  """The names of the joints in order, if the file has them."""
  names = about.get("keypoint_id2name") if isinstance(about, dict) else None
  if names is None:
    return None
  joints = [names.get(str(index)) for index in range(len(names))] if isinstance(names, dict) else []
  if not joints or not all(isinstance(joint, str) for joint in joints):
    raise ValueError(f"{path}: 'keypoint_id2name' does not name keypoints 0, 1, 2 and so on")
  return named_here(joints)

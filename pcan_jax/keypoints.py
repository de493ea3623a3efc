"""Keypoint layouts: the joints of a skeleton, which of them mirror each other, and its limbs."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64


@dataclasses.dataclass(frozen=True)
class KeypointLayout:
  """What the V keypoints of a data set stand for.

  Attributes:
    name: of the layout.
    joints: name of every joint, in the order in which the keypoints are stored.
    flip_pairs: pairs of joints that change places when the image is mirrored.
    limbs: pairs of joints that a bone or an outline connects.

  Raises:
    ValueError: names repeat, or a pair is not one of two different joints of the layout.
  """

  name: str
  joints: tuple[str, ...]
  flip_pairs: tuple[tuple[int, int], ...]
  limbs: tuple[tuple[int, int], ...]

  def __post_init__(self) -> None:
    where = f"keypoint layout {self.name!r}"
    if not self.joints:
      raise ValueError(f"{where} has no joints")
    repeated = sorted({joint for joint in self.joints if self.joints.count(joint) > 1})
    if repeated:
      raise ValueError(f"{where}: joint names must differ, but these are repeated: {repeated}")
    for field in ("flip_pairs", "limbs"):
      for pair in getattr(self, field):
        if pair[0] == pair[1]:
          raise ValueError(f"{where}: {pair} in {field} is one joint twice")
        if not all(0 <= joint < self.num_keypoints for joint in pair):
          raise ValueError(f"{where}: {pair} in {field} is not within 0..{self.num_keypoints - 1}")
    swapped = [joint for pair in self.flip_pairs for joint in pair]
    if len(swapped) != len(set(swapped)):
      raise ValueError(f"{where}: a joint stands in more than one of flip_pairs")

  @property
  def num_keypoints(self) -> int:
    return len(self.joints)

  def flip_permutation(self) -> Int64[np.ndarray, " v"]:
    """The joint that each joint becomes in the mirrored image; index the joint axis with it."""
    permutation = np.arange(self.num_keypoints)
    for left, right in self.flip_pairs:
      permutation[[left, right]] = right, left
    return permutation

  def to_dict(self) -> dict[str, Any]:
    """The layout with joints by name, as `from_dict` and the JSON files have it."""

    def by_name(pairs: Sequence[tuple[int, int]]) -> list[list[str]]:
      return [[self.joints[joint] for joint in pair] for pair in pairs]

    return {
      "name": self.name,
      "joints": list(self.joints),
      "flip_pairs": by_name(self.flip_pairs),
      "limbs": by_name(self.limbs),
    }

  @classmethod
  def from_dict(cls, layout: Any) -> "KeypointLayout":
    """Inverse of `to_dict`; `flip_pairs` and `limbs` hold pairs of joint names.

    Raises:
      ValueError: a field is missing or unknown, or a pair names an unknown joint.
    """
    if not isinstance(layout, dict):
      raise ValueError(f"a keypoint layout is an object with fields, not {layout!r}")
    fields = {field.name for field in dataclasses.fields(cls)}
    if set(layout) != fields:
      raise ValueError(
        f"a keypoint layout has the fields {sorted(fields)}; missing: "
        f"{sorted(fields - set(layout))}, unknown: {sorted(set(layout) - fields)}"
      )
    joints = tuple(layout["joints"])

    def by_index(field: str) -> tuple[tuple[int, ...], ...]:
      for pair in layout[field]:
        if len(pair) != 2:
          raise ValueError(f"keypoint layout {layout['name']!r}: {field} holds {pair}, not a pair")
        for joint in pair:
          if joint not in joints:
            raise ValueError(
              f"keypoint layout {layout['name']!r}: {field} names {joint!r}, "
              "which is not among its joints"
            )
      return tuple(tuple(joints.index(joint) for joint in pair) for pair in layout[field])

    return cls(layout["name"], joints, by_index("flip_pairs"), by_index("limbs"))


def _layout(name: str, joints: str, limbs: str) -> KeypointLayout:
  """A layout in which left_* and right_* joints mirror each other; limbs are written `a-b`."""
  names = tuple(joints.split())
  flip_pairs = tuple(
    (index, names.index("right_" + joint.removeprefix("left_")))
    for index, joint in enumerate(names)
    if joint.startswith("left_")
  )
  pairs = tuple(tuple(map(names.index, limb.split("-"))) for limb in limbs.split())
  return KeypointLayout(name, names, flip_pairs, pairs)


_OPENPOSE_BODY = """
  nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist
  right_hip right_knee right_ankle left_hip left_knee left_ankle
  right_eye left_eye right_ear left_ear
"""
# The torso is closed by shoulder-hip lines, as in the released PCAN models.
_OPENPOSE_BODY_LIMBS = """
  right_wrist-right_elbow right_elbow-right_shoulder left_wrist-left_elbow left_elbow-left_shoulder
  left_ankle-left_knee left_knee-left_hip right_ankle-right_knee right_knee-right_hip
  left_hip-left_shoulder right_hip-right_shoulder left_shoulder-neck right_shoulder-neck nose-neck
  left_eye-nose right_eye-nose left_ear-left_eye right_ear-right_eye
"""

LAYOUTS: dict[str, KeypointLayout] = {
  layout.name: layout
  for layout in (
    # MA-52: OpenPose's body and the fingertips of both hands.
    _layout(
      "openpose-28",
      _OPENPOSE_BODY
      + """
        left_thumb_tip left_index_tip left_middle_tip left_ring_tip left_little_tip
        right_thumb_tip right_index_tip right_middle_tip right_ring_tip right_little_tip
      """,
      _OPENPOSE_BODY_LIMBS
      + """
        right_thumb_tip-right_wrist right_index_tip-right_wrist right_middle_tip-right_wrist
        right_ring_tip-right_wrist right_little_tip-right_wrist
        left_thumb_tip-left_wrist left_index_tip-left_wrist left_middle_tip-left_wrist
        left_ring_tip-left_wrist left_little_tip-left_wrist
      """,
    ),
    _layout("openpose-18", _OPENPOSE_BODY, _OPENPOSE_BODY_LIMBS),
    _layout(
      "coco-17",
      """
        nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder
        left_elbow right_elbow left_wrist right_wrist left_hip right_hip
        left_knee right_knee left_ankle right_ankle
      """,
      """
        nose-left_eye nose-right_eye left_eye-left_ear right_eye-right_ear nose-left_shoulder
        left_shoulder-left_elbow left_elbow-left_wrist nose-right_shoulder
        right_shoulder-right_elbow right_elbow-right_wrist left_shoulder-left_hip
        left_hip-left_knee left_knee-left_ankle right_shoulder-right_hip right_hip-right_knee
        right_knee-right_ankle left_hip-right_hip
      """,
    ),
    _layout(
      "kinect-20",
      """
        head shoulder_centre spine hip_centre
        left_shoulder left_elbow left_wrist left_hand
        right_shoulder right_elbow right_wrist right_hand
        left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot
      """,
      """
        head-shoulder_centre shoulder_centre-spine spine-hip_centre
        shoulder_centre-left_shoulder left_shoulder-left_elbow left_elbow-left_wrist
        left_wrist-left_hand shoulder_centre-right_shoulder right_shoulder-right_elbow
        right_elbow-right_wrist right_wrist-right_hand hip_centre-left_hip left_hip-left_knee
        left_knee-left_ankle left_ankle-left_foot hip_centre-right_hip right_hip-right_knee
        right_knee-right_ankle right_ankle-right_foot
      """,
    ),
    _layout(
      "mediapipe-33",
      """
        nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer
        left_ear right_ear left_mouth right_mouth left_shoulder right_shoulder
        left_elbow right_elbow left_wrist right_wrist left_little right_little
        left_index right_index left_thumb right_thumb left_hip right_hip
        left_knee right_knee left_ankle right_ankle left_heel right_heel left_toes right_toes
      """,
      """
        nose-left_eye_inner left_eye_inner-left_eye left_eye-left_eye_outer left_eye_outer-left_ear
        nose-right_eye_inner right_eye_inner-right_eye right_eye-right_eye_outer
        right_eye_outer-right_ear left_mouth-right_mouth left_shoulder-right_shoulder
        left_shoulder-left_elbow left_elbow-left_wrist left_wrist-left_little
        left_wrist-left_index left_wrist-left_thumb left_little-left_index
        right_shoulder-right_elbow right_elbow-right_wrist right_wrist-right_little
        right_wrist-right_index right_wrist-right_thumb right_little-right_index
        left_shoulder-left_hip right_shoulder-right_hip left_hip-right_hip
        left_hip-left_knee left_knee-left_ankle left_ankle-left_heel left_heel-left_toes
        left_ankle-left_toes right_hip-right_knee right_knee-right_ankle right_ankle-right_heel
        right_heel-right_toes right_ankle-right_toes
      """,
    ),
  )
}


def get_layout(name: str | os.PathLike[str]) -> KeypointLayout:
  """Finds a layout by its name in `LAYOUTS`, or reads it from a JSON file.

  Args:
    name: a key of `LAYOUTS`, or the path of a file `*.json` as `KeypointLayout.to_dict` describes.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: no layout has this name, or the file is not a layout; the message says why.
  """
  if str(name) in LAYOUTS:
    return LAYOUTS[str(name)]
  path = pathlib.Path(name)
  if path.suffix != ".json":
    raise ValueError(
      f"no keypoint layout is called {str(name)!r}: choose from {sorted(LAYOUTS)}, "
      "or give the path of a .json file"
    )
  if not path.is_file():
    raise FileNotFoundError(f"no keypoint layout at {path}")
  try:
    return KeypointLayout.from_dict(json.loads(path.read_text(encoding="utf-8")))
  except (ValueError, TypeError) as error:
    raise ValueError(f"{path}: {error}") from error

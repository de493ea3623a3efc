"""The joint names of pose estimators, and the selection of a layout's joints.

If the estimator has no neck, it is computed as the midpoint of the shoulders, which is OpenPose's
definition. Any other joint of the layout that the estimator lacks is an error, because the network
was not trained on such a skeleton.
"""

from collections.abc import Sequence

import numpy as np

from pcan_jax.clips.link_persons import Persons
from pcan_jax.keypoints import LAYOUTS, KeypointLayout

SIDES = ("left", "right")
HAND_JOINTS = 21

_FINGERS = ("thumb", "index", "middle", "ring", "little")


def hand(side: str) -> list[str]:
  """OpenPose's and COCO's 21 hand joints: the root, then four per finger up to the tip."""
  names = [f"{side}_hand_{index}" for index in range(HAND_JOINTS)]
  for finger, name in enumerate(_FINGERS, start=1):
    names[4 * finger] = f"{side}_{name}_tip"
  return names


_FEET = "left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel".split()
_FACE = [f"face_{index}" for index in range(68)]
_HANDS = [*hand("left"), *hand("right")]

COCO_17 = list(LAYOUTS["coco-17"].joints)
OPENPOSE_18 = list(LAYOUTS["openpose-18"].joints)
OPENPOSE_25 = """
  nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist hip_centre
  right_hip right_knee right_ankle left_hip left_knee left_ankle
  right_eye left_eye right_ear left_ear
  left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel
""".split()
OPENPOSE = [*OPENPOSE_25, *_HANDS]
"""BODY_25 and both hands."""

_HALPE_26 = [
  *COCO_17,
  *"head neck hip_centre left_big_toe right_big_toe left_small_toe right_small_toe".split(),
  *"left_heel right_heel".split(),
]

_BY_NUMBER = {
  len(joints): joints
  for joints in (
    COCO_17,
    _HALPE_26,
    [*COCO_17, *_FEET, *_FACE, *_HANDS],  # COCO-WholeBody
    [*_HALPE_26, *_FACE, *_HANDS],  # Halpe-136
  )
}


_MMPOSE_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
_OF_MMPOSE = {
  f"{side}_{theirs}4": f"{side}_{ours}_tip"
  for side in SIDES
  for ours, theirs in zip(_FINGERS, _MMPOSE_FINGERS)
} | {"hip": "hip_centre"}


def named_here(joints: Sequence[str]) -> list[str]:
  """The names here of joints that MMPose names differently; others keep theirs."""
  return [_OF_MMPOSE.get(joint, joint) for joint in joints]


def joints_by_number(count: int, layout: KeypointLayout, where: str) -> Sequence[str]:
  """The joints of a file that does not name them: the layout's, COCO's or Halpe's.

  Raises:
    ValueError: none of these has this number of joints.
  """
  if count == layout.num_keypoints:
    return layout.joints
  if count not in _BY_NUMBER:
    expected = sorted({*_BY_NUMBER, layout.num_keypoints})
    raise ValueError(f"{where}: 'keypoints' has {count} keypoints, expected one of {expected}")
  return _BY_NUMBER[count]


def choose_joints(
  points: Persons, joints: Sequence[str], layout: KeypointLayout, where: str, hint: str = ""
) -> Persons:
  """Selects the joints of the layout, in its order.

  Raises:
    ValueError: the estimator lacks some.
  """
  if "neck" in layout.joints and "neck" not in joints:
    points, joints = _with_neck(points, joints)
  return points[:, joint_indices(joints, layout, where, hint)]


def joint_indices(
  joints: Sequence[str], layout: KeypointLayout, where: str, hint: str = ""
) -> list[int]:
  """The indices of the layout's joints among those of an estimator.

  Raises:
    ValueError: the estimator lacks some.
  """
  missing = [joint for joint in layout.joints if joint not in joints]
  if missing:
    raise ValueError(
      f"{where} has no {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}, "
      f"but these are joints of the layout {layout.name}{hint}"
    )
  return [joints.index(joint) for joint in layout.joints]


def _with_neck(points: Persons, joints: Sequence[str]) -> tuple[Persons, Sequence[str]]:
  if not {"left_shoulder", "right_shoulder"} <= set(joints):
    return points, joints
  shoulders = points[:, [joints.index("left_shoulder"), joints.index("right_shoulder")]]
  neck = shoulders.mean(axis=1, keepdims=True)
  neck[..., 2] = shoulders[..., 2].min(axis=1, keepdims=True)
  neck[neck[..., 2] <= 0] = 0
  return np.concatenate([points, neck], axis=1), [*joints, "neck"]

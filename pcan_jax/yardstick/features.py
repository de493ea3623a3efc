"""The joints of a clip as one vector for a simple classifier.

A clip is resampled to 24 poses, centred, and divided by its spread, so that place and size of the
person do not count.
"""

import numpy as np
from jaxtyping import Float, Float32

from pcan_jax.clips.persons import strongest_persons

NUM_POSES = 24

KINDS = ("place", "posture")
"""How a clip is centred: once, so that its person's way remains; or every pose for itself."""


def joint_features(
  keypoints: Float[np.ndarray, "m t v 2"], scores: Float[np.ndarray, "m t v"], kind: str
) -> Float32[np.ndarray, " d"]:
  """Poses and their differences over time, of the person with the highest scores.

  Args:
    keypoints: in any units.
    scores: 0 for joints that were not detected; these are interpolated over time.
    kind: one of `KINDS`.

  Returns:
    A vector of the same length for all clips with V joints; zeros if nobody was detected.
  """
  chosen, found = strongest_persons(keypoints, scores, 1)
  poses = _resampled(chosen[:, 0].astype(np.float64), found[:, 0] > 0)
  centre = poses.mean(axis=1, keepdims=True) if kind == "posture" else poses.mean(axis=(0, 1))
  poses = poses - centre
  poses /= max(float(np.sqrt(np.mean(poses**2))), 1e-6)
  # A step is small beside a pose; weighted so, both count about equally.
  steps = np.diff(poses, axis=0) * (NUM_POSES / 4)
  return np.concatenate([poses.ravel(), steps.ravel()]).astype(np.float32)


def _resampled(joints: Float[np.ndarray, "t v 2"], found: np.ndarray) -> Float[np.ndarray, "n v 2"]:
  """Linearly in time; a joint that is never found lies in the middle of the others."""
  num_frames, num_joints, _ = joints.shape
  times = np.linspace(0, num_frames - 1, NUM_POSES)
  middle = joints[found].mean(axis=0) if found.any() else np.zeros(2)
  poses = np.tile(middle, (NUM_POSES, num_joints, 1))
  for joint in range(num_joints):
    seen = np.flatnonzero(found[:, joint])
    if len(seen):
      for axis in range(2):
        poses[:, joint, axis] = np.interp(times, seen, joints[seen, joint, axis])
  return poses

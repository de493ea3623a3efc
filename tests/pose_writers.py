"""Writes the pose files that estimators write, for one clip with made-up numbers."""

import json
import pathlib
import pickle

import numpy as np

from tests.tiny_source import HEIGHT, WIDTH

NUM_FRAMES = 6
SIZE = (HEIGHT, WIDTH)


def points(num_joints: int, seed: int = 0) -> np.ndarray:
  """(x, y, score) of two persons side by side who hardly move, [2, T, V, 3]."""
  rng = np.random.default_rng(seed)
  low, high = (5, 5, 0.3), (WIDTH / 2 - 5, HEIGHT - 5, 0.9)
  joints = rng.uniform(low, high, (2, 1, num_joints, 3))
  joints[1, ..., 0] += WIDTH / 2
  joints = joints + rng.uniform(-0.1, 0.1, (2, NUM_FRAMES, num_joints, 3))
  return joints.round(3).astype(np.float32)


def openpose_person(body, left=(), right=()) -> dict:
  return {
    "person_id": [-1],
    "pose_keypoints_2d": np.ravel(body).tolist(),
    "face_keypoints_2d": [],
    "hand_left_keypoints_2d": np.ravel(left).tolist(),
    "hand_right_keypoints_2d": np.ravel(right).tolist(),
    "pose_keypoints_3d": [],
  }


def write_openpose(folder: pathlib.Path, name: str, body, hands=None, first: int = 0) -> None:
  """One file per frame of body [M, T, V, 3] and hands [M, T, 42, 3]."""
  folder.mkdir(parents=True, exist_ok=True)
  for frame in range(body.shape[1]):
    people = [
      openpose_person(body[person, frame])
      if hands is None
      else openpose_person(body[person, frame], *np.split(hands[person, frame], 2))
      for person in range(len(body))
    ]
    path = folder / f"{name}{'_' if name else ''}{first + frame:012}_keypoints.json"
    path.write_text(json.dumps({"version": 1.3, "people": people}))


def coco(clip_id: str, joints, names=None) -> dict:
  """COCO annotations of joints [M, T, V, 3]."""
  frames = range(joints.shape[1])
  height, width = SIZE
  return {
    "images": [
      {
        "id": 100 + t,
        "file_name": f"{clip_id}/img_{t + 1:05}.jpg",
        "height": height,
        "width": width,
      }
      for t in frames
    ],
    "annotations": [
      {"id": m, "image_id": 100 + t, "keypoints": np.ravel(joints[m, t]).tolist(), "score": 0.5}
      for t in frames
      for m in range(len(joints))
    ],
    "categories": [{"id": 1, "name": "person"} | ({"keypoints": list(names)} if names else {})],
  }


def mmpose(joints, first: int = 0, names=None) -> dict:
  """What MMPose's inferencer writes of joints [M, T, V, 3], frames numbered from `first`."""
  frames = [
    {
      "frame_id": first + t,
      "instances": [
        {
          "keypoints": joints[m, t, :, :2].tolist(),
          "keypoint_scores": joints[m, t, :, 2].tolist(),
          "bbox": [[1, 2, 3, 4]],
          "bbox_score": 0.9,
        }
        for m in range(len(joints))
      ],
    }
    for t in range(joints.shape[1])
  ]
  about = {"dataset_name": "coco", "num_keypoints": joints.shape[2]}
  if names:
    about["keypoint_id2name"] = {str(index): name for index, name in enumerate(names)}
  return {"meta_info": about, "instance_info": frames}


def write_npz(path: pathlib.Path, clip_id: str, joints, **changes) -> None:
  arrays = {"keypoints": joints[..., :2], "scores": joints[..., 2]} | changes
  np.savez_compressed(path, **{f"{clip_id}/{name}": array for name, array in arrays.items()})


def write_pickle(path: pathlib.Path, clip_id: str, joints, **changes) -> None:
  entry = {"frame_dir": clip_id, "keypoint": joints[..., :2], "keypoint_score": joints[..., 2]}
  path.write_bytes(pickle.dumps([entry | {"img_shape": SIZE} | changes]))

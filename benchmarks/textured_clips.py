"""Made-up clips of MA-52's length that are as hard to decode as real ones.

Their texture has the spectrum of photographs, so that a JPEG image of it is as large, and takes as
long, as one of a room with a person in it. Drawings, being flat, do not.
"""

import pathlib
import pickle

import numpy as np
from jaxtyping import UInt8

from data.synthetic.generate import write_video

SPLIT = "train"
FRAMES = (45, 75)
"""Shortest and longest clip of MA-52, in frames."""

_NUM_KEYPOINTS = 28
_MARGIN = 32


def write_source(directory: pathlib.Path, num_clips: int, side: int, seed: int = 0) -> None:
  """Writes clips of MA-52's length in its layout: moving textures with keypoints on them.

  Args:
    directory: a new directory.
    num_clips: how many, all in the split "train".
    side: of the square videos in pixels.
    seed: everything follows from it.
  """
  rng = np.random.default_rng(seed)
  num_actions = get_tree("ma52").num_actions
  for folder in ("annotations", "pose", f"raw_videos/{SPLIT}"):
    (directory / folder).mkdir(parents=True)
  poses, lines = [], []
  for index in range(num_clips):
    name, action = f"clip_{index:05}", index % num_actions
    num_frames = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    canvas = _texture(side + _MARGIN, rng)
    corners = np.cumsum(rng.integers(-2, 3, (num_frames, 2)), axis=0) % _MARGIN
    frames = [np.ascontiguousarray(canvas[y : y + side, x : x + side]) for x, y in corners]
    write_video(directory / "raw_videos" / SPLIT / f"{name}.mp4", frames)
    joints = rng.uniform(0.1, 0.9, (1, 1, _NUM_KEYPOINTS, 2)) * side
    keypoints = joints + rng.normal(size=(1, num_frames, _NUM_KEYPOINTS, 2))
    keypoints[:, :, :2] = [[1], [side - 1]]  # two joints that make the whole frame the person's box
    poses.append(
      {
        "frame_dir": f"{SPLIT}/{name}",
        "total_frames": num_frames,
        "img_shape": (side, side),
        "original_shape": (side, side),
        "label": action,
        "keypoint": keypoints.astype(np.float16),
        "keypoint_score": np.full(keypoints.shape[:3], 0.9, np.float16),
      }
    )
    lines.append(f"{name}.mp4 {action}\r\n")
  (directory / "pose" / f"benchmark_{SPLIT}.pkl").write_bytes(pickle.dumps(poses))
  (directory / "annotations" / f"{SPLIT}_list_videos.txt").write_bytes("".join(lines).encode())


def _texture(side: int, rng: np.random.Generator) -> UInt8[np.ndarray, "side side 3"]:
  """Noise whose amplitude falls with frequency about as in photographs, mostly grey."""
  frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
  frequency[0, 0] = np.inf
  noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(4, side, side))) / frequency**1.1).real
  noise /= noise.std(axis=(1, 2), keepdims=True)
  light, colours = noise[0, ..., None], np.moveaxis(noise[1:], 0, -1)
  return np.clip(128 + 50 * light + 12 * colours, 0, 255).astype(np.uint8)

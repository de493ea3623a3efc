"""A few real clips in MA-52's layout: squares that move, with keypoints on them."""

import pathlib
import pickle

import av
import numpy as np

from pcan_jax.labels import LabelTree

TREE = LabelTree(
  ("nod", "shake", "wave", "point", "kick", "tap"), ("head", "arm", "leg"), (0, 0, 1, 1, 2, 2)
)
HEIGHT, WIDTH = 64, 80
NUM_KEYPOINTS = 28
CLIPS = {"train": 16, "val": 7, "test": 3}


def write_video(path: pathlib.Path, frames: np.ndarray, fps: int = 30) -> None:
  """Writes uint8 frames [T, H, W, 3] as H.264."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = "yuv420p"
    for frame in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())


def make_clip(rng: np.random.Generator, action: int) -> tuple[np.ndarray, np.ndarray]:
  """Frames [T, H, W, 3] and keypoints [1, T, 28, 2]; the action sets colour and direction."""
  num_frames = int(rng.integers(12, 25))
  time = np.linspace(0, 1, num_frames)
  angle = 2 * np.pi * action / TREE.num_actions
  centre = np.array([WIDTH, HEIGHT]) / 2 + 12 * np.outer(time - 0.5, [np.cos(angle), np.sin(angle)])
  frames = np.full((num_frames, HEIGHT, WIDTH, 3), 60, np.uint8)
  for frame, (x, y) in zip(frames, centre.astype(int)):
    frame[y - 6 : y + 6, x - 6 : x + 6, action % 3] = 230
  offsets = rng.uniform(-8, 8, (NUM_KEYPOINTS, 2))
  return frames, (centre[:, None] + offsets)[None].astype(np.float32)


def write_tiny_source(
  directory: pathlib.Path, clips: dict[str, int] | None = None, seed: int = 0
) -> pathlib.Path:
  """Writes videos, pickles, lists and the label tree; returns the directory."""
  rng = np.random.default_rng(seed)
  annotations = directory / "annotations"
  annotations.mkdir(parents=True)
  (directory / "pose").mkdir()
  TREE.write_csv(annotations / "actions.csv")
  for split, count in (clips or CLIPS).items():
    entries, lines = [], []
    for index in range(count):
      action = index % TREE.num_actions
      name = f"{split}_{index:03}"
      frames, keypoints = make_clip(rng, action)
      write_video(directory / "raw_videos" / split / f"{name}.mp4", frames)
      entries.append(
        {
          "frame_dir": f"{split}/{name}",
          "total_frames": len(frames),
          "img_shape": (HEIGHT, WIDTH),
          "original_shape": (HEIGHT, WIDTH),
          "label": action,
          "keypoint": keypoints.astype(np.float16),
          "keypoint_score": np.full(keypoints.shape[:3], 0.9, np.float16),
        }
      )
      lines.append(f"{name}.mp4 {0 if split == 'test' else action}\r\n")
    with (directory / "pose" / f"Tiny_{split}.pkl").open("wb") as file:
      pickle.dump(entries, file)
    (annotations / f"{split}_list_videos.txt").write_bytes("".join(lines).encode())
  return directory

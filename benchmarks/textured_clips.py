"""Artificial clips of MA-52's length that are as expensive to decode as real ones.

Their texture has the spectrum of photographs, so that JPEG images are as large, and take as long to
decode, as those of a person in a room; flat drawings would be cheaper.
"""

import pathlib
import pickle
import tempfile

import av
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from pcan_jax.feed.pcan_dataset_builder import Builder, PcanConfig
from pcan_jax.labels import get_tree

SPLIT = "train"
FRAMES = (45, 75)
"""Shortest and longest clip of MA-52, in frames."""

_NUM_KEYPOINTS = 28
_MARGIN = 32


def write_dataset(directory: pathlib.Path, num_clips: int, side: int) -> None:
  """Builds a data set of artificial clips, all in the split "train", from videos and poses.

  Args:
    directory: target.
    num_clips: number of clips.
    side: of the videos and the stored frames in pixels.
  """
  with tempfile.TemporaryDirectory() as source:
    _write_source(pathlib.Path(source), num_clips, side)
    config = PcanConfig(name=f"textured-{side}", side=side, jobs=1)
    Builder(data_dir=str(directory), config=config).download_and_prepare(
      download_dir=source, download_config=tfds.download.DownloadConfig(manual_dir=source)
    )


def _write_source(directory: pathlib.Path, num_clips: int, side: int) -> None:
  """Writes moving textures with keypoints on them, in MA-52's layout."""
  rng = np.random.default_rng(0)
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
    _write_video(directory / "raw_videos" / SPLIT / f"{name}.mp4", frames)
    joints = rng.uniform(0.1, 0.9, (1, 1, _NUM_KEYPOINTS, 2)) * side
    keypoints = joints + rng.normal(size=(1, num_frames, _NUM_KEYPOINTS, 2))
    keypoints[:, :, :2] = [
      [1],
      [side - 1],
    ]  # two joints, so that the person's box is the whole frame
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


def _write_video(path: pathlib.Path, frames: list[UInt8[np.ndarray, "h w 3"]]) -> None:
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "23"})
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = "yuv420p"
    for frame in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())


def _texture(side: int, rng: np.random.Generator) -> UInt8[np.ndarray, "side side 3"]:
  """Mostly grey noise whose amplitude falls with frequency as in photographs."""
  frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
  frequency[0, 0] = np.inf
  noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(4, side, side))) / frequency**1.1).real
  noise /= noise.std(axis=(1, 2), keepdims=True)
  light, colours = noise[0, ..., None], np.moveaxis(noise[1:], 0, -1)
  return np.clip(128 + 50 * light + 12 * colours, 0, 255).astype(np.uint8)

"""Runs an exported model; only needs its folder and `pip install jax flatbuffers`.

  python run_exported.py FOLDER clips.npz [outputs.npz]

`clips.npz` holds the arrays listed in `model.json` under `inputs`. Prints the most likely classes.
"""

import hashlib
import json
import pathlib
import sys

import jax
import jax.export
import numpy as np

MAX_SCORE = 10
"""Larger scores of keypoints are percentages or damage: that of `pcan_jax.clips.pose`, which is not
at hand where this file is copied to."""

TOP = 5
"""Number of actions printed for every video."""


class ExportedModel:
  """An exported model and its description.

  Attributes:
    description: from `model.json`: `actions`, `bodies` and `parents` (names of the classes, and the
      body part of every action), `inputs`, `frames_per_clip`, `num_clips` per video, and origin.
  """

  def __init__(self, folder: str | pathlib.Path) -> None:
    """Loads the model from the folder that the export wrote.

    Raises:
      ValueError: a file is not what was written.
    """
    folder = pathlib.Path(folder)
    self.description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    program = (folder / "model.stablehlo").read_bytes()
    for file, content in (("model.stablehlo", program), ("model.json", _text(self.description))):
      if hashlib.sha256(content).hexdigest() != self.description.get("sha256", {}).get(file):
        raise ValueError(f"{folder / file} is damaged, or of another export")
    self._exported = jax.export.deserialize(program)
    self._call = jax.jit(self._exported.call)

  def __call__(self, **inputs: np.ndarray) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Predicts videos.

    Args:
      **inputs: the arrays listed in `description["inputs"]`: `rgb` uint8 [videos, clips, frames,
        side, side, 3], `keypoints` float32 [videos, clips, frames, persons, joints, 2] in pixels of
        these frames, and `keypoint_scores` float32 [videos, clips, frames, persons, joints]. Any
        number of videos, with `num_clips` clips each, over which probabilities are averaged.

    Returns:
      Per branch ("fused", "rgb", "pose") and level ("action", "body") the `probabilities` [videos,
      classes] and the other arrays listed in `description["outputs"]`: per stream `logits` [videos,
      classes] and `embedding` [videos, features].

    Raises:
      ValueError: an input is missing, has the wrong type or shape, or holds keypoints that are not
        pixels, or scores that are none.
    """
    expected = self.description["inputs"]
    if set(inputs) != set(expected):
      raise ValueError(f"the inputs are {sorted(expected)}, not {sorted(inputs)}")
    for name, about in expected.items():
      shape, dtype = list(np.shape(inputs[name])), str(inputs[name].dtype)
      if dtype != about["dtype"] or shape[1:] != about["shape"][1:]:
        raise ValueError(f"{name} must be {about['dtype']} {about['shape']}, not {dtype} {shape}")
    if "keypoints" in inputs:
      _check_poses(inputs["keypoints"], inputs["keypoint_scores"])
    return jax.device_get(self._call(inputs))


def _check_poses(keypoints: np.ndarray, scores: np.ndarray) -> None:
  """Refuses what files of poses may not hold either, video by video."""
  for video, (points, of_points) in enumerate(zip(keypoints, scores)):
    found = of_points > 0
    if not (of_points <= MAX_SCORE).all() or not np.isfinite(points[found]).all():
      raise ValueError(
        f"video {video}: keypoint_scores must be 0 to about 1, 0 for keypoints that were not "
        "found, and found keypoints must be finite"
      )
    if found.any() and np.median(np.abs(points[found])) <= 1:
      raise ValueError(
        f"video {video}: its keypoints lie between -1 and 1; they must be pixels of the frames"
      )


def _text(description: dict) -> bytes:
  """What the digest of `model.json` is a digest of: everything else in it."""
  return json.dumps({name: x for name, x in description.items() if name != "sha256"}).encode()


def sample_frames(num_frames: int, clip_len: int, num_clips: int, seed: int = 255) -> np.ndarray:
  """Samples the frames of a video's test clips: one from each of `clip_len` equal segments.

  The same frames as in the evaluation of the model. Streams are sampled separately.

  Args:
    num_frames: frames in the video; short videos are repeated.
    clip_len: a value of `description["frames_per_clip"]`.
    num_clips: clips per video, `description["num_clips"]`.
    seed: of the generator, which is created anew for every video.

  Returns:
    Indices [num_clips, clip_len].
  """
  if num_frames < clip_len:
    clip = np.arange(num_clips)
    starts = clip if num_frames < num_clips else clip * num_frames // num_clips
    return (starts[:, None] + np.arange(clip_len)) % num_frames
  rng = np.random.RandomState(seed)
  clips = []
  for _ in range(num_clips):
    if num_frames < 2 * clip_len:
      skipped = np.zeros(clip_len + 1, np.int64)
      skipped[rng.choice(clip_len + 1, num_frames - clip_len, replace=False)] = 1
      clips.append(np.arange(clip_len) + np.cumsum(skipped)[:-1])
    else:
      edges = np.arange(clip_len + 1) * num_frames // clip_len
      clips.append(edges[:-1] + rng.randint(np.diff(edges)))
  return np.stack(clips)


def main(arguments: list[str]) -> None:
  """The command line."""
  if len(arguments) not in (2, 3):
    sys.exit(__doc__)
  try:
    model = ExportedModel(arguments[0])
  except (OSError, ValueError) as error:
    sys.exit(f"error: {arguments[0]}: {error}")
  with np.load(arguments[1], allow_pickle=False) as clips:
    inputs = {name: clips[name] for name in clips.files}
  try:
    outputs = model(**inputs)
  except ValueError as error:
    sys.exit(f"error: {arguments[1]}: {error}")
  fused = (outputs["fused"][level]["probabilities"] for level in ("action", "body"))
  for video, (action, body) in enumerate(zip(*fused)):
    best = ", ".join(
      f"{model.description['actions'][i]} {100 * action[i]:.0f} %"
      for i in np.argsort(-action)[:TOP]
    )
    print(
      f"{video}: {best} | {model.description['bodies'][body.argmax()]} {100 * body.max():.0f} %"
    )
  if len(arguments) == 3:
    flat = {
      f"{branch}/{level}/{kind}": values
      for branch, levels in outputs.items()
      for level, kinds in levels.items()
      for kind, values in kinds.items()
    }
    np.savez(arguments[2], **flat)


if __name__ == "__main__":
  main(sys.argv[1:])

"""Runs an exported model; needs its folder and `pip install jax flatbuffers`, nothing else.

  python run_exported.py FOLDER clips.npz [outputs.npz]

`clips.npz` holds what `model.json` lists under `inputs`; printed are the likeliest classes.
"""

import hashlib
import json
import pathlib
import sys

import jax
import jax.export
import numpy as np

TOP = 5
"""Classes that are printed of every video."""


class ExportedModel:
  """A model and what `model.json` says about it.

  Attributes:
    description: `actions`, `bodies` and `parents` (names of the classes, and the body part of every
      action), `inputs`, `frames_per_clip` and `num_clips` per video, and where it comes from.
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
    """What the model says of videos.

    Args:
      **inputs: what `description["inputs"]` names: `rgb` uint8 [videos, clips, frames, side, side,
        3], `keypoints` float32 [videos, clips, frames, persons, joints, 2] in pixels of these
        frames, and `keypoint_scores` float32 [videos, clips, frames, persons, joints]. Any number
        of videos; of clips, over which probabilities are averaged, as many as `num_clips`.

    Returns:
      Per branch ("fused", "rgb", "pose") and level ("action", "body") the `probabilities` [videos,
      classes] and what else `description["outputs"]` names: per stream `logits` [videos, classes]
      and `embedding` [videos, features].

    Raises:
      ValueError: an input is missing, or of another type or shape.
    """
    expected = self.description["inputs"]
    if set(inputs) != set(expected):
      raise ValueError(f"the inputs are {sorted(expected)}, not {sorted(inputs)}")
    for name, about in expected.items():
      shape, dtype = list(np.shape(inputs[name])), str(inputs[name].dtype)
      if dtype != about["dtype"] or shape[1:] != about["shape"][1:]:
        raise ValueError(f"{name} must be {about['dtype']} {about['shape']}, not {dtype} {shape}")
    return jax.device_get(self._call(inputs))


def _text(description: dict) -> bytes:
  """What the digest of `model.json` is a digest of: everything else in it."""
  return json.dumps({name: x for name, x in description.items() if name != "sha256"}).encode()


def sample_frames(num_frames: int, clip_len: int, num_clips: int, seed: int = 255) -> np.ndarray:
  """The frames that make the test clips of a video: one from each of `clip_len` equal segments.

  They are those with which the model was evaluated. Both streams are sampled by their own length.

  Args:
    num_frames: frames in the video; short videos are repeated.
    clip_len: a value of `description["frames_per_clip"]`.
    num_clips: clips per video, `description["num_clips"]`.
    seed: of the generator that is made anew for every video.

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

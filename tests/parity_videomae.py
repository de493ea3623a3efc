"""Outputs of VideoMAE's ViT-B at full size for drawn weights and a drawn clip.

  python -m tests.parity_videomae      writes them anew; needs the packages torch and transformers

`tests/reference/videomae_forward.npz` holds what `transformers` computes; the names and shapes of
the tensors are in `videomae_state_dict.json`. Weights and clip are drawn by name and seed, so that
they need not be kept.
"""

import json
import pathlib
import sys
import tempfile
import zlib

import numpy as np

REFERENCE = pathlib.Path(__file__).parent / "reference"
LISTING = REFERENCE / "videomae_state_dict.json"
FORWARD = REFERENCE / "videomae_forward.npz"
SHOWN = (slice(None), slice(None, None, 97), slice(None, None, 16))  # of tokens and channels


def draw_state_dict(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
  """Weights of plausible size, the same wherever they are drawn."""
  drawn = {}
  for name, shape in shapes.items():
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    values = generator.standard_normal(shape, np.float32)
    if "norm" in name and name.endswith("weight"):
      drawn[name] = 1 + 0.1 * values
    elif len(shape) == 1:
      drawn[name] = 0.1 * values
    else:
      drawn[name] = values / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
  return drawn


def draw_clip() -> np.ndarray:
  """A clip of 16 frames with 224 px, normalised."""
  return np.random.default_rng(7).standard_normal((1, 16, 224, 224, 3), np.float32)


def reduced(tokens: np.ndarray, pooled: np.ndarray) -> dict[str, np.ndarray]:
  """What is kept of the last tokens [1, K, D], and of the LayerNorm of their mean [1, D]."""
  return {"tokens": tokens[SHOWN], "pooled": pooled}


def main() -> None:
  """Lets `transformers` load the weights from a file of its own format, and runs it."""
  import torch
  from transformers import VideoMAEConfig, VideoMAEForVideoClassification

  model = VideoMAEForVideoClassification(VideoMAEConfig(num_labels=400)).eval()
  shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
  weights = {name: torch.from_numpy(x) for name, x in draw_state_dict(shapes).items()}
  model.load_state_dict(weights)
  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    model = VideoMAEForVideoClassification.from_pretrained(folder).eval()
  clip = torch.from_numpy(draw_clip()).permute(0, 1, 4, 2, 3)
  with torch.no_grad():
    tokens = model.videomae(clip)[0]
    pooled = model.fc_norm(tokens.mean(1))
  LISTING.write_text(json.dumps(shapes, indent=0) + "\n")
  np.savez_compressed(FORWARD, **reduced(tokens.numpy(), pooled.numpy()))
  sys.stdout.write(f"wrote {LISTING} and {FORWARD}\n")


if __name__ == "__main__":
  main()

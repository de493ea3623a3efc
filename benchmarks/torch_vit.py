"""The training step of the video transformer against the same network in PyTorch, in one run.

  python -m benchmarks.torch_vit --config=ma52:vit --batch=2
  python -m benchmarks.torch_vit --config=demo:vit --batch=16

Both sides get uint8 frames and take a step of AdamW on the cross-entropies of two classifiers, in
turns and each in a process of its own, on all cores. Before, the same weights are given to both
through the converter, and their features are compared. PyTorch uses its fused attention, AdamW in
one pass and, with --compiled, torch.compile. Ours also crops, flips and measures accuracies; both
are without drop path and the moving average.
"""

import argparse
import functools
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional

from benchmarks import timing, workload
from benchmarks.torch_peer import our_step, starting_with
from pcan_jax import cpu
from pcan_jax.config import load_config
from pcan_jax.inputs import IMAGENET_MEAN, IMAGENET_STD
from pcan_jax.network.pcan import rgb_path
from pcan_jax.network.video_transformer import (
  VideoTransformer,
  VideoTransformerConfig,
  sine_positions,
)
from pcan_jax.torch.videomae import from_videomae

_TOLERANCE = 1e-3


class Attention(nn.Module):
  """As in VideoMAE's repository, with PyTorch's fused attention."""

  def __init__(self, config: VideoTransformerConfig) -> None:
    super().__init__()
    self.heads = config.heads
    self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
    self.q_bias = nn.Parameter(torch.zeros(config.width))
    self.v_bias = nn.Parameter(torch.zeros(config.width))
    self.proj = nn.Linear(config.width, config.width)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Attends all tokens [n, k, d] to each other."""
    n, tokens, width = x.shape
    bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
    qkv = functional.linear(x, self.qkv.weight, bias).reshape(n, tokens, 3, self.heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    attended = functional.scaled_dot_product_attention(q, k, v)
    return self.proj(attended.transpose(1, 2).reshape(n, tokens, width))


class Block(nn.Module):
  """Attention and a perceptron, each after a LayerNorm."""

  def __init__(self, config: VideoTransformerConfig) -> None:
    super().__init__()
    self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
    self.attn = Attention(config)
    self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
    self.mlp = nn.ModuleDict(
      {
        "fc1": nn.Linear(config.width, config.mlp_width),
        "fc2": nn.Linear(config.mlp_width, config.width),
      }
    )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Tokens [n, k, d] to tokens."""
    x = x + self.attn(self.norm1(x))
    hidden = functional.gelu(self.mlp["fc1"](self.norm2(x)))
    return x + self.mlp["fc2"](hidden)


class TorchTransformer(nn.Module):
  """The network of `video_transformer`, with the names of VideoMAE's repository."""

  def __init__(self, config: VideoTransformerConfig) -> None:
    super().__init__()
    size = (config.tubelet, config.patch, config.patch)
    self.config = config
    self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, config.width, size, stride=size)})
    self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
    self.fc_norm = nn.LayerNorm(config.width, eps=1e-6)

  def forward(self, frames: torch.Tensor) -> torch.Tensor:
    """Normalised frames [n, t, h, w, 3] to features [n, d]."""
    x = self.patch_embed["proj"](frames.permute(0, 4, 1, 2, 3))
    grid, width = tuple(x.shape[2:]), self.config.width
    positions = sine_positions(grid, width, self.config.position_grid).reshape(1, -1, width)
    x = x.flatten(2).transpose(1, 2) + torch.from_numpy(positions)
    for block in self.blocks:
      x = block(x)
    return self.fc_norm(x.mean(1))


def agreement(config: VideoTransformerConfig, frames: np.ndarray) -> float:
  """How far the features of normalised frames differ, relative to the largest.

  Raises:
    RuntimeError: by more than the tolerance.
  """
  torch.manual_seed(0)
  net = TorchTransformer(config).eval()
  model = VideoTransformer(config, jnp.float32, "none")
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(frames), train=False))
  initial = {"params": {"backbone": {"rgb_path": shapes["params"]}}}
  initial = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), initial)
  weights = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
  params = from_videomae(weights, initial, config).variables["params"]["backbone"]["rgb_path"]
  run = jax.jit(functools.partial(model.apply, train=False))
  ours = np.asarray(run({"params": params}, frames))[:, 0, 0, 0]
  with torch.no_grad():
    theirs = net(torch.from_numpy(frames)).numpy()
  found = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
  if not found <= _TOLERANCE:
    raise RuntimeError(f"ours and PyTorch's features differ by {found}")
  return found


def torch_step(config: ConfigDict, batch_size: int, compiled: bool) -> Callable[[], Any]:
  """PyTorch's step; a call returns when it is done."""
  net = TorchTransformer(rgb_path(config.model.rgb))
  heads = nn.ModuleList(
    nn.Linear(config.model.rgb.width, classes)
    for classes in (workload.TREE.num_actions, workload.TREE.num_bodies)
  )
  parameters = [*net.parameters(), *heads.parameters()]
  optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.05, fused=True)
  run = torch.compile(net) if compiled else net
  side, frames = config.input.train_size, config.input.rgb_frames
  clips = torch.randint(0, 256, (batch_size, frames, side, side, 3), dtype=torch.uint8)
  labels = [torch.arange(batch_size) % head.out_features for head in heads]
  mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)

  def step() -> None:
    features = run((clips.float() - mean) / std)
    losses = (functional.cross_entropy(head(features), y) for head, y in zip(heads, labels))
    optimizer.zero_grad(set_to_none=True)
    sum(losses).backward()
    optimizer.step()

  return step


def plain(config: ConfigDict) -> ConfigDict:
  """A config of a transformer with what PyTorch's side does, and no more."""
  config = config.copy_and_resolve_references()
  config.model.rgb.drop_path = 0.0
  config.loss.label_smoothing = 0.0
  config.optimizer.update(ema=0.0, layer_decay=1.0, clip_norm=0.0)
  return config


def compare(
  config: ConfigDict, batch_size: int, repeats: int, compiled: bool
) -> dict[str, dict[str, float]]:
  """Checks that both sides agree, then times their training steps.

  Args:
    config: of a video transformer alone, without prototypes.
    batch_size: clips.
    repeats: timed calls of each.
    compiled: whether PyTorch's side is compiled.

  Returns:
    For "ours" and "PyTorch": `seconds` of a step, the median; `clips_per_second`; and `ratio`, how
    many times as long as ours it takes, the median over the turns.

  Raises:
    ValueError: the config has another network.
    RuntimeError: the two sides differ in what they compute.
  """
  if config.model.rgb.kind != "videomae" or tuple(config.model.streams) != ("rgb",):
    raise ValueError("the config has no video transformer alone; choose a variant vit")
  config = plain(config)
  side = config.input.train_size
  shape = (1, config.input.rgb_frames, side, side, 3)
  frames = np.random.default_rng(0).standard_normal(shape, np.float32)
  print(f"largest difference: {agreement(rgb_path(config.model.rgb), frames):.1e}", flush=True)
  with starting_with(cpu.settings(os.environ)):
    sides = {
      "ours": timing.OwnProcess(our_step, config, "training", batch_size),
      "PyTorch": timing.OwnProcess(torch_step, config, batch_size, compiled),
    }
  for call in sides.values():
    call()
  timings = timing.take_turns(sides, repeats=repeats)
  for call in sides.values():
    call.close()
  return {
    name: {
      "seconds": measured.median,
      "clips_per_second": batch_size / measured.median,
      "ratio": statistics.median(measured.ratios(timings["ours"])),
    }
    for name, measured in timings.items()
  }


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a table and a line of JSON."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.torch_vit",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--config", default="ma52:vit", help="of a video transformer alone")
  parser.add_argument("--batch", type=int, default=2, help="clips")
  parser.add_argument("--repeats", type=int, default=10, help="timed steps of each side")
  parser.add_argument("--compiled", action="store_true", help="compile PyTorch's side")
  args = parser.parse_args(argv)
  try:
    found = compare(load_config(args.config), args.batch, args.repeats, args.compiled)
  except (FileNotFoundError, ValueError) as error:
    parser.error(str(error))
  rows = [
    (name, 1000 * x["seconds"], x["clips_per_second"], x["ratio"]) for name, x in found.items()
  ]
  timing.print_table(("by", "ms", "clips/s", "time / ours"), rows)
  about = {"benchmark": "torch_vit", "config": args.config, "batch": args.batch}
  timing.print_json(timing.environment() | about | found)


if __name__ == "__main__":
  main()

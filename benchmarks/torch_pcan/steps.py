"""The training and the evaluation step."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional
from torch.nn.utils import fusion

from benchmarks.torch_pcan import losses, preprocess
from benchmarks.torch_pcan.network import Conv, ConvNorm, PCANNet, RGBToPose
from benchmarks.torch_pcan.preprocess import Batch, Preprocess
from pcan_jax.inputs import Preprocessing
from pcan_jax.method.losses import LossConfig

_INPUTS = ("rgb", "keypoints", "keypoint_scores")

Prototypes = dict[str, dict[str, torch.Tensor]]  # by stream and level
Outputs = dict[str, losses.StreamOutputs]


@dataclasses.dataclass(frozen=True)
class Form:
  """How PyTorch runs the network.

  Attributes:
    dtype: what the backbone computes in; below float32 by autocast, and frames are resized in it.
    layout: activations are volumes with 3D convolutions, in PyTorch's default layout or
      channels-last, or channels-last frames with 2D convolutions (see `network`).
    products: whether 1 x 1 x 1 convolutions of frames are matrix products.
    channels: frames and heatmaps get channels of zeros up to a multiple of this, which the tensor
      cores of a GPU need for their fastest kernels; only as frames.
    compiled: `torch.compile`'s mode, with which it makes kernels of the whole step but its
      optimizer; None runs it eagerly.
  """

  dtype: torch.dtype = torch.float32
  layout: Literal["volumes", "channels-last volumes", "frames"] = "volumes"
  products: bool = False
  channels: int = 1
  compiled: str | None = None

  @property
  def _memory_format(self) -> torch.memory_format:
    return torch.contiguous_format if self.layout == "volumes" else torch.channels_last_3d

  def apply(self, net: PCANNet) -> PCANNet:
    """Brings a network into this form, in place."""
    for module in net.modules():
      if isinstance(module, Conv):
        module.as_product = self.products
    return net.to(memory_format=self._memory_format)

  def compile(self, function: Callable) -> Callable:
    if self.compiled is None:
      return function
    return torch.compile(function, mode=self.compiled, dynamic=False)

  def inputs(self, frames: torch.Tensor) -> torch.Tensor:
    """What the network takes in this form: [N, C, T, H, W] or [N * T, C, H, W].

    Args:
      frames: [N, T, H, W, C].
    """
    if self.layout == "frames":
      frames = functional.pad(frames, (0, -frames.shape[-1] % self.channels)).contiguous()
      return frames.flatten(0, 1).permute(0, 3, 1, 2)
    volumes = frames.permute(0, 4, 1, 2, 3)
    return volumes.contiguous(memory_format=self._memory_format)


def training_loss(
  net: PCANNet,
  inputs: tuple[torch.Tensor, torch.Tensor],
  action: torch.Tensor,
  parents: torch.Tensor,
  config: LossConfig,
  dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], Prototypes]:
  """The sum of the losses of both streams.

  Args:
    net: in training mode.
    inputs: frames and heatmaps, in the form of the network.
    action: true actions [N].
    parents: body part of every action [A].
    config: weights and factors of the losses.
    dtype: what the backbone computes in.

  Returns:
    The loss; its terms before their weights, by `stream/name`; the prototypes to store, by stream
    and level.
  """
  total, terms, prototypes = 0.0, {}, {}
  for stream, outputs in net(*inputs, len(action), dtype).items():
    loss, of_stream, prototypes[stream] = losses.stream_loss(
      outputs, net.prototypes(stream), action, parents, config
    )
    total = total + loss
    terms |= {f"{stream}/{name}": value.detach() for name, value in of_stream.items()}
  return total, terms, prototypes


def sgd(net: PCANNet, config: ConfigDict, batch_size: int) -> torch.optim.SGD:
  """What the `optimizer` part of a config describes, at its highest learning rate."""
  return torch.optim.SGD(
    net.parameters(),
    lr=config.learning_rate * batch_size / config.learning_rate_batch_size,
    momentum=config.momentum,
    weight_decay=config.weight_decay,
    nesterov=config.nesterov,
    fused=True,
  )


def train_step(
  net: PCANNet,
  optimizer: torch.optim.Optimizer,
  parents: torch.Tensor,
  config: LossConfig,
  sizes: Preprocessing,
  form: Form,
  clip_norm: float = 0.0,
) -> Callable[[Batch], tuple[torch.Tensor, dict[str, torch.Tensor]]]:
  """The step of `pcan_jax.training.step`: preprocess, differentiate, update weights and prototypes.

  Args:
    net: to train; it is brought into the form and changes with every step.
    optimizer: of its parameters.
    parents: body part of every action [A].
    config: weights and factors of the losses.
    sizes: the preprocessing, with its augmentation.
    form: how to run it.
    clip_norm: largest norm of the gradient; 0 does not clip.

  Returns:
    A function from a batch with `rgb`, `keypoints`, `keypoint_scores` and `action` to the loss and
    its terms.

  Raises:
    ValueError: the losses or the preprocessing have no counterpart here.
  """
  losses.check(config)
  preprocess.check(sizes)
  form.apply(net).train()
  prepare = Preprocess(sizes, form.dtype).to(parents.device)

  def forward(batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor], Prototypes]:
    action = batch["action"]
    drawn = preprocess.draw(len(action), sizes.augmentation, action.device)
    inputs = tuple(map(form.inputs, prepare(batch, *drawn)))
    return training_loss(net, inputs, action, parents, config, form.dtype)

  compiled = form.compile(forward)

  def step(batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    if form.compiled:
      torch.compiler.cudagraph_mark_step_begin()
    optimizer.zero_grad(set_to_none=True)
    loss, terms, prototypes = compiled(batch)
    loss.backward()
    if clip_norm:
      nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
    optimizer.step()
    for stream, levels in prototypes.items():
      for level, values in net.prototypes(stream).items():
        values.copy_(levels[level])
    return loss.detach(), terms

  return step


def predict_step(
  net: PCANNet, sizes: Preprocessing, gamma: dict[str, float], form: Form
) -> Callable[[Batch], Outputs]:
  """The step of `pcan_jax.spec.ModelSpec.predict`.

  Args:
    net: it stays as it is; the step has a copy with BatchNorm merged into the convolutions.
    sizes: the preprocessing, without augmentation.
    gamma: weight of the prototypes per stream (PCAN eq. 10 and 11).
    form: how to run it.

  Returns:
    A function from a batch of videos, with K clips each: `rgb` uint8 [N, K, T, S, S, 3],
    `keypoints` [N, K, T', M, V, 2], `keypoint_scores` [N, K, T', M, V], to what
    `ModelSpec.predict` returns of them.
  """
  preprocess.check(sizes)
  net = form.apply(merge_norms(net))
  net.backbone.to(form.dtype)
  prepare = Preprocess(sizes, form.dtype).to(next(net.parameters()).device)

  def forward(batch: Batch) -> Outputs:
    num_clips = batch["rgb"].shape[1]
    flat = {name: batch[name].flatten(0, 1) for name in _INPUTS}
    num_all = len(flat["rgb"])
    drawn = preprocess.draw(num_all, None, flat["rgb"].device)
    inputs = map(form.inputs, prepare(flat, *drawn))
    outputs = net(*inputs, num_all, form.dtype)
    for stream, levels in outputs.items():
      action, prototypes = levels["action"], net.prototypes(stream)["action"]
      action["logits"] = losses.rectify(
        action["logits"], action["embedding"], prototypes, gamma[stream]
      )
      for output in levels.values():
        output["probabilities"] = output["logits"].softmax(-1)
    streams = list(outputs.values())
    outputs["fused"] = {
      level: {"probabilities": sum(s[level]["probabilities"] for s in streams) / len(streams)}
      for level in streams[0]
    }

    def over_clips(output: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
      return {name: x.unflatten(0, (-1, num_clips)).mean(1) for name, x in output.items()}

    return {
      branch: {level: over_clips(output) for level, output in levels.items()}
      for branch, levels in outputs.items()
    }

  compiled = form.compile(forward)

  def step(batch: Batch) -> Outputs:
    if form.compiled:
      torch.compiler.cudagraph_mark_step_begin()
    with torch.no_grad():
      return compiled(batch)

  return step


def merge_norms(net: PCANNet) -> PCANNet:
  """A copy in evaluation mode, every BatchNorm merged into the convolution before it."""
  net = copy.deepcopy(net).eval()
  for module in net.modules():
    if isinstance(module, ConvNorm | RGBToPose):
      transposed = isinstance(module, RGBToPose)
      module.conv = fusion.fuse_conv_bn_eval(module.conv, module.bn, transpose=transposed)
      module.bn = nn.Identity()
  return net

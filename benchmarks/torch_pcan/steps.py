"""The training and the evaluation step."""

import copy
import dataclasses
from collections.abc import Callable

import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn.utils import fusion

from benchmarks.torch_pcan import losses, preprocess
from benchmarks.torch_pcan.network import ConvNorm, PCANNet, RGBToPose
from benchmarks.torch_pcan.preprocess import Batch
from pcan_jax.inputs import Preprocessing
from pcan_jax.method.losses import LossConfig

_INPUTS = ("rgb", "keypoints", "keypoint_scores")

Prototypes = dict[str, dict[str, torch.Tensor]]  # by stream and level
Outputs = dict[str, losses.StreamOutputs]


@dataclasses.dataclass(frozen=True)
class Form:
  """How PyTorch runs the network.

  Attributes:
    dtype: what the backbone computes in; below float32 by autocast.
    channels_last: whether memory is laid out [batch, time, height, width, channels].
    compiled: whether `torch.compile` makes kernels of the whole step but its optimizer.
  """

  dtype: torch.dtype = torch.float32
  channels_last: bool = True
  compiled: bool = False

  @property
  def memory_format(self) -> torch.memory_format:
    return torch.channels_last_3d if self.channels_last else torch.contiguous_format

  def apply(self, net: PCANNet) -> PCANNet:
    """Brings a network into this form, in place."""
    return net.to(memory_format=self.memory_format)

  def compile(self, function: Callable) -> Callable:
    return torch.compile(function) if self.compiled else function


def training_loss(
  net: PCANNet,
  rgb: torch.Tensor,
  heatmaps: torch.Tensor,
  action: torch.Tensor,
  parents: torch.Tensor,
  config: LossConfig,
  dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], Prototypes]:
  """The sum of the losses of both streams.

  Args:
    net: in training mode.
    rgb, heatmaps: its inputs.
    action: true actions [N].
    parents: body part of every action [A].
    config: weights and factors of the losses.
    dtype: what the backbone computes in.

  Returns:
    The loss; its terms before their weights, by `stream/name`; the prototypes to store, by stream
    and level.
  """
  total, terms, prototypes = 0.0, {}, {}
  for stream, outputs in net(rgb, heatmaps, dtype).items():
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

  def forward(batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor], Prototypes]:
    action = batch["action"]
    box, flipped = preprocess.draw(len(action), sizes.augmentation, action.device)
    rgb, heatmaps = _inputs(batch, sizes, form, box, flipped)
    return training_loss(net, rgb, heatmaps, action, parents, config, form.dtype)

  compiled = form.compile(forward)

  def step(batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
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

  def forward(batch: Batch) -> Outputs:
    num_clips = batch["rgb"].shape[1]
    flat = {name: batch[name].flatten(0, 1) for name in _INPUTS}
    box, flipped = preprocess.draw(len(flat["rgb"]), None, flat["rgb"].device)
    outputs = net(*_inputs(flat, sizes, form, box, flipped), form.dtype)
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

  return torch.inference_mode()(form.compile(forward))


def merge_norms(net: PCANNet) -> PCANNet:
  """A copy in evaluation mode, every BatchNorm merged into the convolution before it."""
  net = copy.deepcopy(net).eval()
  for module in net.modules():
    if isinstance(module, ConvNorm | RGBToPose):
      transposed = isinstance(module, RGBToPose)
      module.conv = fusion.fuse_conv_bn_eval(module.conv, module.bn, transpose=transposed)
      module.bn = nn.Identity()
  return net


def _inputs(
  batch: Batch, sizes: Preprocessing, form: Form, box: torch.Tensor, flipped: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
  rgb, heatmaps = preprocess.preprocess(batch, sizes, box, flipped)
  memory_format = form.memory_format
  return rgb.contiguous(memory_format=memory_format), heatmaps.contiguous(
    memory_format=memory_format
  )

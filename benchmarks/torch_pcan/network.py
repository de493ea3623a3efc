"""The network: two SlowOnly pathways with lateral connections, and a head per stream.

Activations are volumes [batch, channels, time, height, width] or, for the same weights, frames
[batch * time, channels, height, width] in channels-last memory, on which every convolution is a 2D
one without copies. "N" is the number of clips throughout.
"""

import torch
from torch import nn
from torch.nn import functional

from pcan_jax.network.backbone import LATERAL_RATIO, exchange_places
from pcan_jax.network.pathway import EXPANSION, PathwayConfig
from pcan_jax.network.pcan import PCAN, STREAMS


class Conv(nn.Conv3d):
  """A convolution of volumes or frames, padded by (k - 1) // 2; without bias, to start with.

  Attributes:
    as_product: whether a 1 x 1 x 1 convolution of frames is a matrix product.
  """

  as_product = False

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int, int],
    strides: tuple[int, int, int] = (1, 1, 1),
  ) -> None:
    padding = tuple((extent - 1) // 2 for extent in kernel)
    super().__init__(in_channels, out_channels, kernel, strides, padding, bias=False)

  def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
    """Convolves volumes, or the frames of `clips` clips."""
    if x.ndim == 5:
      return super().forward(x)
    if self.kernel_size[0] > 1:
      # A row per frame, a column per pixel.
      weight, strides, padding = self.weight.squeeze(-1), self.stride[:2], self.padding[:2]
      pixels = functional.conv2d(as_pixels(x, clips), weight, self.bias, strides, padding)
      return as_frames(pixels, x)
    weight, strides = self.weight.squeeze(2), self.stride[1:]
    if self.as_product and self.kernel_size == (1, 1, 1):
      x = x[:, :, :: strides[0], :: strides[1]].permute(0, 2, 3, 1)
      return functional.linear(x, weight.flatten(1), self.bias).permute(0, 3, 1, 2)
    if x.shape[1] > self.in_channels:  # the input of the network, with channels of zeros
      weight = functional.pad(weight, (0, 0, 0, 0, 0, x.shape[1] - self.in_channels))
    return functional.conv2d(x, weight, self.bias, strides, self.padding[1:])


def as_pixels(frames: torch.Tensor, clips: int) -> torch.Tensor:
  """Frames [N * T, C, H, W] as [N, C, T, H * W], a view of channels-last memory."""
  _, channels, height, width = frames.shape
  pixels = frames.permute(0, 2, 3, 1).reshape(clips, -1, height * width, channels)
  return pixels.permute(0, 3, 1, 2)


def as_frames(pixels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
  """What was computed of `as_pixels(like)` as frames of the same height and width."""
  height, width = like.shape[2:]
  frames = pixels.permute(0, 2, 3, 1).reshape(-1, height, width, pixels.shape[1])
  return frames.permute(0, 3, 1, 2)


class Norm(nn.BatchNorm3d):
  """BatchNorm of volumes or frames, which does not count the batches it has seen."""

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return functional.batch_norm(
      x,
      self.running_mean,
      self.running_var,
      self.weight,
      self.bias,
      self.training,
      self.momentum,
      self.eps,
    )


class ConvNorm(nn.Module):
  """Convolution, BatchNorm and, if asked for, ReLU."""

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int, int],
    strides: tuple[int, int, int] = (1, 1, 1),
    relu: bool = True,
  ) -> None:
    super().__init__()
    self.conv = Conv(in_channels, out_channels, kernel, strides)
    self.bn = Norm(out_channels)
    self.relu = relu

  def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
    x = self.bn(self.conv(x, clips))
    return functional.relu(x, inplace=True) if self.relu else x


class Bottleneck(nn.Module):
  """k x 1 x 1, 1 x 3 x 3 with the stride, 1 x 1 x 1, added to the input."""

  def __init__(self, in_channels: int, width: int, temporal_kernel: int, stride: int) -> None:
    super().__init__()
    out_channels, strides = EXPANSION * width, (1, stride, stride)
    self.conv1 = ConvNorm(in_channels, width, (temporal_kernel, 1, 1))
    self.conv2 = ConvNorm(width, width, (1, 3, 3), strides)
    self.conv3 = ConvNorm(width, out_channels, (1, 1, 1), relu=False)
    self.downsample = None
    if stride > 1 or in_channels != out_channels:
      self.downsample = ConvNorm(in_channels, out_channels, (1, 1, 1), strides, relu=False)

  def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
    shortcut = x if self.downsample is None else self.downsample(x, clips)
    y = self.conv3(self.conv2(self.conv1(x, clips), clips), clips)
    return functional.relu(y.add_(shortcut), inplace=True)


class Pathway(nn.Module):
  """A stem and stages of bottleneck blocks.

  Args:
    config: the pathway's shape.
    in_channels: of the input.
    lateral_channels: by number of a stage, what is concatenated to its output.
  """

  def __init__(
    self, config: PathwayConfig, in_channels: int, lateral_channels: dict[int, int]
  ) -> None:
    super().__init__()
    channels = config.stem_features
    self.conv1 = ConvNorm(in_channels, channels, (1, 7, 7), (1, *config.stem_strides))
    self.pool_stride = config.stem_pool_stride if config.stem_pool else None
    self.num_stages = config.num_stages
    for number, (blocks, width, temporal_kernel, stride) in enumerate(
      zip(config.blocks, config.widths, config.temporal_kernels, config.spatial_strides), start=1
    ):
      stage = nn.ModuleList()
      for block in range(blocks):
        stage.append(Bottleneck(channels, width, temporal_kernel, stride if block == 0 else 1))
        channels = EXPANSION * width
      self.add_module(f"layer{number}", stage)
      channels += lateral_channels.get(number, 0)

  def stem(self, x: torch.Tensor, clips: int) -> torch.Tensor:
    x = self.conv1(x, clips)
    if self.pool_stride is None:
      return x
    if x.ndim == 4:
      return functional.max_pool2d(x, 3, self.pool_stride, 1)
    return functional.max_pool3d(x, (1, 3, 3), (1, self.pool_stride, self.pool_stride), (0, 1, 1))

  def stages(self, x: torch.Tensor, clips: int, first: int, last: int) -> torch.Tensor:
    """Runs stages `first` to `last`, counted from 1."""
    for number in range(first, last + 1):
      for block in self.get_submodule(f"layer{number}"):
        x = block(x, clips)
    return x

  def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
    return self.stages(self.stem(x, clips), clips, 1, self.num_stages)


class PoseToRGB(nn.Module):
  """Brings pose features to the RGB stream's frames."""

  def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
    super().__init__()
    self.conv = Conv(in_channels, out_channels, (2 * stride - 1, 1, 1), (stride, 1, 1))

  def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
    return self.conv(x, clips)


class Upsample(nn.ConvTranspose3d):
  """Multiplies the frames of volumes or clips by `factor`; without bias, to start with."""

  def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
    super().__init__(
      in_channels,
      out_channels,
      (2 * factor - 1, 1, 1),
      (factor, 1, 1),
      padding=(factor - 1, 0, 0),
      output_padding=(factor - 1, 0, 0),
      bias=False,
    )

  def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
    """Upsamples volumes, or the frames of `clips` clips."""
    if x.ndim == 5:
      return super().forward(x)
    pixels = functional.conv_transpose2d(
      as_pixels(x, clips),
      self.weight.squeeze(-1),
      self.bias,
      self.stride[:2],
      self.padding[:2],
      self.output_padding[:2],
    )
    return as_frames(pixels, x)


class RGBToPose(nn.Module):
  """Brings RGB features to the pose stream's frames."""

  def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
    super().__init__()
    self.conv = Upsample(in_channels, out_channels, stride)
    self.bn = Norm(out_channels)

  def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
    return functional.relu(self.bn(self.conv(x, clips)), inplace=True)


class Backbone(nn.Module):
  """Two pathways that exchange features after every pose stage but the last."""

  def __init__(
    self, rgb: PathwayConfig, pose: PathwayConfig, keypoints: int, lateral_stride: int
  ) -> None:
    super().__init__()
    self.places = exchange_places(rgb.num_stages, pose.num_stages)
    rgb_channels = {r: EXPANSION * rgb.widths[r - 1] for r, _ in self.places}
    pose_channels = {p: EXPANSION * pose.widths[p - 1] for _, p in self.places}
    to_rgb = {r: channels // LATERAL_RATIO for r, channels in rgb_channels.items()}
    to_pose = {p: channels // LATERAL_RATIO for p, channels in pose_channels.items()}
    self.rgb_path = Pathway(rgb, 3, to_rgb)
    self.pose_path = Pathway(pose, keypoints, to_pose)
    for r, p in self.places:
      self.rgb_path.add_module(
        f"layer{r}_lateral", PoseToRGB(pose_channels[p], to_rgb[r], lateral_stride)
      )
      self.pose_path.add_module(
        f"layer{p}_lateral", RGBToPose(rgb_channels[r], to_pose[p], lateral_stride)
      )

  def forward(
    self, rgb: torch.Tensor, heatmaps: torch.Tensor, clips: int
  ) -> dict[str, torch.Tensor]:
    rgb, pose = self.rgb_path.stem(rgb, clips), self.pose_path.stem(heatmaps, clips)
    rgb_done, pose_done = 0, 0
    for r, p in self.places:
      rgb = self.rgb_path.stages(rgb, clips, rgb_done + 1, r)
      pose = self.pose_path.stages(pose, clips, pose_done + 1, p)
      to_rgb = self.rgb_path.get_submodule(f"layer{r}_lateral")(pose, clips)
      to_pose = self.pose_path.get_submodule(f"layer{p}_lateral")(rgb, clips)
      rgb, pose = torch.cat([rgb, to_rgb], dim=1), torch.cat([pose, to_pose], dim=1)
      rgb_done, pose_done = r, p
    return {
      "rgb": self.rgb_path.stages(rgb, clips, rgb_done + 1, self.rgb_path.num_stages),
      "pose": self.pose_path.stages(pose, clips, pose_done + 1, self.pose_path.num_stages),
    }


class Embedding(nn.Module):
  """An embedding and the prototypes in its space: `avg_f` [D, K], not trained."""

  def __init__(self, features: int, size: int, num_classes: int) -> None:
    super().__init__()
    self.spatio_cl_net = nn.Module()
    self.spatio_cl_net.cl_fc = nn.Linear(features, size)
    self.spatio_cl_net.register_buffer("avg_f", torch.randn(size, num_classes))

  @property
  def prototypes(self) -> torch.Tensor:
    """[K, D], a view of the buffer."""
    return self.spatio_cl_net.avg_f.T

  def forward(self, pooled: torch.Tensor) -> torch.Tensor:
    return self.spatio_cl_net.cl_fc(pooled)


def check(model: PCAN) -> None:
  """Raises ValueError for a variant of the network that has no counterpart here."""
  if model.streams != STREAMS or model.fusion != "lateral" or not model.has_prototypes:
    raise ValueError(
      "the PyTorch network has both streams, lateral connections and prototypes; this config has "
      f"streams {model.streams}, fusion {model.fusion!r} and "
      + ("prototypes" if model.has_prototypes else "no prototypes")
    )
  if model.pool_embedding != "mean":
    raise ValueError(
      f"the PyTorch network has model.pool_embedding='mean' only, not {model.pool_embedding!r}"
    )
  if model.cosine_scale:
    raise ValueError("the PyTorch network has linear classifiers only, not model.cosine_scale")


class PCANNet(nn.Module):
  """PyTorch's counterpart of `pcan_jax.network.pcan.PCAN`, with fresh weights of PyTorch's own.

  Args:
    model: the network to be like.
    keypoints: channels of the heatmaps.

  Raises:
    ValueError: see `check`.
  """

  def __init__(self, model: PCAN, keypoints: int) -> None:
    super().__init__()
    check(model)
    self.backbone = Backbone(model.rgb, model.pose, keypoints, model.lateral_stride)
    self.dropout = model.dropout
    self.cls_head = nn.ModuleDict()
    num_actions, num_bodies = model.tree.num_actions, model.tree.num_bodies
    for stream in STREAMS:
      features = getattr(model, stream).features
      self.cls_head.update(
        {
          f"fc_{stream}": nn.Linear(features, num_actions),
          f"fc_{stream}_coarse": nn.Linear(features, num_bodies),
          f"fr_{stream}": Embedding(features, model.action_embedding, num_actions),
          f"fr_coarse_{stream}": Embedding(features, model.body_embedding, num_bodies),
        }
      )

  def prototypes(self, stream: str) -> dict[str, torch.Tensor]:
    """Of a stream, per level [K, D]; views of the buffers."""
    return {
      "action": self.cls_head[f"fr_{stream}"].prototypes,
      "body": self.cls_head[f"fr_coarse_{stream}"].prototypes,
    }

  def forward(
    self,
    rgb: torch.Tensor,
    heatmaps: torch.Tensor,
    clips: int,
    dtype: torch.dtype = torch.float32,
  ) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """Classifies and embeds a batch.

    Args:
      rgb: [N, 3, T, H, W] or, as frames, [N * T, 3, H, W], normalised.
      heatmaps: [N, V, T', h, w] or [N * T', V, h, w].
      clips: N.
      dtype: what the backbone computes in; below float32 by autocast.

    Returns:
      Per stream and level (`action`, `body`) `logits` and `embedding`, float32.
    """
    with torch.autocast(rgb.device.type, dtype, enabled=dtype != torch.float32):
      features = self.backbone(rgb, heatmaps, clips)
    return {stream: self._classify(stream, x, clips) for stream, x in features.items()}

  def _classify(
    self, stream: str, features: torch.Tensor, clips: int
  ) -> dict[str, dict[str, torch.Tensor]]:
    if features.ndim == 4:
      features = as_pixels(features, clips)
    pooled = features.float().flatten(2).mean(2)
    dropped = functional.dropout(pooled, self.dropout, self.training)
    return {
      "action": {
        "logits": self.cls_head[f"fc_{stream}"](dropped),
        "embedding": self.cls_head[f"fr_{stream}"](pooled),
      },
      "body": {
        "logits": self.cls_head[f"fc_{stream}_coarse"](dropped),
        "embedding": self.cls_head[f"fr_coarse_{stream}"](pooled),
      },
    }

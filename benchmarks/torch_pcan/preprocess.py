"""From stored clips to network inputs, on the device: crop, flip, normalise, draw heatmaps.

Does what `pcan_jax.inputs` does; joints are drawn, limbs are not.
"""

import math

import torch
from torch import nn

from pcan_jax.heatmaps import MIN_SCORE
from pcan_jax.inputs import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Preprocessing

_CROP_ATTEMPTS = 10

Batch = dict[str, torch.Tensor]


def check(sizes: Preprocessing) -> None:
  """Raises ValueError for a preprocessing that has no counterpart here."""
  if sizes.heatmaps != "joints":
    raise ValueError(f"the PyTorch heatmaps show joints, not {sizes.heatmaps!r}")
  augmentation = sizes.augmentation
  if augmentation is not None and any(
    (
      augmentation.rotation,
      augmentation.scale_jitter,
      augmentation.keypoint_noise,
      augmentation.mixup,
    )
  ):
    raise ValueError(
      "the PyTorch preprocessing crops and flips only; set augmentation.rotation, scale_jitter, "
      "keypoint_noise and mixup to 0"
    )


def draw(
  num_clips: int, augmentation: Augmentation | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
  """Draws a crop (x0, y0, x1, y1) of the unit square and a flip for every clip.

  Of ten crops the first that fits is taken; where none does, the whole frame.

  Returns:
    Boxes [N, 4] and flips, bool [N]; without augmentation whole frames, not flipped.
  """
  whole = torch.ones(num_clips, 2, device=device)
  if augmentation is None:
    box = torch.cat([torch.zeros_like(whole), whole], dim=-1)
    return box, torch.zeros(num_clips, dtype=torch.bool, device=device)
  low, high = augmentation.crop_area
  area = torch.empty(num_clips, _CROP_ATTEMPTS, device=device).uniform_(low, high)
  low, high = map(math.log, augmentation.crop_aspect)
  half_log_aspect = torch.empty_like(area).uniform_(low / 2, high / 2)
  sizes = area.sqrt()[..., None] * torch.stack([half_log_aspect, -half_log_aspect], -1).exp()
  fits = (sizes <= 1).all(-1)
  first = fits.int().argmax(1)
  chosen = sizes.gather(1, first[:, None, None].expand(-1, 1, 2))[:, 0]
  size = torch.where(fits.any(1)[:, None], chosen, whole)
  start = torch.rand_like(whole) * (1 - size)
  flipped = torch.rand(num_clips, device=device) < augmentation.flip
  return torch.cat([start, start + size], dim=-1), flipped


class Preprocess(nn.Module):
  """Turns a batch into network inputs; its constants are on the device.

  Args:
    sizes: of the inputs.
    dtype: what frames are resized in and what the inputs are in; coordinates are float32.
  """

  def __init__(self, sizes: Preprocessing, dtype: torch.dtype = torch.float32) -> None:
    super().__init__()
    self.sizes, self.dtype = sizes, dtype
    self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
    self.register_buffer("std", torch.tensor(IMAGENET_STD))
    self.register_buffer("mirrored", torch.tensor(sizes.layout.flip_permutation()).long())

  def forward(
    self, batch: Batch, box: torch.Tensor, flipped: torch.Tensor
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Cuts, mirrors, normalises and draws.

    Args:
      batch: `rgb` uint8 [N, T, S, S, 3], `keypoints` [N, T', M, V, 2], in pixels of those frames,
        and `keypoint_scores` [N, T', M, V].
      box: what to cut out of each clip, as a fraction of the frame [N, 4].
      flipped: which clips to mirror, bool [N].

    Returns:
      Normalised frames [N, T, H, W, 3] and heatmaps [N, T', h, w, V].
    """
    box = box * self.sizes.stored_size
    frames = crop_and_resize(batch["rgb"], box, flipped, self.sizes.rgb_size, self.dtype)
    frames = (frames - self.mean) / self.std

    size = self.sizes.heatmap_size
    start, end = box[:, None, None, None, :2], box[:, None, None, None, 2:]
    keypoints = (batch["keypoints"] - start) * (size / (end - start))
    scores = batch["keypoint_scores"]
    mirrored = torch.stack([size - keypoints[..., 0], keypoints[..., 1]], dim=-1)
    flipped = flipped[:, None, None, None]
    keypoints = torch.where(flipped[..., None], mirrored[..., self.mirrored, :], keypoints)
    scores = torch.where(flipped, scores[..., self.mirrored], scores)
    heatmaps = render_joints(keypoints, scores, size, self.sizes.sigma)
    return frames.to(self.dtype), heatmaps.to(self.dtype)


def crop_and_resize(
  frames: torch.Tensor,
  box: torch.Tensor,
  flipped: torch.Tensor,
  size: int,
  dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
  """Cuts a box, in pixels, out of every frame of a clip, resizes it with antialiasing, mirrors it.

  Args:
    frames: uint8 [N, T, S, S, 3].
    box: [N, 4].
    flipped: bool [N].
    size: side of the result.
    dtype: of the computation; all have the 256 values of a pixel.

  Returns:
    [N, T, size, size, 3] of this type.
  """
  rows = resize_weights(box[:, 1], box[:, 3], frames.shape[2], size)
  columns = resize_weights(box[:, 0], box[:, 2], frames.shape[3], size)
  columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
  x = torch.einsum("nyh,nthwc->ntywc", rows.to(dtype), frames.to(dtype))
  return torch.einsum("nxw,ntywc->ntyxc", columns.to(dtype), x)


def resize_weights(
  start: torch.Tensor, end: torch.Tensor, num_pixels: int, size: int
) -> torch.Tensor:
  """Weights of the pixels along one axis [N, size, num_pixels]: a triangle around each sample.

  Args:
    start, end: what is cut out, in pixels [N].
    num_pixels: extent of the frame.
    size: extent of the result.
  """
  step = ((end - start) / size)[:, None, None]
  centres = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * step
  pixels = torch.arange(num_pixels, device=start.device) + 0.5
  weights = (1 - (pixels - centres).abs() / step.clamp(min=1)).clamp(min=0)
  return weights / weights.sum(-1, keepdim=True)


def render_joints(
  keypoints: torch.Tensor, scores: torch.Tensor, size: int, sigma: float
) -> torch.Tensor:
  """Draws one heatmap per joint; where persons overlap, the larger value stays.

  Args:
    keypoints: (x, y) in heatmap pixels [N, T, M, V, 2].
    scores: the peaks [N, T, M, V].
    size: side of a heatmap.
    sigma: standard deviation in heatmap pixels.

  Returns:
    Heatmaps [N, T, size, size, V].
  """
  pixels = torch.arange(size, device=keypoints.device, dtype=torch.float32)[:, None]
  # x and y of all joints, a row of pixels each: [N, T, M, size, V].
  centres = keypoints.movedim(-1, 0)[..., None, :]
  inside = (pixels >= (centres - 3 * sigma).trunc()) & (pixels <= (centres + 3 * sigma).trunc())
  values = (-(pixels - centres).square() / (2 * sigma**2)).exp()
  columns, rows = torch.where(inside, values, 0)
  rows = rows * torch.where(scores >= MIN_SCORE, scores, 0)[..., None, :]
  return (rows[..., :, None, :] * columns[..., None, :, :]).amax(2)

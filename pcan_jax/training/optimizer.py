"""The learning rate schedule, SGD and AdamW, and rates by layer."""

import re
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

PyTree = Any
Path = tuple[str, ...]

# Modules of a pathway in the order of their layers: "block3" and "layer3" are the third.
_NUMBERED = re.compile(r"(?:block|layer)(\d+)")
_FIRST = ("patches", "conv1")


def peak_learning_rate(config: ConfigDict) -> float:
  """The highest learning rate of the `optimizer` part of a config, scaled to its batch size.

  Raises:
    ValueError: `learning_rate_batch_size` is not positive.
  """
  if config.learning_rate_batch_size < 1:
    raise ValueError(
      f"optimizer.learning_rate_batch_size must be 1 or more, not {config.learning_rate_batch_size}"
    )
  return config.learning_rate * config.batch_size / config.learning_rate_batch_size


def total_steps(config: ConfigDict, steps_per_epoch: float) -> int:
  """The steps of a run: those of `epochs`, but at least `least_steps`."""
  return max(round(config.epochs * steps_per_epoch), config.least_steps)


def learning_rate(config: ConfigDict, steps_per_epoch: float) -> optax.Schedule:
  """The schedule that the `optimizer` part of a config describes, by step.

  Raises:
    ValueError: `schedule` is neither "step" nor "cosine", or as for `peak_learning_rate`.
  """
  peak = peak_learning_rate(config)
  total = total_steps(config, steps_per_epoch)
  warmup = round(config.warmup_epochs * steps_per_epoch)
  if config.schedule == "step":
    boundaries: dict[int, float] = {}
    for epoch in config.decay_epochs:  # two of them may be in one step
      step = round(epoch * steps_per_epoch) - warmup
      boundaries[step] = 0.1 * boundaries.get(step, 1.0)
    schedule = optax.piecewise_constant_schedule(peak, boundaries)
  elif config.schedule == "cosine":
    schedule = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
  else:
    raise ValueError(f"optimizer.schedule must be step or cosine, not {config.schedule!r}")
  if not warmup:
    return schedule
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), schedule], [warmup])


def build_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
  """SGD with momentum, or AdamW, as the `optimizer` part of a config says.

  With SGD, weight decay is added to the gradient of every parameter; with AdamW, it shrinks kernels
  only. With a `layer_decay` below 1, each layer of a pathway learns more slowly than the next one.

  Raises:
    ValueError: `name` is neither "sgd" nor "adamw", or `layer_decay` or `ema` is out of range.
  """
  name, decay, ema = config.name, config.layer_decay, config.ema
  if not 0 < decay <= 1:
    raise ValueError(f"optimizer.layer_decay must be above 0 and at most 1, not {decay}")
  if not 0 <= ema < 1:
    raise ValueError(f"optimizer.ema must be at least 0 and below 1, not {ema}")
  if name == "sgd":
    transforms = [
      optax.add_decayed_weights(config.weight_decay),
      optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov),
    ]
  elif name == "adamw":
    b1, b2 = config.betas
    transforms = [
      optax.adamw(schedule, b1=b1, b2=b2, weight_decay=config.weight_decay, mask=_are_kernels)
    ]
  else:
    raise ValueError(f"optimizer.name must be sgd or adamw, not {name!r}")
  if config.clip_norm:
    transforms.insert(0, optax.clip_by_global_norm(config.clip_norm))
  if decay < 1:
    transforms.append(_scaled_by_layer(decay))
  return optax.chain(*transforms)


def _are_kernels(params: PyTree) -> PyTree:
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _scaled_by_layer(decay: float) -> optax.GradientTransformation:
  def update(updates: PyTree, _: PyTree) -> PyTree:
    paths = [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(updates)]
    scales = layer_scales(paths, decay)
    return jax.tree_util.tree_map_with_path(lambda path, x: x * scales[_path(path)], updates)

  return optax.stateless(update)


def _path(path: tuple[Any, ...]) -> Path:
  return tuple(key.key for key in path)


def layer_scales(paths: list[Path], decay: float) -> dict[Path, float]:
  """What the learning rate of every parameter is multiplied by.

  It is 1 for what follows a pathway's last layer, such as the heads, and `decay` times that of the
  next layer from there on down.

  Args:
    paths: of all parameters, such as ("backbone", "rgb_path", "block1", "mlp1", "kernel").
    decay: at most 1.
  """
  layers = {path: _layer(path) for path in paths}
  last: dict[str, int] = {}
  for path, layer in layers.items():
    if layer is not None:
      last[path[1]] = max(last.get(path[1], 0), layer)
  return {
    path: 1.0 if layer is None else decay ** (last[path[1]] + 1 - layer)
    for path, layer in layers.items()
  }


def _layer(path: Path) -> int | None:
  """The number of the layer of a pathway that a parameter belongs to, None if to none."""
  if path[0] != "backbone" or not path[1].endswith("_path"):
    return None
  numbered = _NUMBERED.fullmatch(path[2])
  if numbered:
    return int(numbered[1])
  return 0 if path[2] in _FIRST else None

"""The learning rate schedule and SGD."""

import optax
from ml_collections import ConfigDict


def peak_learning_rate(config: ConfigDict) -> float:
  """The highest learning rate of the `optimizer` part of a config, scaled to its batch size."""
  return config.learning_rate * config.batch_size / config.learning_rate_batch_size


def learning_rate(config: ConfigDict, steps_per_epoch: float) -> optax.Schedule:
  """The schedule that the `optimizer` part of a config describes, by step.

  Raises:
    ValueError: `schedule` is neither "step" nor "cosine".
  """
  peak = peak_learning_rate(config)
  total, warmup = (round(e * steps_per_epoch) for e in (config.epochs, config.warmup_epochs))
  if config.schedule == "step":
    boundaries = {round(e * steps_per_epoch) - warmup: 0.1 for e in config.decay_epochs}
    schedule = optax.piecewise_constant_schedule(peak, boundaries)
  elif config.schedule == "cosine":
    schedule = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
  else:
    raise ValueError(f"optimizer.schedule must be step or cosine, not {config.schedule!r}")
  if not warmup:
    return schedule
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), schedule], [warmup])


def build_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
  """SGD with momentum; weight decay is added to the gradient of every parameter."""
  transforms = [
    optax.add_decayed_weights(config.weight_decay),
    optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov),
  ]
  if config.clip_norm:
    transforms.insert(0, optax.clip_by_global_norm(config.clip_norm))
  return optax.chain(*transforms)

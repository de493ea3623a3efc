"""The ranges of the numbers in a config that no class of their own checks."""

import math

from ml_collections import ConfigDict

RANGES = {
  "1 or more": (
    lambda x: x >= 1,
    (
      "log_every",
      "input.rgb_frames",
      "input.pose_frames",
      "input.train_size",
      "input.test_size",
      "input.heatmap_scale",
      "input.max_persons",
      "model.lateral_stride",
      "model.action_embedding",
      "model.body_embedding",
      "optimizer.batch_size",
      "eval.batch_size",
      "eval.num_clips",
      "checkpoints.keep",
    ),
  ),
  "at least 0 and below 2^32": (lambda x: 0 <= x < 2**32, ("seed",)),
  "above 0": (lambda x: x > 0, ("input.sigma", "optimizer.epochs")),
  "0 or more": (
    lambda x: x >= 0,
    (
      "log_gradients",
      "loss.ce_weight",
      "loss.hp_weight",
      "loss.hp_lambda",
      "loss.pcc_weight",
      "loss.pcc_fp_weight",
      "loss.pcc_body_weight",
      "loss.pda_weight",
      "loss.soft_f1_weight",
      "loss.frame_weight",
      "optimizer.least_steps",
      "optimizer.learning_rate",
      "optimizer.warmup_epochs",
      "optimizer.weight_decay",
      "optimizer.clip_norm",
      "eval.every_epochs",
      "eval.gamma.rgb",
      "eval.gamma.pose",
      "checkpoints.every_epochs",
      "checkpoints.every_minutes",
    ),
  ),
  "at least 0 and below 1": (lambda x: 0 <= x < 1, ("model.dropout", "optimizer.momentum")),
}
"""By what a number must be in words: whether it is, and the fields that must."""


def require_ranges(config: ConfigDict) -> None:
  """Refuses numbers with which training or evaluation would fail, or mean nothing.

  Args:
    config: of a run; fields that it lacks are not looked at.

  Raises:
    ValueError: a number is out of range, infinite or not a number; the message names the field.
  """
  for wanted, (fits, fields) in RANGES.items():
    for field in fields:
      value = _find(config, field)
      if value is not None and not (math.isfinite(value) and fits(value)):
        raise ValueError(f"{field} must be {wanted}, not {value}")


def _find(config: ConfigDict, field: str) -> int | float | None:
  *groups, last = field.split(".")
  for group in groups:
    if group not in config:
      return None
    config = config[group]
  return config.get(last)

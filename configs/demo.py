"""PCAN at a size that two CPU cores train in minutes, on synthetic micro-actions.

`make demo` draws the clips, builds the data set and trains with this config. It differs from
`configs/ma52.py` in a narrower network, smaller inputs and shorter clips.
"""

from ml_collections import ConfigDict

from pcan_jax.config import load_config


def get_config(variant: str = "pcan") -> ConfigDict:
  """MA-52's config and variants with a narrow network and a short schedule."""
  config = load_config(f"ma52:{variant}")
  config.data.path = "runs/demo/dataset"
  config.data.instructions = "Run `make demo`, which generates and builds it."
  config.log_every = 50

  config.input.rgb_frames = 4
  config.input.pose_frames = 8  # no worse than 16, and leaves the time for more epochs
  config.input.train_size = 64
  config.input.test_size = 64

  # A run this short does not overfit, so it needs little augmentation and no dropout.
  config.augmentation.crop_area = (0.8, 1.0)
  config.augmentation.crop_aspect = (0.9, 1.1)

  config.model.dropout = 0.0
  config.model.lateral_stride = 2
  if config.model.rgb.kind == "slowonly":
    config.model.rgb.stem_features = 16
    config.model.rgb.blocks = (1, 1, 1, 1)
    config.model.rgb.widths = (16, 32, 64, 64)
  config.model.pose.stem_features = 16
  config.model.pose.stem_pool = False
  config.model.pose.blocks = (1, 2, 2)
  config.model.pose.widths = (16, 32, 64)

  # In so few steps, SGD gets to anything between 69 and 80 % of the actions, as rounding has it.
  config.optimizer.name = "adamw"
  config.optimizer.batch_size = 16
  config.optimizer.epochs = 22.0
  config.optimizer.learning_rate = 0.01
  config.optimizer.learning_rate_batch_size = 16
  config.optimizer.weight_decay = 0.05
  config.optimizer.warmup_epochs = 0.5
  config.optimizer.schedule = "cosine"

  config.eval.every_epochs = 0.0
  config.eval.num_clips = 2
  config.checkpoints.every_epochs = 4.0
  if config.model.rgb.kind == "videomae":
    _narrow_videomae(config)
  return config


def _narrow_videomae(config: ConfigDict) -> None:
  """A transformer of the same cost as the narrow 3D CNN, and a rate for one of its width."""
  config.input.rgb_frames = 8
  config.model.rgb.width = 96
  config.model.rgb.depth = 4
  config.model.rgb.heads = 4
  config.model.rgb.mlp_width = 384
  config.model.rgb.position_grid = (4, 4, 4)
  config.model.rgb.drop_path = 0.0
  config.optimizer.learning_rate = 1e-3
  config.optimizer.clip_norm = 1.0
  config.optimizer.layer_decay = 0.9
  config.optimizer.ema = 0.99

"""PCAN on UTD-MHAD (Chen et al., ICIP 2015): 27 actions, depth video and 2D skeletons.

Subjects 1, 3, 5, 7 train, the others validate. Some actions differ only in left and right, so
nothing is flipped.
"""

from ml_collections import ConfigDict

from pcan_jax.config import load_config


def get_config(variant: str = "pcan") -> ConfigDict:
  """MA-52's config and variants with a narrow network that two CPU cores train."""
  config = load_config(f"ma52:{variant}")
  config.data.path = "datasets/utd_mhad"
  config.data.instructions = (
    "With the clips in MA-52's layout (docs/DATA.md) in SOURCE, run: "
    "pcan build SOURCE datasets/utd_mhad --side 128"
  )

  config.input.train_size = 64
  config.input.test_size = 64

  config.augmentation.flip = 0.0
  config.augmentation.rotation = 10.0
  config.augmentation.scale_jitter = 0.1

  config.model.dropout = 0.2
  if config.model.rgb.kind == "slowonly":
    config.model.rgb.stem_features = 16
    config.model.rgb.blocks = (1, 1, 1, 1)
    config.model.rgb.widths = (16, 32, 64, 128)
  config.model.pose.stem_features = 16
  config.model.pose.stem_pool = False
  config.model.pose.blocks = (1, 2, 2)
  config.model.pose.widths = (16, 32, 64)

  config.optimizer.batch_size = 16
  config.optimizer.epochs = 70.0
  config.optimizer.learning_rate = 0.03
  config.optimizer.learning_rate_batch_size = 16
  config.optimizer.warmup_epochs = 2.0
  config.optimizer.schedule = "cosine"
  config.optimizer.clip_norm = 40.0

  config.eval.every_epochs = 35.0
  config.checkpoints.every_epochs = 10.0
  if config.model.rgb.kind == "videomae":
    _take_transformer(config, load_config(f"demo:{variant}"))
  return config


def _take_transformer(config: ConfigDict, demo: ConfigDict) -> None:
  """The demo's transformer and what suits its width, but with a drop path: this run is longer."""
  drop_path = config.model.rgb.drop_path
  config.model.rgb = demo.model.rgb
  config.model.rgb.drop_path = drop_path
  config.input.rgb_frames = demo.input.rgb_frames
  for field in ("learning_rate", "clip_norm", "layer_decay", "ema"):
    config.optimizer[field] = demo.optimizer[field]

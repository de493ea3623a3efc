"""PCAN over stored features of another network, in place of the RGB stream's frames.

  pcan import_features FEATURES.npz --data datasets/ma52 --out datasets/ma52_features
  pcan --config=features --config.model.rgb.size=768 --workdir=runs/features

The variant, after the colon, is the config whose data set has the features: `features:utd_mhad`.
With `--config.model.streams="('rgb','pose')"`, the pose stream is added.
"""

from ml_collections import ConfigDict

from pcan_jax.config import load_config


def get_config(variant: str = "ma52") -> ConfigDict:
  """The data, prototypes and recipe of a config's `vit_pcan`, with a small transformer."""
  config = load_config(f"{variant}:vit_pcan")
  config.data.path += "_features"
  config.data.instructions = (
    "Run: pcan import_features FEATURES.npz --data DATASET --out " + config.data.path
  )
  config.model.rgb = ConfigDict()
  config.model.rgb.kind = "features"
  config.model.rgb.size = 768  # of the stored vectors
  config.model.rgb.width = 256
  config.model.rgb.depth = 2
  config.model.rgb.heads = 4
  config.model.rgb.mlp_width = 512
  config.model.rgb.drop_path = 0.1
  config.optimizer.layer_decay = 1.0
  return config

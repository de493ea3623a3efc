"""For a few hundred clips of one's own: a narrow network that has seen drawn figures move.

  pcan --config=small:pcan_pose --config.data.path=datasets/mine --workdir=runs/mine

The pose stream starts from weights that come with the package. docs/SMALL_DATA.md is about them,
and about what a simple classifier gets. Clips are mirrored if no action is named after a side;
`--config.augmentation.flip=0` if one side means something else, 0.5 if it never does.
"""

from ml_collections import ConfigDict, config_dict

from pcan_jax.config import load_config


def get_config(variant: str = "pcan_pose") -> ConfigDict:
  """MA-52's config and variants for a few hundred clips; poses alone unless another is chosen."""
  config = load_config(f"utd_mhad:{variant}")
  config.data.path = "datasets/mine"
  config.data.instructions = "docs/SMALL_DATA.md says how to make one of your own clips."
  config.data.sampling = "class_balanced"
  if "pose" in config.model.streams:
    config.init_from.pose = "shipped:figures"
  config.input.pose_frames = 16
  config.model.lateral_stride = 2

  config.augmentation.flip = config_dict.placeholder(float)
  config.augmentation.crop_area = (0.5, 1.0)
  config.augmentation.rotation = 15.0
  config.augmentation.scale_jitter = 0.2
  config.augmentation.keypoint_noise = 0.01

  config.model.dropout = 0.5

  config.optimizer.epochs = 60.0
  config.optimizer.least_steps = 1600
  config.optimizer.weight_decay = 5e-4

  config.eval.flip = config_dict.placeholder(bool)
  config.eval.every_epochs = 30.0
  config.checkpoints.every_epochs = 30.0
  return config

"""The project's configs at toy size: the same code, a few seconds."""

from ml_collections import ConfigDict


def shrink(config: ConfigDict) -> ConfigDict:
  """Narrow pathways, small inputs, a short schedule; everything else as the config says."""
  config.input.train_size = 32
  config.input.test_size = 32
  config.input.rgb_frames = 2
  config.input.pose_frames = 8
  config.model.lateral_stride = 4
  config.model.action_embedding = 16
  config.model.body_embedding = 8
  if config.model.rgb.kind == "slowonly":
    config.model.rgb.update(stem_features=8, blocks=(1, 1, 1, 1), widths=(8, 8, 8, 8))
  else:
    config.model.rgb.update(width=16, depth=2, heads=2, mlp_width=32)
  if config.model.rgb.kind == "videomae":
    config.model.rgb.update(patch=8, position_grid=(1, 4, 4))
  config.model.pose.update(stem_features=8, blocks=(1, 1, 1), widths=(8, 8, 8))
  config.init_from.pose = ""  # no shipped weights are as narrow
  config.optimizer.batch_size = 8
  config.optimizer.epochs = 2.0
  config.optimizer.least_steps = 0
  config.eval.batch_size = 8
  config.eval.num_clips = 2
  if "decoder" not in config.model:  # pretraining has nothing to evaluate
    config.eval.every_epochs = 1.0
  config.log_every = 1
  return config

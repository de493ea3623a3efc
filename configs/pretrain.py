"""Masked video modelling: pretrains the transformer of the variants `vit` on clips without labels.

  pcan --config=pretrain --config.data.path=datasets/mine --workdir=runs/pretrained
  pcan --config=ma52:vit_pcan --config.init_from.rgb=runs/pretrained --workdir=runs/vit_pcan

The variant, after the colon, is the config whose `vit` is pretrained: `pretrain:utd_mhad` is the
narrow one of configs/utd_mhad.py. `--config.data.train_split=test` takes the clips of a split
without labels, `--config.init_from.checkpoint=DIR` starts from other weights, such as VideoMAE's.
"""

from ml_collections import ConfigDict

from pcan_jax.config import load_config


def get_config(variant: str = "ma52") -> ConfigDict:
  """The data, input and transformer of a config's `vit`, with a decoder and VideoMAE's recipe."""
  config = load_config(f"{variant}:vit")
  config.augmentation.crop_area = (0.5, 1.0)
  config.model.rgb.drop_path = 0.0
  config.model.decoder = ConfigDict()
  config.model.decoder.width = config.model.rgb.width // 2
  config.model.decoder.depth = 4
  config.model.decoder.heads = config.model.rgb.heads // 2
  config.model.decoder.mlp_width = 2 * config.model.rgb.width
  config.model.decoder.mask = 0.9
  config.optimizer.epochs *= 10
  config.optimizer.batch_size = 64
  config.optimizer.learning_rate = 1.5e-4
  config.optimizer.learning_rate_batch_size = 256
  config.optimizer.warmup_epochs = config.optimizer.epochs / 20
  if config.model.rgb.width < 384:  # of the configs that a CPU trains
    config.model.decoder.depth = 1
    config.optimizer.epochs /= 2
    config.optimizer.learning_rate = 4e-3
  config.optimizer.betas = (0.9, 0.95)
  config.optimizer.layer_decay = 1.0
  config.optimizer.ema = 0.0
  config.eval.every_epochs = 0.0
  return config

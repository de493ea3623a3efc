"""PCAN at full size on the look-alikes, in clips of MA-52's size, for a GPU.

pcan synthetic --preset lookalikes --train 2000 --height 288 --out runs/lookalikes_full
pcan build runs/lookalikes_full datasets/lookalikes_full
"""

from ml_collections import ConfigDict

from pcan_jax.config import load_config


def get_config(variant: str = "pcan") -> ConfigDict:
  """The narrow config and variants, with MA-52's network and input."""
  config = load_config(f"lookalikes:{variant}")
  full = load_config(f"ma52:{variant}")
  config.data.path = "datasets/lookalikes_full"
  config.data.instructions = (
    "Run: pcan synthetic --preset lookalikes --train 2000 --height 288 --out runs/lookalikes_full, "
    "then: pcan build runs/lookalikes_full datasets/lookalikes_full"
  )
  config.optimizer.epochs = 18.0
  # The published runs were trained so.
  config.optimizer.update(name="sgd", learning_rate=0.1, weight_decay=1e-4, clip_norm=40.0)
  config.checkpoints.every_epochs = 3.0
  full.model.dropout = config.model.dropout
  full.model.dtype = "bfloat16"
  config.input, config.model = full.input, full.model
  if config.model.rgb.kind == "videomae":
    config.optimizer = full.optimizer  # whose rates are for pretrained weights of this width
  return config

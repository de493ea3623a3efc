"""PCAN at full size on the look-alikes, in clips of MA-52's size, for a GPU.

pcan synthetic --preset lookalikes --height 288 --out runs/lookalikes_full
pcan build runs/lookalikes_full datasets/lookalikes_full
"""

from ml_collections import ConfigDict

from pcan_jax.config import load_config


def get_config(variant: str = "pcan") -> ConfigDict:
  """MA-52's network and variants, with the schedule of the narrow network on the look-alikes."""
  config = load_config(f"ma52:{variant}")
  narrow = load_config(f"lookalikes:{variant}")
  config.data.path = "datasets/lookalikes_full"
  config.data.instructions = (
    "Run: pcan synthetic --preset lookalikes --height 288 --out runs/lookalikes_full, then: "
    "pcan build runs/lookalikes_full datasets/lookalikes_full"
  )
  config.log_every = narrow.log_every
  config.augmentation = narrow.augmentation
  config.model.dropout = narrow.model.dropout
  config.model.dtype = "bfloat16"
  config.checkpoints = narrow.checkpoints
  if config.model.rgb.kind == "slowonly":
    config.optimizer = narrow.optimizer
    config.optimizer.learning_rate = 0.1
  config.eval.every_epochs = narrow.eval.every_epochs
  config.eval.num_clips = narrow.eval.num_clips
  return config

"""Narrow PCAN on synthetic micro-actions whose siblings look alike, to compare methods.

pcan synthetic --preset lookalikes --out runs/lookalikes
pcan build runs/lookalikes datasets/lookalikes --side 64
"""

from ml_collections import ConfigDict

from pcan_jax.config import load_config


def get_config(variant: str = "pcan") -> ConfigDict:
  """The demo's config and variants."""
  config = load_config(f"demo:{variant}")
  config.data.path = "datasets/lookalikes"
  config.data.instructions = (
    "Run: pcan synthetic --preset lookalikes --out runs/lookalikes, then: "
    "pcan build runs/lookalikes datasets/lookalikes --side 64"
  )
  config.log_every = 100
  config.optimizer.epochs = 12.0  # and 12 more for what starts from such a run
  config.checkpoints.every_epochs = 4.0
  config.checkpoints.keep = 1
  return config

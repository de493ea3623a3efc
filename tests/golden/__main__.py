"""Writes all golden files anew: `python -m tests.golden`, some minutes."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

from configs.ma52 import VARIANTS  # noqa: E402
from pcan_jax.console import quiet_libraries  # noqa: E402
from tests import golden  # noqa: E402
from tests.golden import configs, losses, steps  # noqa: E402

quiet_libraries()
for name in configs.NAMES:
  golden.save(f"{name}.txt", configs.resolved(name))
golden.save("steps.json", {variant: steps.digest(steps.trace(variant)) for variant in VARIANTS})
golden.save("losses.json", {variant: losses.first_losses(variant) for variant in VARIANTS})

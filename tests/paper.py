"""The paper's values as objects, to read: what is to be changed, a test loads for itself.

Classes have no defaults; `configs/ma52.py` gives all values.
"""

from pcan_jax.config import load_config
from pcan_jax.inputs import Augmentation
from pcan_jax.method.losses import LossConfig
from pcan_jax.network.pathway import PathwayConfig
from pcan_jax.network.pcan import rgb_path

CONFIG = load_config("ma52")
LOSSES = LossConfig(**CONFIG.loss)
RELEASE_LOSSES = LossConfig(**load_config("ma52:release").loss)
RGB_PATHWAY = rgb_path(CONFIG.model.rgb)
POSE_PATHWAY = PathwayConfig(**CONFIG.model.pose)
AUGMENTATION = Augmentation(**CONFIG.augmentation)

"""PCAN on MA-52 (Li et al., AAAI 2025, arXiv 2412.14719) at full size.

  python launch.py --config=configs/ma52.py --workdir=runs/ma52
  python launch.py --config=configs/ma52.py:posec3d_pose --workdir=runs/baseline_pose

The variant after the colon is `pcan` (default) or the PoseConv3D baseline `posec3d`, which has no
prototypes and no hierarchical loss; `_rgb` or `_pose` behind either leaves one stream. What the
paper reports on the test split, in %, and the cost of one training step per 224 px clip:

  variant        body top-1  action top-1  F1 mean
  pcan                82.30         66.74    69.97
  pcan_rgb            79.36         60.03    63.76
  pcan_pose           76.99         56.51    61.78
  posec3d             80.95         63.52    66.66
  posec3d_rgb         77.77         56.30    59.93
  posec3d_pose        74.60         50.93    55.98
"""

from ml_collections import ConfigDict

STREAMS = {"": ("rgb", "pose"), "rgb": ("rgb",), "pose": ("pose",)}


def get_config(variant: str = "pcan") -> ConfigDict:
  """The full-size config; every other config is this one with some values changed.

  Raises:
    ValueError: there is no such variant.
  """
  method, _, stream = variant.partition("_")
  if method not in ("pcan", "posec3d") or stream not in STREAMS:
    names = [f"{m}{'_' if s else ''}{s}" for m in ("pcan", "posec3d") for s in STREAMS]
    raise ValueError(f"no variant {variant!r}; there are {', '.join(names)}")

  config = ConfigDict()
  config.seed = 0
  config.log_every = 20

  config.data = ConfigDict()
  config.data.path = "datasets/ma52"
  config.data.instructions = (
    "MA-52 is under licence. Ask for access at https://huggingface.co/datasets/kunli-cs/MA-52 and "
    "https://huggingface.co/datasets/kunli-cs/MA-52_openpose_28kp, arrange the files as "
    "docs/DATA.md shows, then run: python -m data.build SOURCE datasets/ma52 --side 256"
  )
  config.data.train_split = "train"
  config.data.eval_split = "val"

  config.input = ConfigDict()
  config.input.rgb_frames = 8
  config.input.pose_frames = 32
  config.input.train_size = 224
  config.input.test_size = 256
  config.input.heatmap_scale = 4  # RGB pixels per heatmap pixel
  config.input.sigma = 0.7
  config.input.max_persons = 1

  config.augmentation = ConfigDict()
  config.augmentation.crop_area = (0.56, 1.0)
  config.augmentation.crop_aspect = (3 / 4, 4 / 3)
  config.augmentation.flip = 0.5
  config.augmentation.rotation = 0.0
  config.augmentation.scale_jitter = 0.0
  config.augmentation.keypoint_noise = 0.0

  config.model = ConfigDict()
  config.model.streams = STREAMS[stream]
  config.model.fusion = "lateral"
  config.model.lateral_stride = 4
  config.model.prototypes = method == "pcan"
  config.model.action_embedding = 256
  config.model.body_embedding = 128
  config.model.dropout = 0.5
  config.model.pool_embedding = "mean"
  config.model.dtype = "float32"
  config.model.rgb = ConfigDict()
  config.model.rgb.stem_features = 64
  config.model.rgb.stem_strides = (2, 2)
  config.model.rgb.stem_pool = True
  config.model.rgb.stem_pool_stride = 2
  config.model.rgb.blocks = (3, 4, 6, 3)
  config.model.rgb.widths = (64, 128, 256, 512)
  config.model.rgb.spatial_strides = (1, 2, 2, 2)
  config.model.rgb.temporal_kernels = (1, 1, 3, 3)
  config.model.pose = ConfigDict()
  config.model.pose.stem_features = 32
  config.model.pose.stem_strides = (1, 1)
  # The paper has no pooling here; the published weights were trained with one that keeps the size.
  config.model.pose.stem_pool = True
  config.model.pose.stem_pool_stride = 1
  config.model.pose.blocks = (4, 6, 3)
  config.model.pose.widths = (32, 64, 128)
  config.model.pose.spatial_strides = (2, 2, 2)
  config.model.pose.temporal_kernels = (1, 3, 3)

  # Without prototypes the last two have nothing to act on.
  config.loss = ConfigDict()
  config.loss.ce_weight = 1.0
  config.loss.hp_weight = 1.0 if method == "pcan" else 0.0
  config.loss.hp_lambda = 1.0
  config.loss.pcc_weight = 1.0 if method == "pcan" else 0.0
  config.loss.pcc_temperature = 0.125
  config.loss.pcc_alpha = (1.0, 0.5, 0.1)
  config.loss.pcc_alpha_scales = "loss"
  config.loss.pcc_covers = "sets"
  config.loss.pda_weight = 5.0 if method == "pcan" else 0.0
  config.loss.pda_gradient = True
  config.loss.prototype_momentum = 0.9

  config.optimizer = ConfigDict()
  config.optimizer.batch_size = 10
  config.optimizer.epochs = 40.0
  config.optimizer.learning_rate = 0.0075
  config.optimizer.learning_rate_batch_size = 10  # the rate grows in proportion to batch_size
  config.optimizer.warmup_epochs = 0.0
  config.optimizer.schedule = "step"
  config.optimizer.decay_epochs = (15.0, 30.0)
  config.optimizer.momentum = 0.9
  config.optimizer.nesterov = False
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 0.0  # 0 does not clip

  config.eval = ConfigDict()
  config.eval.every_epochs = 5.0
  config.eval.batch_size = 16
  config.eval.num_clips = 10
  config.eval.gamma = ConfigDict({"rgb": 1.0, "pose": 5.0})

  config.checkpoints = ConfigDict()
  config.checkpoints.every_epochs = 1.0
  config.checkpoints.keep = 2
  return config

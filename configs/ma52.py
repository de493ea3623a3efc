"""PCAN on MA-52 (Li et al., AAAI 2025, arXiv 2412.14719) at full size, with the paper's values.

  pcan --config=ma52 --workdir=runs/ma52
  pcan --config=ma52:posec3d_pose --workdir=runs/baseline_pose

Variants, after the colon:

  pcan      the paper's PCAN: RGBPoseConv3D with prototypes and the hierarchical loss.
  posec3d   the paper's baseline, RGBPoseConv3D without either.
  release   the network of the published checkpoint, with the losses and the schedule of its code:
            features are exchanged by attention, calibration covers every clip, 30 epochs.

  vit       past the paper: VideoMAE's ViT-B in place of the RGB stream, alone, fine-tuned by its
            recipe (docs/VIDEOMAE.md). `vit_pcan` adds prototypes, `vit_pcan_pose` the pose stream.

The suffix `_rgb` or `_pose` to either of the first two selects one stream. docs/REPRODUCE.md has
the paper's results, and its training in three steps.

The cost of a variant: millions of parameters, and 10^9 operations of the forward pass of one 224 px
clip as XLA counts them, excluding those on padding. Including padding, as 2 x MAC is usually
counted, the release needs 122.8.

  variant        parameters  operations
  pcan                37.15       113.9
  pcan_rgb            32.54        79.2
  pcan_pose            2.24        25.2
  posec3d             36.16       113.9
  posec3d_rgb         31.76        79.2
  posec3d_pose         2.04        25.2
  release             39.12       117.2
  vit                 86.27       366.6
  vit_pcan            86.57       366.6
  vit_pcan_pose       88.81       391.8
"""

from ml_collections import ConfigDict

STREAMS = {"": ("rgb", "pose"), "rgb": ("rgb",), "pose": ("pose",)}
VARIANTS = (
  "pcan",
  "pcan_rgb",
  "pcan_pose",
  "posec3d",
  "posec3d_rgb",
  "posec3d_pose",
  "release",
  "vit",
  "vit_pcan",
  "vit_pcan_pose",
)


def get_config(variant: str = "pcan") -> ConfigDict:
  """The full-size config, from which every other config is derived.

  Raises:
    ValueError: there is no such variant.
  """
  if variant not in VARIANTS:
    raise ValueError(f"no variant {variant!r}; there are {', '.join(VARIANTS)}")
  method, _, stream = variant.removeprefix("vit_").partition("_")
  has_prototypes = method not in ("posec3d", "vit")

  config = ConfigDict()
  config.seed = 0
  config.log_every = 20
  config.log_gradients = 0  # every so many steps, the gradient of each term of the loss; 0 is never

  # Initial weights: the working directory of one run with all streams of this network, or of one
  # run per stream. Empty for random weights.
  config.init_from = ConfigDict({"checkpoint": "", "rgb": "", "pose": ""})

  config.data = ConfigDict()
  config.data.path = "datasets/ma52"
  config.data.instructions = (
    "MA-52 is under licence. Ask for access at https://huggingface.co/datasets/kunli-cs/MA-52 and "
    "https://huggingface.co/datasets/kunli-cs/MA-52_openpose_28kp, arrange the files as "
    "docs/DATA.md shows, then run: pcan build SOURCE datasets/ma52 --side 256"
  )
  config.data.train_split = "train"  # or several, such as "train+val"
  config.data.eval_split = "val"
  config.data.held_out = ()  # persons who make up the split val instead, as --folds=person does
  config.data.label_share = 1.0  # of each action's clips; an epoch stays as long
  config.data.sampling = "uniform"  # or "class_balanced", or "repeat"
  config.data.repeat_threshold = 0.01  # "repeat" repeats actions with a smaller share of clips

  config.input = ConfigDict()
  config.input.rgb_frames = 8
  config.input.pose_frames = 32
  config.input.train_size = 224
  config.input.test_size = 256
  config.input.heatmap_scale = 4  # RGB pixels per heatmap pixel
  config.input.heatmaps = "joints"  # or "limbs", or "both"
  config.input.sigma = 0.7
  config.input.max_persons = 1

  config.augmentation = ConfigDict()
  config.augmentation.crop_area = (0.56, 1.0)
  config.augmentation.crop_aspect = (3 / 4, 4 / 3)
  config.augmentation.flip = 0.5  # share of clips; None leaves it to the labels
  config.augmentation.rotation = 0.0
  config.augmentation.scale_jitter = 0.0
  config.augmentation.keypoint_noise = 0.0
  # Each clip is mixed with another one, of which it gets a share from Beta(mixup, mixup), at most
  # half; 0 mixes nothing.
  config.augmentation.mixup = 0.0

  config.model = ConfigDict()
  config.model.streams = STREAMS[stream]
  config.model.fusion = "lateral"
  config.model.lateral_stride = 4
  # Whether the average of the streams' probabilities has a learned weight, or equal ones.
  config.model.learned_fusion = False
  config.model.prototypes = has_prototypes
  config.model.action_embedding = 256
  config.model.body_embedding = 128
  config.model.dropout = 0.5
  config.model.pool_embedding = "mean"
  config.model.cosine_scale = 0.0  # of classifiers by cosine, such as 16; 0 is linear classifiers
  config.model.dtype = "float32"
  # Of float32 products on GPUs (TF32 by default) and TPUs: "default", "high" or "highest".
  config.model.matmul_precision = "default"
  # What the backward pass recomputes to save memory: "none", "norms", or whole "blocks".
  config.model.remat = "none"
  config.model.rgb = ConfigDict()
  config.model.rgb.kind = "slowonly"
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
  # Not in the paper, but the published weights were trained with a pool that keeps the size.
  config.model.pose.stem_pool = True
  config.model.pose.stem_pool_stride = 1
  config.model.pose.blocks = (4, 6, 3)
  config.model.pose.widths = (32, 64, 128)
  config.model.pose.spatial_strides = (2, 2, 2)
  config.model.pose.temporal_kernels = (1, 3, 3)

  # The calibrating and the diversity loss need prototypes.
  config.loss = ConfigDict()
  config.loss.ce_weight = 1.0
  config.loss.label_smoothing = 0.0
  config.loss.hp_weight = 1.0 if has_prototypes else 0.0
  config.loss.hp_lambda = 1.0
  config.loss.pcc_weight = 1.0 if has_prototypes else 0.0
  config.loss.pcc_ramp_steps = 0
  config.loss.pcc_temperature = 0.125
  config.loss.pcc_alpha = (1.0, 0.5, 0.1)
  config.loss.pcc_alpha_scales = "loss"
  config.loss.pcc_fp_weight = 1.0
  config.loss.pcc_body_weight = 1.0
  config.loss.pcc_covers = "sets"
  config.loss.pda_weight = 5.0 if has_prototypes else 0.0
  config.loss.pda_gradient = True
  config.loss.pda_of = "prototypes"  # or "means", or "embeddings"
  config.loss.pda_between = "all"  # or "siblings"
  config.loss.pda_centred = False
  config.loss.prototype_momentum = 0.9
  config.loss.prototype_samples = "true_positives"  # or "all"
  config.loss.prototype_start = "normal"  # or "zero"
  config.loss.prototype_on_sphere = False
  # Ingredients of other methods, none of which is in the paper; 0 switches each off.
  config.loss.logit_adjustment = 0.0  # tau; rare actions and body parts get larger margins
  config.loss.class_balance = 0.0  # beta of the effective number of clips, such as 0.999
  config.loss.soft_f1_weight = 0.0
  config.loss.frame_weight = 0.0  # of a classifier of every time step
  config.loss.margin = 0.0  # in logits, by which the true class must win

  config.optimizer = ConfigDict()
  config.optimizer.name = "sgd"  # or "adamw"
  config.optimizer.batch_size = 10
  config.optimizer.epochs = 40.0
  config.optimizer.least_steps = 0  # more epochs, if there are too few clips for so many steps
  config.optimizer.learning_rate = 0.0075
  config.optimizer.learning_rate_batch_size = 10  # the rate scales with batch_size
  config.optimizer.warmup_epochs = 0.0
  config.optimizer.schedule = "step"
  config.optimizer.decay_epochs = (15.0, 30.0)
  config.optimizer.momentum = 0.9  # of SGD
  config.optimizer.nesterov = False
  config.optimizer.betas = (0.9, 0.999)  # of AdamW
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 0.0  # 0 switches clipping off
  config.optimizer.layer_decay = 1.0  # the rate of each layer is this times that of the next one
  # What is evaluated and kept is this much of its last value and the rest of the parameters; 0 is
  # the parameters themselves.
  config.optimizer.ema = 0.0

  config.eval = ConfigDict()
  config.eval.every_epochs = 5.0
  config.eval.batch_size = 20  # clips, not videos
  config.eval.num_clips = 10
  config.eval.flip = False  # average with mirrored clips; None does so if training mirrors
  config.eval.gamma = ConfigDict({"rgb": 1.0, "pose": 5.0})

  # Events in long recordings; `pcan tune_events` finds the values for a model and its coders. Times
  # are in seconds, see `pcan_jax.prediction.events`.
  config.events = ConfigDict()
  config.events.window = 2.0
  config.events.stride = 0.5
  config.events.num_clips = 1
  config.events.smoothing = 0.5
  config.events.onset = 0.3
  config.events.offset = 0.2
  config.events.shortest = 0.5
  config.events.bridge = 0.5
  config.events.overlapping = False
  config.events.background = "background"
  config.events.max_distance = 2.0  # from the prototypes, 0 to 2; 2 switches it off

  config.checkpoints = ConfigDict()
  config.checkpoints.every_epochs = 1.0
  config.checkpoints.every_minutes = 30.0  # 0 switches it off
  config.checkpoints.keep = 2  # the best is kept beside these

  if variant == "release":
    _follow_release(config)
  if variant.startswith("vit"):
    _follow_videomae(config, ("rgb", "pose") if stream == "pose" else ("rgb",))
  return config


def _follow_release(config: ConfigDict) -> None:
  """Sets the values in which the authors' code differs from their paper."""
  config.model.fusion = "lateral_attention"
  config.model.pool_embedding = "max"
  config.loss.pcc_weight = 1 / 5
  config.loss.pcc_alpha_scales = "logits"
  config.loss.pcc_covers = "batch"
  config.loss.pda_weight = 1 / 5
  config.loss.pda_gradient = False
  config.optimizer.epochs = 30.0
  config.optimizer.decay_epochs = (10.0, 20.0)
  config.optimizer.clip_norm = 40.0
  config.eval.gamma.update(rgb=5.0, pose=1.0)


def _follow_videomae(config: ConfigDict, streams: tuple[str, ...]) -> None:
  """Sets VideoMAE's ViT-B, which is pretrained, and the recipe by which it is fine-tuned."""
  config.input.rgb_frames = 16
  config.input.test_size = 224
  config.model.streams = streams
  config.model.fusion = "late"
  config.model.learned_fusion = len(streams) == 2
  config.model.dropout = 0.0
  config.model.rgb = ConfigDict()
  config.model.rgb.kind = "videomae"
  config.model.rgb.width = 768  # ViT-S: 384, ViT-L: 1024
  config.model.rgb.depth = 12  # ViT-L: 24
  config.model.rgb.heads = 12  # ViT-S: 6, ViT-L: 16
  config.model.rgb.mlp_width = 3072  # ViT-S: 1536, ViT-L: 4096
  config.model.rgb.patch = 16
  config.model.rgb.tubelet = 2
  config.model.rgb.position_grid = (8, 14, 14)  # of 16 frames with 224 px
  config.model.rgb.drop_path = 0.1
  config.loss.label_smoothing = 0.1
  config.optimizer.name = "adamw"
  config.optimizer.batch_size = 32
  config.optimizer.learning_rate = 1e-3
  config.optimizer.learning_rate_batch_size = 256
  config.optimizer.warmup_epochs = 5.0
  config.optimizer.schedule = "cosine"
  config.optimizer.weight_decay = 0.05
  config.optimizer.layer_decay = 0.75
  config.optimizer.ema = 0.999

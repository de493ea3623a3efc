"""What a model is made for, and what follows from it.

Training, evaluation, prediction, export and the benchmarks all take the network, its inputs and its
predict function from here, so that they cannot differ.
"""

import contextlib
import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.typing import ArrayLike
from jaxtyping import UInt32
from ml_collections import ConfigDict

from pcan_jax.clips.sampling import FrameSampling
from pcan_jax.config import load_config
from pcan_jax.config_ranges import require_ranges
from pcan_jax.inputs import Augmentation, Preprocessing, preprocess
from pcan_jax.keypoints import KeypointLayout
from pcan_jax.labels import LabelTree
from pcan_jax.method.class_balance import Balance, balances
from pcan_jax.method.loss_config import LossConfig
from pcan_jax.method.rectification import rectify
from pcan_jax.network.forms import Forms, for_platform
from pcan_jax.network.masked_autoencoder import MaskedAutoencoder, build_masked_autoencoder
from pcan_jax.network.pcan import PCAN, Outputs, build_model, rgb_share

PyTree = Any

HostOutputs = dict[str, dict[str, dict[str, np.ndarray]]]
"""By branch, level and kind what `ModelSpec.predict` returns, on the host."""


@dataclasses.dataclass(frozen=True, eq=False)
class ModelSpec:
  """What a model is made for: config, labels, keypoints and stored size.

  Checkpoints store it as their item `description`.

  Attributes:
    config: the complete config of the run; what it leaves to the labels is decided here.
    tree: the labels.
    layout: the keypoints.
    stored_size: side in pixels of the stored frames.
    action_counts: training clips of every action, if the losses depend on them; else empty.
    forms: of operations; None are those for the backend in use.

  Raises:
    ValueError: a value of the config is invalid; the message names the field.
  """

  config: ConfigDict
  tree: LabelTree
  layout: KeypointLayout
  stored_size: int
  action_counts: tuple[int, ...] = ()
  forms: Forms | None = None

  def __post_init__(self) -> None:
    require_ranges(self.config)
    object.__setattr__(self, "config", _with_mirrors(self.config, self.tree))
    if self.config.eval.flip:
      self._require_mirrors()

  def _require_mirrors(self) -> None:
    """Refuses to test with mirrored clips where they are other actions, or cannot be made."""
    if self.reads_features:
      raise ValueError("eval.flip must be False for stored features, which cannot be mirrored")
    if self.tree.mirrored and not self.config.augmentation.flip:
      one, other = self.tree.mirrored[0]
      raise ValueError(
        f"eval.flip tests with mirrored clips, in which {one!r} looks like {other!r}. Leave it "
        "off; or, if left and right are not to be told apart, train with mirrored clips, too "
        "(augmentation.flip above 0)"
      )

  @property
  def pretrains(self) -> bool:
    """Whether this is masked video modelling, which has no classes and predicts none."""
    return "decoder" in self.config.model

  @property
  def method(self) -> str:
    """What models like this are called."""
    rgb = self.config.model.rgb.kind if "rgb" in self.config.model.streams else "slowonly"
    network = {"slowonly": "PoseConv3D", "videomae": "VideoMAE", "features": "stored features"}[rgb]
    if self.config.model.prototypes:
      return "PCAN" if rgb == "slowonly" else f"PCAN on {network}"
    both = rgb != "slowonly" and "pose" in self.config.model.streams
    return f"{network} and PoseConv3D" if both else network

  @property
  def reads_features(self) -> bool:
    """Whether the RGB stream reads stored features instead of frames."""
    return "rgb" in self.config.model.streams and self.config.model.rgb.kind == "features"

  @functools.cached_property
  def model(self) -> PCAN | MaskedAutoencoder:
    """The network."""
    forms = self.forms or for_platform(jax.default_backend())
    if self.pretrains:
      return build_masked_autoencoder(self.config.model, forms)
    return build_model(
      self.config.model,
      self.tree,
      forms,
      prototype_start=self.losses.prototype_start,
      frames=self.losses.frame_weight != 0,
    )

  @property
  def losses(self) -> LossConfig:
    """Weights and options of the losses."""
    return LossConfig(**self.config.loss)

  @property
  def balances(self) -> dict[str, Balance] | None:
    """What rare classes get in training, by level; None if that is nothing.

    Raises:
      ValueError: it needs `action_counts`, and there are none.
    """
    return balances(
      self.action_counts,
      self.tree.parents,
      tau=self.losses.logit_adjustment,
      beta=self.losses.class_balance,
    )

  @functools.cached_property
  def train_preprocessing(self) -> Preprocessing:
    """Of training, with augmentation."""
    augmentation = Augmentation(**self.config.augmentation)
    return self._preprocessing(self.config.input.train_size, augmentation)

  @functools.cached_property
  def test_preprocessing(self) -> Preprocessing:
    """Of evaluation and prediction."""
    return self._preprocessing(self.config.input.test_size, None)

  def matmul_precision(self) -> contextlib.AbstractContextManager[Any]:
    """In which products are computed with the config's precision; for tracing.

    Without it, a GPU rounds the factors of float32 products to TF32 (10 bits), a TPU to bfloat16
    (7 bits). Losses, statistics and keypoints ask for more where they need it.
    """
    precision = self.config.model.matmul_precision
    if precision not in ("default", "high", "highest"):
      raise ValueError(
        f"model.matmul_precision must be default, high or highest, not {precision!r}"
      )
    return jax.default_matmul_precision(precision)

  def _preprocessing(self, size: int, augmentation: Augmentation | None) -> Preprocessing:
    config = self.config.input
    if size % config.heatmap_scale:
      raise ValueError(
        f"input sizes must be multiples of input.heatmap_scale={config.heatmap_scale}, not {size}"
      )
    return Preprocessing(
      stored_size=self.stored_size,
      rgb_size=size,
      heatmap_size=size // config.heatmap_scale,
      layout=self.layout,
      sigma=config.sigma,
      heatmaps=config.heatmaps,
      augmentation=augmentation,
      dtype=self.config.model.dtype,
    )

  def frame_sampling(self, num_clips: int | None) -> FrameSampling:
    """Which frames of a video are the model's input.

    Args:
      num_clips: test clips per video; None is one random clip, as in training.
    """
    streams = self.config.model.streams
    rgb = self.config.input.rgb_frames if "rgb" in streams else 0
    return FrameSampling(
      rgb_frames=0 if self.reads_features else rgb,
      pose_frames=self.config.input.pose_frames if "pose" in streams else 0,
      num_clips=num_clips,
      max_persons=self.config.input.max_persons,
      features=rgb if self.reads_features else 0,
    )

  def batch_shapes(self, *leading: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of a batch for `predict` or, with `action` added, for a training step.

    Args:
      *leading: axes before that of the frames: (B, K) for `predict`, (B,) for training; an axis
        may be symbolic (`jax.export.symbolic_shape`).
    """
    sampling, side = self.frame_sampling(None), self.stored_size
    shapes = {}
    if sampling.rgb_frames:
      frames = (*leading, sampling.rgb_frames, side, side, 3)
      shapes["rgb"] = jax.ShapeDtypeStruct(frames, np.uint8)
    if sampling.features:
      vectors = (*leading, sampling.features, self.config.model.rgb.size)
      shapes["features"] = jax.ShapeDtypeStruct(vectors, np.float32)
    if sampling.pose_frames:
      persons, joints = sampling.max_persons, self.layout.num_keypoints
      scores = (*leading, sampling.pose_frames, persons, joints)
      shapes["keypoints"] = jax.ShapeDtypeStruct((*scores, 2), np.float32)
      shapes["keypoint_scores"] = jax.ShapeDtypeStruct(scores, np.float32)
    return shapes

  def init(self, seed: UInt32[ArrayLike, ""] | int = 0) -> dict[str, PyTree]:
    """Fresh variables: the collections `params`, `batch_stats` and `prototypes`."""
    sampling, sizes = self.frame_sampling(None), self.test_preprocessing
    inputs = {}
    if sampling.rgb_frames:
      inputs["rgb"] = jnp.zeros((1, sampling.rgb_frames, sizes.rgb_size, sizes.rgb_size, 3))
    if sampling.features:
      inputs["rgb"] = jnp.zeros((1, sampling.features, self.config.model.rgb.size))
    if sampling.pose_frames:
      heatmaps = (sizes.heatmap_size, sizes.heatmap_size, len(sizes.heatmap_channels))
      inputs["heatmaps"] = jnp.zeros((1, sampling.pose_frames, *heatmaps))
    variables = self.model.init(jax.random.key(seed), inputs, train=False)
    return {"batch_stats": {}, "prototypes": {}} | dict(variables)

  def predict(self, variables: PyTree, batch: dict[str, jax.Array]) -> Outputs:
    """The model's outputs for a batch of videos, averaged over the clips of each.

    Args:
      variables: `params`, `batch_stats`, `prototypes`.
      batch: `rgb` uint8 [B, K, T, S, S, 3] or `features` [B, K, T, D], and/or `keypoints`
        [B, K, T', M, V, 2] in pixels of the stored frames with `keypoint_scores`
        [B, K, T', M, V], of K clips per video.

    Returns:
      Per stream and level (`action`, `body`) the `logits` [B, C], those of actions rectified by the
      prototypes (PCAN eq. 10 and 11), their softmax as `probabilities` [B, C] and, with prototypes,
      the `embedding` [B, D]. Under `fused`, the mean of the streams' probabilities, weighted if
      the fusion is learned. With `eval.flip`, all are averaged with those of the mirrored clips.

    Raises:
      ValueError: the model is one of pretraining.
    """
    if self.pretrains:
      raise ValueError(
        "the model comes from pretraining and has no classes yet; train one that starts from it, "
        "such as --config=ma52:vit_pcan --config.init_from.rgb=DIR"
      )
    num_clips = next(iter(batch.values())).shape[1]
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in batch.items()}
    outputs = self._predict_clips(variables, flat, mirrored=False)
    if self.config.eval.flip:
      mirrored = self._predict_clips(variables, flat, mirrored=True)
      outputs = jax.tree.map(lambda one, other: (one + other) / 2, outputs, mirrored)
    return jax.tree.map(
      lambda values: values.reshape(-1, num_clips, values.shape[-1]).mean(axis=1), outputs
    )

  def _predict_clips(
    self, variables: PyTree, batch: dict[str, jax.Array], *, mirrored: bool
  ) -> Outputs:
    """What `predict` returns, of every clip of a batch without an axis for them."""
    inputs = preprocess(batch, self.test_preprocessing, mirrored=mirrored)
    with self.matmul_precision():
      outputs = self.model.apply(variables, inputs, train=False)
    gamma = self.config.eval.gamma
    for stream, levels in outputs.items():
      if self.model.has_prototypes:
        action = levels["action"]
        action["logits"] = rectify(
          action["logits"],
          action["embedding"],
          variables["prototypes"][stream]["action"],
          gamma[stream],
        )
      for output in levels.values():
        output["probabilities"] = jax.nn.softmax(output["logits"])
    return {"fused": _fuse(outputs, self.model.learned_fusion, variables)} | outputs

  def to_json(self) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    return {
      "config": json.loads(self.config.to_json_best_effort()),
      "tree": self.tree.to_dict(),
      "layout": self.layout.to_dict(),
      "stored_size": self.stored_size,
    } | ({"action_counts": list(self.action_counts)} if self.action_counts else {})

  @classmethod
  def from_json(cls, spec: dict[str, Any]) -> "ModelSpec":
    """Inverse of `to_json`; fields that an earlier version lacked get their defaults."""
    config, given = load_config("ma52"), _with_tuples(spec["config"])
    config.unlock()
    if given["model"]["rgb"].get("kind", "slowonly") != config.model.rgb.kind:
      config.model.rgb = {}  # which has other fields
    config.update(given)
    return cls(
      config=config,
      tree=LabelTree.from_dict(spec["tree"]),
      layout=KeypointLayout.from_dict(spec["layout"]),
      stored_size=spec["stored_size"],
      action_counts=tuple(spec.get("action_counts", ())),
    )


def flatten_outputs(outputs: HostOutputs) -> dict[str, np.ndarray]:
  """Arrays by `BRANCH/LEVEL/KIND`, as files hold them."""
  return {"/".join(path): array for path, array in traverse_util.flatten_dict(outputs).items()}


def unflatten_outputs(arrays: dict[str, np.ndarray]) -> HostOutputs:
  """Inverse of `flatten_outputs`; arrays without a branch are left out."""
  flat = {tuple(name.split("/")): array for name, array in arrays.items() if "/" in name}
  return traverse_util.unflatten_dict(flat)


def _with_mirrors(config: ConfigDict, tree: LabelTree) -> ConfigDict:
  """A config that says whether clips are mirrored; where it is None, the labels decide.

  Half of the training clips are if no action is named after a side, and clips in tests if those in
  training are.
  """
  if config.augmentation.flip is not None and config.eval.flip is not None:
    return config
  config = config.copy_and_resolve_references()
  if config.augmentation.flip is None:
    config.augmentation.flip = 0.0 if tree.of_a_side else 0.5
  if config.eval.flip is None:
    config.eval.flip = config.augmentation.flip > 0
  return config


def _with_tuples(value: Any) -> Any:
  """Turns JSON's lists into tuples, as modules made of a config must be hashable."""
  if isinstance(value, dict):
    return {name: _with_tuples(inner) for name, inner in value.items()}
  return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _fuse(outputs: Outputs, learned: bool, variables: PyTree) -> dict[str, dict[str, jax.Array]]:
  """The mean of the streams' probabilities, per level, or their average with a learned weight."""
  if learned:
    fused = {}
    for level in outputs["rgb"]:
      share = rgb_share(variables["params"], level)
      rgb, pose = (outputs[stream][level]["probabilities"] for stream in ("rgb", "pose"))
      fused[level] = {"probabilities": share * rgb + (1 - share) * pose}
    return fused
  # The order of the sum decides the last bit: that in which JAX orders dicts.
  streams = [outputs[stream] for stream in sorted(outputs)]
  return {
    level: {"probabilities": sum(s[level]["probabilities"] for s in streams) / len(streams)}
    for level in streams[0]
  }

"""AdamW, rates by layer, label smoothing, mixup and the moving average of the parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pcan_jax.config import load_config
from pcan_jax.inputs import mix
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import get_tree
from pcan_jax.method import losses
from pcan_jax.method.losses import Mixed
from pcan_jax.spec import ModelSpec
from pcan_jax.training.optimizer import build_optimizer, layer_scales
from pcan_jax.training.step import init_state, train_step
from tests.paper import LOSSES
from tests.tiny_config import shrink

LOGITS = jnp.array([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
LABELS = jnp.array([0, 2])


def test_smoothing_spreads_the_target():
  target = 0.9 * jax.nn.one_hot(LABELS, 3) + 0.1 / 3
  wanted = optax.softmax_cross_entropy(LOGITS, target).mean()
  found = losses.cross_entropy(LOGITS, LABELS, smoothing=0.1)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  with pytest.raises(ValueError, match="loss.label_smoothing must be at least 0 and below 1"):
    dataclasses.replace(LOSSES, label_smoothing=1.0)


def test_mixed_clips_have_mixed_targets():
  mixed = Mixed(jnp.array([1, 2]), jnp.array([0.25, 0.4]))
  target = jnp.array([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]])
  wanted = optax.softmax_cross_entropy(LOGITS, target).mean()
  np.testing.assert_allclose(losses.cross_entropy(LOGITS, LABELS, mixed=mixed), wanted, rtol=1e-6)


def test_mixing_nothing_in_changes_no_loss():
  """And the sets and prototypes are those of a clip's own label, whatever is mixed in."""
  rng = np.random.default_rng(0)
  outputs = {
    level: {
      "logits": rng.standard_normal((4, classes), np.float32),
      "embedding": rng.standard_normal((4, 5), np.float32),
    }
    for level, classes in (("action", 3), ("body", 2))
  }
  outputs = jax.tree.map(jnp.asarray, outputs)
  prototypes = {"action": jnp.ones((3, 5)), "body": jnp.ones((2, 5))}
  action = jnp.array([0, 1, 2, 0])
  run = jax.jit(functools.partial(losses.stream_loss, parents=(0, 0, 1), config=LOSSES))
  plain, nothing, half = (
    run(outputs, prototypes, action=action, mixed=mixed)
    for mixed in (
      None,
      Mixed(jnp.roll(action, 1), jnp.zeros(4)),
      Mixed(jnp.roll(action, 1), jnp.full(4, 0.5)),
    )
  )
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), nothing, plain)
  jax.tree.map(np.testing.assert_array_equal, half[2], plain[2])
  for name in plain[1]:
    differs = name in ("ce_action", "ce_body", "hp")
    assert (float(half[1][name]) != float(plain[1][name])) == differs, name


def test_clips_are_mixed_with_the_one_before():
  values = jnp.arange(64.0).reshape(64, 1, 1)
  inputs = {"rgb": values, "heatmaps": 2 * values[..., 0]}
  keys = jax.random.split(jax.random.key(0), 64)
  mixed, share = mix(inputs, 0.8, keys)
  assert share.min() >= 0
  assert 0.3 < share.max() <= 0.5
  for name, x in inputs.items():
    weight = np.asarray(share).reshape(-1, *(1,) * (x.ndim - 1))
    wanted = (1 - weight) * x + weight * np.roll(x, 1, axis=0)
    np.testing.assert_allclose(mixed[name], wanted, rtol=1e-6)
  np.testing.assert_array_equal(mix(inputs, 0.8, keys)[1], share)


def test_layers_learn_the_faster_the_later_they_are():
  paths = [
    ("backbone", "rgb_path", "patches", "kernel"),
    ("backbone", "rgb_path", "block1", "mlp1", "kernel"),
    ("backbone", "rgb_path", "block2", "norm1", "scale"),
    ("backbone", "rgb_path", "norm", "scale"),
    ("backbone", "pose_path", "conv1", "bn", "scale"),
    ("backbone", "pose_path", "layer3", "block0", "conv1", "conv", "kernel"),
    ("head_rgb", "action", "kernel"),
  ]
  found = layer_scales(paths, 0.5)
  assert list(found.values()) == [0.125, 0.25, 0.5, 1.0, 0.0625, 0.5, 1.0]


def test_every_layer_of_a_network_has_its_rate():
  config = shrink(load_config("ma52:vit_pcan_pose"))
  spec = ModelSpec(config, get_tree("ma52"), get_layout("openpose-28"), stored_size=32)
  params = jax.eval_shape(spec.init)["params"]
  paths = [
    tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
  ]
  scales = layer_scales(paths, 0.5)
  in_paths = {path: scale for path, scale in scales.items() if path[0] == "backbone"}
  assert {path[2] for path, scale in in_paths.items() if scale == 1} == {"norm"}
  assert all(scale == 1 for path, scale in scales.items() if path not in in_paths)


def optimizer_config(**values):
  config = load_config("ma52").optimizer
  config.update(values)
  return config


def test_adamw_shrinks_kernels_only_and_scales_by_layer():
  params = {
    "backbone": {"rgb_path": {"block1": {"mlp1": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}}},
    "head_rgb": {"action": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}},
  }
  config = optimizer_config(name="adamw", weight_decay=0.5, layer_decay=0.1)
  optimizer = build_optimizer(config, lambda _: 0.1)
  nothing = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(nothing, optimizer.init(params), params)
  mlp, head = updates["backbone"]["rgb_path"]["block1"]["mlp1"], updates["head_rgb"]["action"]
  np.testing.assert_allclose(head["kernel"], -0.05, rtol=1e-6)
  np.testing.assert_allclose(mlp["kernel"], -0.005, rtol=1e-6)
  np.testing.assert_array_equal(jnp.stack([mlp["bias"], head["bias"]]), 0)


@pytest.mark.parametrize(
  "values, message",
  [
    ({"name": "adam"}, "optimizer.name must be sgd or adamw, not 'adam'"),
    ({"layer_decay": 0.0}, "optimizer.layer_decay must be above 0"),
    ({"ema": 1.0}, "optimizer.ema must be at least 0 and below 1"),
  ],
)
def test_unknown_recipes_are_named(values, message):
  with pytest.raises(ValueError, match=message):
    build_optimizer(optimizer_config(**values), lambda _: 0.1)


def test_a_step_with_everything_moves_the_average_behind_the_parameters():
  config = shrink(load_config("ma52:vit_pcan"))
  config.augmentation.mixup = 0.8
  config.model.rgb.drop_path = 0.2
  config.optimizer.ema = 0.5
  spec = ModelSpec(config, get_tree("ma52"), get_layout("openpose-28"), stored_size=32)
  optimizer = build_optimizer(config.optimizer, lambda _: 1e-3)
  rng = np.random.default_rng(0)
  batch = {
    "rgb": rng.integers(0, 256, (8, 2, 32, 32, 3), np.uint8),
    "action": rng.integers(0, 52, 8, np.int32),
    "position": np.arange(8, dtype=np.uint32),
  }
  step = jax.jit(functools.partial(train_step, spec=spec, optimizer=optimizer))
  before = jax.jit(functools.partial(init_state, spec, optimizer))(np.uint32(0))
  first, terms = step(before, batch)
  assert np.isfinite(terms["loss"])
  jax.tree.map(np.testing.assert_array_equal, first.averaged, first.params)
  second = step(first.replace(step=jnp.int32(1000)), batch)[0]
  jax.tree.map(
    lambda average, old, new: np.testing.assert_allclose(average, (old + new) / 2, atol=1e-6),
    second.averaged,
    first.params,
    second.params,
  )
  assert second.model()["params"] is second.averaged
  again = before.restored(second.model(), second.training())
  jax.tree.map(np.testing.assert_array_equal, again, second)


def test_the_weight_of_a_fusion_follows_the_better_stream():
  logits = {"rgb": LOGITS, "pose": jnp.array([[3.0, 0.0, 0.0], [0.0, 0.0, 3.0]])}
  gradient = jax.grad(lambda share: losses.fusion_loss(logits, share, LABELS))(0.5)
  assert gradient > 0  # less of the RGB stream
  probabilities = [jax.nn.softmax(logits[stream])[jnp.arange(2), LABELS] for stream in logits]
  wanted = -np.log(0.3 * probabilities[0] + 0.7 * probabilities[1]).mean()
  found = losses.fusion_loss(logits, jnp.array(0.3), LABELS)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_predictions_are_fused_with_the_learned_weight():
  config = shrink(load_config("ma52:vit_pcan_pose"))
  spec = ModelSpec(config, get_tree("ma52"), get_layout("openpose-28"), stored_size=32)
  shapes = jax.eval_shape(spec.init)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.1, 0.3, x.shape), x.dtype), shapes)
  variables["params"]["fusion_weight"] = jnp.array([1.0, -2.0])
  batch = {
    "rgb": rng.integers(0, 256, (1, 1, 2, 32, 32, 3), np.uint8),
    "keypoints": rng.uniform(0, 32, (1, 1, 8, 1, 28, 2)).astype(np.float32),
    "keypoint_scores": np.ones((1, 1, 8, 1, 28), np.float32),
  }
  found = jax.jit(spec.predict)(variables, batch)
  for level, weight in (("action", 1.0), ("body", -2.0)):
    share = jax.nn.sigmoid(weight)
    rgb, pose, fused = (
      found[branch][level]["probabilities"] for branch in ("rgb", "pose", "fused")
    )
    np.testing.assert_allclose(fused, share * rgb + (1 - share) * pose, rtol=1e-5)

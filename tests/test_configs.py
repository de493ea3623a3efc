"""Every config and variant builds at full size, and takes steps at toy size as it always has."""

import functools
import operator

import jax
import numpy as np
import pytest

from configs import ma52
from pcan_jax.config import load_config
from pcan_jax.config_ranges import RANGES, require_ranges
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import get_tree
from pcan_jax.spec import ModelSpec
from pcan_jax.training.optimizer import learning_rate
from pcan_jax.training.step import compile_step
from tests import golden
from tests.golden.losses import NUM_STEPS, toy_run
from tests.paper import RELEASE_LOSSES

TREE = get_tree("ma52")
GOLDEN = golden.load("losses.json")


@pytest.mark.parametrize("variant", ma52.VARIANTS)
@pytest.mark.parametrize(
  "name",
  [
    "utd_mhad",
    "demo",
    "lookalikes",
    pytest.param("lookalikes_full", marks=pytest.mark.long),
    "small",
  ],
)  # ma52: test_size.py
def test_full_size_networks_can_be_built(name, variant):
  config = load_config(f"{name}:{variant}")
  spec = ModelSpec(config, TREE, get_layout("openpose-28"), stored_size=256)
  variables = jax.eval_shape(spec.init)
  streams = {f"head_{stream}" for stream in config.model.streams}
  fused = {"fusion_weight"} if spec.model.learned_fusion else set()
  assert variables["params"].keys() == {"backbone", *streams} | fused
  assert bool(variables["prototypes"]) == config.model.prototypes
  assert learning_rate(config.optimizer, steps_per_epoch=100.0)(0) >= 0


@pytest.mark.parametrize(
  "variant",
  [
    pytest.param(variant, marks=() if variant == "pcan" else pytest.mark.long)
    for variant in ma52.VARIANTS
  ],
)
def test_losses_of_a_toy_run_are_those_of_before(variant):
  """And every part of the state moves."""
  run = toy_run(variant)
  init, step = compile_step(run.spec, run.schedule, run.mesh)
  after = init()
  before = jax.device_get(after.params)
  losses = []
  for _, batch in zip(range(NUM_STEPS), run.batches()):
    after, terms = step(after, batch)
    losses.append(float(terms["loss"]))
  # Where the RGB stream is alone, rounding decides after two steps which clips are ambiguous.
  stable = 2 if variant.endswith("_rgb") or variant.startswith("vit") else NUM_STEPS
  advice = "if these numbers move on purpose, renew them with `python -m tests.golden` and say why"
  assert losses[:stable] == pytest.approx(GOLDEN[variant][:stable], rel=1e-4), advice
  assert losses == pytest.approx(GOLDEN[variant], rel=0.3), advice
  still = [
    jax.tree_util.keystr(path)
    for (path, old), new in zip(
      jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after.params)
    )
    # The same added to all keys changes no attention.
    if np.array_equal(old, new) and not jax.tree_util.keystr(path).endswith("['key']['bias']")
  ]
  assert still == []


def test_release_follows_its_code():
  config = load_config("ma52:release")
  paper = load_config("ma52:pcan")
  changed = {
    name: value for name, value in RELEASE_LOSSES.__dict__.items() if value != paper.loss[name]
  }
  assert changed == {
    "pcc_weight": 0.2,
    "pcc_alpha_scales": "logits",
    "pcc_covers": "batch",
    "pda_weight": 0.2,
    "pda_gradient": False,
  }
  assert config.eval.gamma.to_dict() == {"rgb": 5.0, "pose": 1.0}
  assert config.model.fusion == "lateral_attention"
  assert config.model.pool_embedding == "max"
  optimizer = config.optimizer
  assert (optimizer.epochs, optimizer.decay_epochs, optimizer.clip_norm) == (30, (10, 20), 40)
  for name in ("learning_rate", "batch_size", "momentum", "weight_decay", "schedule"):
    assert optimizer[name] == paper.optimizer[name]


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("log_every", 0),
    ("input.pose_frames", 0),
    ("input.sigma", 0.0),
    ("model.dropout", 1.5),
    ("loss.ce_weight", -1.0),
    ("optimizer.epochs", float("nan")),
    ("optimizer.momentum", 1.0),
    ("optimizer.learning_rate", float("inf")),
    ("eval.num_clips", 0),
    ("eval.gamma.pose", -5.0),
    ("checkpoints.keep", 0),
  ],
)
def test_numbers_out_of_range_are_named(field, value):
  config = load_config("ma52:pcan_pose")
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=f"^{field} must be "):
    require_ranges(config)


def test_every_number_with_a_range_is_in_the_config():
  config = load_config("ma52")
  for _, fields in RANGES.values():
    for field in fields:
      value = functools.reduce(operator.getitem, field.split("."), config)
      assert isinstance(value, int | float), field

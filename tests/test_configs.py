"""Every config and variant builds at full size and takes a step at toy size."""

import functools
import importlib

import jax
import numpy as np
import pytest

from configs import ma52
from pcan_jax import spec as inference
from pcan_jax.checkpoints import Description
from pcan_jax.evaluation import protocol as evaluate
from pcan_jax.inputs import Augmentation
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.method import losses
from pcan_jax.network.pcan import build_model
from pcan_jax.training import step as train_step
from tests.tiny_config import shrink

TREE = LabelTree.read_csv("data/trees/ma52.csv")
LAYOUT = get_layout("openpose-28")
VARIANTS = ma52.VARIANTS
CASES = [(name, variant) for name in ("ma52", "utd_mhad") for variant in VARIANTS]
CASES.append(("demo", "pcan"))


def get_config(name, variant):
  return importlib.import_module(f"configs.{name}").get_config(variant)


@functools.cache
def init_and_step(name, variant, toy):
  config = get_config(name, variant)
  if toy:
    config = shrink(config)
  description = Description(config, TREE, LAYOUT, stored_size=48)
  model = build_model(config.model, TREE)
  optimizer = train_step.build_optimizer(
    config.optimizer, train_step.learning_rate(config.optimizer, config.optimizer.batch_size, 2.0)
  )
  preprocessing = inference.preprocessing(description, Augmentation(**config.augmentation))
  init = functools.partial(
    train_step.init_state,
    model,
    optimizer,
    inference.example_inputs(model, config.input, preprocessing),
    config.seed,
  )
  step = functools.partial(
    train_step.train_step,
    model=model,
    optimizer=optimizer,
    loss_config=losses.LossConfig(**config.loss),
    preprocessing=preprocessing,
    seed=config.seed,
  )
  rng = np.random.default_rng(0)
  clips = evaluate.clips(config, None)
  size = config.optimizer.batch_size
  batch = {"action": rng.integers(0, TREE.num_actions, size, np.int32)}
  if clips.rgb_frames:
    batch["rgb"] = rng.integers(0, 256, (size, clips.rgb_frames, 48, 48, 3), np.uint8)
  if clips.pose_frames:
    shape = (size, clips.pose_frames, 1, 28)
    batch["keypoints"] = rng.uniform(0, 48, (*shape, 2)).astype(np.float32)
    batch["keypoint_scores"] = np.ones(shape, np.float32)
  return init, step, batch


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_full_size_step_has_consistent_shapes(name, variant):
  init, step, batch = init_and_step(name, variant, toy=False)

  # As dictionaries: the fields of a state are checked to be arrays, and shapes are none.
  def after_step(state, batch):
    return vars(step(train_step.TrainState(**state), batch)[0])

  before = jax.eval_shape(lambda: vars(init()))
  after = jax.eval_shape(after_step, before, batch)
  assert jax.tree.structure(after) == jax.tree.structure(before)
  assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_toy_size_steps_move_every_part_of_the_state(variant):
  init, step, batch = init_and_step("ma52", variant, toy=True)
  # Compiling takes much longer than two steps.
  compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
  before = after = compiled(init)()
  step = compiled(step)
  # In the first step nothing reaches the inside of a block, whose last scale starts at zero.
  for _ in range(2):
    after, terms = step(after, batch)
    assert np.isfinite(float(terms["loss"].compute()))
  assert int(after.step) == 2
  still = [
    jax.tree_util.keystr(path)
    for (path, old), new in zip(
      jax.tree_util.tree_leaves_with_path(before.params), jax.tree.leaves(after.params)
    )
    # The same added to all keys changes no attention.
    if np.array_equal(old, new) and not jax.tree_util.keystr(path).endswith("['key']['bias']")
  ]
  assert still == []
  assert bool(after.prototypes) == (not variant.startswith("posec3d"))


def test_release_follows_its_code():
  config = get_config("ma52", "release")
  assert losses.LossConfig(**config.loss) == losses.RECIPES["release"]
  assert config.eval.gamma.to_dict() == {"rgb": 5.0, "pose": 1.0}
  assert config.model.fusion == "lateral_attention"
  assert config.model.pool_embedding == "max"
  optimizer = config.optimizer
  assert (optimizer.epochs, optimizer.decay_epochs, optimizer.clip_norm) == (30, (10, 20), 40)
  paper = get_config("ma52", "pcan").optimizer
  for name in ("learning_rate", "batch_size", "momentum", "weight_decay", "schedule"):
    assert optimizer[name] == paper[name]


def test_unknown_variant_is_named():
  with pytest.raises(ValueError, match="no variant 'pcan_depth'"):
    get_config("ma52", "pcan_depth")

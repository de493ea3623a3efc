"""What eight devices compute together is what one computes alone."""

import functools

import jax
import numpy as np
import pytest

from configs import ma52
from pcan_jax.checkpoints import load_model
from pcan_jax.evaluation.protocol import Evaluator
from pcan_jax.mesh import data_mesh, replicated, sharded
from pcan_jax.spec import ModelSpec
from pcan_jax.training import loop
from pcan_jax.training.optimizer import build_optimizer
from pcan_jax.training.step import compile_step, init_state
from tests.tiny_checkpoint import write_tiny_checkpoint
from tests.tiny_config import shrink
from tests.tiny_source import TREE

STREAMS = ("rgb", "pose")


def assert_close(found, wanted, rtol, atol):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted)):
    np.testing.assert_allclose(x, y, rtol, atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("variant", ["pcan", pytest.param("release", marks=pytest.mark.long)])
def test_a_step_on_eight_devices_equals_one_on_a_single_device(variant, tiny_dataset):
  """Losses, class means, BatchNorm, prototypes and gradients are those of the global batch."""
  spec = ModelSpec(shrink(ma52.get_config(variant)), TREE, tiny_dataset.layout, stored_size=48)
  rng = np.random.default_rng(0)
  batch = {
    "rgb": rng.integers(0, 256, (8, 2, 48, 48, 3), np.uint8),
    "keypoints": rng.uniform(0, 48, (8, 8, 1, 28, 2)).astype(np.float32),
    "keypoint_scores": np.ones((8, 8, 1, 28), np.float32),
    "action": rng.integers(0, TREE.num_actions, 8, np.int32),
    "position": np.arange(8, dtype=np.uint32),
  }
  found = {}
  schedule = lambda _: 0.01  # noqa: E731
  optimizer = build_optimizer(spec.config.optimizer, schedule)
  state = jax.device_get(jax.jit(functools.partial(init_state, spec, optimizer))(np.uint32(0)))
  # Classifiers that are right here and there, so that prototypes move.
  for stream in STREAMS:
    head = state.params[f"head_{stream}"]
    head["action"]["bias"] = np.float32(100 * (np.arange(TREE.num_actions) == batch["action"][0]))
    head["body"]["bias"] = np.float32(
      100 * (np.arange(TREE.num_bodies) == TREE.parents[batch["action"][0]])
    )
  for count in (1, 8):
    mesh = data_mesh(jax.devices()[:count])
    _, step = compile_step(spec, schedule, mesh)
    on_devices = jax.device_put(batch, sharded(mesh))
    assert len(on_devices["rgb"].sharding.device_set) == count
    found[count] = step(jax.device_put(state, replicated(mesh)), on_devices)
  (one, one_terms), (eight, eight_terms) = found[1], found[8]
  assert_close(eight_terms, one_terms, rtol=2e-4, atol=1e-5)
  assert_close(eight.model(), one.model(), rtol=1e-3, atol=2e-5)
  moved = one.prototypes["rgb"]["action"] != state.prototypes["rgb"]["action"]
  assert np.any(moved, axis=1).sum() == 1


@pytest.mark.parametrize("variant", ["pcan_pose", pytest.param("pcan", marks=pytest.mark.long)])
def test_a_checkpoint_serves_any_number_of_devices(tiny_dataset, tmp_path, monkeypatch, variant):
  """Seven clips on eight devices: the last batch is filled up, and nothing of that is counted."""
  write_tiny_checkpoint(tmp_path, tiny_dataset, variant)

  def evaluate():
    spec, variables, _ = load_model(tmp_path)
    return Evaluator(spec, tiny_dataset)(variables, "val", num_clips=2)

  together = evaluate()
  on_one = functools.partial(data_mesh, jax.devices()[:1])
  monkeypatch.setattr("pcan_jax.checkpoints.data_mesh", on_one)
  monkeypatch.setattr("pcan_jax.evaluation.protocol.data_mesh", on_one)
  alone = evaluate()
  assert together.ids == alone.ids and len(alone.ids) == 7
  assert_close(together.outputs, alone.outputs, rtol=1e-4, atol=1e-5)
  assert_close(together.metrics, alone.metrics, rtol=1e-6, atol=0)


def test_batches_must_divide_among_devices(tiny_dataset, tmp_path):
  config = shrink(ma52.get_config())
  config.data.path = str(tiny_dataset.path)
  config.optimizer.batch_size = 12
  with pytest.raises(ValueError, match="optimizer.batch_size=12 is not divisible by 8 devices"):
    loop.train(config, tmp_path)

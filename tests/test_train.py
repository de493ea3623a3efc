import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from configs import ma52
from pcan_jax.checkpoints import locate
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.saved_steps import find_steps
from pcan_jax.spec import ModelSpec
from pcan_jax.training import loop
from pcan_jax.training.optimizer import build_optimizer, learning_rate, total_steps
from pcan_jax.training.step import init_state, train_step
from tests.tiny_config import shrink

TREE = LabelTree(("nod", "shake", "wave", "point"), ("head", "arm"), (0, 0, 1, 1))
STEPS_PER_EPOCH = 10.0


def make_step(**overrides):
  """A step, and the function that makes its first state."""
  config = shrink(ma52.get_config())
  config.update_from_flattened_dict(overrides)
  spec = ModelSpec(config, TREE, get_layout("openpose-28"), stored_size=32)
  optimizer = build_optimizer(config.optimizer, learning_rate(config.optimizer, STEPS_PER_EPOCH))
  step = functools.partial(train_step, spec=spec, optimizer=optimizer)
  return step, functools.partial(init_state, spec, optimizer, np.uint32(config.seed))


@pytest.fixture(scope="module")
def compiled():
  """A step that can be taken, and the first state."""
  step, init = make_step()
  return jax.jit(step), jax.jit(init)()


def test_seeds_share_a_compiled_program(compiled):
  first, state = compiled
  second, init = make_step(seed=2**32 - 1)
  batch = make_batch()
  assert jax.jit(second).lower(init(), batch).as_text() == first.lower(state, batch).as_text()


def make_batch(seed=0):
  rng = np.random.default_rng(seed)
  return {
    "rgb": rng.integers(0, 256, (8, 2, 32, 32, 3), np.uint8),
    "keypoints": rng.uniform(0, 32, (8, 8, 1, 28, 2)).astype(np.float32),
    "keypoint_scores": np.ones((8, 8, 1, 28), np.float32),
    "action": rng.integers(0, 4, 8, np.int32),
    "position": np.arange(8, dtype=np.uint32),
  }


def test_prototypes_are_state_and_not_parameters(compiled):
  _, state = compiled
  trained = jax.tree_util.tree_leaves_with_path((state.params, state.opt_state))
  assert not [path for path, _ in trained if "prototypes" in jax.tree_util.keystr(path)]
  assert jax.tree.map(jnp.shape, state.prototypes) == {
    stream: {"action": (4, 16), "body": (2, 8)} for stream in ("rgb", "pose")
  }


@pytest.mark.slow
def test_products_have_the_precision_of_the_config_forward_and_backward():
  def precisions(value):
    step, init = make_step(**{"model.matmul_precision": value})
    jaxpr = str(jax.make_jaxpr(step)(jax.eval_shape(init), make_batch()))
    assert "precision=None" not in jaxpr
    return set(re.findall(r"Precision\.(\w+)", jaxpr))

  assert precisions("highest") == {"HIGHEST"}
  assert precisions("default") == {"DEFAULT", "HIGHEST"}
  with pytest.raises(ValueError, match="matmul_precision must be default, high or highest"):
    precisions("low")


def test_prototypes_move_only_where_a_class_has_true_positives(compiled):
  step, state = compiled
  # All clips are of one class and the classifiers always say so.
  batch = make_batch() | {"action": np.full(8, 2, np.int32)}
  params = jax.tree.map(lambda x: x, state.params)  # dictionaries of its own
  for stream in ("rgb", "pose"):
    params[f"head_{stream}"]["action"]["bias"] = jnp.array([0.0, 0.0, 100.0, 0.0])
    params[f"head_{stream}"]["body"]["bias"] = jnp.array([0.0, 100.0])
  after, terms = step(state.replace(params=params), batch)
  for stream in ("rgb", "pose"):
    assert float(terms[f"{stream}/num_tp"]) == 8
    moved = np.any(
      np.asarray(after.prototypes[stream]["action"] != state.prototypes[stream]["action"]), axis=1
    )
    assert moved.tolist() == [False, False, True, False]


def test_steps_are_reproducible_and_differ_by_step(compiled):
  step, state = compiled
  one, again = step(state, make_batch())[0], step(state, make_batch())[0]
  jax.tree.map(np.testing.assert_array_equal, one.params, again.params)
  later = step(state.replace(step=jnp.array(1)), make_batch())[0]
  differs = jax.tree.map(
    lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), one.params, later.params
  )
  assert any(jax.tree.leaves(differs))


@pytest.mark.long
def test_one_batch_can_be_learned():
  step, init = make_step(
    **{"augmentation.flip": 0.0, "model.dropout": 0.0, "optimizer.learning_rate": 0.05}
  )
  step, state = jax.jit(step, donate_argnums=0), jax.jit(init)()
  batch = make_batch()
  for _ in range(60):
    state, terms = step(state, batch)
  assert float(terms["rgb/action_top1"]) == 1
  assert float(terms["pose/action_top1"]) == 1
  assert float(terms["rgb/ce_action"]) < 0.3


def test_weight_decay_acts_on_every_parameter_and_on_no_prototype():
  config = shrink(ma52.get_config()).optimizer
  optimizer = build_optimizer(config, lambda _: 0.1)
  params = {"kernel": jnp.array([2.0]), "bn": {"scale": jnp.array([3.0])}}
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  np.testing.assert_allclose(updates["kernel"], -0.1 * 1e-4 * 2.0, rtol=1e-5)
  np.testing.assert_allclose(updates["bn"]["scale"], -0.1 * 1e-4 * 3.0, rtol=1e-5)


def test_few_clips_get_more_epochs():
  config = ma52.get_config().optimizer
  config.update(schedule="cosine", epochs=10.0, least_steps=100)
  assert total_steps(config, 20.0) == 200
  assert total_steps(config, 2.5) == 100
  rate = learning_rate(config, 2.5)
  assert 0 < rate(60) < rate(30) and rate(100) == pytest.approx(0, abs=1e-6)


def test_learning_rate_schedules():
  config = ma52.get_config().optimizer
  config.batch_size = 20
  step = learning_rate(config, STEPS_PER_EPOCH)
  np.testing.assert_allclose([step(s) for s in (0, 149, 151, 301)], [0.015, 0.015, 1.5e-3, 1.5e-4])
  config.schedule, config.epochs, config.warmup_epochs = "cosine", 20.0, 2.0
  config.batch_size = 10
  cosine = learning_rate(config, STEPS_PER_EPOCH)
  np.testing.assert_allclose(
    [cosine(s) for s in (0, 10, 20, 110, 200)], [0, 0.00375, 0.0075, 0.00375, 0], atol=1e-8
  )
  config.schedule = "linear"
  with pytest.raises(ValueError, match="optimizer.schedule must be"):
    learning_rate(config, STEPS_PER_EPOCH)


@pytest.fixture(scope="module")
def run(tiny_dataset_path, tmp_path_factory):
  """A complete run on real shards: config, working directory, final state."""
  config = shrink(ma52.get_config("pcan_pose"))
  config.data.path = str(tiny_dataset_path)
  workdir = tmp_path_factory.mktemp("run")
  return config, workdir, loop.train(config, workdir)


def test_training_writes_checkpoints_config_and_tensorboard_events(run):
  config, workdir, state = run
  assert locate(workdir)[1] == int(state.step)
  assert (workdir / "config.json").is_file()
  assert "backbone/pose_path" in (workdir / "parameters.txt").read_text()
  events = EventAccumulator(str(workdir)).Reload()
  tags = set(events.Tags()["tensors"])
  assert {"loss", "pose/pcc_action", "pose/num_fn_a1", "learning_rate"} <= tags
  assert "eval/fused/action_top1" in tags
  assert events.Tensors("loss")[-1].step == int(state.step)


@pytest.mark.slow
def test_training_again_resumes_where_an_interrupted_run_was(run, tmp_path):
  config, _, whole = run
  half = config.copy_and_resolve_references()
  half.optimizer.epochs = config.optimizer.epochs / 2
  # The step schedule does not depend on the length of the run, so the halves make the whole.
  first = loop.train(half, tmp_path)
  assert int(first.step) < int(whole.step)
  second = loop.train(config, tmp_path)
  assert int(second.step) == int(whole.step)
  for a, b in zip(jax.tree.leaves(second.model()), jax.tree.leaves(whole.model())):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_another_model_in_the_workdir_is_an_error(run):
  config, workdir, _ = run
  other = config.copy_and_resolve_references()
  other.model.action_embedding = 24
  with pytest.raises(ValueError, match="model.action_embedding: was 16, now 24"):
    loop.train(other, workdir)


def test_a_finished_run_refuses_what_it_would_not_use(run):
  config, workdir, state = run
  assert int(loop.train(config, workdir).step) == int(state.step)
  other = config.copy_and_resolve_references()
  other.eval.gamma.pose = 7.0
  with pytest.raises(ValueError, match=r"is finished, .*eval.gamma.pose=5.0 .*: 7.0 would not"):
    loop.train(other, workdir)


def test_the_best_checkpoint_has_the_highest_f1_mean(run):
  _, workdir, _ = run
  scores = {s.step: s.description["f1_mean"] for s in find_steps(workdir / "checkpoints")}
  assert locate(workdir / "best")[1] == max(scores, key=lambda step: (scores[step], step))
  events = EventAccumulator(str(workdir)).Reload().Tensors("eval/fused/f1_mean")
  assert {e.step: tensor_util.make_ndarray(e.tensor_proto).item() for e in events} == pytest.approx(
    scores
  )

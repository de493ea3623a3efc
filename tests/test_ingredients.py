"""What other methods won with: rare classes, soft F1, time steps, mirrored clips, more splits."""

import dataclasses
import functools
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.study.explain import logged_gradients
from configs import ma52
from pcan_jax.config import load_config
from pcan_jax.evaluation.protocol import evaluate_checkpoint
from pcan_jax.evaluation.results import Results
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.method import losses
from pcan_jax.method.class_balance import adjustment, balances, effective_weights
from pcan_jax.method.classification import Mixed, cross_entropy, soft_f1_loss
from pcan_jax.network.pcan import CosineClassifier, Head
from pcan_jax.report.evaluated_run import read_curves
from pcan_jax.saved_steps import find_steps
from pcan_jax.spec import ModelSpec
from pcan_jax.training import loop, resume, term_gradients, warm_start
from pcan_jax.training.optimizer import build_optimizer
from pcan_jax.training.step import TrainState, init_state, train_step
from tests.paper import LOSSES
from tests.tiny_config import shrink

TREE = LabelTree(("nod", "shake", "wave", "point"), ("head", "arm"), (0, 0, 1, 1))
LAYOUT = get_layout("openpose-28")
LOGITS = jnp.array([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]])
LABELS = jnp.array([0, 2, 2])
EVERYTHING = {
  "loss.label_smoothing": 0.1,
  "loss.logit_adjustment": 1.0,
  "loss.class_balance": 0.9,
  "loss.soft_f1_weight": 0.5,
  "loss.frame_weight": 0.25,
  "loss.margin": 0.5,
  "model.cosine_scale": 4.0,
}


def tiny_config(variant, **values):
  """One stage is enough."""
  config = shrink(ma52.get_config(variant))
  config.model.pose.update(blocks=(1,), widths=(8,), spatial_strides=(2,), temporal_kernels=(3,))
  config.update_from_flattened_dict(values)
  return config


def tiny_spec(variant, counts=(), tree=TREE, **values):
  config = tiny_config(variant, **values)
  return ModelSpec(config, tree, LAYOUT, stored_size=32, action_counts=counts)


def pose_batch(seed=0):
  rng = np.random.default_rng(seed)
  return {
    "keypoints": rng.uniform(0, 32, (8, 8, 1, 28, 2)).astype(np.float32),
    "keypoint_scores": np.ones((8, 8, 1, 28), np.float32),
    "action": rng.integers(0, 4, 8, np.int32),
    "position": np.arange(8, dtype=np.uint32),
  }


# Rare classes.


def test_a_rare_class_gets_a_margin_and_a_weight():
  counts = np.array([8, 2, 0])
  np.testing.assert_allclose(adjustment(counts, 0.5), 0.5 * np.log([1, 1 / 4, 1 / 8]))
  # (1 - beta) / (1 - beta^n), with a mean of 1 over the two classes that have clips.
  weights = np.array([0.5 / (1 - 0.5**8), 0.5 / (1 - 0.5**2), 1])
  np.testing.assert_allclose(effective_weights(counts, 0.5), weights / weights[:2].mean())


def test_body_parts_have_the_clips_of_their_actions():
  found = balances((3, 1, 0, 2), TREE.parents, tau=1.0, beta=0.0)
  np.testing.assert_allclose(found["body"].offset, np.log([1, 1 / 2]), rtol=1e-6)
  np.testing.assert_array_equal(found["body"].weight, 1)
  assert balances((), TREE.parents, tau=0.0, beta=0.0) is None
  with pytest.raises(ValueError, match="each of the 4 actions, but 0 are known"):
    balances((), TREE.parents, tau=0.0, beta=0.9)


def test_a_balanced_cross_entropy_of_hand():
  balance = balances((6, 3, 1), (0, 0, 0), tau=1.0, beta=0.5)["action"]
  logs = jax.nn.log_softmax(LOGITS + jnp.log(jnp.array([0.6, 0.3, 0.1])))
  weights = balance.weight[np.asarray(LABELS)]
  wanted = -np.mean(weights * np.asarray(logs)[np.arange(3), LABELS])
  assert cross_entropy(LOGITS, LABELS, balance=balance) == pytest.approx(wanted, rel=1e-5)
  # Of two clips that are mixed, each counts by its share.
  half = Mixed(jnp.array([1, 1, 1]), jnp.full(3, 0.5))
  target = 0.5 * jax.nn.one_hot(LABELS, 3) + 0.5 * jax.nn.one_hot(half.label, 3)
  weights = (weights + balance.weight[1]) / 2
  wanted = np.mean(weights * -np.sum(target * logs, axis=1))
  found = cross_entropy(LOGITS, LABELS, balance=balance, mixed=half)
  assert found == pytest.approx(float(wanted), rel=1e-5)


def test_classes_with_as_many_clips_each_change_no_bit():
  balance = balances((7, 7, 7), (0, 0, 0), tau=1.0, beta=0.99)["action"]
  plain, balanced = cross_entropy(LOGITS, LABELS), cross_entropy(LOGITS, LABELS, balance=balance)
  assert float(plain) == float(balanced)


def test_a_margin_is_what_the_true_class_must_win_by():
  lower = LOGITS - 0.5 * jax.nn.one_hot(LABELS, 3)
  found = cross_entropy(LOGITS, LABELS, margin=0.5)
  assert found == pytest.approx(float(cross_entropy(lower, LABELS)), rel=1e-6)


def test_a_classifier_by_cosine_sees_directions_only():
  module = CosineClassifier(classes=3, scale=16.0)
  x = jax.random.normal(jax.random.key(0), (4, 5))
  variables = module.init(jax.random.key(1), x)
  logits = module.apply(variables, x)
  np.testing.assert_allclose(module.apply(variables, 7 * x), logits, rtol=1e-4)
  kernel = variables["params"]["kernel"]
  cosine = x[0] @ kernel[:, 1] / jnp.linalg.norm(x[0]) / jnp.linalg.norm(kernel[:, 1])
  assert logits[0, 1] == pytest.approx(16 * float(cosine), rel=1e-4)
  nothing = jax.grad(lambda x: module.apply(variables, x).sum())(jnp.zeros((1, 5)))
  assert jnp.isfinite(nothing).all()


# Soft F1.


def test_a_soft_f1_of_hand():
  probabilities = np.asarray(jax.nn.softmax(LOGITS))
  first = 2 * probabilities[0, 0] / (probabilities[:, 0].sum() + 1)
  third = 2 * probabilities[1:, 2].sum() / (probabilities[:, 2].sum() + 2)
  # The second class has no clip.
  assert soft_f1_loss(LOGITS, LABELS) == pytest.approx(1 - (first + third) / 2, rel=1e-5)


def test_a_soft_f1_of_sure_predictions_is_one_minus_macro_f1():
  sure = 1e3 * jax.nn.one_hot(jnp.array([0, 1, 1, 2]), 3)
  assert soft_f1_loss(sure, jnp.array([0, 1, 1, 2])) == pytest.approx(0, abs=1e-6)
  found = soft_f1_loss(sure, jnp.array([0, 1, 2, 2]))
  assert found == pytest.approx(1 - (1 + 2 / 3 + 2 / 3) / 3, rel=1e-5)


def test_a_soft_f1_has_gradients_and_no_order():
  order = jnp.array([2, 0, 1])
  loss = jax.jit(jax.value_and_grad(soft_f1_loss))
  value, gradient = loss(LOGITS, LABELS)
  shuffled, of_shuffled = loss(LOGITS[order], LABELS[order])
  assert shuffled == pytest.approx(float(value), rel=1e-6)
  np.testing.assert_allclose(of_shuffled, gradient[order], atol=1e-6)
  assert jnp.isfinite(loss(1e4 * LOGITS, LABELS)[1]).all()
  nothing = Mixed(jnp.roll(LABELS, 1), jnp.zeros(3))
  assert soft_f1_loss(LOGITS, LABELS, mixed=nothing) == pytest.approx(float(value), rel=1e-6)
  # Half of one class and half of another is both.
  half = Mixed(jnp.array([0, 2, 2]), jnp.full(3, 0.5))
  assert soft_f1_loss(LOGITS, LABELS, mixed=half) == pytest.approx(float(value), rel=1e-6)


# Time steps.


def test_the_loss_of_time_steps_is_that_of_clips_if_they_are_alike():
  frames = jnp.repeat(LOGITS[:, None], 4, axis=1)
  config = dataclasses.replace(LOSSES, label_smoothing=0.1)
  wanted = cross_entropy(LOGITS, LABELS, smoothing=0.1)
  assert losses.frame_loss(frames, LABELS, config) == pytest.approx(float(wanted), rel=1e-6)


def test_only_training_classifies_time_steps():
  spec = tiny_spec("pcan_pose", **{"loss.frame_weight": 0.5})
  head = jax.eval_shape(spec.init)["params"]["head_pose"]
  assert head["frames"]["kernel"].shape == (32, 4)
  plain = jax.eval_shape(tiny_spec("pcan_pose").init)["params"]["head_pose"]
  assert head.keys() - plain.keys() == {"frames"}
  head = Head(TREE, 6, 4, dropout=0.0, pool_embedding="mean", frames=True)
  features = jnp.ones((2, 3, 4, 4, 5))
  variables = head.init(jax.random.key(0), features, train=False)
  trained, tested = (head.apply(variables, features, train=train) for train in (True, False))
  assert trained["action"].pop("frames").shape == (2, 3, 4)
  assert jax.tree.structure(trained) == jax.tree.structure(tested)


def test_time_steps_need_feature_maps():
  with pytest.raises(ValueError, match="loss.frame_weight must be 0 without a stream"):
    jax.eval_shape(tiny_spec("vit", **{"loss.frame_weight": 0.5}).init)
  both = tiny_spec("vit_pcan_pose", **{"loss.frame_weight": 0.5})
  params = jax.eval_shape(both.init)["params"]
  assert "frames" in params["head_pose"] and "frames" not in params["head_rgb"]


def test_the_classifier_of_time_steps_is_a_part_of_its_own():
  """So that a run without one can start a run with one."""
  part = warm_start._part(("params", "head_rgb", "frames", "kernel"))
  assert str(part) == "rgb classifier of time steps"


# A step with everything.


def test_a_step_adds_up_the_weighted_terms():
  ramp = {"loss.pcc_ramp_steps": 4}
  spec = tiny_spec("pcan_pose", counts=(30, 2, 9, 0), **EVERYTHING, **ramp)
  optimizer = build_optimizer(spec.config.optimizer, lambda _: 1e-2)
  state = jax.jit(functools.partial(init_state, spec, optimizer))(np.uint32(0))
  state = state.replace(step=jnp.int32(1))
  step = jax.jit(functools.partial(train_step, spec=spec, optimizer=optimizer))
  after, terms = step(state, pose_batch())
  wanted = sum(
    weight * float(terms[f"pose/{name}"]) for name, weight in spec.losses.weights(0.25).items()
  )
  assert terms["loss"] == pytest.approx(wanted, rel=1e-5)
  before = state.params["head_pose"]["frames"]["kernel"]
  assert (after.params["head_pose"]["frames"]["kernel"] != before).any()


def test_gradients_are_those_of_the_weighted_terms(monkeypatch):
  """Of a loss whose gradients can be told by hand."""

  def loss_function(state, batch, spec):
    def loss(params):
      x, y = params["x"], params["y"]
      terms = {"pose/ce_action": 3 * x[0] + 4 * x[1], "rgb/ce_frames": y @ y, "pose/hp": x[0]}
      terms |= {"pose/num_tp": batch["clips"], "fusion/body": x[0] * y[0], "loss": x[0]}
      return x[0], ({}, {}, terms)

    return loss

  monkeypatch.setattr(term_gradients, "loss_function", loss_function)
  spec = tiny_spec("posec3d_pose", **{"loss.ce_weight": 2.0, "loss.frame_weight": 0.25})
  params = {"x": jnp.array([1.0, 0.0]), "y": jnp.array([3.0, 4.0])}
  state = TrainState(jnp.int32(0), jnp.uint32(0), params, {}, {}, ())
  found = term_gradients.gradient_norms(state, {"clips": jnp.float32(7)}, spec=spec)
  wanted = {"ce_action/pose": 10.0, "ce_frames/rgb": 2.5, "fusion/body": np.sqrt(1 + 9)}
  assert found == pytest.approx({f"gradients/{name}": x for name, x in wanted.items()})


def test_losses_that_need_counts_say_so():
  batch = {"action": {"logits": LOGITS}, "body": {"logits": LOGITS}}
  config = dataclasses.replace(LOSSES, pcc_weight=0.0, pda_weight=0.0, logit_adjustment=1.0)
  with pytest.raises(ValueError, match="need the balance of the classes"):
    losses.stream_loss(batch, None, action=LABELS, parents=(0, 1, 2), config=config)


@pytest.mark.parametrize(
  ("field", "value"), [("logit_adjustment", -1.0), ("class_balance", 1.0), ("margin", -1.0)]
)
def test_impossible_values_are_refused(field, value):
  with pytest.raises(ValueError, match=field):
    dataclasses.replace(LOSSES, **{field: value})


# Mirrored clips.


def test_tests_with_mirrored_clips_do_not_depend_on_the_side():
  spec = tiny_spec("pcan_pose", **{"eval.flip": True})
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    drawn = 1.0 if path[-1].key in ("scale", "var") else rng.normal(0, 0.3, leaf.shape)
    return jnp.full(leaf.shape, drawn, leaf.dtype)

  variables = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(spec.init))
  points, scores = (pose_batch()[name][:, None] for name in ("keypoints", "keypoint_scores"))
  swapped = points[..., LAYOUT.flip_permutation(), :]
  mirrored = np.stack([32 - swapped[..., 0], swapped[..., 1]], axis=-1)

  def predicted(spec, keypoints):
    batch = {"keypoints": keypoints, "keypoint_scores": scores}
    return np.asarray(jax.jit(spec.predict)(variables, batch)["fused"]["action"]["probabilities"])

  both = predicted(spec, points)
  np.testing.assert_allclose(predicted(spec, mirrored), both, atol=1e-5)
  plain = tiny_spec("pcan_pose")
  one, other = predicted(plain, points), predicted(plain, mirrored)
  np.testing.assert_allclose((one + other) / 2, both, atol=1e-5)
  assert np.abs(one - other).max() > 1e-3


def test_left_and_right_are_not_averaged():
  names = ("Wave left", "nod", "wave_RIGHT", "bright", "wave right")
  tree = LabelTree(names, ("all",), (0,) * 5)
  assert tree.mirrored == [("Wave left", "wave right")]
  with pytest.raises(ValueError, match="'Wave left' looks like 'wave right'"):
    tiny_spec("pcan_pose", tree=tree, **{"eval.flip": True, "augmentation.flip": 0.0})
  tiny_spec("pcan_pose", tree=tree, **{"eval.flip": True})  # as it was trained
  tiny_spec("pcan_pose", **{"eval.flip": True, "augmentation.flip": 0.0})


@pytest.mark.parametrize(
  ("names", "values", "mirrored"),
  [
    (("nod", "bright wave"), {}, (0.5, True)),
    (("nod", "wave_RIGHT"), {}, (0.0, False)),
    (("nod", "wave"), {"augmentation.flip": 0.0}, (0.0, False)),
    (("nod", "Left wave"), {"augmentation.flip": 0.3}, (0.3, True)),
    (("nod", "wave"), {"eval.flip": False}, (0.5, False)),
  ],
)
def test_labels_decide_whether_clips_are_mirrored(names, values, mirrored):
  tree = LabelTree(names, ("all",), (0, 0))
  config = load_config("small")
  config.update_from_flattened_dict(values)
  spec = ModelSpec(config, tree, LAYOUT, stored_size=32)
  assert (spec.config.augmentation.flip, spec.config.eval.flip) == mirrored
  assert spec.train_preprocessing.augmentation.flip == mirrored[0]
  again = ModelSpec.from_json(json.loads(json.dumps(spec.to_json())))
  assert again.config.eval.flip == mirrored[1]
  assert config.eval.flip is values.get("eval.flip")


# Several splits, and a whole run.


def test_joined_splits_hold_the_clips_of_both(tiny_dataset):
  train, val = (tiny_dataset.clip_ids(split) for split in ("train", "val"))
  assert tiny_dataset.clip_ids("train+val") == train + val
  assert tiny_dataset.num_clips("train+val") == 23
  assert sum(tiny_dataset.action_counts("train+val")) == 23
  assert tiny_dataset.shared_clips("train+val", "val") == 7
  assert tiny_dataset.shared_clips("train", "val") == 0
  assert not tiny_dataset.has_split("train+holdout")
  with pytest.raises(ValueError, match="names a split twice"):
    tiny_dataset.num_clips("val+train+val")
  with pytest.raises(ValueError, match="no split 'holdout'"):
    tiny_dataset.num_clips("train+holdout")


def test_rare_actions_are_not_favoured_twice_unnoticed(tiny_dataset, caplog):
  config = tiny_config("posec3d_pose", **{"loss.class_balance": 0.9})
  config.data.path, config.data.label_share = str(tiny_dataset.path), 0.5
  counts = loop.prepare(config).spec.action_counts
  assert counts == tiny_dataset.action_counts("train", 0.5) and sum(counts) < 16
  assert "twice" not in caplog.text
  config.data.sampling = "class_balanced"
  loop.prepare(config)
  assert "rare actions are favoured twice" in caplog.text


@pytest.mark.slow
def test_a_run_records_what_its_losses_depend_on(tiny_dataset, tmp_path, caplog):
  config = tiny_config("posec3d_pose", **{"loss.logit_adjustment": 1.0, "loss.frame_weight": 0.5})
  config.data.path, config.data.train_split = str(tiny_dataset.path), "train+val"
  config.optimizer.epochs, config.eval.every_epochs, config.log_gradients = 1.0, 0.0, 2
  with caplog.at_level(logging.INFO, "pcan_jax"):
    loop.train(config, tmp_path)
    results = evaluate_checkpoint(tmp_path, tmp_path, flip=True)
  assert "7 of them are evaluated, too (split 'val')" in caplog.text
  assert "was trained on 7 of these videos (data.train_split='train+val')" in caplog.text
  assert not (tmp_path / "temperature.json").exists()  # it would be too sure
  assert "2 clip(s) per video, mirrored ones too" in caplog.text
  assert (
    results.origin.mirrored and Results.read(tmp_path / "eval/val-flip").origin == results.origin
  )
  assert read_curves(tmp_path)["gradients/ce_frames/pose"].steps.tolist() == [2]
  gradients = logged_gradients(tmp_path)
  assert gradients.keys() == {
    f"pose/gradient_{term}" for term in ("ce_action", "ce_body", "ce_frames")
  }
  assert min(gradients.values()) > 0

  saved = find_steps(tmp_path / "checkpoints")[0]
  counts = tiny_dataset.action_counts("train+val")
  assert saved.spec.action_counts == counts
  description = json.loads(json.dumps(saved.description))
  same = dataclasses.replace(saved.spec, action_counts=counts)
  assert resume.find_changes(description, same, tiny_dataset) == []
  other = dataclasses.replace(saved.spec, action_counts=(1, *counts[1:]))
  assert [c.name for c in resume.find_changes(description, other, tiny_dataset)] == [
    "action_counts"
  ]

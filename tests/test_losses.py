"""Properties of the losses; their values are compared in test_parity."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from pcan_jax.method import losses
from pcan_jax.method.rectification import rectify
from pcan_jax.method.sets import ambiguous_sets
from tests.paper import LOSSES, RELEASE_LOSSES

NUM_ACTIONS, NUM_BODIES, DIM, BODY_DIM = 5, 2, 8, 4
PARENTS = (0, 0, 0, 1, 1)
RECIPES = {"paper": LOSSES, "release": RELEASE_LOSSES}
WEIGHTS = {
  "ce_action": "ce_weight",
  "ce_body": "ce_weight",
  "hp": "hp_weight",
  "pcc_action": "pcc_weight",
  "pcc_body": "pcc_weight",
  "pda": "pda_weight",
}
of_all_recipes = pytest.mark.parametrize("recipe", RECIPES)
BASELINE = dataclasses.replace(LOSSES, hp_weight=0.0, pcc_weight=0.0, pda_weight=0.0)


def random_prototypes(seed=7, scale=1.0):
  rng = np.random.default_rng(seed)
  return {
    "action": jnp.asarray(scale * rng.standard_normal((NUM_ACTIONS, DIM)), jnp.float32),
    "body": jnp.asarray(scale * rng.standard_normal((NUM_BODIES, BODY_DIM)), jnp.float32),
  }


def random_batch(n=16, seed=0, correct=False):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)

  action = jnp.asarray(rng.integers(NUM_ACTIONS, size=n))
  batch = {
    "action": action,
    "action_logits": normal(n, NUM_ACTIONS),
    "body_logits": normal(n, NUM_BODIES),
    "action_embedding": normal(n, DIM),
    "body_embedding": normal(n, BODY_DIM),
  }
  if correct:
    batch["action_logits"] = 100 * jax.nn.one_hot(action, NUM_ACTIONS)
    batch["body_logits"] = 100 * jax.nn.one_hot(jnp.array(PARENTS)[action], NUM_BODIES)
  return batch


def stream_loss(batch, config, old):
  outputs = {}
  for name in batch.keys() - {"action"}:
    level, kind = name.split("_")
    outputs.setdefault(level, {})[kind] = batch[name]
  return losses.stream_loss(outputs, old, action=batch["action"], parents=PARENTS, config=config)


@functools.partial(jax.jit, static_argnames="config")
def differentiate(batch, config, old):
  """Everything `stream_loss` returns, and the gradient of the total in all float inputs."""

  def loss(floats):
    total, terms, new = stream_loss(floats | {"action": batch["action"]}, config, old)
    return total, (terms, new)

  floats = {name: x for name, x in batch.items() if name != "action"}
  (total, (terms, new)), gradient = jax.value_and_grad(loss, has_aux=True)(floats)
  return (total, terms, new), gradient


def compute(batch, config):
  return differentiate(batch, config, random_prototypes())[0]


pcc_terms = jax.jit(losses.pcc_terms, static_argnames=("alpha", "config"))


def assert_trees_close(found, wanted, rtol=1e-4, atol=1e-6):
  jax.tree.map(lambda f, w: np.testing.assert_allclose(f, w, rtol=rtol, atol=atol), found, wanted)


def test_cross_entropy_of_hand():
  logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]))
  wanted = -(np.log(0.2) + np.log(0.5)) / 2
  assert losses.cross_entropy(logits, jnp.array([1, 0])) == pytest.approx(wanted, rel=1e-6)


def test_hierarchical_loss_of_hand():
  # Two body parts; actions 0 and 1 of the first, 2 of the second. lambda = 0.5.
  body, action = np.array([0.3, -1.0]), np.array([2.0, 0.1, -0.4])

  def sigmoid(x):
    return 1 / (1 + np.exp(-x))

  states = np.concatenate([0.5 * sigmoid(body), 0.5 * sigmoid(body)[[0, 0, 1]] + sigmoid(action)])
  wanted = np.log(np.exp(states).sum()) - states[2 + 1]
  found = losses.hierarchical_loss(
    jnp.array([action]), jnp.array([body]), jnp.array([1]), jnp.array([0, 0, 1]), hp_lambda=0.5
  )
  assert found == pytest.approx(wanted, rel=1e-6)


def test_lambda_zero_leaves_the_body_classifier_out():
  batch = random_batch()
  config = dataclasses.replace(BASELINE, ce_weight=0.0, hp_weight=1.0, hp_lambda=0.0)
  _, gradient = differentiate(batch, config, random_prototypes())
  assert not gradient["body_logits"].any()
  assert gradient["action_logits"].any()


def test_diversity_loss_of_hand():
  of = lambda prototypes: losses.pda_loss(prototypes, prototypes)  # noqa: E731
  assert of(3 * jnp.eye(4)) == pytest.approx(2)
  assert of(jnp.ones((4, 3))) == pytest.approx(4)
  assert of(jnp.array([[1.0, 0.0], [1.0, 1.0]])) == pytest.approx(np.sqrt(3))


def test_calibrating_terms_of_hand():
  """One class-0 sample taken for class 1, and one of class 1 recognised: orthogonal prototypes."""
  config = RECIPES["paper"]
  angle = 0.3
  z = jnp.array([[np.cos(angle), np.sin(angle)], [0.0, 2.0]])
  protos = jnp.eye(2)
  logits = jnp.log(jnp.array([[0.2, 0.8], [0.4, 0.6]]))
  sets, _ = ambiguous_sets(logits, jnp.zeros((2, 1)), jnp.array([0, 1]), jnp.array([0, 0]))
  terms = pcc_terms(z, protos, logits, sets, alpha=config.pcc_alpha, config=config)

  def cross_entropy(own, other):
    return np.log(np.exp(own) + np.exp(other)) - own

  # Sample 0 is alone in FN_A1 of class 0, so it lies on that centre: no penalty.
  fn_a1 = cross_entropy(np.cos(angle) / 0.125, np.sin(angle) / 0.125)
  # Sample 1 has a class that sample 0 was taken for, at a similarity of sin(angle).
  fp = cross_entropy(1 / 0.125 - 0.4 * (1 + np.sin(angle)), 0)
  np.testing.assert_allclose(terms, [[fn_a1, 0], [0, 0], [0, 0], [0, fp]], rtol=1e-5, atol=1e-7)


def test_calibrating_terms_of_the_release_cover_the_batch():
  config = RECIPES["release"]
  batch = random_batch()
  sets, _ = ambiguous_sets(
    batch["action_logits"],
    batch["body_logits"],
    batch["action"],
    jnp.array(PARENTS)[batch["action"]],
  )
  terms = pcc_terms(
    batch["action_embedding"],
    random_prototypes()["action"],
    batch["action_logits"],
    sets,
    alpha=config.pcc_alpha,
    config=config,
  )
  assert terms.shape == (4, 16)
  assert (terms > 0).all()


@pytest.mark.parametrize("alpha", [(1.0, 0.5), (1.0, 0.5, 0.1, 0.1)])
def test_alpha_must_match_the_sets(alpha):
  batch = random_batch()
  sets, _ = ambiguous_sets(
    batch["action_logits"], batch["body_logits"], batch["action"], batch["action"]
  )
  with pytest.raises(ValueError, match="alpha"):
    losses.pcc_terms(
      batch["action_embedding"],
      random_prototypes()["action"],
      batch["action_logits"],
      sets,
      alpha,
      LOSSES,
    )


def test_rectification_adds_similarity():
  z = jnp.array([[2.0, 0.0], [0.0, 0.0]])
  protos = jnp.array([[1.0, 0.0], [1.0, 1.0], [-3.0, 0.0]])
  logits = jnp.arange(6.0).reshape(2, 3)
  found = rectify(logits, z, protos, gamma=5.0)
  np.testing.assert_allclose(
    found, logits + np.array([[5, 5 / np.sqrt(2), -5], [0, 0, 0]]), rtol=1e-6
  )
  np.testing.assert_array_equal(rectify(logits, z, protos, gamma=0.0), logits)


@of_all_recipes
def test_total_is_the_weighted_sum_of_its_terms(recipe):
  config = dataclasses.asdict(RECIPES[recipe])
  total, terms, _ = compute(random_batch(), RECIPES[recipe])
  found = {name for name in terms if not name.startswith("num_")}
  assert found == {name for name, weight in WEIGHTS.items() if config[weight]}
  wanted = sum(config[WEIGHTS[name]] * terms[name] for name in found)
  assert total == pytest.approx(float(wanted), rel=1e-6)


def test_set_sizes_are_reported():
  _, terms, _ = compute(random_batch(), LOSSES)
  assert terms["num_tp"] + terms["num_fn_a1"] + terms["num_fn_a2"] + terms["num_fn_a3"] == 16
  assert terms["num_fp"] == terms["num_fn_a1"] + terms["num_fn_a2"]
  assert terms["num_body_tp"] + terms["num_body_fp"] == 16


@pytest.mark.parametrize(
  "off, terms",
  [
    ("hp_weight", {"hp"}),
    ("pcc_weight", {"pcc_action", "pcc_body"}),
    ("pda_weight", {"pda"}),
  ],
)
def test_a_weight_of_zero_switches_a_loss_off(off, terms):
  batch = random_batch()
  everything = compute(batch, LOSSES)[1]
  total, rest, new = compute(batch, dataclasses.replace(LOSSES, **{off: 0.0}))
  assert set(everything) - set(rest) == terms
  assert total < compute(batch, LOSSES)[0]
  # Rectification still needs prototypes that move.
  assert (new["action"] != random_prototypes()["action"]).any()


def test_baseline_needs_no_prototypes():
  batch = random_batch()
  plain = {name: batch[name] for name in ("action", "action_logits", "body_logits")}
  total, terms, new = stream_loss(plain, BASELINE, None)
  assert new is None
  assert total == terms["ce_action"] + terms["ce_body"]
  with pytest.raises(ValueError, match="pcc_weight and pda_weight"):
    stream_loss(plain, LOSSES, None)


@of_all_recipes
def test_order_of_the_batch_does_not_matter(recipe):
  batch, old = random_batch(), random_prototypes()
  order = np.random.default_rng(1).permutation(16)
  shuffled = {name: x[order] for name, x in batch.items()}
  config = RECIPES[recipe]
  found, gradient = differentiate(batch, config, old)
  shuffled_found, shuffled_gradient = differentiate(shuffled, config, old)
  assert_trees_close(shuffled_found, found)
  assert_trees_close(shuffled_gradient, {name: x[order] for name, x in gradient.items()})


def test_one_compilation_serves_every_outcome():
  traces = []

  @jax.jit
  def total(batch, old):
    traces.append(1)
    return stream_loss(batch, LOSSES, old)[0]

  for correct in (False, True):
    for seed in range(2):
      total(random_batch(seed=seed, correct=correct), random_prototypes())
  assert len(traces) == 1


@of_all_recipes
@pytest.mark.parametrize("edge", ["correct", "zero z", "zero prototypes", "extreme", "one sample"])
def test_gradients_are_finite_at_the_edges(recipe, edge):
  batch = random_batch(n=1 if edge == "one sample" else 16, correct=edge == "correct")
  old = random_prototypes()
  if edge == "zero z":
    batch |= {name: jnp.zeros_like(batch[name]) for name in ("action_embedding", "body_embedding")}
  elif edge == "zero prototypes":
    old = jax.tree.map(jnp.zeros_like, old)
    batch["action_logits"] = -100 * jax.nn.one_hot(batch["action"], NUM_ACTIONS)
  elif edge == "extreme":
    batch |= {name: 1e4 * x for name, x in batch.items() if name != "action"}
  (total, _, _), gradient = differentiate(batch, RECIPES[recipe], old)
  assert jnp.isfinite(total)
  for name, x in gradient.items():
    assert jnp.isfinite(x).all(), name


def test_paper_calibration_vanishes_when_all_is_right():
  _, terms, _ = compute(random_batch(correct=True), RECIPES["paper"])
  assert terms["pcc_action"] == 0
  assert terms["pcc_body"] == 0


@of_all_recipes
def test_diversity_moves_embeddings_as_the_recipe_says(recipe):
  config = RECIPES[recipe]
  others = dict.fromkeys({*WEIGHTS.values()} - {"pda_weight"}, 0.0)
  alone = dataclasses.replace(config, **others)
  _, gradient = differentiate(random_batch(), alone, random_prototypes())
  assert gradient["action_embedding"].any() == config.pda_gradient


@of_all_recipes
def test_new_prototypes_carry_no_gradient(recipe):
  batch = random_batch()

  @jax.jit
  @jax.grad
  def gradient(z):
    inputs = batch | {"action_embedding": z}
    return stream_loss(inputs, RECIPES[recipe], random_prototypes())[2]["action"].sum()

  assert not gradient(batch["action_embedding"]).any()


def test_gradients_agree_with_differences():
  with jax.enable_x64(True):
    old = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), random_prototypes())
    batch = {
      name: jnp.asarray(x, None if name == "action" else jnp.float64)
      for name, x in random_batch(n=6).items()
    }

    @jax.jit
    def total(z, logits):
      inputs = {"action_embedding": z, "action_logits": logits}
      return stream_loss(batch | inputs, LOSSES, old)[0]

    arguments = batch["action_embedding"], batch["action_logits"]
    check_grads(total, arguments, order=1, modes=["rev"], rtol=1e-5)


def test_losses_of_half_precision_are_single():
  batch = {
    name: x if name == "action" else x.astype(jnp.bfloat16) for name, x in random_batch().items()
  }
  total, terms, new = compute(batch, LOSSES)
  in_single = {name: x if name == "action" else x.astype(jnp.float32) for name, x in batch.items()}
  wanted, _, _ = compute(in_single, LOSSES)
  assert total.dtype == jnp.float32
  assert new["action"].dtype == jnp.float32
  assert total == pytest.approx(float(wanted), rel=1e-6)
  assert all(x.dtype == jnp.float32 for name, x in terms.items() if not name.startswith("num_"))


def test_recipes_differ_only_where_paper_and_release_do():
  paper, release = (dataclasses.asdict(RECIPES[name]) for name in ("paper", "release"))
  assert {name: (paper[name], release[name]) for name in paper if paper[name] != release[name]} == {
    "pcc_weight": (1, 0.2),
    "pcc_alpha_scales": ("loss", "logits"),
    "pcc_covers": ("sets", "batch"),
    "pda_weight": (5, 0.2),
    "pda_gradient": (True, False),
  }


@pytest.mark.parametrize(
  "field, value",
  [
    ("pcc_temperature", 0.0),
    ("prototype_momentum", 1.5),
  ],
)
def test_impossible_configs_are_refused(field, value):
  with pytest.raises(ValueError, match=field):
    dataclasses.replace(LOSSES, **{field: value})


def test_diversity_of_means_and_embeddings_of_hand():
  """Two siblings and a third action; the embeddings lie between the first two prototypes."""
  parents = jnp.array([0, 0, 1])
  prototypes = jnp.eye(3)
  z = jnp.array([[1.0, 1.0, 0.0], [3.0, 3.0, 0.0], [0.0, 1.0, 1.0]])
  label = jnp.array([0, 0, 2])

  def of(pda_of, pda_between):
    config = dataclasses.replace(LOSSES, pda_of=pda_of, pda_between=pda_between)
    return float(losses._diversity(z, prototypes, prototypes, label, parents, config))

  half = 0.5  # every squared cosine is that, or zero
  assert of("embeddings", "all") == pytest.approx(np.sqrt(3 * half))
  assert of("embeddings", "siblings") == pytest.approx(np.sqrt(2 * half))
  assert of("means", "all") == pytest.approx(np.sqrt(2 * half))
  assert of("means", "siblings") == pytest.approx(np.sqrt(half))
  assert of("prototypes", "all") == of("prototypes", "siblings") == pytest.approx(np.sqrt(3))


def test_a_centred_diversity_loss_ignores_what_all_prototypes_share():
  prototypes = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)), jnp.float32)
  centred = losses.pda_loss(prototypes, prototypes, centred=True)
  shifted = losses.pda_loss(prototypes + 100, prototypes + 100, centred=True)
  assert shifted == pytest.approx(float(centred), rel=1e-4)
  assert losses.pda_loss(prototypes + 100, prototypes + 100) == pytest.approx(6, rel=1e-3)


def test_the_weight_of_the_calibrating_loss_may_rise():
  rising = dataclasses.replace(LOSSES, pcc_ramp_steps=4)
  shares = [float(rising.pcc_share(jnp.int32(step))) for step in (0, 1, 4, 9)]
  assert shares == [0, 0.25, 1, 1]
  assert LOSSES.pcc_share(jnp.int32(0)) == 1
  full, half = LOSSES.weights(1.0), rising.weights(0.5)
  halved = {name for name in full if half[name] == full[name] / 2}
  assert halved == {"pcc_action", "pcc_body"} and full.keys() == half.keys()
  with pytest.raises(ValueError, match="pcc_ramp_steps must be 0 or more, not -1"):
    dataclasses.replace(LOSSES, pcc_ramp_steps=-1)


def test_weights_of_parts_of_the_calibrating_loss_switch_them_off():
  batch = random_batch()
  _, terms, _ = compute(batch, LOSSES)
  total, _, _ = compute(batch, dataclasses.replace(LOSSES, pcc_body_weight=0.0))
  whole, _, _ = compute(batch, LOSSES)
  assert whole - total == pytest.approx(LOSSES.pcc_weight * float(terms["pcc_body"]), rel=1e-4)
  _, without, _ = compute(batch, dataclasses.replace(LOSSES, pcc_fp_weight=0.0))
  assert without["pcc_action"] < terms["pcc_action"]

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax.method.prototypes import class_means, update_prototypes
from pcan_jax.method.sets import ambiguous_sets

NUM_ACTIONS, NUM_BODIES = 5, 2
PARENTS = np.array([0, 0, 0, 1, 1])


def random_batch(n=32, dim=6, seed=0):
  rng = np.random.default_rng(seed)
  action = rng.integers(NUM_ACTIONS, size=n)
  return {
    "z": jnp.asarray(rng.standard_normal((n, dim)), jnp.float32),
    "action": jnp.asarray(action),
    "body": jnp.asarray(PARENTS[action]),
    "action_logits": jnp.asarray(rng.standard_normal((n, NUM_ACTIONS)), jnp.float32),
    "body_logits": jnp.asarray(rng.standard_normal((n, NUM_BODIES)), jnp.float32),
  }


def sets_of(batch):
  return ambiguous_sets(
    batch["action_logits"], batch["body_logits"], batch["action"], batch["body"]
  )


def test_sets_follow_their_definition():
  # Predicted action, predicted body; the truth is action 1 of body 0.
  predictions = [(1, 0), (2, 0), (3, 1), (1, 1), (2, 1)]
  action_logits = jax.nn.one_hot(jnp.array([a for a, _ in predictions]), NUM_ACTIONS)
  body_logits = jax.nn.one_hot(jnp.array([b for _, b in predictions]), NUM_BODIES)
  n = len(predictions)
  action, body = ambiguous_sets(action_logits, body_logits, jnp.full(n, 1), jnp.full(n, 0))

  def members(mask):
    return np.flatnonzero(mask).tolist()

  assert members(action.tp) == [0]
  assert [members(fn) for fn in action.fn] == [[1], [2, 4], [3]]
  assert members(action.fp) == [1, 2, 4]
  assert action.predicted.tolist() == [1, 2, 3, 1, 2]
  assert members(body.tp) == [0, 1]
  assert [members(fn) for fn in body.fn] == [[2, 3, 4]]
  assert members(body.fp) == [2, 3, 4]


def test_every_sample_is_right_or_wrong_exactly_once():
  for sets in sets_of(random_batch()):
    np.testing.assert_array_equal(sum(np.int32(m) for m in (sets.tp, *sets.fn)), 1)


def test_class_means_are_means_of_the_masked():
  batch = random_batch()
  mask = jnp.arange(32) % 2 == 0
  mask &= batch["action"] != 4
  means, counts = class_means(batch["z"], batch["action"], mask, NUM_ACTIONS)
  for k in range(NUM_ACTIONS):
    members = np.asarray(batch["z"])[np.asarray(mask & (batch["action"] == k))]
    assert counts[k] == len(members)
    wanted = members.mean(axis=0) if len(members) else np.zeros(6)
    np.testing.assert_allclose(means[k], wanted, rtol=1e-5, atol=1e-6)


def test_masked_embeddings_may_be_anything():
  batch = random_batch()
  mask = jnp.arange(32) > 0
  broken = batch["z"].at[0].set(jnp.nan)
  means, _ = class_means(broken, batch["action"], mask, NUM_ACTIONS)
  assert jnp.isfinite(means).all()


def test_update_moves_classes_with_true_positives_only():
  old = jnp.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
  z = jnp.array([[3.0, 1.0], [5.0, 3.0], [7.0, 7.0]])
  new = update_prototypes(
    old, z, jnp.array([0, 0, 1]), jnp.array([True, True, False]), momentum=0.9
  )
  np.testing.assert_allclose(new[0], [0.9 + 0.4, 0.2], rtol=1e-6)
  np.testing.assert_array_equal(new[1:], old[1:])


def test_gradient_of_an_update_is_the_mean_of_true_positives():
  batch = random_batch()
  sets, _ = sets_of(batch)
  old = jnp.zeros((NUM_ACTIONS, 6))

  def total(z):
    return update_prototypes(old, z, batch["action"], sets.tp, momentum=0.9).sum()

  counts = np.bincount(np.asarray(batch["action"])[np.asarray(sets.tp)], minlength=NUM_ACTIONS)
  wanted = np.where(sets.tp, 0.1 / np.maximum(counts, 1)[np.asarray(batch["action"])], 0)
  np.testing.assert_allclose(jax.grad(total)(batch["z"]), wanted[:, None].repeat(6, 1), rtol=1e-5)


def test_order_of_the_batch_does_not_matter():
  batch = random_batch()
  order = np.random.default_rng(1).permutation(32)
  shuffled = {name: x[order] for name, x in batch.items()}
  old = jnp.ones((NUM_ACTIONS, 6))
  news = [
    update_prototypes(old, b["z"], b["action"], sets_of(b)[0].tp, momentum=0.9)
    for b in (batch, shuffled)
  ]
  np.testing.assert_allclose(*news, rtol=1e-5, atol=1e-6)


def test_one_compilation_serves_every_outcome():
  traces = []

  @jax.jit
  def step(old, batch):
    traces.append(1)
    sets, _ = sets_of(batch)
    return update_prototypes(old, batch["z"], sets.label, sets.tp, momentum=0.9)

  old = jnp.zeros((NUM_ACTIONS, 6))
  for seed in range(3):
    batch = random_batch(seed=seed)
    step(old, batch)
    step(old, batch | {"action_logits": jax.nn.one_hot(batch["action"], NUM_ACTIONS)})
  assert len(traces) == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_means_keep_the_type_of_the_embeddings(dtype):
  batch = random_batch()
  means, counts = class_means(
    batch["z"].astype(dtype), batch["action"], jnp.ones(32, bool), NUM_ACTIONS
  )
  assert means.dtype == dtype
  assert counts.sum() == 32


def test_a_prototype_of_zeros_becomes_the_first_mean():
  batch = random_batch()
  mask = batch["action"] != 4
  means, _ = class_means(batch["z"], batch["action"], mask, NUM_ACTIONS)
  start = jnp.zeros((NUM_ACTIONS, 6))
  first = update_prototypes(start, batch["z"], batch["action"], mask, 0.9, first_whole=True)
  np.testing.assert_array_equal(first, means)
  np.testing.assert_array_equal(first[4], 0)
  again = update_prototypes(first, 2 * batch["z"], batch["action"], mask, 0.9, first_whole=True)
  np.testing.assert_allclose(again, 1.1 * means, rtol=1e-5)


def test_prototypes_on_the_sphere_have_length_one_and_ignore_lengths():
  batch = random_batch()
  mask = jnp.ones(32, bool)
  start = jnp.ones((NUM_ACTIONS, 6))
  lengths = jnp.linspace(0.1, 10, 32)[:, None]
  moved = update_prototypes(start, batch["z"], batch["action"], mask, 0.9, on_sphere=True)
  longer = update_prototypes(
    start, lengths * batch["z"], batch["action"], mask, 0.9, on_sphere=True
  )
  np.testing.assert_allclose(jnp.linalg.norm(moved, axis=1), 1, rtol=1e-5)
  np.testing.assert_allclose(moved, longer, rtol=1e-4, atol=1e-6)

import dataclasses
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import pytest

from pcan_jax.network import pathway as pathways
from pcan_jax.network.pathway import Pathway
from tests.paper import POSE_PATHWAY, RGB_PATHWAY

REFERENCE = pathlib.Path(__file__).parent / "reference"
TINY = dataclasses.replace(
  RGB_PATHWAY,
  stem_features=4,
  blocks=(1, 2),
  widths=(4, 8),
  spatial_strides=(1, 2),
  temporal_kernels=(1, 3),
)


def abstract(config, *shape):
  pathway = Pathway(config, jnp.float32, remat="none")
  return jax.eval_shape(
    lambda: pathway.init_with_output(jax.random.key(0), jnp.zeros(shape), train=False)
  )


@pytest.mark.parametrize(
  ("config", "shape", "wanted", "listing"),
  [
    (RGB_PATHWAY, (1, 8, 224, 224, 3), (1, 8, 7, 7, 2048), "rgb_only"),
    (RGB_PATHWAY, (1, 8, 256, 256, 3), (1, 8, 8, 8, 2048), "rgb_only"),
    (POSE_PATHWAY, (1, 32, 56, 56, 17), (1, 32, 7, 7, 512), "pose_only"),
  ],
)
def test_full_size_pathways(config, shape, wanted, listing):
  out, variables = abstract(config, *shape)
  assert out.shape == wanted
  assert config.features == wanted[-1]
  # As many parameters as MMAction2's backbone has.
  tensors = json.loads((REFERENCE / "slowonly_state_dicts.json").read_text())[listing]
  count = sum(
    math.prod(shape)
    for name, shape in tensors.items()
    if name.startswith("backbone") and name.endswith(("weight", "bias"))
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


def test_blocks_start_as_the_identity():
  pathway = Pathway(TINY, jnp.float32, remat="none")
  x = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 3))

  @jax.jit
  def run():
    variables = pathway.init(jax.random.key(1), x, train=False)
    return pathway.apply(variables, x, train=False, capture_intermediates=True, mutable=True)

  _, state = run()
  stage = state["intermediates"]["layer2"]
  first, second = (stage[f"block{i}"]["__call__"][0] for i in (0, 1))
  assert float(abs(first).max()) > 0
  assert (first == second).all()


def test_gradients_pass_joints_where_these_are_positive():
  x, y = jnp.array([[-1.0, 1.0, 3.0]]), jnp.array([[0.0, -1.0, -1.0]])
  joined, vjp = jax.vjp(jax.jit(pathways._join), x, y)
  assert joined.tolist() == [[0.0, 0.0, 2.0]]
  for gradient in vjp(jnp.array([[3.0, 4.0, 5.0]])):
    assert gradient.tolist() == [[0.0, 0.0, 5.0]]


def test_intermediates_have_names():
  pathway = Pathway(TINY, jnp.float32, remat="none")
  x = jnp.zeros((2, 4, 16, 24, 3))

  def run():
    variables = pathway.init(jax.random.key(0), x, train=False)
    return pathway.apply(variables, x, train=False, mutable="intermediates")

  _, state = jax.eval_shape(run)
  shapes = {name: value[0].shape for name, value in state["intermediates"].items()}
  assert shapes == {
    "stem": (2, 4, 8, 12, 4),
    "pool": (2, 4, 4, 6, 4),
    "stage1": (2, 4, 4, 6, 16),
    "stage2": (2, 4, 2, 3, 32),
  }


def test_pool_is_optional_and_may_keep_the_size():
  for changes, size in (({"stem_pool_stride": 1}, 4), ({"stem_pool": False}, 4), ({}, 2)):
    out, _ = abstract(dataclasses.replace(TINY, **changes), 1, 2, 16, 16, 3)
    assert out.shape[2] == size, changes


def test_training_updates_all_statistics():
  pathway = Pathway(TINY, jnp.float32, remat="none")
  x = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 3))

  @jax.jit
  def run():
    variables = pathway.init(jax.random.key(1), x, train=False)
    _, updated = pathway.apply(variables, x, train=True, mutable="batch_stats")
    return variables["batch_stats"], updated["batch_stats"]

  for before, after in zip(*map(jax.tree.leaves, run())):
    assert (before != after).any()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"blocks": (1,)}, "one entry per stage .*'blocks': \\(1,\\)"),
    (
      dict.fromkeys(("blocks", "widths", "spatial_strides", "temporal_kernels"), ()),
      "one entry per stage",
    ),
    ({"stem_strides": (2,)}, "stem_strides are"),
    ({"widths": (4, 0)}, "widths must be 1 or more"),
    ({"temporal_kernels": (1, 2)}, "temporal_kernels must be odd"),
    ({"stem_pool_stride": 0}, "stem_pool_stride must be 1 or more"),
  ],
)
def test_impossible_shapes_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(TINY, **changes)

"""Rematerialisation changes what is kept for the gradient, and not the gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from pcan_jax.config import load_config
from pcan_jax.labels import get_tree
from pcan_jax.network.pathway import REMAT, Pathway
from pcan_jax.network.pcan import build_model
from tests.paper import RGB_PATHWAY

CONFIG = dataclasses.replace(
  RGB_PATHWAY,
  stem_features=4,
  blocks=(2,),
  widths=(4,),
  spatial_strides=(2,),
  temporal_kernels=(3,),
)
CLIPS = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 3))


@functools.cache
def variables():
  return jax.jit(
    lambda: Pathway(CONFIG, jnp.float32, "none").init(jax.random.key(1), CLIPS, train=False)
  )()


def loss(params, remat):
  """Something that depends on all parameters, and the statistics of the batch."""
  # The scales that start at zero would hide the inside of the blocks.
  params = jax.tree.map(lambda x: x + 0.1, params)
  out, updated = Pathway(CONFIG, jnp.float32, remat).apply(
    {"params": params, "batch_stats": variables()["batch_stats"]},
    CLIPS,
    train=True,
    mutable="batch_stats",
  )
  return jnp.sum(jnp.square(out)), updated


@functools.cache
def gradient(remat):
  of_params = jax.grad(functools.partial(loss, remat=remat), has_aux=True)
  return jax.jit(of_params)(variables()["params"])


@pytest.mark.parametrize("remat", REMAT[1:])
def test_gradients_and_statistics_stay_the_same(remat):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-4),
    gradient(remat),
    gradient("none"),
  )


def count(jaxpr, primitive):
  inner = (sub for equation in jaxpr.eqns for sub in jaxprs_in_params(equation.params))
  return sum(equation.primitive.name == primitive for equation in jaxpr.eqns) + sum(
    count(sub, primitive) for sub in inner
  )


def test_norms_are_computed_again_without_convolutions_and_blocks_with_them():
  jaxprs = {
    remat: jax.make_jaxpr(jax.grad(functools.partial(loss, remat=remat), has_aux=True))(
      variables()["params"]
    ).jaxpr
    for remat in REMAT
  }
  convolutions, roots = (
    {remat: count(jaxpr, name) for remat, jaxpr in jaxprs.items()}
    for name in ("conv_general_dilated", "rsqrt")
  )
  assert convolutions["none"] == convolutions["norms"] < convolutions["blocks"]
  assert roots["none"] < roots["norms"] == roots["blocks"]


def test_configs_name_it():
  tree = get_tree("ma52")
  config = load_config("ma52").model
  assert build_model(config, tree).remat == "none"
  config.remat = "blocks"
  assert build_model(config, tree).remat == "blocks"
  config.remat = "dots"
  with pytest.raises(ValueError, match=r"model\.remat must be one of .*, not 'dots'"):
    build_model(config, tree)

"""How strongly each term of the loss pulls at the parameters, for those who want to know why.

It takes a forward pass and a backward pass per term, so that it is done at few steps, beside them.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from pcan_jax.mesh import jit_step
from pcan_jax.spec import ModelSpec
from pcan_jax.training.step import Batch, PyTree, Terms, TrainState, loss_function

PREFIX = "gradients"
"""Of the names under which they are logged: `gradients/TERM/STREAM`."""


def gradient_norms(state: TrainState, batch: Batch, *, spec: ModelSpec) -> Terms:
  """The norms of the gradients of all terms, weighted as in the total, in all parameters.

  Args:
    state, batch, spec: of the step, as for `train_step`; nothing of them is changed.

  Returns:
    By `gradients/TERM/STREAM`; the losses of a learned fusion have their level for a stream.
  """
  loss_fn = loss_function(state, batch, spec)
  weights = {} if spec.pretrains else spec.losses.weights(spec.losses.pcc_share(state.step))

  def weighted(params: PyTree) -> dict[str, Float[Array, ""]]:
    _, (_, _, terms) = loss_fn(params)
    found = {}
    for name, value in terms.items():
      stream, _, term = name.partition("/")
      weight = 1.0 if stream == "fusion" or spec.pretrains else weights.get(term)
      if term and weight is not None:
        term, stream = (stream, term) if stream == "fusion" else (term, stream)
        found[f"{PREFIX}/{term}/{stream}"] = weight * value
    return found

  with spec.matmul_precision():  # also of the backward pass
    values, pull = jax.vjp(weighted, state.params)
    names = sorted(values)

    def norm(chosen: Float[Array, " k"]) -> Float[Array, ""]:
      (gradient,) = pull({name: chosen[index] for index, name in enumerate(names)})
      return optax.tree.norm(gradient)

    norms = jax.lax.map(norm, jnp.eye(len(names)))
  return {name: norms[index] for index, name in enumerate(names)}


def compile_gradient_norms(spec: ModelSpec, mesh: Mesh) -> jax.stages.Wrapped:
  """`gradient_norms` for a sharded batch; compiled when first called."""
  return jit_step(functools.partial(gradient_norms, spec=spec), mesh)

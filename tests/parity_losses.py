"""Losses, gradients, sets and prototypes of both recipes, in the format of `losses.npz`."""

import argparse
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pcan_jax.labels import get_tree
from pcan_jax.method import losses
from pcan_jax.method.rectification import rectify
from pcan_jax.method.sets import ambiguous_sets
from tests.paper import LOSSES, RELEASE_LOSSES

TREE = get_tree("ma52")

Arrays = dict[str, np.ndarray]


@functools.partial(
  jax.jit,
  static_argnames=("config", "differentiate"),
  # Compilation is nearly all the time this takes.
  compiler_options={"xla_backend_optimization_level": 0},
)
def evaluate(inputs: dict[str, jax.Array], config: losses.LossConfig, differentiate: tuple):
  """One stream's losses with everything in between.

  Args:
    inputs: of a case.
    config: the recipe.
    differentiate: groups of terms; the gradient is taken of the sum of each.

  Returns:
    Terms by name with `total` among them; new prototypes; per group of terms the gradients with
    respect to feature, logits_action, logits_body; the action level's calibrating terms;
    the cosines that rectification adds.
  """

  def embed(feature):
    return feature @ inputs["fine_w"] + inputs["fine_b"]

  def loss(feature, logits_action, logits_body):
    body_embedding = feature @ inputs["coarse_w"] + inputs["coarse_b"]
    total, terms, new = losses.stream_loss(
      {
        "action": {"logits": logits_action, "embedding": embed(feature)},
        "body": {"logits": logits_body, "embedding": body_embedding},
      },
      {"action": inputs["fine_proto"], "body": inputs["coarse_proto"]},
      action=inputs["action"],
      parents=TREE.parents,
      config=config,
    )
    terms["total"] = total
    groups = jnp.stack([sum(terms[name] for name in group) for group in differentiate])
    return groups, (terms, new)

  logits = inputs["logits_action"]
  groups, pullback, (terms, new) = jax.vjp(
    loss, inputs["feature"], logits, inputs["logits_body"], has_aux=True
  )
  gradients = jax.vmap(pullback)(jnp.eye(len(differentiate), dtype=groups.dtype))
  z = embed(inputs["feature"])
  sets, _ = ambiguous_sets(logits, inputs["logits_body"], inputs["action"], inputs["body"])
  pcc_terms = losses.pcc_terms(z, new["action"], logits, sets, config.pcc_alpha, config)
  cosines = rectify(jnp.zeros_like(logits), z, new["action"], 1.0)
  return terms, new, gradients, pcc_terms, cosines


def _on_device(inputs: Arrays, dtype) -> dict[str, jax.Array]:
  return {
    name: jnp.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else None)
    for name, x in inputs.items()
  }


def sets_outputs(inputs: Arrays) -> Arrays:
  """The ambiguous sets of the action level, one-hot under the class they are filed under."""
  inputs = _on_device(inputs, jnp.float32)
  sets, _ = ambiguous_sets(
    inputs["logits_action"], inputs["logits_body"], inputs["action"], inputs["body"]
  )
  classes = np.arange(TREE.num_actions)
  outputs = {}
  for name, members in zip(("tp", "fn_a1", "fn_a2", "fn_a3"), (sets.tp, *sets.fn)):
    outputs[f"set_{name}"] = np.asarray(members)[:, None] & (
      np.asarray(sets.label)[:, None] == classes
    )
  outputs["set_fp"] = np.asarray(sets.fp)[:, None] & (
    np.asarray(sets.predicted)[:, None] == classes
  )
  return {name: members.astype(np.int8) for name, members in outputs.items()}


def release_outputs(inputs: Arrays) -> Arrays:
  """The release recipe, in float32; also what both recipes share, as the release computes it."""
  terms, new, (feature, logits_action, logits_body), _, cosines = evaluate(
    _on_device(inputs, jnp.float32), RELEASE_LOSSES, (("pcc_action",), ("hp",))
  )
  return {
    "release_pcc_action": terms["pcc_action"],
    "release_pcc_body": terms["pcc_body"],
    "release_pda": terms["pda"],
    "release_fine_proto_new": new["action"],
    "release_coarse_proto_new": new["body"],
    "release_pcc_action_grad_feature": feature[0],
    "release_pcc_action_grad_logits": logits_action[0],
    "hp_loss": terms["hp"],
    "hp_grad_action": logits_action[1],
    "hp_grad_body": logits_body[1],
    "rectification_cosine": cosines,
  }


def paper_outputs(inputs: Arrays) -> Arrays:
  """The paper recipe; call it with 64-bit types enabled to get it in float64."""
  terms, new, (feature, logits_action, logits_body), pcc_terms, _ = evaluate(
    _on_device(inputs, jnp.float64),
    LOSSES,
    (("total",), ("pcc_action", "pcc_body"), ("pda",)),
  )
  outputs = {f"paper_{name}": x for name, x in terms.items() if not name.startswith("num_")}
  names = ("fn_a1", "fn_a2", "fn_a3", "fp")
  outputs |= {f"paper_pcc_action_{name}": x for name, x in zip(names, pcc_terms)}
  return outputs | {
    "paper_fine_proto_new": new["action"],
    "paper_coarse_proto_new": new["body"],
    "paper_total_grad_feature": feature[0],
    "paper_total_grad_logits_action": logits_action[0],
    "paper_total_grad_logits_body": logits_body[0],
    "paper_pcc_grad_feature": feature[1],
    "paper_pda_grad_feature": feature[2],
  }


def compute(inputs: Arrays) -> Arrays:
  """All outputs of one case.

  Raises:
    ValueError: the body parts are not those of the actions.
  """
  if not np.array_equal(np.asarray(TREE.parents)[inputs["action"]], inputs["body"]):
    raise ValueError("'body' is not the parent of 'action' in data/trees/ma52.csv")
  outputs = sets_outputs(inputs) | release_outputs(inputs)
  with jax.enable_x64(True):
    outputs |= paper_outputs(inputs)
    return {name: np.asarray(x) for name, x in outputs.items()}


def compute_file(arrays: Arrays) -> Arrays:
  """`CASE/in/*` of every case to its `CASE/out/*`."""
  outputs = {}
  for case in sorted({name.split("/in/")[0] for name in arrays if "/in/" in name}):
    prefix = f"{case}/in/"
    inputs = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
    outputs |= {f"{case}/out/{name}": x for name, x in compute(inputs).items()}
  return outputs


def main(argv: Sequence[str]) -> None:
  parser = argparse.ArgumentParser(prog="python -m tests.parity losses", description=__doc__)
  parser.add_argument("inputs", help="an .npz file with CASE/in/NAME")
  parser.add_argument("outputs", help="the .npz file to write, with CASE/out/NAME")
  args = parser.parse_args(argv)
  with np.load(args.inputs) as arrays:
    outputs = compute_file(dict(arrays))
  if not outputs:
    parser.error(f"{args.inputs} has no array called CASE/in/NAME")
  np.savez_compressed(args.outputs, **outputs)

"""What a run's accuracy comes from: ambiguous clips, how prototypes lie, what they mend."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pcan_jax.cosine import cosines
from pcan_jax.evaluation.results import Results
from pcan_jax.labels import LEVELS, LabelTree
from pcan_jax.method.sets import ambiguous_sets
from pcan_jax.report.evaluated_run import read_curves
from pcan_jax.training.term_gradients import PREFIX

STREAMS = ("rgb", "pose")
TERMS = (
  "ce_action",
  "ce_body",
  "hp",
  "pcc_action",
  "pcc_body",
  "pda",
  "f1_action",
  "f1_body",
  "ce_frames",
)
"""The terms of the loss whose gradients are recorded, where they were logged."""

NAMES = (
  "share_a1",
  "share_a2",
  "share_a3",
  "cosine_siblings",
  "cosine_strangers",
  "mended",
  "spoilt",
  *(f"gradient_{term}" for term in TERMS),
)
"""Per stream: the shares of clips that are false negatives of each kind without rectification; the
mean cosines of prototypes of one body part and of different ones; the shares of clips whose action
rectification turned from wrong to right, and from right to wrong; the mean norm of the gradient of
every term of the loss."""


def explain(
  rectified: Results,
  plain: Results,
  prototypes: dict[str, dict[str, jax.Array]],
  tree: LabelTree,
) -> dict[str, float]:
  """What `NAMES` says of a trained model, by `STREAM/NAME`.

  Args:
    rectified, plain: a model's results with and without rectification.
    prototypes: of the model, per stream; empty without.
    tree: the labels.
  """
  found = {}
  actions = rectified.actions
  for stream in set(STREAMS) & plain.outputs.keys():
    scores = [jnp.asarray(plain.outputs[stream][level]["probabilities"]) for level in LEVELS]
    bodies = jnp.asarray(tree.parents)[actions]
    sets, _ = ambiguous_sets(*scores, jnp.asarray(actions), bodies)
    for kind, members in zip(("a1", "a2", "a3"), sets.fn):
      found[f"{stream}/share_{kind}"] = float(np.mean(members))
    if stream in prototypes:
      right = [
        results.outputs[stream]["action"]["probabilities"].argmax(1) == actions
        for results in (plain, rectified)
      ]
      found[f"{stream}/mended"] = float(np.mean(~right[0] & right[1]))
      found[f"{stream}/spoilt"] = float(np.mean(right[0] & ~right[1]))
      siblings, strangers = mean_cosines(prototypes[stream]["action"], tree)
      found[f"{stream}/cosine_siblings"] = siblings
      found[f"{stream}/cosine_strangers"] = strangers
  return found


def logged_gradients(workdir: str | os.PathLike[str]) -> dict[str, float]:
  """What `NAMES` says of gradients, by `STREAM/NAME`: means over a run that logged them."""
  return {
    f"{stream}/gradient_{term}": float(curve.values.mean())
    for name, curve in read_curves(workdir).items()
    for prefix, term, stream in [name.split("/")] * (name.count("/") == 2)
    if prefix == PREFIX and term in TERMS
  }


def mean_cosines(prototypes: Float[jax.Array, "a d"], tree: LabelTree) -> tuple[float, float]:
  """The mean cosine of prototypes of actions of one body part, and of different body parts."""
  alike = np.asarray(cosines(prototypes, prototypes))
  parents = np.asarray(tree.parents)
  related = parents[:, None] == parents
  different = ~np.eye(len(parents), dtype=bool)
  return float(alike[related & different].mean()), float(alike[~related].mean())

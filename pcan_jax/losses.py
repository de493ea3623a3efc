"""PCAN's losses of one stream: cross-entropy, hierarchical, calibrating (PCC), diversity (PDA).

Equations are those of PCAN, arXiv 2412.14719. The paper and the authors' released code differ in
details; both are values of `LossConfig`, see `RECIPES`. Where eq. 5, 8 and 9 write `dis`, cosine
similarity is meant, and eq. 7 and 8 divide by the temperature, as the paper's own text needs it.

Losses are means over the samples of a batch, computed in float32 or better.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from pcan_jax import prototypes as proto


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """The losses of a stream. A weight of 0 switches a loss off.

  Attributes:
    ce_weight: of the cross-entropies of both classifiers.
    hp_weight: of the hierarchical loss.
    hp_lambda: how much a body part's probability counts in that loss (eq. 1).
    pcc_weight: of the calibrating losses of both levels.
    pcc_temperature: tau in eq. 7 and 8.
    pcc_alpha: for the false negatives A1, A2, A3 of the action level.
    pcc_alpha_scales: whether alpha multiplies the terms ("loss") or, within them, the logits.
    pcc_covers: whether a false negative term is taken of the samples in its set, and the false
      positive term of the samples whose class has false positives ("sets"), or all terms are taken
      of every sample ("batch"). The penalties in the terms are the same.
    pda_weight: of the diversity loss, beta.
    pda_gradient: whether the diversity loss moves the embeddings, through the updated prototypes,
      or is only reported.
    prototype_momentum: the part of a prototype that stays in an update (eq. 3).

  Raises:
    ValueError: a value is not one of those above.
  """

  ce_weight: float = 1.0
  hp_weight: float = 1.0
  hp_lambda: float = 1.0
  pcc_weight: float = 1.0
  pcc_temperature: float = 0.125
  pcc_alpha: tuple[float, float, float] = (1.0, 0.5, 0.1)
  pcc_alpha_scales: Literal["loss", "logits"] = "loss"
  pcc_covers: Literal["sets", "batch"] = "sets"
  pda_weight: float = 5.0
  pda_gradient: bool = True
  prototype_momentum: float = 0.9

  def __post_init__(self) -> None:
    if len(self.pcc_alpha) != 3:
      raise ValueError(f"pcc_alpha needs a value for each of A1, A2, A3: {self.pcc_alpha}")
    if self.pcc_alpha_scales not in ("loss", "logits"):
      raise ValueError(f"pcc_alpha_scales is 'loss' or 'logits', not {self.pcc_alpha_scales!r}")
    if self.pcc_covers not in ("sets", "batch"):
      raise ValueError(f"pcc_covers is 'sets' or 'batch', not {self.pcc_covers!r}")
    if self.pcc_temperature <= 0:
      raise ValueError(f"pcc_temperature must be positive, not {self.pcc_temperature}")
    if not 0 <= self.prototype_momentum <= 1:
      raise ValueError(f"prototype_momentum must be in 0..1, not {self.prototype_momentum}")

  @property
  def needs_prototypes(self) -> bool:
    """Whether a loss is on that is computed from embeddings and prototypes."""
    return self.pcc_weight != 0 or self.pda_weight != 0


RECIPES: dict[str, LossConfig] = {
  "paper": LossConfig(),
  "release": LossConfig(
    pcc_weight=1 / 5,
    pcc_alpha_scales="logits",
    pcc_covers="batch",
    pda_weight=1 / 5,
    pda_gradient=False,
  ),
}


def _upcast(x: Float[Array, "..."]) -> Float[Array, "..."]:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
  """Vectors of length one; a zero vector stays zero, and its gradient finite."""
  squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.where(squared > 1e-24, squared, 1.0))


def _cosines(x: Float[Array, "n d"], y: Float[Array, "*s k d"]) -> Float[Array, "*s n k"]:
  # Accelerators would multiply in bfloat16 or TF32 by default: an error of a per cent of tau.
  return jnp.einsum("nd,...kd->...nk", _unit(x), _unit(y), precision=jax.lax.Precision.HIGHEST)


def _pick(x: Shaped[Array, "*s n k"], label: Int[Array, " n"]) -> Shaped[Array, "*s n"]:
  """The value of every sample's own class. Unlike indexing, it needs no scatter backwards."""
  is_own = jnp.arange(x.shape[-1]) == label[:, None]
  return jnp.sum(jnp.where(is_own, x, 0), axis=-1)


def _mean(values: Float[Array, " n"], mask: Shaped[Array, " n"] | None) -> Float[Array, ""]:
  if mask is None:
    return jnp.mean(values)
  mask = mask.astype(bool)
  return jnp.sum(jnp.where(mask, values, 0)) / jnp.maximum(jnp.sum(mask), 1)


def cross_entropy(
  logits: Float[Array, "n k"], labels: Int[Array, " n"], mask: Shaped[Array, " n"] | None = None
) -> Float[Array, ""]:
  """Mean cross-entropy of softmax probabilities.

  Args:
    logits: of K classes.
    labels: true classes.
    mask: samples that count; all by default.
  """
  logits = _upcast(logits)
  return _mean(jax.nn.logsumexp(logits, axis=-1) - _pick(logits, labels), mask)


def hierarchical_loss(
  action_logits: Float[Array, "n a"],
  body_logits: Float[Array, "n b"],
  action: Int[Array, " n"],
  parents: Int[Array, " a"],
  hp_lambda: float = 1.0,
  mask: Shaped[Array, " n"] | None = None,
) -> Float[Array, ""]:
  """Cross-entropy over the legal states of the label tree (PCAN eq. 1 and 2).

  A state is a body part alone, or an action together with its body part; its score is the sum of
  their sigmoids, body parts weighted by lambda.

  Args:
    action_logits: logits of the action classifier.
    body_logits: logits of the body classifier.
    action: true actions.
    parents: body part of every action.
    hp_lambda: lambda.
    mask: samples that count; all by default.
  """
  body = hp_lambda * jax.nn.sigmoid(_upcast(body_logits))
  with_parent = body[:, parents] + jax.nn.sigmoid(_upcast(action_logits))
  states = jnp.concatenate([body, with_parent], axis=-1)
  return cross_entropy(states, body.shape[-1] + action, mask)


def pcc_terms(
  z: Float[Array, "n d"],
  prototypes: Float[Array, "k d"],
  logits: Float[Array, "n k"],
  sets: proto.AmbiguousSets,
  alpha: Sequence[float],
  config: LossConfig,
) -> Float[Array, "s n"]:
  """The calibrating loss of every sample of one level, term by term (PCAN eq. 4-8).

  Each term is the cross-entropy of the sample's similarities to the prototypes, after a penalty
  was taken off its own class: for being far from the centre of its class's false negatives, or near
  the centre of those mistaken for its class. The surer the classifier, the smaller the penalty.

  Args:
    z: embeddings.
    prototypes: the updated ones.
    logits: of the classifier of this level.
    sets: of this level.
    alpha: one factor per false negative set; it is applied to the logits or not at all, as
      `config.pcc_alpha_scales` says.
    config: its temperature, and what its terms cover.

  Returns:
    A row per false negative set, in the order of `sets.fn`, and one for the false positives; 0 for
    samples not covered.

  Raises:
    ValueError: there is not one alpha for each set.
  """
  if len(alpha) != len(sets.fn):
    raise ValueError(f"{len(sets.fn)} sets of false negatives, but alpha is {tuple(alpha)}")
  z, prototypes, logits = _upcast(z), _upcast(prototypes), _upcast(logits)
  num_classes = prototypes.shape[0]
  label = sets.label
  doubt = 1 - _pick(jax.nn.softmax(logits, axis=-1), label)

  masks = jnp.stack([*sets.fn, sets.fp])
  filed_under = jnp.stack([label] * len(sets.fn) + [sets.predicted])
  centres, counts = jax.vmap(proto.class_means, in_axes=(None, 0, 0, None))(
    z, filed_under, masks, num_classes
  )
  exists = counts[:, label] > 0
  cosines = _cosines(z, jnp.concatenate([prototypes[None], centres]))
  similarity = cosines[0] / config.pcc_temperature
  nearness = _pick(cosines[1:], label)
  # False negatives shall come closer to their centre, all others leave that of false positives.
  penalty = doubt * jnp.concatenate([1 - nearness[:-1], 1 + nearness[-1:]])

  scale = jnp.ones(len(masks), z.dtype)
  if config.pcc_alpha_scales == "logits":
    scale = jnp.array([*alpha, 1.0], z.dtype)
  own = scale[:, None] * (_pick(similarity, label) - jnp.where(exists, penalty, 0))
  is_own = jnp.arange(num_classes) == label[:, None]
  class_logits = jnp.where(is_own, own[..., None], scale[:, None, None] * similarity)
  terms = jax.nn.logsumexp(class_logits, axis=-1) - own
  if config.pcc_covers == "batch":
    return terms
  return jnp.where(jnp.stack([*sets.fn, exists[-1]]), terms, 0)


def pcc_loss(
  z: Float[Array, "n d"],
  prototypes: Float[Array, "k d"],
  logits: Float[Array, "n k"],
  sets: proto.AmbiguousSets,
  alpha: Sequence[float],
  config: LossConfig,
  mask: Shaped[Array, " n"] | None = None,
) -> Float[Array, ""]:
  """Prototypical calibrating loss of one level (PCAN eq. 4-8), before its weight.

  Args:
    z: embeddings.
    prototypes: the updated ones.
    logits: of the classifier of this level.
    sets: of this level.
    alpha: one factor per false negative set.
    config: as for `pcc_terms`.
    mask: samples that count, the same as in `sets`; all by default.

  Raises:
    ValueError: there is not one alpha for each set.
  """
  terms = pcc_terms(z, prototypes, logits, sets, alpha, config)
  if config.pcc_alpha_scales == "loss":
    terms *= jnp.array([*alpha, 1.0], terms.dtype)[:, None]
  return _mean(jnp.sum(terms, axis=0), mask)


def pda_loss(prototypes: Float[Array, "k d"]) -> Float[Array, ""]:
  """Prototypical diversity amplification: Frobenius norm of the prototypes' cosines (PCAN eq. 9).

  Squares are summed; eq. 9 as printed is the root of a sum that can be negative.
  """
  prototypes = _upcast(prototypes)
  squared = jnp.sum(jnp.square(_cosines(prototypes, prototypes)))
  # Only when all prototypes are zero is there nothing to take the root's gradient of.
  return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def rectify(
  logits: Float[Array, "n k"],
  z: Float[Array, "n d"],
  prototypes: Float[Array, "k d"],
  gamma: float,
) -> Float[Array, "n k"]:
  """Adds to the action logits the similarities to the prototypes (PCAN eq. 10 and 11).

  Args:
    logits: of the action classifier.
    z: action embeddings.
    prototypes: of the actions.
    gamma: their weight; 0 leaves the logits as they are.
  """
  return _upcast(logits) + gamma * _cosines(_upcast(z), _upcast(prototypes))


def stream_loss(
  *,
  action_logits: Float[Array, "n a"],
  body_logits: Float[Array, "n b"],
  action: Int[Array, " n"],
  parents: Sequence[int] | Int[Array, " a"],
  config: LossConfig,
  action_embedding: Float[Array, "n d"] | None = None,
  body_embedding: Float[Array, "n e"] | None = None,
  prototypes: dict[str, Float[Array, "_ _"]] | None = None,
  mask: Shaped[Array, " n"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]], dict[str, Float[Array, "_ _"]] | None]:
  """All losses of one stream, and its new prototypes.

  Args:
    action_logits: logits of the action classifier.
    body_logits: logits of the body classifier.
    action: true actions.
    parents: body part of every action.
    config: which losses, and how.
    action_embedding: z in the space of the action prototypes; None for a stream without.
    body_embedding: z in the space of the body prototypes; None for a stream without.
    prototypes: {"action": [A, D], "body": [B, E]}; None for a stream without.
    mask: samples that count; all by default.

  Returns:
    The weighted sum; the losses before their weights and the sizes of the ambiguous sets, by name;
    the prototypes to store, cut from the gradient, or None for a stream without.

  Raises:
    ValueError: a loss is on that needs embeddings and prototypes, and there are none.
  """
  parents = jnp.asarray(parents)
  body = parents[action]
  of_actions, of_bodies = proto.ambiguous_sets(action_logits, body_logits, action, body, mask)
  terms = {
    "ce_action": cross_entropy(action_logits, action, mask),
    "ce_body": cross_entropy(body_logits, body, mask),
  }
  total = config.ce_weight * (terms["ce_action"] + terms["ce_body"])
  if config.hp_weight:
    terms["hp"] = hierarchical_loss(
      action_logits, body_logits, action, parents, config.hp_lambda, mask
    )
    total += config.hp_weight * terms["hp"]

  new_prototypes = None
  without = [x is None for x in (action_embedding, body_embedding, prototypes)]
  if config.needs_prototypes and any(without):
    raise ValueError("pcc_weight and pda_weight must be 0 for a stream without prototypes")
  if not any(without):
    updated = {}
    levels = (
      ("action", action_embedding, action_logits, of_actions, config.pcc_alpha),
      ("body", body_embedding, body_logits, of_bodies, (1.0,)),
    )
    for level, z, logits, sets, alpha in levels:
      updated[level] = proto.update_prototypes(
        _upcast(prototypes[level]), _upcast(z), sets.label, sets.tp, config.prototype_momentum
      )
      if config.pcc_weight:
        name = f"pcc_{level}"
        terms[name] = pcc_loss(z, updated[level], logits, sets, alpha, config, mask)
        total += config.pcc_weight * terms[name]
    new_prototypes = jax.lax.stop_gradient(updated)
    if config.pda_weight:
      spread = updated if config.pda_gradient else new_prototypes
      terms["pda"] = pda_loss(spread["action"])
      total += config.pda_weight * terms["pda"]

  terms["num_tp"] = jnp.sum(of_actions.tp)
  for kind, fn in zip(("a1", "a2", "a3"), of_actions.fn):
    terms[f"num_fn_{kind}"] = jnp.sum(fn)
  terms["num_fp"] = jnp.sum(of_actions.fp)
  terms["num_body_tp"] = jnp.sum(of_bodies.tp)
  terms["num_body_fp"] = jnp.sum(of_bodies.fp)
  return total, terms, new_prototypes

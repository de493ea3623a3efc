"""PCAN's losses of one stream: cross-entropy, hierarchical, calibrating (PCC), diversity (PDA).

Equation numbers are those of arXiv 2412.14719. Where the paper and the authors' released code
differ, a value of `LossConfig` chooses; `configs/ma52.py` has both sets of values. `dis` in eq. 5,
8 and 9 is read as cosine similarity, and eq. 7 and 8 divide by the temperature; docs/METHOD.md says
why.

Losses are means over the samples of a batch, computed in float32 or better.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pcan_jax.cosine import cosines, upcast
from pcan_jax.labels import LEVELS
from pcan_jax.method.class_balance import Balance
from pcan_jax.method.classification import Mixed, cross_entropy, pick, soft_f1_loss
from pcan_jax.method.loss_config import LossConfig
from pcan_jax.method.prototypes import class_means, update_prototypes
from pcan_jax.method.sets import AmbiguousSets, ambiguous_sets


def hierarchical_loss(
  action_logits: Float[Array, "n a"],
  body_logits: Float[Array, "n b"],
  action: Int[Array, " n"],
  parents: Int[Array, " a"],
  hp_lambda: float,
  mixed: Mixed | None = None,
) -> Float[Array, ""]:
  """Cross-entropy over the legal states of the label tree (PCAN eq. 1 and 2).

  A state is a body part alone, or an action with its body part; its score is the sum of their
  sigmoids, with lambda as the weight of the body part.

  Args:
    action_logits: logits of the action classifier.
    body_logits: logits of the body classifier.
    action: true actions.
    parents: body part of every action.
    hp_lambda: lambda.
    mixed: other actions with a share in the target.
  """
  body = hp_lambda * jax.nn.sigmoid(upcast(body_logits))
  with_parent = body[:, parents] + jax.nn.sigmoid(upcast(action_logits))
  states = jnp.concatenate([body, with_parent], axis=-1)
  if mixed is not None:
    mixed = mixed._replace(label=body.shape[-1] + mixed.label)
  return cross_entropy(states, body.shape[-1] + action, mixed=mixed)


def pcc_terms(
  z: Float[Array, "n d"],
  prototypes: Float[Array, "k d"],
  logits: Float[Array, "n k"],
  sets: AmbiguousSets,
  alpha: Sequence[float],
  config: LossConfig,
) -> Float[Array, "s n"]:
  """The calibrating loss of every sample of one level, term by term (PCAN eq. 4-8).

  Each term is the cross-entropy of the sample's similarities to the prototypes, with a penalty
  subtracted from its true class: for being far from the centre of that class's false negatives, or
  near the centre of its false positives. A confident classifier has a small penalty.

  Args:
    z: embeddings.
    prototypes: after the update.
    logits: of the classifier of this level.
    sets: of this level.
    alpha: one factor per false negative set; used here only if `config.pcc_alpha_scales` is
      "logits".
    config: the temperature, and what the terms cover.

  Returns:
    A row per false negative set, in the order of `sets.fn`, and one for the false positives; 0 for
    samples not covered.

  Raises:
    ValueError: there is not one alpha for each set.
  """
  if len(alpha) != len(sets.fn):
    raise ValueError(f"{len(sets.fn)} sets of false negatives, but alpha is {tuple(alpha)}")
  z, prototypes, logits = upcast(z), upcast(prototypes), upcast(logits)
  num_classes = prototypes.shape[0]
  label = sets.label
  doubt = 1 - pick(jax.nn.softmax(logits, axis=-1), label)

  masks = jnp.stack([*sets.fn, sets.fp])
  filed_under = jnp.stack([label] * len(sets.fn) + [sets.predicted])
  centres, counts = jax.vmap(class_means, in_axes=(None, 0, 0, None))(
    z, filed_under, masks, num_classes
  )
  exists = counts[:, label] > 0
  similarities = cosines(z, jnp.concatenate([prototypes[None], centres]))
  similarity = similarities[0] / config.pcc_temperature
  nearness = pick(similarities[1:], label)
  # False negatives are pulled to their centre; samples are pushed from that of false positives.
  penalty = doubt * jnp.concatenate([1 - nearness[:-1], 1 + nearness[-1:]])

  scale = jnp.ones(len(masks), z.dtype)
  if config.pcc_alpha_scales == "logits":
    scale = jnp.array([*alpha, 1.0], z.dtype)
  own = scale[:, None] * (pick(similarity, label) - jnp.where(exists, penalty, 0))
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
  sets: AmbiguousSets,
  alpha: Sequence[float],
  config: LossConfig,
) -> Float[Array, ""]:
  """Prototypical calibrating loss of one level (PCAN eq. 4-8), before its weight.

  Args:
    z: embeddings.
    prototypes: after the update.
    logits: of the classifier of this level.
    sets: of this level.
    alpha: one factor per false negative set.
    config: as for `pcc_terms`.

  Raises:
    ValueError: there is not one alpha for each set.
  """
  terms = pcc_terms(z, prototypes, logits, sets, alpha, config)
  of_negatives = alpha if config.pcc_alpha_scales == "loss" else (1.0,) * len(alpha)
  terms *= jnp.array([*of_negatives, config.pcc_fp_weight], terms.dtype)[:, None]
  return jnp.mean(jnp.sum(terms, axis=0))


def pda_loss(
  x: Float[Array, "n d"],
  prototypes: Float[Array, "k d"],
  pairs: Bool[Array, "n k"] | None = None,
  *,
  centred: bool = False,
) -> Float[Array, ""]:
  """Prototypical diversity amplification: Frobenius norm of cosines to prototypes (PCAN eq. 9).

  Sums squares; eq. 9 as printed is the root of a sum that can be negative.

  Args:
    x: the prototypes, in the paper.
    prototypes: of all classes.
    pairs: those that count; None is all of them, the constant ones of prototypes with themselves
      included, as in the paper.
    centred: see `LossConfig.pda_centred`.
  """
  x, prototypes = upcast(x), upcast(prototypes)
  if centred:
    centre = jax.lax.stop_gradient(jnp.mean(prototypes, axis=0))
    x, prototypes = x - centre, prototypes - centre
  squares = jnp.square(cosines(x, prototypes))
  squared = jnp.sum(squares if pairs is None else jnp.where(pairs, squares, 0))
  # The root has no finite gradient at zero, where all prototypes are zero.
  return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def _diversity(
  z: Float[Array, "n d"],
  before: Float[Array, "k d"],
  updated: Float[Array, "k d"],
  label: Int[Array, " n"],
  parents: Int[Array, " k"],
  config: LossConfig,
) -> Float[Array, ""]:
  """The diversity loss of the action level, before its weight, as the config has it.

  Args:
    z: embeddings.
    before, updated: prototypes before and after the update.
    label: true actions.
    parents: body part of every action.
    config: what is to differ from what.
  """
  classes = jnp.arange(len(parents))
  siblings = parents == parents[:, None]
  if config.pda_of == "prototypes":
    pairs = siblings if config.pda_between == "siblings" else None
    return pda_loss(updated, updated, pairs, centred=config.pda_centred)
  others = classes != classes[:, None]
  pairs = others & siblings if config.pda_between == "siblings" else others
  before = jax.lax.stop_gradient(before)
  if config.pda_of == "embeddings":
    return pda_loss(z, before, pairs[label], centred=config.pda_centred)
  means, counts = class_means(z, label, jnp.ones(label.shape, bool), len(parents))
  return pda_loss(means, before, pairs & (counts > 0)[:, None], centred=config.pda_centred)


def frame_loss(
  logits: Float[Array, "n t k"],
  labels: Int[Array, " n"],
  config: LossConfig,
  mixed: Mixed | None = None,
  balance: Mapping[str, Balance] | None = None,
) -> Float[Array, ""]:
  """Mean cross-entropy of every time step with the action of its clip.

  Args:
    logits: of the classifier of time steps.
    labels: true actions.
    config, mixed, balance: as for the cross-entropy of actions in `stream_loss`.
  """
  of_step = functools.partial(
    cross_entropy,
    labels=labels,
    smoothing=config.label_smoothing,
    mixed=mixed,
    balance=balance and balance["action"],
    margin=config.margin,
  )
  return jnp.mean(jax.vmap(of_step, in_axes=1)(logits))


def fusion_loss(
  logits: Mapping[str, Float[Array, "n k"]], rgb_share: Float[Array, ""], labels: Int[Array, " n"]
) -> Float[Array, ""]:
  """Mean negative log-likelihood of the averaged probabilities of two streams.

  Only the share has a gradient: the streams learn as they would alone.

  Args:
    logits: by stream, "rgb" and "pose".
    rgb_share: of the RGB stream's probabilities in the average.
    labels: true classes.
  """
  logs = {
    stream: pick(jax.nn.log_softmax(upcast(jax.lax.stop_gradient(x))), labels)
    for stream, x in logits.items()
  }
  of_rgb, of_pose = logs["rgb"] + jnp.log(rgb_share), logs["pose"] + jnp.log1p(-rgb_share)
  return -jnp.mean(jnp.logaddexp(of_rgb, of_pose))


def _prototype_losses(
  outputs: dict[str, dict[str, Float[Array, "_ _"]]],
  prototypes: dict[str, Float[Array, "_ _"]],
  sets: dict[str, AmbiguousSets],
  parents: Int[Array, " a"],
  config: LossConfig,
) -> tuple[dict[str, Float[Array, ""]], dict[str, Float[Array, "_ _"]]]:
  """The losses on embeddings and prototypes, and the prototypes to store; see `stream_loss`."""
  terms, updated = {}, {}
  alphas = {"action": config.pcc_alpha, "body": (1.0,)}
  for level, of_level in sets.items():
    z, logits = outputs[level]["embedding"], outputs[level]["logits"]
    by = of_level.tp if config.prototype_samples == "true_positives" else jnp.ones_like(of_level.tp)
    updated[level] = update_prototypes(
      upcast(prototypes[level]),
      upcast(z),
      of_level.label,
      by,
      config.prototype_momentum,
      first_whole=config.prototype_start == "zero",
      on_sphere=config.prototype_on_sphere,
    )
    if config.pcc_weight:
      terms[f"pcc_{level}"] = pcc_loss(z, updated[level], logits, of_level, alphas[level], config)
  if config.pda_weight:
    before, z = upcast(prototypes["action"]), upcast(outputs["action"]["embedding"])
    pda = _diversity(z, before, updated["action"], sets["action"].label, parents, config)
    terms["pda"] = pda if config.pda_gradient else jax.lax.stop_gradient(pda)
  return terms, jax.lax.stop_gradient(updated)


def stream_loss(
  outputs: dict[str, dict[str, Float[Array, "_ _"]]],
  prototypes: dict[str, Float[Array, "_ _"]] | None,
  *,
  action: Int[Array, " n"],
  parents: Sequence[int] | Int[Array, " a"],
  config: LossConfig,
  mixed: Mixed | None = None,
  balance: Mapping[str, Balance] | None = None,
  pcc_share: Float[Array, ""] | float = 1.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]], dict[str, Float[Array, "_ _"]] | None]:
  """All losses of one stream, and its new prototypes.

  Args:
    outputs: of the network, per level (`action`, `body`) the `logits` [N, C] and, with prototypes,
      the `embedding` [N, D].
    prototypes: per level [C, D]; None for a model without.
    action: true actions.
    parents: body part of every action.
    config: weights and options of the losses.
    mixed: actions of other clips that were mixed into these. The cross-entropies, the soft F1 and
      the hierarchical loss are mixed likewise; sets and prototypes go by the clip's own action.
    balance: of the cross-entropies, by level; needed if `config.needs_counts`.
    pcc_share: of the weight of the calibrating losses, see `LossConfig.pcc_share`.

  Returns:
    The weighted sum; the unweighted losses and the sizes of the ambiguous sets, by name; the
    prototypes to store, without gradient, or None for a model without.

  Raises:
    ValueError: a loss is switched on that needs prototypes or a balance, and there is none.
  """
  if config.needs_prototypes and prototypes is None:
    raise ValueError("pcc_weight and pda_weight must be 0 for a stream without prototypes")
  if config.needs_counts and balance is None:
    raise ValueError("logit_adjustment and class_balance need the balance of the classes")
  parents = jnp.asarray(parents)
  body = parents[action]
  action_logits, body_logits = (outputs[level]["logits"] for level in LEVELS)
  of_actions, of_bodies = ambiguous_sets(action_logits, body_logits, action, body)
  mixed_body = None if mixed is None else mixed._replace(label=parents[mixed.label])
  levels = {"action": (action_logits, action, mixed), "body": (body_logits, body, mixed_body)}
  terms = {
    f"ce_{level}": cross_entropy(
      logits,
      labels,
      smoothing=config.label_smoothing,
      mixed=of_others,
      balance=balance and balance[level],
      margin=config.margin,
    )
    for level, (logits, labels, of_others) in levels.items()
  }
  if config.hp_weight:
    terms["hp"] = hierarchical_loss(
      action_logits, body_logits, action, parents, config.hp_lambda, mixed
    )
  if config.soft_f1_weight:
    for level, (logits, labels, of_others) in levels.items():
      terms[f"f1_{level}"] = soft_f1_loss(logits, labels, mixed=of_others)
  new_prototypes = None
  if prototypes is not None:
    of_prototypes, new_prototypes = _prototype_losses(
      outputs, prototypes, {"action": of_actions, "body": of_bodies}, parents, config
    )
    terms |= of_prototypes
  weights = config.weights(pcc_share)
  total = sum((weights[name] * terms[name] for name in terms if name in weights), jnp.zeros(()))

  terms["num_tp"] = jnp.sum(of_actions.tp)
  for kind, fn in zip(("a1", "a2", "a3"), of_actions.fn):
    terms[f"num_fn_{kind}"] = jnp.sum(fn)
  terms["num_fp"] = jnp.sum(of_actions.fp)
  terms["num_body_tp"] = jnp.sum(of_bodies.tp)
  terms["num_body_fp"] = jnp.sum(of_bodies.fp)
  return total, terms, new_prototypes

"""PCAN's losses of one stream: cross-entropy, hierarchical, calibrating (PCC), diversity (PDA).

Equation numbers are those of arXiv 2412.14719. Where the paper and the authors' released code
differ, a value of `LossConfig` chooses; `configs/ma52.py` has both sets of values. `dis` in eq. 5,
8 and 9 is read as cosine similarity, and eq. 7 and 8 divide by the temperature; docs/METHOD.md says
why.

Losses are means over the samples of a batch, computed in float32 or better.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args, get_origin

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from pcan_jax.method.cosine import cosines, upcast
from pcan_jax.method.prototypes import class_means, update_prototypes
from pcan_jax.method.sets import AmbiguousSets, ambiguous_sets


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """The losses of a stream. A weight of 0 switches a loss off.

  Attributes:
    ce_weight: of the cross-entropies of both classifiers.
    hp_weight: of the hierarchical loss.
    hp_lambda: weight of body parts' probabilities in that loss (eq. 1).
    pcc_weight: of the calibrating losses of both levels.
    pcc_temperature: tau in eq. 7 and 8.
    pcc_alpha: for the false negatives A1, A2, A3 of the action level.
    pcc_alpha_scales: whether alpha multiplies the terms ("loss") or, within them, the logits.
    pcc_fp_weight: of the false positives' term, beside 1 for those of the false negatives.
    pcc_body_weight: of the calibrating loss of the body level, beside 1 for the action level.
    pcc_covers: "sets": a false negative term covers the samples in its set, the false positive
      term those whose class has false positives. "batch": all terms cover every sample. The
      penalties in the terms are the same.
    pda_weight: of the diversity loss, beta.
    pda_gradient: whether the diversity loss has a gradient, which reaches the embeddings through
      the updated prototypes.
    pda_of: what is to differ from the prototypes of other classes. "prototypes": the prototypes
      themselves, after the update, as in the paper. "means": the class means of the batch.
      "embeddings": every embedding. The latter two compare with the prototypes before the update,
      and their gradient is not reduced by the update's 1 - momentum.
    pda_between: which classes are to differ: "all", as in the paper, or "siblings", actions of one
      body part.
    pda_centred: whether the mean of all prototypes is subtracted first; a direction that all
      embeddings share makes all cosines large. Not in the paper.
    prototype_momentum: the fraction of a prototype that an update keeps (eq. 3).
    prototype_samples: which clips move the prototype of their class: "true_positives", as in the
      paper, or "all".
    prototype_start: "normal", as the authors' code has it: drawn from N(0, 1); or "zero": the first
      update is the mean itself, and until then a prototype is similar to nothing.
    prototype_on_sphere: see `update_prototypes`.
    label_smoothing: the share of the target of the classifiers' cross-entropies that is spread over
      all classes.

  Raises:
    ValueError: a value is out of range.
  """

  ce_weight: float
  hp_weight: float
  hp_lambda: float
  pcc_weight: float
  pcc_temperature: float
  pcc_alpha: tuple[float, float, float]
  pcc_alpha_scales: Literal["loss", "logits"]
  pcc_fp_weight: float
  pcc_body_weight: float
  pcc_covers: Literal["sets", "batch"]
  pda_weight: float
  pda_gradient: bool
  pda_of: Literal["prototypes", "means", "embeddings"]
  pda_between: Literal["all", "siblings"]
  pda_centred: bool
  prototype_momentum: float
  prototype_samples: Literal["true_positives", "all"]
  prototype_start: Literal["normal", "zero"]
  prototype_on_sphere: bool
  label_smoothing: float

  def __post_init__(self) -> None:
    if len(self.pcc_alpha) != 3:
      raise ValueError(f"pcc_alpha needs a value for each of A1, A2, A3: {self.pcc_alpha}")
    for field in dataclasses.fields(self):
      choices = get_args(field.type) if get_origin(field.type) is Literal else ()
      if choices and getattr(self, field.name) not in choices:
        named = " or ".join(map(repr, choices))
        raise ValueError(f"{field.name} is {named}, not {getattr(self, field.name)!r}")
    if self.pcc_temperature <= 0:
      raise ValueError(f"pcc_temperature must be positive, not {self.pcc_temperature}")
    if not 0 <= self.prototype_momentum <= 1:
      raise ValueError(f"prototype_momentum must be in 0..1, not {self.prototype_momentum}")
    if not 0 <= self.label_smoothing < 1:
      raise ValueError(f"label_smoothing must be in 0..1, and not 1, not {self.label_smoothing}")

  @property
  def needs_prototypes(self) -> bool:
    """Whether a loss on embeddings and prototypes is switched on."""
    return self.pcc_weight != 0 or self.pda_weight != 0


def _pick(x: Shaped[Array, "*s n k"], label: Int[Array, " n"]) -> Shaped[Array, "*s n"]:
  """The value of every sample's true class. Unlike indexing, its gradient needs no scatter."""
  is_own = jnp.arange(x.shape[-1]) == label[:, None]
  return jnp.sum(jnp.where(is_own, x, 0), axis=-1)


class Mixed(NamedTuple):
  """What was mixed into the samples of a batch, see `inputs.mix`.

  Attributes:
    label: the class of what was mixed into each sample.
    share: how much of it, at most a half, so that the sample's own class is the dominant one.
  """

  label: Int[Array, " n"]
  share: Float[Array, " n"]


def cross_entropy(
  logits: Float[Array, "n k"],
  labels: Int[Array, " n"],
  *,
  smoothing: float = 0.0,
  mixed: Mixed | None = None,
) -> Float[Array, ""]:
  """Mean cross-entropy of softmax probabilities.

  Args:
    logits: of K classes.
    labels: true classes.
    smoothing: the share of the target that is spread over all classes.
    mixed: other classes with a share in the target.
  """
  logits = upcast(logits)
  own = _pick(logits, labels)
  if mixed is not None:
    own = (1 - mixed.share) * own + mixed.share * _pick(logits, mixed.label)
  if smoothing:
    own = (1 - smoothing) * own + smoothing * jnp.mean(logits, axis=-1)
  return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - own)


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
  doubt = 1 - _pick(jax.nn.softmax(logits, axis=-1), label)

  masks = jnp.stack([*sets.fn, sets.fp])
  filed_under = jnp.stack([label] * len(sets.fn) + [sets.predicted])
  centres, counts = jax.vmap(class_means, in_axes=(None, 0, 0, None))(
    z, filed_under, masks, num_classes
  )
  exists = counts[:, label] > 0
  similarities = cosines(z, jnp.concatenate([prototypes[None], centres]))
  similarity = similarities[0] / config.pcc_temperature
  nearness = _pick(similarities[1:], label)
  # False negatives are pulled to their centre; samples are pushed from that of false positives.
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
    stream: _pick(jax.nn.log_softmax(upcast(jax.lax.stop_gradient(x))), labels)
    for stream, x in logits.items()
  }
  of_rgb, of_pose = logs["rgb"] + jnp.log(rgb_share), logs["pose"] + jnp.log1p(-rgb_share)
  return -jnp.mean(jnp.logaddexp(of_rgb, of_pose))


def stream_loss(
  outputs: dict[str, dict[str, Float[Array, "_ _"]]],
  prototypes: dict[str, Float[Array, "_ _"]] | None,
  *,
  action: Int[Array, " n"],
  parents: Sequence[int] | Int[Array, " a"],
  config: LossConfig,
  mixed: Mixed | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]], dict[str, Float[Array, "_ _"]] | None]:
  """All losses of one stream, and its new prototypes.

  Args:
    outputs: of the network, per level (`action`, `body`) the `logits` [N, C] and, with prototypes,
      the `embedding` [N, D].
    prototypes: per level [C, D]; None for a model without.
    action: true actions.
    parents: body part of every action.
    config: weights and options of the losses.
    mixed: actions of other clips that were mixed into these. The cross-entropies and the
      hierarchical loss are mixed likewise; sets and prototypes go by the clip's own action.

  Returns:
    The weighted sum; the unweighted losses and the sizes of the ambiguous sets, by name; the
    prototypes to store, without gradient, or None for a model without.

  Raises:
    ValueError: a loss is switched on that needs prototypes, and there are none.
  """
  if config.needs_prototypes and prototypes is None:
    raise ValueError("pcc_weight and pda_weight must be 0 for a stream without prototypes")
  parents = jnp.asarray(parents)
  body = parents[action]
  action_logits, body_logits = (outputs[level]["logits"] for level in ("action", "body"))
  of_actions, of_bodies = ambiguous_sets(action_logits, body_logits, action, body)
  mixed_body = None if mixed is None else mixed._replace(label=parents[mixed.label])
  smoothing = config.label_smoothing
  terms = {
    "ce_action": cross_entropy(action_logits, action, smoothing=smoothing, mixed=mixed),
    "ce_body": cross_entropy(body_logits, body, smoothing=smoothing, mixed=mixed_body),
  }
  total = config.ce_weight * (terms["ce_action"] + terms["ce_body"])
  if config.hp_weight:
    terms["hp"] = hierarchical_loss(
      action_logits, body_logits, action, parents, config.hp_lambda, mixed
    )
    total += config.hp_weight * terms["hp"]

  new_prototypes = None
  if prototypes is not None:
    updated = {}
    for level, sets, alpha in (
      ("action", of_actions, config.pcc_alpha),
      ("body", of_bodies, (1.0,)),
    ):
      z, logits = outputs[level]["embedding"], outputs[level]["logits"]
      all_samples = jnp.ones_like(sets.tp)
      updated[level] = update_prototypes(
        upcast(prototypes[level]),
        upcast(z),
        sets.label,
        sets.tp if config.prototype_samples == "true_positives" else all_samples,
        config.prototype_momentum,
        first_whole=config.prototype_start == "zero",
        on_sphere=config.prototype_on_sphere,
      )
      if config.pcc_weight:
        name = f"pcc_{level}"
        terms[name] = pcc_loss(z, updated[level], logits, sets, alpha, config)
        of_level = config.pcc_body_weight if level == "body" else 1.0
        total += config.pcc_weight * of_level * terms[name]
    new_prototypes = jax.lax.stop_gradient(updated)
    if config.pda_weight:
      before, after, z = prototypes["action"], updated["action"], outputs["action"]["embedding"]
      pda = _diversity(upcast(z), upcast(before), after, action, parents, config)
      terms["pda"] = pda if config.pda_gradient else jax.lax.stop_gradient(pda)
      total += config.pda_weight * terms["pda"]

  terms["num_tp"] = jnp.sum(of_actions.tp)
  for kind, fn in zip(("a1", "a2", "a3"), of_actions.fn):
    terms[f"num_fn_{kind}"] = jnp.sum(fn)
  terms["num_fp"] = jnp.sum(of_actions.fp)
  terms["num_body_tp"] = jnp.sum(of_bodies.tp)
  terms["num_body_fp"] = jnp.sum(of_bodies.fp)
  return total, terms, new_prototypes

"""The weights and options of the losses."""

import dataclasses
from typing import Literal, get_args, get_origin

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """The losses of a stream. A weight of 0 switches a loss off.

  Attributes:
    ce_weight: of the cross-entropies of both classifiers.
    hp_weight: of the hierarchical loss.
    hp_lambda: weight of body parts' probabilities in that loss (eq. 1).
    pcc_weight: of the calibrating losses of both levels.
    pcc_ramp_steps: during so many steps of training, that weight rises evenly from 0, so that
      prototypes are means of something before embeddings are pulled to them. 0 is the paper.
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
    logit_adjustment: tau, what the logarithms of the classes' shares of the training clips are
      multiplied by before they are added to the logits of the cross-entropies; see
      `class_balance.Balance`. 0 adds nothing. Not in the paper, like all that follow.
    class_balance: beta of the effective number of clips, by which the clips of every class are
      weighted in the cross-entropies; 0 weights all alike.
    soft_f1_weight: of the soft F1 losses of both classifiers.
    frame_weight: of the cross-entropy of every time step of the last feature maps, for which the
      network has a classifier of its own.
    margin: what is subtracted from the logit of the true class in the cross-entropies; with
      classifiers by cosine it is their scale times CosFace's m.

  Raises:
    ValueError: a value is out of range.
  """

  ce_weight: float
  hp_weight: float
  hp_lambda: float
  pcc_weight: float
  pcc_ramp_steps: int
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
  logit_adjustment: float
  class_balance: float
  soft_f1_weight: float
  frame_weight: float
  margin: float

  def __post_init__(self) -> None:
    if len(self.pcc_alpha) != 3:
      raise ValueError(f"loss.pcc_alpha needs a value for each of A1, A2, A3: {self.pcc_alpha}")
    for field in dataclasses.fields(self):
      choices = get_args(field.type) if get_origin(field.type) is Literal else ()
      if choices and getattr(self, field.name) not in choices:
        named = " or ".join(map(repr, choices))
        raise ValueError(f"loss.{field.name} is {named}, not {getattr(self, field.name)!r}")
    if self.pcc_ramp_steps < 0:
      raise ValueError(f"loss.pcc_ramp_steps must be 0 or more, not {self.pcc_ramp_steps}")
    if self.pcc_temperature <= 0:
      raise ValueError(f"loss.pcc_temperature must be positive, not {self.pcc_temperature}")
    if not 0 <= self.prototype_momentum <= 1:
      raise ValueError(f"loss.prototype_momentum must be in 0..1, not {self.prototype_momentum}")
    if not 0 <= self.label_smoothing < 1:
      raise ValueError(
        f"loss.label_smoothing must be at least 0 and below 1, not {self.label_smoothing}"
      )
    if self.logit_adjustment < 0:
      raise ValueError(f"loss.logit_adjustment must be 0 or more, not {self.logit_adjustment}")
    if self.margin < 0:
      raise ValueError(f"loss.margin must be 0 or more, not {self.margin}")
    if not 0 <= self.class_balance < 1:
      raise ValueError(
        f"loss.class_balance must be at least 0 and below 1, not {self.class_balance}"
      )

  @property
  def needs_prototypes(self) -> bool:
    """Whether a loss on embeddings and prototypes is switched on."""
    return self.pcc_weight != 0 or self.pda_weight != 0

  @property
  def needs_counts(self) -> bool:
    """Whether the losses depend on how many training clips each action has."""
    return self.logit_adjustment != 0 or self.class_balance != 0

  def pcc_share(self, step: Int[Array, ""]) -> Float[Array, ""] | float:
    """The share of `pcc_weight` that counts after so many steps of training."""
    return jnp.minimum(step / self.pcc_ramp_steps, 1.0) if self.pcc_ramp_steps else 1.0

  def weights(self, pcc_share: Float[Array, ""] | float) -> dict[str, Float[Array, ""] | float]:
    """What each term that is switched on is multiplied by in the total of a stream, by name."""
    every = {
      "ce_action": self.ce_weight,
      "ce_body": self.ce_weight,
      "hp": self.hp_weight,
      "pcc_action": self.pcc_weight,
      "pcc_body": self.pcc_weight * self.pcc_body_weight,
      "pda": self.pda_weight,
      "f1_action": self.soft_f1_weight,
      "f1_body": self.soft_f1_weight,
      "ce_frames": self.frame_weight,
    }
    return {
      name: weight * (pcc_share if name.startswith("pcc_") else 1.0)
      for name, weight in every.items()
      if weight
    }

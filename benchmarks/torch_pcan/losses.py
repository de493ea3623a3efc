"""The losses of one stream and its new prototypes, without loops over samples or classes.

Equations are those of PCAN, arXiv 2412.14719, as `pcan_jax.method.losses` reads them.
"""

import torch
from torch.nn import functional

from pcan_jax.config import load_config
from pcan_jax.labels import LEVELS
from pcan_jax.method.losses import LossConfig

ByName = dict[str, torch.Tensor]
StreamOutputs = dict[str, ByName]


def check(config: LossConfig) -> None:
  """Raises ValueError for losses other than the paper's; weights and factors may differ."""
  paper = load_config("ma52").loss
  fixed = ("pcc_alpha_scales", "pcc_covers", "pcc_fp_weight", "pcc_body_weight", "pcc_ramp_steps")
  fixed += (
    "label_smoothing",
    "logit_adjustment",
    "class_balance",
    "soft_f1_weight",
    "frame_weight",
    "margin",
  )
  fixed += tuple(name for name in paper if name.startswith(("pda_", "prototype_")))
  for field in set(fixed) - {"pda_weight", "prototype_momentum"}:
    if getattr(config, field) != paper[field]:
      raise ValueError(
        f"the PyTorch losses have loss.{field}={paper[field]!r} only, the config has "
        f"{getattr(config, field)!r}"
      )


def stream_loss(
  outputs: StreamOutputs,
  prototypes: ByName,
  action: torch.Tensor,
  parents: torch.Tensor,
  config: LossConfig,
) -> tuple[torch.Tensor, ByName, ByName]:
  """All losses of one stream, and its new prototypes.

  Args:
    outputs: of the network for one stream, per level `logits` [N, K] and `embedding` [N, D].
    prototypes: per level [K, D].
    action: true actions [N].
    parents: body part of every action [A].
    config: weights and factors of the losses.

  Returns:
    The weighted sum; the losses before their weights; the prototypes to store, detached.
  """
  action_logits, body_logits = (outputs[level]["logits"] for level in LEVELS)
  body = parents[action]
  predicted_action, predicted_body = action_logits.argmax(-1), body_logits.argmax(-1)
  action_right, body_right = predicted_action == action, predicted_body == body
  terms = {
    "ce_action": functional.cross_entropy(action_logits, action),
    "ce_body": functional.cross_entropy(body_logits, body),
    "hp": hierarchical_loss(action_logits, body_logits, action, parents, config.hp_lambda),
  }
  false_negatives = torch.stack(
    [~action_right & body_right, ~action_right & ~body_right, action_right & ~body_right]
  )
  levels = {
    "action": (
      action,
      predicted_action,
      action_right & body_right,
      false_negatives,
      config.pcc_alpha,
    ),
    "body": (body, predicted_body, body_right, ~body_right[None], (1.0,)),
  }
  updated = {}
  for level, (label, predicted, true_positive, negatives, alpha) in levels.items():
    z, logits = outputs[level]["embedding"], outputs[level]["logits"]
    updated[level] = update_prototypes(
      prototypes[level], z, label, true_positive, config.prototype_momentum
    )
    of_samples = pcc_terms(
      z,
      updated[level],
      logits,
      label,
      predicted,
      negatives,
      config.pcc_temperature,
    )
    terms[f"pcc_{level}"] = sum(a * x.mean() for a, x in zip((*alpha, 1.0), of_samples))
  spread = functional.normalize(updated["action"], dim=-1)
  terms["pda"] = torch.linalg.vector_norm(spread @ spread.T)
  total = (
    config.ce_weight * (terms["ce_action"] + terms["ce_body"])
    + config.hp_weight * terms["hp"]
    + config.pcc_weight * (terms["pcc_action"] + terms["pcc_body"])
    + config.pda_weight * terms["pda"]
  )
  return total, terms, {level: value.detach() for level, value in updated.items()}


def hierarchical_loss(
  action_logits: torch.Tensor,
  body_logits: torch.Tensor,
  action: torch.Tensor,
  parents: torch.Tensor,
  hp_lambda: float,
) -> torch.Tensor:
  """Cross-entropy over the legal states of the label tree (PCAN eq. 1 and 2)."""
  body = hp_lambda * body_logits.sigmoid()
  states = torch.cat([body, body[:, parents] + action_logits.sigmoid()], dim=-1)
  return functional.cross_entropy(states, body.shape[-1] + action)


def class_means(
  z: torch.Tensor, filed_under: torch.Tensor, masks: torch.Tensor, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
  """Means of embeddings by set and class (PCAN eq. 4 and 6).

  Args:
    z: embeddings [N, D].
    filed_under: class of every sample in every set [S, N].
    masks: who belongs to the sets [S, N].
    num_classes: K.

  Returns:
    Means [S, K, D], zero where nobody is filed, and how many are filed [S, K].
  """
  classes = torch.arange(num_classes, device=z.device)[:, None]
  members = ((filed_under[:, None] == classes) & masks[:, None]).to(z.dtype)
  counts = members.sum(-1)
  return members @ z / counts.clamp(min=1)[..., None], counts


def update_prototypes(
  prototypes: torch.Tensor,
  z: torch.Tensor,
  label: torch.Tensor,
  true_positive: torch.Tensor,
  momentum: float,
) -> torch.Tensor:
  """Moves classes with true positives towards their mean (PCAN eq. 3)."""
  means, counts = class_means(z, label[None], true_positive[None], prototypes.shape[0])
  moved = momentum * prototypes + (1 - momentum) * means[0]
  return torch.where(counts[0, :, None] > 0, moved, prototypes)


def pcc_terms(
  z: torch.Tensor,
  prototypes: torch.Tensor,
  logits: torch.Tensor,
  label: torch.Tensor,
  predicted: torch.Tensor,
  negatives: torch.Tensor,
  temperature: float,
) -> torch.Tensor:
  """The calibrating loss of every sample of one level, term by term (PCAN eq. 4-8).

  Args:
    z: embeddings [N, D].
    prototypes: the updated ones [K, D].
    logits: of the classifier of this level [N, K].
    label: true classes [N].
    predicted: predicted classes [N].
    negatives: a mask per set of false negatives [S, N].
    temperature: tau.

  Returns:
    A row per set of false negatives and one for the false positives [S + 1, N]; 0 for samples that
    a term does not cover.
  """
  num_sets = len(negatives)
  masks = torch.cat([negatives, (predicted != label)[None]])
  filed_under = torch.cat([label.expand(num_sets, -1), predicted[None]])
  centres, counts = class_means(z, filed_under, masks, len(prototypes))
  exists = counts[:, label] > 0
  unit = functional.normalize(z, dim=-1)
  nearness = (unit * functional.normalize(centres, dim=-1)[:, label]).sum(-1)
  distance = torch.cat([1 - nearness[:num_sets], 1 + nearness[num_sets:]])
  own = label[:, None]
  doubt = 1 - logits.softmax(-1).gather(1, own)[:, 0]
  similarity = unit @ functional.normalize(prototypes, dim=-1).T / temperature
  own_logits = similarity.gather(1, own)[:, 0] - torch.where(exists, doubt * distance, 0)
  class_logits = similarity.expand(num_sets + 1, -1, -1).scatter(
    2, own.expand(num_sets + 1, -1, -1), own_logits[..., None]
  )
  terms = class_logits.logsumexp(-1) - own_logits
  return torch.where(torch.cat([negatives, exists[num_sets:]]), terms, 0)


def rectify(
  logits: torch.Tensor, z: torch.Tensor, prototypes: torch.Tensor, gamma: float
) -> torch.Tensor:
  """Adds to the action logits the similarities to the prototypes (PCAN eq. 10 and 11)."""
  return logits + gamma * (
    functional.normalize(z, dim=-1) @ functional.normalize(prototypes, dim=-1).T
  )

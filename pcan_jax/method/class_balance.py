"""What rare classes get in training: logit adjustment, and weights by effective numbers of clips.

References: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, arXiv 2007.07314,
eq. 10; Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019,
arXiv 1901.05555, eq. 5 and 10.

Neither PCAN's paper nor its release has them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pcan_jax.labels import LEVELS


class Balance(NamedTuple):
  """What depends on how many training clips a class of one level has.

  Attributes:
    offset: added to the logits in training; the loss then demands a larger margin of rare classes.
    weight: of the clips of every class.
  """

  offset: Float[np.ndarray, " k"]
  weight: Float[np.ndarray, " k"]


def balances(
  action_counts: Sequence[int], parents: Sequence[int], tau: float, beta: float
) -> dict[str, Balance] | None:
  """The balance of both levels, by level; None if nothing is balanced.

  A class without a clip counts as one with a single clip.

  Args:
    action_counts: training clips of every action.
    parents: body part of every action.
    tau: factor of the logit adjustment; 0 adds nothing.
    beta: of the effective number of clips; 0 weights all classes alike.

  Raises:
    ValueError: something is to be balanced, and there is not one count for each action.
  """
  if not tau and not beta:
    return None
  if len(action_counts) != len(parents):
    raise ValueError(
      "loss.logit_adjustment and loss.class_balance need the number of training clips of each of "
      f"the {len(parents)} actions, but {len(action_counts)} are known"
    )
  counts = {
    "action": np.array(action_counts),
    "body": np.bincount(parents, weights=action_counts),
  }
  return {
    level: Balance(
      adjustment(counts[level], tau).astype(np.float32),
      effective_weights(counts[level], beta).astype(np.float32),
    )
    for level in LEVELS
  }


def adjustment(
  counts: Int[np.ndarray, " k"] | Float[np.ndarray, " k"], tau: float
) -> Float[np.ndarray, " k"]:
  """`tau` times the logarithms of the classes' shares of the clips (Menon et al. eq. 10).

  Relative to the most frequent class, which changes no probability.
  """
  counts = np.maximum(counts, 1)
  return tau * np.log(counts / counts.max())


def effective_weights(
  counts: Int[np.ndarray, " k"] | Float[np.ndarray, " k"], beta: float
) -> Float[np.ndarray, " k"]:
  """One over the effective numbers of clips (Cui et al. eq. 5 and 10).

  Their mean over the classes that have clips is 1.
  """
  weights = (1 - beta) / (1 - beta ** np.maximum(counts, 1))
  return weights / weights[counts > 0].mean()

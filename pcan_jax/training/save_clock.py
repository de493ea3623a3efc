"""Saving by the clock, for runs whose epochs take hours."""

import time

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict


class SaveClock:
  """Says when the newest checkpoint is older than `checkpoints.every_minutes`; 0 is never.

  On several hosts the clock of the first counts, and as that takes the hosts a moment, they look
  at it every `log_every` steps only.
  """

  def __init__(self, config: ConfigDict) -> None:
    self._seconds = 60 * config.checkpoints.every_minutes
    self._log_every = config.log_every
    self.saved()

  def saved(self) -> None:
    """Starts anew."""
    self._since = time.monotonic()

  def due(self, step: int) -> bool:
    """Whether to save after this step; to be asked on all hosts."""
    if not self._seconds:
      return False
    late = time.monotonic() - self._since >= self._seconds
    if jax.process_count() == 1:
      return late
    if step % self._log_every:
      return False
    return bool(multihost_utils.broadcast_one_to_all(np.array(late)))

"""Progress of a training run: log lines, a progress bar and TensorBoard scalars."""

import contextlib
import logging
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax
from clu import metric_writers
from tqdm import tqdm

from pcan_jax.network.pcan import STREAMS
from pcan_jax.training.step import Terms

_log = logging.getLogger(__name__)
_WORTH_SAYING = 0.1  # of the time that training waits for data


class Progress:
  """Averages metrics between reports; a report does not wait for the step just dispatched."""

  def __init__(
    self,
    start_step: int,
    total_steps: int,
    batch_size: int,
    steps_per_epoch: float,
    writer: metric_writers.MetricWriter,
    schedule: optax.Schedule,
  ) -> None:
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._steps_per_epoch = steps_per_epoch
    self._writer = writer
    self._schedule = schedule
    self._add = jax.jit(lambda total, terms: jax.tree.map(jnp.add, total, terms))
    self._total, self._count, self._newest = None, 0, None
    # The step that was complete at a time, since which the rate is measured.
    self._known_step, self._since = start_step, None
    self._started, self._waited = time.monotonic(), 0.0
    # On terminals only, below the log lines.
    self._bar = tqdm(
      initial=start_step, total=total_steps, unit="step", desc="training", disable=None, leave=False
    )

  def add(self, terms: Terms | None) -> None:
    """Adds the metrics of a step, which may not have been computed yet."""
    if self._since is None:  # the rate does not include the first step, which is compiled
      jax.block_until_ready(terms)
      self._known_step, self._since = self._known_step + 1, time.monotonic()
      _log.info("the first step took %.0f s", self._since - self._started)
      self._waited = 0.0
    if self._newest is not None:
      first = self._total is None
      self._total = self._newest if first else self._add(self._total, self._newest)
      self._count += 1
    self._newest = terms
    if terms is not None:
      self._bar.update()

  def report(self, step: int) -> None:
    """Logs a line and writes the averages since the last report."""
    if step == self._total_steps or self._total is None:
      self.add(None)
    complete = step if self._newest is None else step - 1
    totals = jax.device_get(self._total)
    values = {name: float(total) / self._count for name, total in totals.items()}
    now = time.monotonic()
    speed = "speed not known yet"
    if complete > self._known_step:
      seconds_per_step = (now - self._since) / (complete - self._known_step)
      rate = self._batch_size / max(seconds_per_step, 1e-9)
      values["clips_per_second"] = rate
      remaining = round((self._total_steps - step) * seconds_per_step)
      eta = f"{remaining // 3600}:{remaining // 60 % 60:02}:{remaining % 60:02}"
      speed = f"{rate:.1f} clips/s  ETA {eta}"
      values["waiting_for_data"] = waited = self._waited / max(now - self._since, 1e-9)
      if waited > _WORTH_SAYING:
        speed += f"  waiting for data {100 * waited:.0f} % of the time"
    self._waited = 0.0
    self._known_step, self._since = complete, now
    values["learning_rate"] = float(self._schedule(step))
    self._writer.write_scalars(step, values)
    # Not the total: most of it is the diversity loss, which rises while the network learns.
    learned = "  ".join(
      f"{stream} cross-entropy {values[f'{stream}/ce_action']:.3f} "
      f"top-1 {100 * values[f'{stream}/action_top1']:.1f} %"
      for stream in STREAMS
      if f"{stream}/action_top1" in values
    )
    if "rgb/reconstruction" in values:
      learned = f"error of hidden pixels {values['rgb/reconstruction']:.3f}"
    _log.info(
      "step %d/%d  epoch %.1f  %s  %s",
      step,
      self._total_steps,
      step / self._steps_per_epoch,
      learned,
      speed,
    )
    self._total, self._count = None, 0

  def close(self) -> None:
    """Removes the progress bar."""
    self._bar.close()

  @contextlib.contextmanager
  def waiting_for_data(self) -> Iterator[None]:
    """Encloses the wait for a batch: what takes long there is the input, not the device."""
    start = time.monotonic()
    yield
    self._waited += time.monotonic() - start

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Excludes the time spent inside from the rate."""
    start = time.monotonic()
    yield
    if self._since is not None:
      self._since += time.monotonic() - start

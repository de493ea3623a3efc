"""Stops a run at the step that broke it, and says what is known of that step."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from pcan_jax.training.step import Batch, Terms, TrainState
from pcan_jax.writing import replace_file

_TOTALS = ("loss", "gradient_norm")
_SHOWN_CLIPS = 16


class FiniteWatch:
  """Looks at the loss and the gradient of every step, and at the state before it is saved.

  A step is looked at when the next one has been dispatched, so that the device never waits.
  """

  def __init__(self, folder: pathlib.Path, clips_of_step: Callable[[int], list[str]]) -> None:
    """Nothing is looked at yet.

    Args:
      folder: where the batch of the step that broke goes.
      clips_of_step: gives the ids of its clips.
    """
    self._folder = folder
    self._clips_of_step = clips_of_step
    self._newest: tuple[int, Batch, Terms] | None = None
    self._all_finite = jax.jit(_all_finite)

  def add(self, step: int, batch: Batch, terms: Terms) -> None:
    """Looks at the step before.

    Args:
      step: just dispatched.
      batch: that it was given.
      terms: of it, which may not have been computed yet.

    Raises:
      FloatingPointError: a loss or gradient is not finite; the message names it, and the clips.
    """
    previous, self._newest = self._newest, (step, batch, terms)
    for name in _TOTALS:
      terms[name].copy_to_host_async()
    if previous:
      self._require_finite(*previous)

  def settle(self, state: TrainState) -> None:
    """Looks at the newest step, and at all that would be saved.

    Raises:
      FloatingPointError: something is not finite.
    """
    assert self._newest is not None
    self._require_finite(*self._newest)
    if not self._all_finite(state):
      self._fail(*self._newest, "the parameters after the update are not finite")

  def _require_finite(self, step: int, batch: Batch, terms: Terms) -> None:
    totals = jax.device_get({name: terms[name] for name in _TOTALS})
    for name in _TOTALS:
      if not np.isfinite(totals[name]):
        self._fail(step, batch, terms, f"the {name.replace('_', ' ')} is {totals[name]}")

  def _fail(self, step: int, batch: Batch, terms: Terms, what: str) -> NoReturn:
    values = {name: float(value) for name, value in jax.device_get(terms).items()}
    broken = [name for name in values if name not in _TOTALS and not np.isfinite(values[name])]
    arrays = {name: _rows_of_this_host(array) for name, array in batch.items()}
    clips = self._clips_of_step(step)
    strange = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    facts = [f"step {step}: {what}"]
    if broken:
      facts.append(f"of its terms, {', '.join(broken)}")
    if strange:
      facts.append(f"of its inputs, {', '.join(strange)}")
    more = f" and {len(clips) - _SHOWN_CLIPS} more" if len(clips) > _SHOWN_CLIPS else ""
    facts.append(f"its clips are {', '.join(clips[:_SHOWN_CLIPS])}{more}")
    shown = {name: x if np.isfinite(x) else str(x) for name, x in values.items()}  # JSON has no NaN
    report = {"step": step, "what": what, "terms": shown, "clips": clips}
    try:
      _write_batch(self._folder, arrays, report)
      facts.append(f"the batch is in {self._folder}")
    except OSError as error:
      facts.append(str(error))
    raise FloatingPointError(
      "; ".join(facts) + ". Nothing of this step was saved. A smaller optimizer.learning_rate or "
      "optimizer.clip_norm may help; `pcan check` looks at the clips"
    )


def _all_finite(tree: Any) -> jax.Array:
  leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _rows_of_this_host(array: jax.Array) -> np.ndarray:
  shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
  return np.concatenate([np.asarray(shard.data) for shard in shards])


def _write_batch(folder: pathlib.Path, arrays: dict[str, np.ndarray], facts: dict) -> None:
  """Writes what this host's devices were given and, of the first host, what is known of it."""
  name, host = f"step-{facts['step']}", jax.process_index()
  folder.mkdir(parents=True, exist_ok=True)
  np.savez(folder / f"{name}-host{host}.npz", **arrays)
  if host == 0:
    replace_file(folder / f"{name}.json", json.dumps(facts, indent=2) + "\n")

"""Where a run goes on, and whether it is still the same run."""

import json
import logging
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from pcan_jax.config import load_config
from pcan_jax.feed.dataset import Dataset
from pcan_jax.labels import LabelTree
from pcan_jax.saved_steps import SavedStep, find_others, last_good
from pcan_jax.spec import ModelSpec

_log = logging.getLogger(__name__)

FREE_FIELDS = (
  "log_every",
  "log_gradients",
  "checkpoints.",
  "eval.",
  "events.",
  "data.path",
  "data.instructions",
  "data.eval_split",
  "model.remat",
)
"""Fields of the config, or their beginnings, that may change: they decide no weight."""

_FROM_THE_CHECKPOINT = ("eval.batch_size", "eval.gamma.", "events.")
"""Those of them that evaluation and prediction read from the checkpoint."""

_UNFINISHED = ".orbax-checkpoint-tmp"


class Change(NamedTuple):
  """A setting that is not what it was.

  Attributes:
    name: a field of the config, or "labels", "keypoints", "stored_size", "data" or
      "action_counts".
    was: according to the checkpoint.
    now: in the run that is to go on from there.
  """

  name: str
  was: Any
  now: Any


def find_start(directory: pathlib.Path) -> tuple[SavedStep | None, dict[SavedStep, str]]:
  """The checkpoint to go on from: the last good one, by the judgement of the first host.

  Returns:
    It, or None if there is no checkpoint; and what is wrong with each one after it.

  Raises:
    ValueError: there are checkpoints, but none is good.
  """
  step, problems = -1, {}
  if jax.process_index() == 0:
    good, problems = last_good(directory)
    if problems and not good:
      shown = "; ".join(f"{saved.step}: {problem}" for saved, problem in problems.items())
      raise ValueError(
        f"no checkpoint in {directory} is good ({shown}); move them away to start anew, or choose "
        "another --workdir"
      )
    step = good.step if good else -1
  if jax.process_count() > 1:
    step = int(multihost_utils.broadcast_one_to_all(np.int64(step)))
  return (SavedStep(directory, step) if step >= 0 else None), problems


def clear_the_way(directory: pathlib.Path, problems: dict[SavedStep, str]) -> None:
  """Renames damaged checkpoints and removes saves that were interrupted; says so.

  Args:
    directory: of the checkpoints.
    problems: as `find_start` returns them.
  """
  if jax.process_index() == 0:
    for saved, problem in problems.items():
      aside = saved.path.with_name(f"{saved.step}.damaged")
      number = 2
      while aside.exists():
        aside = saved.path.with_name(f"{saved.step}.damaged-{number}")
        number += 1
      saved.path.rename(aside)
      _log.warning("checkpoint %s is damaged: %s; it is now %s", saved.path, problem, aside.name)
    for name in find_others(directory):
      if _UNFINISHED in name:
        shutil.rmtree(directory / name, ignore_errors=True)
        _log.info("removed %s, a save that was interrupted", directory / name)
      elif ".damaged" not in name:
        _log.info("passed over %s, which is not named as a checkpoint", directory / name)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("checkpoints are in order")


def require_same_run(
  saved: SavedStep, spec: ModelSpec, dataset: Dataset, allowed: Sequence[str]
) -> list[Change]:
  """Compares a checkpoint's own description with the run that is to go on from it.

  Args:
    saved: the checkpoint.
    spec, dataset: of the run.
    allowed: names of changes that the user wants.

  Returns:
    The changes that were allowed.

  Raises:
    ValueError: other settings have changed as well; the message names them.
  """
  changes = find_changes(saved.description, spec, dataset)
  refused = [change for change in changes if change.name not in allowed]
  if refused:
    lines = "".join(f"\n  {change.name}: was {change.was}, now {change.now}" for change in refused)
    names = ",".join(change.name for change in changes)
    raise ValueError(
      f"checkpoint {saved.path} is of a run with other settings:{lines}\nGo on with those it had, "
      "choose another --workdir, or allow the changes, which checkpoints will record: "
      f"--allow_changes={names}"
    )
  return changes


def find_changes(description: dict[str, Any], spec: ModelSpec, dataset: Dataset) -> list[Change]:
  """What decides on weights and is not what a checkpoint describes."""
  changes = _changed_fields(description["config"], json.loads(spec.config.to_json_best_effort()))
  was = ModelSpec.from_json(description)
  if was.tree != spec.tree:
    changes.append(Change("labels", *_first_difference(was.tree, spec.tree)))
  if was.layout != spec.layout:
    changes.append(Change("keypoints", was.layout.name, spec.layout.name))
  if was.stored_size != spec.stored_size:
    changes.append(Change("stored_size", was.stored_size, spec.stored_size))
  # Switched on or off, the losses that need them have changed already.
  if was.action_counts and spec.action_counts and was.action_counts != spec.action_counts:
    changes.append(Change("action_counts", was.action_counts, spec.action_counts))
  trained_on = description.get("run", {}).get("dataset")  # earlier versions did not record it
  if trained_on is not None and trained_on["fingerprint"] != dataset.fingerprint:
    now = {"path": str(dataset.path), "fingerprint": dataset.fingerprint}
    changes.append(Change("data", *map(_shown_dataset, (trained_on, now))))
  return changes


def require_saved_settings(finished: SavedStep, spec: ModelSpec) -> None:
  """Refuses what a run that takes no more steps, and is not saved again, could not use.

  Raises:
    ValueError: a field that evaluation and prediction read from the checkpoint has changed there.
  """
  was, now = (_flat(json.loads(s.config.to_json_best_effort())) for s in (finished.spec, spec))
  for name, value in now.items():
    if name.startswith(_FROM_THE_CHECKPOINT) and was.get(name, value) != value:
      raise ValueError(
        f"{finished.folder} is finished, and is evaluated with {name}={was[name]} of its "
        f"checkpoint: {value} would not be used"
      )


def _changed_fields(was: dict[str, Any], now: dict[str, Any]) -> list[Change]:
  was, now = _flat(was), _flat(now)
  # A field that an earlier version lacked had the effect of its default.
  defaults = _flat(json.loads(load_config("ma52").to_json_best_effort()))
  free = FREE_FIELDS
  if was["optimizer.schedule"] == now["optimizer.schedule"] == "step":
    # Only how long it goes on: no step so far would be another.
    free += ("optimizer.epochs", "optimizer.least_steps")
  found = []
  for name, value in now.items():
    former = was.get(name, defaults.get(name, "not there"))
    is_free = any(name.startswith(field) if field[-1] == "." else name == field for field in free)
    if former != value and not is_free:
      found.append(Change(name, former, value))
  return found


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for name, value in config.items():
    inner = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    flat |= inner
  return flat


def _first_difference(was: LabelTree, now: LabelTree) -> tuple[str, str]:
  if was.num_actions != now.num_actions:
    return f"{was.num_actions} actions", f"{now.num_actions}"
  for number, (former, name) in enumerate(zip(was.actions, now.actions)):
    if former != name:
      return f"{former!r} (action {number})", repr(name)
  return f"body parts {was.bodies}, {was.parents}", f"{now.bodies}, {now.parents}"


def _shown_dataset(dataset: dict[str, str]) -> str:
  return f"{dataset['path']} (fingerprint {dataset['fingerprint']})"

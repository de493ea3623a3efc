"""Checkpoints, which can be used without a config file.

A checkpoint has four items: `model` (params, batch_stats, prototypes), `training` (step,
optimizer), as JSON `description` (config, label tree, keypoint layout and stored size, which are a
`ModelSpec`, and where it comes from), and `digests` of the files of the others.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import absl.logging
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from pcan_jax import digests, saved_steps
from pcan_jax.mesh import data_mesh, replicated
from pcan_jax.provenance import made_with
from pcan_jax.saved_steps import SavedStep
from pcan_jax.spec import ModelSpec
from pcan_jax.writing import told_shortly

PyTree = Any

BEST = "best"
"""In place of a step's number: the checkpoint that was best in training."""

_SHOWN_DIFFERENCES = 8


class Checkpoints:
  """The checkpoints of one run, in `directory`.

  The latest `max_to_keep` are kept, and the one with the highest `f1_mean`. Saving is asynchronous;
  leaving the context waits for it.
  """

  def __init__(self, directory: str | os.PathLike[str], *, max_to_keep: int | None = None) -> None:
    self._directory = pathlib.Path(directory).absolute()
    self._max_to_keep = max_to_keep

  @functools.cached_property
  def _keep(self) -> "_LastAndBest":
    steps = saved_steps.find_steps(self._directory)
    scores = {saved.step: saved_steps.score(saved) for saved in steps}
    return _LastAndBest(self._max_to_keep, scores)

  @functools.cached_property
  def _manager(self) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._keep,
        create=True,
        lightweight_initialize=True,  # reads nothing of what is there, and cannot fail on it
      ),
      item_handlers={
        "model": ocp.StandardCheckpointHandler(),
        "training": ocp.StandardCheckpointHandler(),
        "description": ocp.JsonCheckpointHandler(),
        digests.ITEM: digests.DigestHandler(),  # last: it needs the files of the others
      },
    )

  def __enter__(self) -> "Checkpoints":
    self._hook = sys.unraisablehook
    sys.unraisablehook = functools.partial(_write_unraisable, self._hook)
    for logger in _LOGGERS:
      logger.addFilter(_is_not_raised_later)
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    if "_manager" in self.__dict__:
      with self._told_shortly():
        self._manager.close()
    if kind is None:  # after a failure, threads go on to complain of it
      sys.unraisablehook = self._hook
      for logger in _LOGGERS:
        logger.removeFilter(_is_not_raised_later)

  def save(
    self,
    step: int,
    model: PyTree,
    training: PyTree,
    spec: ModelSpec,
    *,
    run: dict[str, Any] | None = None,
    f1_mean: float | None = None,
  ) -> None:
    """Saves a step; does nothing if it exists.

    Args:
      step: number of steps taken.
      model, training: arrays.
      spec: of the model.
      run: what the description is to say about the run; plain values.
      f1_mean: of the evaluation at this step, by which the best checkpoint is found.

    Raises:
      OSError: it cannot be written; also if that is so of the one before.
    """
    with self._told_shortly():
      if step in self._manager.all_steps():
        return
      description = spec.to_json() | {"made_with": made_with()}
      if run is not None:
        description["run"] = run
      if f1_mean is not None:
        description["f1_mean"] = f1_mean
      self._keep.scores[step] = f1_mean
      self._manager.save(
        step,
        args=ocp.args.Composite(
          model=ocp.args.StandardSave(model),
          training=ocp.args.StandardSave(training),
          description=ocp.args.JsonSave(description),
          **{digests.ITEM: digests.DigestSave()},
        ),
      )

  def _told_shortly(self) -> contextlib.AbstractContextManager[None]:
    """An error in one sentence, if the disk is full."""
    return told_shortly(
      f"the checkpoint cannot be written to {self._directory} (those before it are whole)"
    )

  def read_spec(self, step: int) -> ModelSpec:
    """The `ModelSpec` of a step."""
    return SavedStep(self._directory, step).spec

  def restore(self, step: int, **targets: PyTree) -> dict[str, PyTree]:
    """Restores `model` and/or `training`.

    Args:
      step: which checkpoint.
      **targets: per item a tree of `jax.ShapeDtypeStruct`, with the shardings to restore to.

    Raises:
      ValueError: the checkpoint holds another model; the message names what differs.
    """
    saved = SavedStep(self._directory, step)
    for item, target in targets.items():
      _require_same_arrays(target, saved.shapes(item), where=f"{saved.path}, item {item!r}")
    return {item: saved.restore(item, target) for item, target in targets.items()}


_LOGGERS = (absl.logging.get_absl_logger(), logging.getLogger("asyncio"))


def _is_not_raised_later(record: logging.LogRecord) -> bool:
  """Whether it is something else than an error in a thread of Orbax, which a later call raises."""
  of_orbax = f"{os.sep}orbax{os.sep}" in record.pathname or record.name == "asyncio"
  return not (record.exc_info and of_orbax)


def _write_unraisable(
  before: Callable[["sys.UnraisableHookArgs"], object], unraisable: "sys.UnraisableHookArgs"
) -> None:
  """Leaves out that TensorStore has nobody to tell, as what Orbax was doing failed before."""
  if str(unraisable.exc_value) != "Event loop is closed":
    before(unraisable)


@dataclasses.dataclass
class _LastAndBest(checkpoint_managers.PreservationPolicy):
  """Which checkpoints are kept: the last ones, and the best one.

  Attributes:
    last: how many; None is all.
    scores: of every step.
  """

  last: int | None
  scores: dict[int, float | None]

  def should_preserve(
    self,
    checkpoints: Sequence[Any],
    *,
    context: checkpoint_managers.PreservationContext,
  ) -> list[bool]:
    steps = [checkpoint.step for checkpoint in checkpoints]
    kept = set(steps[-self.last :] if self.last else steps)
    scored = [step for step in steps if self.scores.get(step) is not None]
    kept |= set(sorted(scored, key=self.scores.__getitem__)[-1:])
    return [step in kept for step in steps]


def locate(path: str | os.PathLike[str]) -> tuple[pathlib.Path, int]:
  """Finds a checkpoint and makes sure that it is whole.

  Args:
    path: a working directory, its `checkpoints` directory, either of them with `/best` behind it,
      or the directory of one step.

  Returns:
    The directory of the checkpoints and the step: the given one, the best or the latest.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it is damaged; the message names the last one that is not.
  """
  saved = _find(pathlib.Path(path).absolute())
  problem = saved.find_problem()
  if problem:
    good, _ = saved_steps.last_good(saved.directory)
    raise ValueError(
      f"checkpoint {saved.path} is damaged: {problem}. "
      + (
        f"The last good one is {good.path}; name it as the checkpoint, or train on, which starts "
        "from there"
        if good
        else "There is no good one beside it"
      )
    )
  return saved.directory, saved.step


def workdir_of(path: str | os.PathLike[str]) -> pathlib.Path:
  """The working directory of a checkpoint, named as for `locate`, which raises the same errors."""
  return SavedStep(*locate(path)).folder


def _find(path: pathlib.Path) -> SavedStep:
  directory = _directory(path)
  steps = saved_steps.find_steps(directory)
  if path.name == BEST and not steps:
    best = saved_steps.best(_directory(path.parent))
    if best is None:
      raise FileNotFoundError(
        f"no best checkpoint in {path.parent}: there is none that training evaluated "
        "(config.eval.every_epochs)"
      )
    return best
  if steps:
    return steps[0]
  if saved_steps.is_step(path) and (path.parent.name == "checkpoints" or _has_items(path)):
    return SavedStep(path.parent, int(path.name))
  others = saved_steps.find_others(directory) if directory.name == "checkpoints" else []
  raise FileNotFoundError(
    f"no checkpoint at {path}: name the --workdir of a training run, or DIR/checkpoints/STEP"
    + (f" ({directory} holds only {', '.join(others)})" if others else "")
  )


def _directory(path: pathlib.Path) -> pathlib.Path:
  """The folder of the checkpoints in a working directory, or a folder as it is."""
  return path / "checkpoints" if (path / "checkpoints").is_dir() else path


def _has_items(path: pathlib.Path) -> bool:
  return any((path / item).is_dir() for item in digests.DIGESTED)


def load_model(path: str | os.PathLike[str]) -> tuple[ModelSpec, PyTree, int]:
  """Loads a model from a checkpoint, whatever devices it was trained on.

  Args:
    path: as for `locate`.

  Returns:
    Its `ModelSpec`, its variables, replicated over all devices, and the step.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it is damaged, or its arrays do not fit its config.
  """
  directory, step = locate(path)
  with Checkpoints(directory) as checkpoints:
    spec = checkpoints.read_spec(step)
    sharding = replicated(data_mesh())
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      jax.eval_shape(spec.init),
    )
    return spec, checkpoints.restore(step, model=target)["model"], step


def _require_same_arrays(target: PyTree, found: PyTree, where: str) -> None:
  def shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(
      tree, is_leaf=lambda leaf: hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    )
    return {
      "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path): (
        tuple(leaf.shape)
      )
      for path, leaf in leaves
    }

  wanted, present = shapes(target), shapes(found)
  differences = [
    f"{name}: checkpoint {present.get(name, 'lacks it')}, model {wanted.get(name, 'lacks it')}"
    for name in sorted(wanted.keys() | present.keys())
    if wanted.get(name) != present.get(name)
  ]
  if differences:
    shown = "\n  ".join(differences[:_SHOWN_DIFFERENCES])
    more = len(differences) - _SHOWN_DIFFERENCES
    raise ValueError(
      f"{where} holds another model than the config describes "
      f"({len(differences)} arrays differ). Use the config it was trained with, or another "
      f"--workdir:\n  {shown}" + (f"\n  and {more} more" if more > 0 else "")
    )

"""Checkpoints: the state, and beside it all that is needed to use it without its config file.

A checkpoint holds three items: `model` (params, batch_stats, prototypes), `training` (step,
optimizer) and `description` (config, label tree, keypoint layout, stored frame size: a `ModelSpec`)
as JSON.
"""

import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from pcan_jax.mesh import data_mesh, replicated
from pcan_jax.spec import ModelSpec

PyTree = Any

_SHOWN_DIFFERENCES = 8


class Checkpoints:
  """The checkpoints of one run, in `directory`.

  Saving is asynchronous; leaving the context waits for it.
  """

  def __init__(self, directory: str | os.PathLike[str], *, max_to_keep: int | None = None) -> None:
    self._directory = pathlib.Path(directory).absolute()
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(max_to_keep=max_to_keep, create=True),
      item_handlers={
        "model": ocp.StandardCheckpointHandler(),
        "training": ocp.StandardCheckpointHandler(),
        "description": ocp.JsonCheckpointHandler(),
      },
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    self._manager.wait_until_finished()
    self._manager.close()

  @property
  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def save(self, step: int, model: PyTree, training: PyTree, spec: ModelSpec) -> None:
    """Saves a step; one that is there already is left as it is."""
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        model=ocp.args.StandardSave(model),
        training=ocp.args.StandardSave(training),
        description=ocp.args.JsonSave(spec.to_json()),
      ),
    )

  def read_spec(self, step: int) -> ModelSpec:
    """What the model of a step was made for."""
    restored = self._manager.restore(
      step, args=ocp.args.Composite(description=ocp.args.JsonRestore())
    )
    return ModelSpec.from_json(restored["description"])

  def restore(self, step: int, **targets: PyTree) -> dict[str, PyTree]:
    """Restores `model` and/or `training`.

    Args:
      step: which checkpoint.
      **targets: per item a tree of `jax.ShapeDtypeStruct`, with shardings for another mesh.

    Raises:
      ValueError: the checkpoint holds another model; the message names what differs.
    """
    found = self._manager.item_metadata(step)
    for item, target in targets.items():
      _require_same_arrays(target, found[item], where=f"{self._directory}/{step}, item {item!r}")
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        **{item: ocp.args.StandardRestore(target) for item, target in targets.items()}
      ),
    )
    return {item: restored[item] for item in targets}


def locate(path: str | os.PathLike[str]) -> tuple[pathlib.Path, int]:
  """Finds a checkpoint.

  Args:
    path: a working directory, its `checkpoints` directory, or one step below that.

  Returns:
    The directory of the checkpoints and the step: the one named, else the latest.

  Raises:
    FileNotFoundError: there is no checkpoint.
  """
  path = pathlib.Path(path).absolute()
  if path.name.isdigit() and (path / "description").is_dir():
    return path.parent, int(path.name)
  directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
  steps = []
  if directory.is_dir():
    steps = [int(p.name) for p in directory.iterdir() if (p / "description").is_dir()]
  if not steps:
    raise FileNotFoundError(
      f"no checkpoint at {path}: name the --workdir of a training run, or DIR/checkpoints/STEP"
    )
  return directory, max(steps)


def load_model(path: str | os.PathLike[str]) -> tuple[ModelSpec, PyTree, int]:
  """Loads a model from a checkpoint, wherever and on how many devices it was trained.

  Args:
    path: as for `locate`.

  Returns:
    What it was made for, its variables on all devices, and the step.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: the checkpoint holds another model than its config describes.
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

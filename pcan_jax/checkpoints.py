"""Checkpoints, which can be used without a config file.

A checkpoint has three items: `model` (params, batch_stats, prototypes), `training` (step,
optimizer) and, as JSON, `description` (config, label tree, keypoint layout, stored size: a
`ModelSpec`).
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
    """Saves a step; does nothing if it exists."""
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
    """The `ModelSpec` of a step."""
    restored = self._manager.restore(
      step, args=ocp.args.Composite(description=ocp.args.JsonRestore())
    )
    return ModelSpec.from_json(restored["description"])

  def restore(self, step: int, **targets: PyTree) -> dict[str, PyTree]:
    """Restores `model` and/or `training`.

    Args:
      step: which checkpoint.
      **targets: per item a tree of `jax.ShapeDtypeStruct`, with the shardings to restore to.

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
    path: a working directory, its `checkpoints` directory, or the directory of one step.

  Returns:
    The directory of the checkpoints and the step: the given one, or the latest.

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
  """Loads a model from a checkpoint, whatever devices it was trained on.

  Args:
    path: as for `locate`.

  Returns:
    Its `ModelSpec`, its variables, replicated over all devices, and the step.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: the checkpoint's arrays do not fit its config.
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

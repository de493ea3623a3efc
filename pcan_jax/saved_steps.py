"""What lies in a folder of checkpoints: which steps, whether they are whole, which is the best."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath

from pcan_jax import digests
from pcan_jax.spec import ModelSpec

PyTree = Any


@dataclasses.dataclass(frozen=True)
class SavedStep:
  """One checkpoint.

  Attributes:
    directory: folder of the run's checkpoints.
    step: its name in there.
  """

  directory: pathlib.Path
  step: int

  @property
  def path(self) -> pathlib.Path:
    return self.directory / str(self.step)

  @property
  def folder(self) -> pathlib.Path:
    """What holds the folder of checkpoints: the working directory of the run."""
    return self.directory.parent if self.directory.name == "checkpoints" else self.directory

  @functools.cached_property
  def description(self) -> dict[str, Any]:
    """What a `ModelSpec` holds, `made_with` and, if training wrote it, `run` and `f1_mean`.

    Raises:
      FileNotFoundError, ValueError: it is missing or no JSON.
    """
    return dict(ocp.JsonCheckpointHandler().restore(epath.Path(self.path / "description")))

  @property
  def spec(self) -> ModelSpec:
    """What the model was made for.

    A relative path of its data set, which holds for the folder where training was started, becomes
    an absolute one if the data set is still where it was, as seen from the working directory.
    """
    spec = ModelSpec.from_json(self.description)
    recorded = self._dataset.get("path")
    if os.path.isabs(spec.config.data.path) or recorded is None:
      return spec
    found = os.path.normpath(self.folder.absolute() / recorded)
    if not os.path.isdir(found):
      return spec
    config = spec.config.copy_and_resolve_references()
    config.data.path = found
    return dataclasses.replace(spec, config=config)

  @property
  def trained_on(self) -> str | None:
    """The fingerprint of its data set; None if it does not record that."""
    return self._dataset.get("fingerprint")

  @property
  def _dataset(self) -> dict[str, str]:
    return self.description.get("run", {}).get("dataset", {})

  @property
  def digest(self) -> str:
    """Identifies its content, wherever it lies: 32 hexadecimal digits."""
    return digests.of_checkpoint(self.path)

  def shapes(self, item: str) -> PyTree:
    """Shapes and types of the arrays of `model` or `training`."""
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
      self._stored(item),
      is_leaf=_is_stored,
    )

  def _stored(self, item: str) -> PyTree:
    """What Orbax recorded of each array: name, shape, type."""
    return ocp.StandardCheckpointHandler().metadata(epath.Path(self.path / item)).tree

  def restore(self, item: str, target: PyTree) -> PyTree:
    """The arrays of `model` or `training`, as a tree of `jax.ShapeDtypeStruct` asks for them."""
    return ocp.StandardCheckpointHandler().restore(
      epath.Path(self.path / item), args=ocp.args.StandardRestore(target)
    )

  def find_problem(self) -> str | None:
    """Why it cannot be used, in a few words; None if every file is what was written."""
    missing = [item for item in digests.DIGESTED if not (self.path / item).is_dir()]
    if missing:
      return "it is empty" if missing == [*digests.DIGESTED] else f"without {' and '.join(missing)}"
    try:
      by_earlier_version = "made_with" not in self.description
      if not by_earlier_version or digests.are_recorded(self.path):
        return digests.find_change(self.path)
      _ = self.spec
    except Exception as error:  # whatever it is, the description is not what was written
      return f"its description cannot be read ({_first_line(error)})"
    return self._try_to_read()

  def _try_to_read(self) -> str | None:
    """Finds damage without digests: reads everything, as only then TensorStore notices.

    Without Orbax, which after a failed read abandons those under way: each prints a traceback when
    Python collects it.
    """
    for item in ("model", "training"):
      try:
        for stored in jax.tree.leaves(self._stored(item), is_leaf=_is_stored):
          if not np.isfinite(_read(self.path / item, stored.name)).all():
            return f"{item} holds values that are not finite, in {stored.name}"
      except Exception as error:  # of Orbax, TensorStore or JSON: they promise nothing
        return f"{item} cannot be read ({_first_line(error)})"
    return None


def find_steps(directory: str | os.PathLike[str]) -> list[SavedStep]:
  """The checkpoints in a folder, the latest first: folders named by a number as Orbax writes it."""
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    return []
  steps = [int(path.name) for path in directory.iterdir() if is_step(path)]
  return [SavedStep(directory, step) for step in sorted(steps, reverse=True)]


def is_step(path: pathlib.Path) -> bool:
  """Whether a folder has the name of a checkpoint."""
  name = path.name
  return name.isascii() and name.isdigit() and str(int(name)) == name and path.is_dir()


def find_others(directory: str | os.PathLike[str]) -> list[str]:
  """Names in a folder of checkpoints that are none, such as `60.bak` or an unfinished save."""
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    return []
  return sorted(path.name for path in directory.iterdir() if not is_step(path))


def last_good(directory: str | os.PathLike[str]) -> tuple[SavedStep | None, dict[SavedStep, str]]:
  """The latest checkpoint that is whole.

  Returns:
    It, or None if there is none; and what is wrong with each one after it.
  """
  problems = {}
  for saved in find_steps(directory):
    problem = saved.find_problem()
    if problem is None:
      return saved, problems
    problems[saved] = problem
  return None, problems


def best(directory: str | os.PathLike[str]) -> SavedStep | None:
  """The checkpoint that was best when training evaluated it, by `f1_mean`; None without any."""
  scored = [saved for saved in find_steps(directory) if score(saved) is not None]
  return max(scored, key=score, default=None)


def score(saved: SavedStep) -> float | None:
  """The `f1_mean` that training measured; None if it did not, or it cannot be read."""
  try:
    return saved.description.get("f1_mean")
  except (FileNotFoundError, ValueError):
    return None


def _is_stored(leaf: Any) -> bool:
  return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _read(item: pathlib.Path, name: str) -> np.ndarray:
  files = {"driver": "file", "path": f"{item.absolute()}/"}
  array = {"driver": "ocdbt", "base": files, "path": f"{name}/"}
  return tensorstore.open({"driver": "zarr", "kvstore": array}, read=True).result().read().result()


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

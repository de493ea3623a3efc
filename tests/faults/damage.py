"""Damage to every file of the newest checkpoint, and what else may lie beside it."""

import pathlib
import shutil
from collections.abc import Callable, Iterator

from pcan_jax.saved_steps import find_steps
from pcan_jax.training import resume
from tests.faults.trials import Ground, Trial, arrays_of, same_arrays


def trials(ground: Ground, count: int) -> Iterator[Trial]:
  """Every kind of damage to so many files of a checkpoint (all, if there are fewer)."""
  workdir = ground.new_folder()
  program = ground.train(workdir, "--config.optimizer.epochs=6")
  assert program.finish() == 0, program.errors
  original = workdir / "checkpoints"
  newest, former = (arrays_of(saved) for saved in find_steps(original)[:2])
  root = find_steps(original)[0].path
  files = sorted(path.relative_to(original) for path in root.rglob("*") if path.is_file())
  for name in ground.random.sample(files, min(count, len(files))):
    for fault, harm in _harms(ground).items():
      directory = ground.new_folder() / "checkpoints"
      shutil.copytree(original, directory)
      harm(directory / name)
      yield _judge(fault, directory, newest, former, str(name))
  for fault, make in _strangers(root.name).items():
    directory = ground.new_folder() / "checkpoints"
    shutil.copytree(original, directory)
    make(directory)
    yield _judge(fault, directory, newest, former, fault)


def _judge(fault: str, directory: pathlib.Path, newest: dict, former: dict, what: str) -> Trial:
  """The newest, unharmed, or the one before, and never anything else."""
  steps = [saved.step for saved in find_steps(directory)]
  try:
    start, problems = resume.find_start(directory)
    resume.clear_the_way(directory, problems)
    found = arrays_of(start) if start else {}
  except Exception as error:  # whatever it is, it is a trial that failed
    return Trial(fault, survived=False, ended=f"{what}: {type(error).__name__}: {error}")
  if problems:
    passed = "; ".join(f"step {saved.step}: {problem}" for saved, problem in problems.items())
    return Trial(fault, same_arrays(found, former), f"passed over {passed}")
  if start and start.step == max(steps) and same_arrays(found, newest):
    return Trial(fault, survived=True, ended=f"{what}: all arrays as they were")
  whole = bool(start) and same_arrays(found, former)
  return Trial(fault, whole, f"{what}: went on from step {start.step if start else None}")


def _harms(ground: Ground) -> dict[str, Callable[[pathlib.Path], None]]:
  def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes() or b"x")
    content[ground.random.randrange(len(content))] ^= 1 << ground.random.randrange(8)
    path.write_bytes(content)

  def cut(path: pathlib.Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: ground.random.randrange(max(len(content), 1))])

  return {
    "a flipped bit in a checkpoint's file": flip,
    "a checkpoint's file cut short": cut,
    "a checkpoint's file missing": pathlib.Path.unlink,
  }


def _strangers(step: str) -> dict[str, Callable[[pathlib.Path], None]]:
  later = str(int(step) + 1)

  def copied(name: str) -> Callable[[pathlib.Path], None]:
    return lambda directory: shutil.copytree(directory / step, directory / name)

  def emptied(directory: pathlib.Path) -> None:
    shutil.rmtree(directory / step)
    (directory / step).mkdir()

  def without_model(directory: pathlib.Path) -> None:
    shutil.rmtree(directory / step / "model")

  return {
    "a folder `60.bak` among the checkpoints": copied(f"{later}.bak"),
    "a folder `60 (copy)` among the checkpoints": copied(f"{later} (copy)"),
    "a half-finished save": copied(f"{later}.orbax-checkpoint-tmp"),
    "an empty checkpoint": emptied,
    "a checkpoint without its model": without_model,
  }

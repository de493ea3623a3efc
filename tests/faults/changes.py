"""A run that goes on with other settings, labels or data, or twice at once."""

import json
import shutil
import signal
from collections.abc import Iterator

from tests.faults.trials import Ground, Trial, saved_steps
from tests.tiny_source import write_tiny_source

_REFUSED = {
  "optimizer.batch_size": "4",
  "optimizer.learning_rate": "0.01",
  "optimizer.momentum": "0.5",
  "seed": "7",
  "loss.pcc_weight": "0.5",
  "loss.pcc_temperature": "0.2",
  "model.pose.widths": "(8,8,16)",
  "input.pose_frames": "16",
  "input.train_size": "48",
  "augmentation.flip": "0.0",
}
_ALLOWED = {"log_every": "3", "checkpoints.keep": "2", "eval.batch_size": "4"}


def trials(ground: Ground, count: int) -> Iterator[Trial]:
  """So many changed settings that decide on weights, some that do not, other data and labels."""
  from data.build import build  # TensorFlow, once it has been quieted

  workdir = ground.new_folder()
  program = ground.train(workdir, "--config.optimizer.epochs=6")
  assert program.finish() == 0, program.errors
  before = saved_steps(workdir)
  config = (workdir / "config.json").read_text()
  for name in ground.random.sample([*_REFUSED], min(count, len(_REFUSED))):
    program = ground.train(
      workdir, "--config.optimizer.epochs=12", f"--config.{name}={_REFUSED[name]}"
    )
    program.finish()
    kept = saved_steps(workdir) == before and (workdir / "config.json").read_text() == config
    yield Trial(
      "going on with another setting that decides on weights",
      program.ended_in_words(name, "--allow_changes") and kept,
      f"{name}: {program.last_words().replace(str(workdir), 'WORKDIR')}",
    )
  for fault, labels in (("other clips", False), ("other labels", True)):
    source = write_tiny_source(ground.new_folder() / "source", seed=1)
    if labels:
      tree = source / "annotations" / "actions.csv"
      tree.write_text(tree.read_text().replace("nod", "bow"))
    other = build(source, ground.new_folder(), side=48, jobs=1)
    program = ground.train(workdir, "--config.optimizer.epochs=12", f"--config.data.path={other}")
    program.finish()
    kept = saved_steps(workdir) == before
    yield Trial(
      f"going on with {fault}",
      program.ended_in_words("labels" if labels else "data", "--allow_changes") and kept,
      program.last_words().replace(str(workdir), "WORKDIR"),
    )
  copy = ground.new_folder() / "moved"
  shutil.copytree(ground.dataset, copy)
  flags = [f"--config.{name}={value}" for name, value in _ALLOWED.items()]
  program = ground.train(
    workdir,
    "--config.optimizer.epochs=8",
    f"--config.data.path={copy}",
    *flags,
    "--allow_changes=optimizer.epochs",
  )
  yield Trial(
    "going on with a data set that has moved, and settings that decide on no weight",
    program.finish() == 0 and saved_steps(workdir)[0] > before[0],
    f"went on from step {before[0]} to {saved_steps(workdir)[0]}",
  )
  yield _two_at_once(ground)


def _two_at_once(ground: Ground) -> Trial:
  workdir = ground.new_folder()
  first = ground.train(workdir, "--config.optimizer.epochs=100000")
  first.wait_for_step(1)
  second = ground.train(workdir)
  second.finish()
  refused = second.ended_in_words("in use by process", str(first.process.pid))
  words = second.last_words().replace(str(workdir), "WORKDIR")
  undisturbed = first.process.poll() is None
  first.send(signal.SIGKILL)
  third = ground.train(workdir, "--config.optimizer.epochs=100000")
  seconds = third.seconds_to_first_step()
  taken_over = json.loads((workdir / "lock").read_text())["process"] == third.process.pid
  third.send(signal.SIGKILL)
  return Trial(
    "two runs in one working directory, then the first is killed",
    refused and undisturbed and taken_over,
    words,
    seconds,
  )

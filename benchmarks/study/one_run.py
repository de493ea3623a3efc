"""One run of a study, in a process of its own: trains if need be, evaluates, says what it found.

    python -m benchmarks.study.one_run --config=NAME:VARIANT --config.FIELD=VALUE ... \
      --workdir=DIR --out=DIR
"""

import dataclasses
import json
import pathlib
import time

from absl import flags

from pcan_jax.console import define_config_flag, run_with_flags, show_log

TRAINED = "trained.json"
EVALUATED = "evaluated.json"


def main() -> None:
  """Parses the command line and runs."""
  define_config_flag()
  flags.DEFINE_string("workdir", None, "Where the run is, or is to be.")
  flags.DEFINE_string("out", None, "Where the evaluation goes.")
  show_log()
  run_with_flags(_run, __doc__, __name__)


def _run() -> None:
  values = flags.FLAGS
  workdir = pathlib.Path(values.workdir)
  _train(workdir)
  if values.out:
    _evaluate(workdir, pathlib.Path(values.out))


def _train(workdir: pathlib.Path) -> None:
  """Trains to the end, and notes how long that took, also when it is interrupted."""
  from pcan_jax.training.loop import train

  note = workdir / TRAINED
  before = json.loads(note.read_text()) if note.is_file() else {"seconds": 0.0, "complete": False}
  if before["complete"]:
    return
  start, complete = time.monotonic(), False
  try:
    train(flags.FLAGS.config, workdir)
    complete = True
  finally:
    if workdir.is_dir():
      seconds = before["seconds"] + time.monotonic() - start
      note.write_text(json.dumps({"seconds": seconds, "complete": complete}))


def _evaluate(workdir: pathlib.Path, out: pathlib.Path) -> None:
  """Evaluates with what the flags say of evaluation, which may not be what the run was told."""
  from benchmarks.study.explain import explain, logged_gradients
  from benchmarks.timing import environment
  from pcan_jax.checkpoints import load_model, locate
  from pcan_jax.evaluation.protocol import Evaluator
  from pcan_jax.evaluation.results import Origin, Results
  from pcan_jax.feed.dataset import open_dataset
  from pcan_jax.saved_steps import SavedStep
  from pcan_jax.spec import ModelSpec

  start = time.monotonic()
  saved = SavedStep(*locate(workdir))
  spec, variables, step = load_model(saved.path)
  given = flags.FLAGS.config
  config = spec.config.copy_and_resolve_references()
  config.eval.update(given.eval)
  spec = dataclasses.replace(spec, config=config)
  dataset = open_dataset(given.data.path, given.data.instructions)

  def evaluate(spec: ModelSpec) -> Results:
    split, num_clips = given.data.eval_split, given.eval.num_clips
    results = Evaluator(spec, dataset)(variables, split, num_clips)
    origin = Origin(step, saved.digest, dataset.fingerprint, mirrored=spec.config.eval.flip)
    return dataclasses.replace(results, origin=origin)

  results = plain = evaluate(spec)
  results.write(out, spec.tree)
  print(results.table(), flush=True)
  seconds = time.monotonic() - start
  if spec.model.has_prototypes:
    config = config.copy_and_resolve_references()
    config.eval.gamma.update(rgb=0.0, pose=0.0)
    plain = evaluate(dataclasses.replace(spec, config=config))
  about = environment() | {
    "evaluation_seconds": seconds,
    "why": explain(results, plain, variables["prototypes"], spec.tree) | logged_gradients(workdir),
  }
  (out / EVALUATED).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
  main()

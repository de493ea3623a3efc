"""Runs the rows of a study: one at a time, never twice, on from where one was interrupted."""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from benchmarks.study.configs import Resolved, resolve
from benchmarks.study.lines import COLUMNS, Labels, Line, Results
from benchmarks.study.one_run import EVALUATED, TRAINED
from benchmarks.study.tables import STUDIES
from pcan_jax import cpu
from pcan_jax.evaluation.metrics import Predictions
from pcan_jax.evaluation.results import TABLE_COLUMNS
from pcan_jax.evaluation.results import Results as Evaluated
from pcan_jax.feed.dataset import Dataset, open_dataset

ROOT = pathlib.Path(__file__).parents[2]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Place:
  """What a study is run on, and where its runs go.

  Attributes:
    data: folder of the data set.
    config: name of the config whose variants are trained.
    runs: folder for working directories.
    results: where lines go.
  """

  data: pathlib.Path
  config: str
  runs: pathlib.Path
  results: Results


@dataclasses.dataclass(frozen=True)
class Run:
  """A row with a seed.

  Attributes:
    row: its name; empty for one that only another run needs.
    seed: of weights and order of clips.
    what: the row.
  """

  row: str
  seed: int
  what: Resolved


def run_study(study: str, place: Place, rows: Sequence[str], seeds: Sequence[int]) -> None:
  """Runs what is missing of a study; seed by seed, so that all rows soon have a first result.

  Args:
    study: its name.
    place: data set and folders.
    rows: names of rows; all if empty.
    seeds: of the runs.

  Raises:
    ValueError: there is no such study or row.
    subprocess.CalledProcessError: a run failed; what it wrote says why.
  """
  dataset = open_dataset(place.data)
  fingerprint = dataset.fingerprint
  todo = missing_runs(study, place, fingerprint, rows, seeds)
  _log.info("%s on %s: %d run(s) to do", study, place.data, len(todo))
  for number, run in enumerate(todo, start=1):
    _log.info("\nrun %d of %d: %s, seed %d", number, len(todo), run.row, run.seed)
    line = place.results.find(study, (run.what.digest, fingerprint, str(run.seed)))
    if line is None:
      _run(study, run, place, dataset, fingerprint)
    else:
      _log.info("known from results/%s.csv", line["study"])
      place.results.copy(line, study, run.row)


def missing_runs(
  study: str, place: Place, fingerprint: str, rows: Sequence[str], seeds: Iterable[int]
) -> list[Run]:
  """The runs of a study that have no line.

  Raises:
    ValueError: there is no such study or row.
  """
  if study not in STUDIES:
    raise ValueError(f"no study {study!r}; there are: {', '.join(STUDIES)}")
  table = STUDIES[study]
  resolved = {name: resolve(table, name, place.config, place.data) for name in rows or table.rows}
  lines = place.results.lines(study)
  done = {(line["row"], line["digest"], line["fingerprint"], line["seed"]) for line in lines}
  return [
    Run(name, seed, what)
    for seed in seeds
    for name, what in resolved.items()
    if (name, what.digest, fingerprint, str(seed)) not in done
  ]


def _run(study: str, run: Run, place: Place, dataset: Dataset, fingerprint: str) -> None:
  """Trains and evaluates a run and enters its line."""
  workdir = _trained(run.what, run.seed, place, fingerprint)
  out = workdir / f"study-{run.what.digest}"
  if not (out / EVALUATED).is_file():
    _start(run.what, run.seed, place, fingerprint, out)
  about = json.loads((out / EVALUATED).read_text())
  evaluated = Evaluated.read(out)
  tree, actions = dataset.tree, evaluated.actions
  predictions = {
    branch: Predictions.of_scores(
      levels["action"]["probabilities"], levels["body"]["probabilities"], actions, tree
    )
    for branch, levels in evaluated.outputs.items()
  }
  if len(predictions) == 2:  # of one stream, of which "fused" is a copy
    del predictions["fused"]
  config = run.what.config
  line: Line = dict.fromkeys(COLUMNS, "") | {
    "row": run.row,
    "seed": str(run.seed),
    "config": place.config,
    "data": place.data.name,
    "fingerprint": fingerprint,
    "split": config.data.eval_split,
    "num_clips": str(evaluated.num_clips),
    "digest": run.what.digest,
    "commit": _commit(),
    "tensorflow": about.get("tensorflow", about.get("tensorflow-cpu", "")),
    "training_seconds": f"{json.loads((workdir / TRAINED).read_text())['seconds']:.0f}",
    "evaluation_seconds": f"{about['evaluation_seconds']:.0f}",
  }
  for name in ("date", "device", "cpu", "cores", "python", "jax", "jaxlib", "flax"):
    line[name] = str(about[name])
  for branch in predictions:
    for metric in TABLE_COLUMNS:
      line[f"{branch}/{metric}"] = f"{evaluated.metrics[branch][metric]:.6f}"
  line |= {name: f"{value:.6f}" for name, value in about["why"].items()}
  place.results.add(study, line, predictions, Labels(tree, np.asarray(actions)))


def _workdir(what: Resolved, seed: int, place: Place, fingerprint: str) -> pathlib.Path:
  """Rows of any study that share their training share this."""
  folder = place.runs / f"{place.data.name}-{fingerprint[:8]}"
  return folder / f"{what.variant}-{what.weights}-seed{seed}"


def _trained(what: Resolved, seed: int, place: Place, fingerprint: str) -> pathlib.Path:
  """The working directory of a run, after what it starts from has been trained there."""
  for origin in what.origins.values():
    directory = _trained(origin, seed, place, fingerprint)
    note = directory / TRAINED
    if not (note.is_file() and json.loads(note.read_text())["complete"]):
      _start(origin, seed, place, fingerprint, None)
  return _workdir(what, seed, place, fingerprint)


def _start(
  what: Resolved, seed: int, place: Place, fingerprint: str, out: pathlib.Path | None
) -> None:
  """Runs `one_run`; `out` is where the evaluation goes, None for none."""
  arguments = [
    f"--config={what.name}",
    *what.flags,
    f"--config.seed={seed}",
    f"--config.data.path={place.data}",
    *(
      f"--config.init_from.{stream}={_workdir(origin, seed, place, fingerprint)}"
      for stream, origin in what.origins.items()
    ),
    f"--workdir={_workdir(what, seed, place, fingerprint)}",
    *([f"--out={out}"] if out else []),
  ]
  command = [sys.executable, "-m", "benchmarks.study.one_run", *arguments]
  _log.info("%s", " ".join(command[1:]))
  process = subprocess.Popen(command, env=_environment())
  try:
    process.wait()
  except KeyboardInterrupt:  # which the run got as well: it ends with a checkpoint
    process.wait()
    raise
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, command)


def _environment() -> dict[str, str]:
  """The variables with which `pcan` would run."""
  environment = dict(os.environ)
  cache = pathlib.Path(environment.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pcan_jax"
  environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
  return environment | (cpu.settings(environment) if _backend() == "cpu" else {})


@functools.cache
def _backend() -> str:
  """JAX's platform, asked in a process of its own, as this one must not hold the accelerator."""
  ask = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
  return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


def _commit() -> str:
  """The commit of the checkout, with `-dirty` if its code differs from that."""

  def git(*words: str) -> str:
    return subprocess.run(
      ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()

  try:
    changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!docs")
    return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changes else "")
  except (OSError, subprocess.CalledProcessError):
    return "unknown"

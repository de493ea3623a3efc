"""Is training right on this accelerator, and how fast? The most important answers first.

  python -m benchmarks.accelerator --budget 400
  python -m benchmarks.accelerator --budget 400 --parts machine training:bfloat16:64 equality
  python -m benchmarks.accelerator --toy --config=demo      to try this program, on any device

Each part is a process of its own with a limit, so that a crash, a hang or a lack of memory costs
only that part; parts that no longer fit the budget are left out. Rows of results are appended to
RESULTS/results.jsonl as they come, and printed. With --jobs above 1, parts compile side by side,
which a short budget may need, and take turns in measuring; a compilation in another part may still
slow some of the runs. The program needs JAX, Flax, Optax and ml_collections; no TensorFlow.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent import futures
from typing import Any


@dataclasses.dataclass(frozen=True)
class Limits:
  """Seconds of a part.

  Attributes:
    least: with less left of the budget, it is not started.
    most: after which it is killed.
  """

  least: int
  most: int


# In the order in which they run; what the colons separate are a part's arguments.
PARTS = {
  "machine": Limits(20, 60),
  "training:bfloat16:64": Limits(60, 180),
  "forms:bfloat16:32": Limits(30, 110),
  "peer:bfloat16:64:frames-compiled": Limits(60, 240),
  "training:bfloat16:64:cpu_forms": Limits(60, 150),
  "equality": Limits(40, 120),
  "evaluation:bfloat16:20": Limits(25, 60),
  "repeatability:bfloat16:64": Limits(60, 120),
  "training:bfloat16:128": Limits(45, 170),
  "training:bfloat16:10": Limits(45, 170),
  "together:bfloat16:10:4": Limits(45, 170),
  "preprocessing:bfloat16:64": Limits(15, 40),
  "training:float32:32": Limits(45, 170),
  "flags:bfloat16:64": Limits(45, 170),
  "peer:bfloat16:64:eager": Limits(30, 60),
  "training:bfloat16:64:norms": Limits(45, 170),
  "training:bfloat16:64:blocks": Limits(45, 170),
}


class Results:
  """Rows of JSON in a file, each also printed."""

  def __init__(self, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    self.folder = folder
    self._file = folder / "results.jsonl"

  def add(self, part: str, **values: Any) -> None:
    line = json.dumps({"part": part, **values})
    print(line, flush=True)
    with self._file.open("a") as file:
      file.write(line + "\n")


def run_parts(arguments: argparse.Namespace, results: Results) -> None:
  """Starts the parts in their order, some at a time, as long as the budget lasts."""
  end = time.monotonic() + arguments.budget
  (arguments.results / "scratch").mkdir(exist_ok=True)

  def run(name: str) -> None:
    limits = PARTS.get(name, Limits(10, 120))
    began = time.monotonic()
    if end - began < limits.least:
      results.add(name, skipped=f"{end - began:.0f} s left of the budget, {limits.least} needed")
      return
    failure = _run_part(name, arguments, min(limits.most, end - began))
    if failure:
      results.add(name, failed=failure)
    results.add(name, seconds=round(time.monotonic() - began, 1))

  with futures.ThreadPoolExecutor(arguments.jobs) as lanes:
    list(lanes.map(run, arguments.parts))


def _run_part(name: str, arguments: argparse.Namespace, seconds: float) -> str:
  """Runs one part in a process; returns why it failed, or nothing."""
  command = [sys.executable, "-m", "benchmarks.accelerator_parts", name, str(arguments.results)]
  command += ["--config", arguments.config, *(["--toy"] if arguments.toy else [])]
  scratch = arguments.results / "scratch"
  log = scratch / f"{name.replace(':', '-')}.log"
  with log.open("w") as file:
    process = subprocess.Popen(command, env=_environment(name, scratch), stderr=file)
    try:
      code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
      return f"stopped after {seconds:.0f} s"
  return f"exit status {code}: {log.read_text()[-1500:]}" if code else ""


def _environment(name: str, scratch: pathlib.Path) -> dict[str, str]:
  environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  if name.startswith("peer"):
    environment["JAX_PLATFORMS"] = "cpu"  # the accelerator is PyTorch's
    return environment
  environment["JAX_COMPILATION_CACHE_DIR"] = str((scratch / "programs").absolute())
  return environment


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.accelerator",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--budget", type=float, default=400, help="seconds for all parts (400)")
  parser.add_argument(
    "--parts", nargs="+", default=list(PARTS), help=f"any of {', '.join(PARTS)}, with any batch"
  )
  parser.add_argument(
    "--results", type=pathlib.Path, default=pathlib.Path("runs/accelerator"), help="a folder"
  )
  parser.add_argument("--jobs", type=int, default=1, help="parts at a time (1)")
  parser.add_argument("--config", default="ma52", help="a name or a file, [:VARIANT]")
  parser.add_argument("--toy", action="store_true", help="few clips and calls")
  arguments = parser.parse_args(argv)
  known = {part.split(":")[0] for part in PARTS}
  for part in arguments.parts:
    if part.split(":")[0] not in known:
      parser.error(f"no part {part!r}; there are {', '.join(sorted(known))}")
  run_parts(arguments, Results(arguments.results))


if __name__ == "__main__":
  main()

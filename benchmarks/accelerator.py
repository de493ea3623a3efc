"""Is training right on this accelerator, and how fast? The most important answers first.

  python -m benchmarks.accelerator --budget 400
  python -m benchmarks.accelerator --budget 400 --parts machine training:bfloat16:64 equality
  python -m benchmarks.accelerator --toy --config=demo      to try this program, on any device

Each part is a process of its own with a limit, so that a crash, a hang or a lack of memory costs
only that part; parts that no longer fit the budget are left out. Rows of results are appended to
RESULTS/results.jsonl as they come, and printed. With --jobs above 1, which a short budget may need,
parts compile side by side and take turns in measuring, during which the others are stopped. The
program needs JAX, Flax, Optax, Orbax and ml_collections; no TensorFlow.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent import futures
from typing import Any, TextIO


@dataclasses.dataclass(frozen=True)
class Limits:
  """Seconds of a part.

  Attributes:
    least: with less left of the budget, it is not started.
    most: after which it is killed.
  """

  least: int
  most: int


_STEPS = Limits(60, 300)
# In the order in which they run; what the colons separate are a part's arguments.
PARTS = {
  "machine": Limits(20, 60),
  "training:bfloat16:64": _STEPS,
  "peer:bfloat16:64:frames-compiled": _STEPS,
  "training:bfloat16:10": _STEPS,
  "evaluation:bfloat16:20": Limits(25, 120),
  "equality": Limits(40, 180),
  "resume:bfloat16:64": Limits(90, 300),
  "peer:bfloat16:64:frames": Limits(30, 120),
  "forms:bfloat16:32": Limits(30, 180),
  "training:bfloat16:64:forms=cpu": _STEPS,
  "training:bfloat16:64:pool=window": _STEPS,
  "training:bfloat16:64:products=512": _STEPS,
  "training:bfloat16:64:moments=0": _STEPS,
  "training:bfloat16:64:fold=False": _STEPS,
  "training:bfloat16:64:lateral=joined": _STEPS,
  "training:bfloat16:64:subsampling=kept": _STEPS,
  "training:bfloat16:64:xla_gpu_dot_merger_threshold_mb=0": _STEPS,
  "training:bfloat16:64:xla_gpu_enable_triton_gemm=True": _STEPS,
  "training:bfloat16:64:xla_gpu_exclude_nondeterministic_ops=False": _STEPS,
  "training:bfloat16:10:xla_gpu_enable_command_buffer=": _STEPS,
  "together:bfloat16:10:4": _STEPS,
  "training:bfloat16:128": _STEPS,
  "training:float32:32": _STEPS,
  "preprocessing:bfloat16:64": Limits(15, 60),
  "training:bfloat16:64:remat=norms": _STEPS,
  "training:bfloat16:64:remat=blocks": _STEPS,
  "peer:bfloat16:64:eager": Limits(30, 120),
  "peer:bfloat16:20:frames-compiled:evaluation": Limits(45, 180),
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


def enter(folder: pathlib.Path) -> TextIO:
  """Makes this process, which leads a group, one of the parts that are running, while it lives."""
  file = (folder / "scratch" / "running" / str(os.getpid())).open("w")
  fcntl.flock(file, fcntl.LOCK_EX)
  return file


def running(folder: pathlib.Path) -> set[int]:
  """The process groups of the parts that are running and whose results go to a folder."""
  groups = set()
  for path in (folder / "scratch" / "running").iterdir():
    with path.open() as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which is only held by the living
      except BlockingIOError:
        groups.add(int(path.name))
  return groups


def send_signal(groups: Iterable[int], number: int) -> None:
  """Sends a signal to process groups, those that have ended aside."""
  for group in groups:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(group, number)


def run_parts(arguments: argparse.Namespace, results: Results) -> None:
  """Starts the parts in their order, some at a time, as long as the budget lasts."""
  end = time.monotonic() + arguments.budget
  (arguments.results / "scratch" / "running").mkdir(parents=True, exist_ok=True)

  def run(name: str) -> None:
    limits = PARTS.get(name, Limits(10, 300))
    began = time.monotonic()
    if end - began < limits.least:
      results.add(name, skipped=f"{end - began:.0f} s left of the budget, {limits.least} needed")
      return
    failure = _run_part(name, arguments, min(limits.most, end - began))
    if failure:
      results.add(name, failed=failure)
    results.add(name, seconds=round(time.monotonic() - began, 1))

  with futures.ThreadPoolExecutor(arguments.jobs) as lanes:
    try:
      list(lanes.map(run, arguments.parts))
    except KeyboardInterrupt:
      lanes.shutdown(wait=False, cancel_futures=True)
      send_signal(running(arguments.results), signal.SIGKILL)
      raise


def command_of(part: str, results: pathlib.Path, config: str, *, toy: bool) -> list[str]:
  """Runs a part in this process's Python."""
  command = [sys.executable, "-m", "benchmarks.accelerator_parts", part, str(results)]
  return [*command, "--config", config, *(["--toy"] if toy else [])]


def _run_part(name: str, arguments: argparse.Namespace, seconds: float) -> str:
  """Runs one part in a process group of its own; returns why it failed, or nothing."""
  command = command_of(name, arguments.results, arguments.config, toy=arguments.toy)
  scratch = arguments.results / "scratch"
  log = scratch / f"{name.replace(':', '-')}.log"
  with log.open("w") as file:
    process = subprocess.Popen(
      command, env=_environment(name, scratch), stderr=file, process_group=0
    )
    try:
      code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
      send_signal([process.pid], signal.SIGKILL)
      process.wait()
      code = None
  if code == 0:
    return ""
  send_signal(running(arguments.results), signal.SIGCONT)  # whom it may have stopped
  if code is None:
    return f"stopped after {seconds:.0f} s"
  return f"exit status {code}: {log.read_text()[-1500:]}"


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

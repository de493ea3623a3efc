"""Common parts of the benchmarks: repeated timing, description of the machine, output.

JAX is imported late, so that its environment variables can be set after importing this module.
"""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "torch", "tensorflow", "tensorflow-cpu")


@dataclasses.dataclass(frozen=True)
class Timing:
  """Durations of the calls of one function in seconds, in order."""

  seconds: tuple[float, ...]

  @property
  def median(self) -> float:
    return statistics.median(self.seconds)

  @property
  def minimum(self) -> float:
    return min(self.seconds)

  @property
  def maximum(self) -> float:
    return max(self.seconds)

  def ratios(self, other: "Timing") -> list[float]:
    """Ratios of the durations to another function's, turn by turn.

    A temporary slowdown of the machine affects both calls of a turn.
    """
    return [own / others for own, others in zip(self.seconds, other.seconds)]


def measure(function: Callable[[], Any], *, repeats: int = 5, warmup: int = 1) -> Timing:
  """Times calls of a function, which must block until its work is done."""
  return measure_interleaved({"": function}, repeats=repeats, warmup=warmup)[""]


def measure_interleaved(
  functions: dict[str, Callable[[], Any]], *, repeats: int = 5, warmup: int = 1
) -> dict[str, Timing]:
  """Times several functions in turns, so that a slowdown of the machine affects them all."""
  clocked = {name: functools.partial(clock, function) for name, function in functions.items()}
  return take_turns(clocked, repeats=repeats, warmup=warmup)


def take_turns(
  timed: dict[str, Callable[[], float]], *, repeats: int = 5, warmup: int = 1
) -> dict[str, Timing]:
  """Like `measure_interleaved`, for functions that return their durations in seconds."""
  seconds: dict[str, list[float]] = {name: [] for name in timed}
  for turn in range(-warmup, repeats):
    for name, function in timed.items():
      took = function()
      if turn >= 0:
        seconds[name].append(took)
  return {name: Timing(tuple(values)) for name, values in seconds.items()}


def clock(function: Callable[[], Any]) -> float:
  """Duration of a call in seconds."""
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


class OwnProcess:
  """A function in a separate process, timed there.

  Implementations in the same process would compete for its heap and threads, at the expense of the
  one created later.
  """

  def __init__(self, make: Callable[..., Callable[[], Any]], *args: Any) -> None:
    """Starts the process and creates the function there.

    Args:
      make: returns the function; must be importable, and its arguments picklable.
      *args: arguments of `make`.
    """
    self._executor = futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    self._executor.submit(_make, make, args).result()

  def __call__(self) -> float:
    """Calls the function; returns the duration in seconds."""
    return self._executor.submit(_clock_made).result()

  def close(self) -> None:
    """Ends the process."""
    self._executor.shutdown()


_made: list[Callable[[], Any]] = []  # the function of an `OwnProcess`, in that process


def _make(make: Callable[..., Callable[[], Any]], args: tuple[Any, ...]) -> None:
  _made[:] = [make(*args)]


def _clock_made() -> float:
  return clock(_made[0])


def matmul_peak(dtype: str) -> float:
  """Operations per second of the first device on a large matrix product of random numbers.

  Args:
    dtype: JAX's name for the type of factors and product.
  """
  import jax
  import jax.numpy as jnp

  # On an accelerator, small products are too fast to time.
  size, products = (2048, 1) if jax.default_backend() == "cpu" else (8192, 20)
  factors = [
    jax.random.normal(jax.random.key(seed), (size, size), jnp.float32).astype(dtype)
    for seed in range(2)
  ]
  multiply = jax.jit(jnp.matmul)

  def run() -> None:
    jax.block_until_ready([multiply(*factors) for _ in range(products)])

  return 2 * size**3 * products / measure(run, repeats=3, warmup=1).minimum


def environment() -> dict[str, str | int]:
  """The machine and the versions that results depend on."""
  import jax

  device = jax.devices()[0]
  versions = {}
  for package in PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return {
    "date": datetime.date.today().isoformat(),
    "device": f"{jax.device_count()} x {device.device_kind}",
    "cpu": _cpu_model(),
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "python": platform.python_version(),
    **versions,
  }


def _cpu_model() -> str:
  info = pathlib.Path("/proc/cpuinfo")
  if info.is_file():
    for line in info.read_text().splitlines():
      if line.startswith("model name"):
        return line.split(":", 1)[1].strip()
  return platform.processor() or platform.machine()


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
  """Prints a Markdown table; numbers get three significant digits."""
  cells = [[_cell(value) for value in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(headers, *cells)]
  for row in (headers, ["-" * width for width in widths], *cells):
    print("| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths)) + " |")


def _cell(value: Any) -> str:
  if not isinstance(value, float):
    return str(value)
  return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_json(results: dict[str, Any]) -> None:
  """Prints the last, machine-readable line of a benchmark."""
  print(json.dumps(results, sort_keys=True))

"""Where a device's time goes: its kernels by name and class, read from JAX's profile."""

import collections
import contextlib
import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

# The first class whose pattern is found in a kernel's name.
CLASSES = {
  "convolution": r"conv(?!ert)|fprop|dgrad|wgrad|implicit|xmma.*(nhwc|ndhwc)|cudnn",
  "product": r"gemm|nvjet|cutlass|cublas|dot",
  "sum": r"reduce",
  "copy": r"memcpy|memset|copy|transpose",
  "elementwise": r"fusion|add|multiply|select|convert|pad|slice|concatenate",
}


@dataclasses.dataclass
class Profile:
  """The device's kernels in some calls.

  Attributes:
    calls: how many.
    kernels: by operation of the compiled program and kernel, milliseconds and number per call.
    busy_ms: per call, in which at least one kernel ran.
    span_ms: per call, from the first kernel to the last.
  """

  calls: int
  kernels: dict[str, list[float]] = dataclasses.field(default_factory=dict)
  busy_ms: float = 0.0
  span_ms: float = 0.0

  def summary(self, longest: int = 25) -> dict[str, Any]:
    """Milliseconds per call by class, and the kernels that take the longest."""
    classes: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for name, (milliseconds, number) in self.kernels.items():
      kind = next(
        (kind for kind, pattern in CLASSES.items() if re.search(pattern, name, re.IGNORECASE)),
        "other",
      )
      classes[kind][0] += milliseconds
      classes[kind][1] += number
    top = sorted(self.kernels.items(), key=lambda item: -item[1][0])[:longest]
    return {
      "busy_ms": self.busy_ms,
      "span_ms": self.span_ms,
      "kernels": sum(number for _, number in self.kernels.values()),
      "classes_ms": {kind: [round(ms, 2), number] for kind, (ms, number) in classes.items()},
      "longest_ms": {name[:120]: [round(ms, 3), number] for name, (ms, number) in top},
    }


@contextlib.contextmanager
def recording(calls: int) -> Iterator[Profile]:
  """Fills in a profile of the calls that are made, and waited for, inside."""
  profile = Profile(calls)
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      yield profile
    _read(max(pathlib.Path(folder).rglob("*.xplane.pb")), profile)


def _read(path: pathlib.Path, profile: Profile) -> None:
  kernels: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
  spans = []
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    if not plane.name.startswith("/device:"):
      continue
    for line in plane.lines:
      if not line.name.startswith("Stream"):
        continue
      for event in line.events:
        operation = dict(event.stats).get("hlo_op", "")
        found = kernels[f"{operation} {event.name}"]
        found[0] += event.duration_ns / 1e6 / profile.calls
        found[1] += 1 / profile.calls
        spans.append((event.start_ns, event.start_ns + event.duration_ns))
  profile.kernels = dict(kernels)
  spans.sort()
  end = 0.0
  for low, high in spans:
    profile.busy_ms += max(0.0, high - max(low, end)) / 1e6 / profile.calls
    end = max(end, high)
  if spans:
    profile.span_ms = (end - spans[0][0]) / 1e6 / profile.calls

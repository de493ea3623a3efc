"""Collectives of a compiled step, and the time they take on a cluster."""

import collections
import dataclasses
import math
import re

KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
  "collective-broadcast",
)
_INSTRUCTION = re.compile(rf" = (.+?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b[a-z]+(\d+)[a-z0-9]*\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
  """A collective operation.

  Attributes:
    kind: one of `KINDS`.
    num_bytes: of its result on one device.
  """

  kind: str
  num_bytes: int


def find(text: str) -> list[Collective]:
  """Finds the collectives of a compiled program in its HLO text."""
  found = []
  for result, kind, start in _INSTRUCTION.findall(text):
    arrays = [
      int(bits) // 8 * math.prod(int(n) for n in extents.split(",") if n)
      for bits, extents in _ARRAY.findall(result)
    ]
    # The shape of an asynchronous start lists the operand first, except for all-reduce.
    found.append(Collective(kind, arrays[1] if start and kind != "all-reduce" else sum(arrays)))
  return found


def by_kind(found: list[Collective]) -> dict[str, tuple[int, int]]:
  """The number of collectives of each kind, and the bytes of their results."""
  totals = collections.defaultdict(lambda: (0, 0))
  for one in found:
    count, num_bytes = totals[one.kind]
    totals[one.kind] = count + 1, num_bytes + one.num_bytes
  return dict(totals)


@dataclasses.dataclass(frozen=True)
class Cluster:
  """A model of a cluster of hosts with accelerators.

  Attributes:
    per_host: accelerators per host.
    within_host: bytes per second that an accelerator sends to others in its host.
    between_hosts: bytes per second that an accelerator sends to other hosts.
    latency: seconds of a small collective per doubling of the number of accelerators.
  """

  per_host: int = 8
  within_host: float = 300e9
  between_hosts: float = 40e9
  latency: float = 10e-6

  def __str__(self) -> str:
    return (
      f"hosts of {self.per_host}, {self.within_host / 1e9:g} GB/s within and "
      f"{self.between_hosts / 1e9:g} GB/s between them, {1e6 * self.latency:g} us per collective "
      "and doubling, no overlap with computation"
    )

  def seconds(self, found: list[Collective], devices: int) -> float:
    """Time for ring all-reduces, one after the other, without overlap with computation.

    A ring of n sends 2 (n - 1) / n of the bytes over its slowest link.
    """
    if devices == 1:
      return 0.0
    speed = self.within_host if devices <= self.per_host else self.between_hosts
    sent = 2 * (devices - 1) / devices * sum(one.num_bytes for one in found)
    return sent / speed + len(found) * self.latency * math.log2(devices)

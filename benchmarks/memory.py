"""Which training batch fits into the memory of an accelerator, with and without rematerialisation.

  python -m benchmarks.memory                     by the compiler for the first device at hand
  python -m benchmarks.memory --topology v5e:2x2  for a TPU that is not there (needs libtpu)

Nothing runs. The step is compiled for two batches; what the compiler plans to hold grows linearly
with the batch, so that two plans give those for all others.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from benchmarks import timing, workload
from pcan_jax.config import load_config
from pcan_jax.mesh import data_mesh

SIZES = (16, 24, 80)  # GB: T4 or TPU v5e, RTX 3090 or 4090, A100 or H100
USABLE = 0.9  # the rest is for the runtime and for fragmentation


@dataclasses.dataclass(frozen=True)
class Need:
  """Memory as a linear function of the batch, in bytes."""

  fixed: float
  per_clip: float

  @classmethod
  def through(cls, points: dict[int, int]) -> "Need":
    """The line through two plans, given as bytes by batch."""
    (small, low), (large, high) = sorted(points.items())
    per_clip = (high - low) / (large - small)
    return cls(low - small * per_clip, per_clip)

  def largest_batch(self, gigabytes: float) -> int:
    return max(int((USABLE * gigabytes * 1e9 - self.fixed) / self.per_clip), 0)


def need(config: str, dtype: str, remat: str, batches: Sequence[int], device: jax.Device) -> Need:
  """Compiles the training step of a config for two batches on a device."""
  changed = load_config(config)
  changed.model.update(dtype=dtype, remat=remat)
  mesh = data_mesh([device])
  return Need.through(
    {n: workload.trace(changed, "training", n, mesh).compile().memory for n in batches}
  )


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.memory",
    description="Finds the largest training batch that fits, from compiled programs.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--config", default="ma52", help="a name or a file, [:VARIANT]")
  parser.add_argument("--dtypes", nargs="+", default=["bfloat16"])
  parser.add_argument("--remat", nargs="+", default=["none", "norms", "blocks"])
  parser.add_argument("--batches", nargs=2, type=int, default=[8, 16], help="two to compile for")
  parser.add_argument("--sizes", nargs="+", type=float, default=SIZES, help="memories in GB")
  parser.add_argument("--topology", help="a TPU topology, as v5e:2x2")
  arguments = parser.parse_args(argv)
  if arguments.batches[0] == arguments.batches[1]:
    sys.exit("error: --batches needs two different numbers")
  try:
    if arguments.topology:
      topology = topologies.get_topology_desc(arguments.topology, platform="tpu")
      device = topology.devices[0]
    else:
      device = jax.devices()[0]
    needs = {}
    for case in itertools.product(arguments.dtypes, arguments.remat):
      found = needs[case] = need(arguments.config, *case, arguments.batches, device)
      print(*case, f"{found.per_clip / 1e6:.0f} MB per clip", file=sys.stderr, flush=True)
  except (FileNotFoundError, ValueError) as error:
    sys.exit(f"error: {error}")
  fits = [f"batch in {size:g} GB" for size in arguments.sizes]
  rows = [
    dict(zip(("dtype", "remat"), case))
    | {"fixed MB": found.fixed / 1e6, "MB per clip": found.per_clip / 1e6}
    | dict(zip(fits, map(found.largest_batch, arguments.sizes)))
    for case, found in needs.items()
  ]
  print(f"compiled for {device.device_kind}, {100 * USABLE:.0f} % of the memory in use\n")
  timing.print_table(list(rows[0]), [list(row.values()) for row in rows])
  timing.print_json(
    {
      "benchmark": "memory",
      "environment": timing.environment(),
      "compiled_for": device.device_kind,
      "batches": rows,
    }
  )


if __name__ == "__main__":
  main()

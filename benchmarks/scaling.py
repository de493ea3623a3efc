"""Scaling of a training step over devices: communication, equal results, predicted efficiency.

  python -m benchmarks.scaling                         on 1, 2, 4 and 8 simulated devices
  python -m benchmarks.scaling --topology v5e:2x4      compiled for real TPUs

Simulated devices share the cores of this machine, so their speed is meaningless. What can be found
without a cluster: the collectives of the compiled step (first table, full size), whether all device
counts compute the same (second table, `--small_config`), and the efficiency of many devices,
predicted from `collectives.Cluster` and an assumed speed of one device (third table).
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from benchmarks import collectives, timing, workload
from benchmarks.collectives import Cluster, Collective
from pcan_jax.config import load_config
from pcan_jax.mesh import data_mesh

PREDICTED = (1, 8, 64, 512)


def exchanged(config: str, devices: list[jax.Device]) -> tuple[list[Collective], int]:
  """Collectives of a training step, and the number of parameters.

  The step has one clip per device; communication does not depend on the number of clips.
  """
  mesh = data_mesh(devices)
  program = workload.trace(load_config(config), "training", len(devices), mesh)
  found = collectives.find(program.compile().compiled.as_text())
  return found, program.num_parameters


def compare(config: str, counts: Sequence[int], batch: int) -> list[dict[str, Any]]:
  """Runs the same step on each number of devices and compares it with the first.

  The difference of the parameters is relative: the norm of the difference over the norm of the
  update.
  """
  rows, wanted = [], None
  changed = load_config(config)
  changed.optimizer.warmup_epochs = 0.0  # the first step of a warm-up changes nothing
  for count in counts:
    mesh = data_mesh(jax.devices()[:count])
    program = workload.trace(changed, "training", batch, mesh)
    step = program.compile()
    before = _vector(program.make_state().params)
    state, terms = step()
    change = _vector(state.params) - before
    wanted = change if wanted is None else wanted
    found = collectives.find(step.compiled.as_text())
    rows.append(
      {
        "devices": count,
        "collectives": len(found),
        "MB": sum(one.num_bytes for one in found) / 1e6,
        "loss": round(float(terms["loss"]), 5),
        "gradient norm": round(float(terms["gradient_norm"]), 4),
        "difference of the change": float(np.linalg.norm(change - wanted) / np.linalg.norm(wanted)),
      }
    )
  return rows


def _vector(tree: Any) -> np.ndarray:
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))])


def predict(
  found: list[Collective], cluster: Cluster, rate: float, clips_per_device: Sequence[int]
) -> list[dict[str, float]]:
  """Predicts the clips per second of many devices, each of which alone would process `rate`."""
  rows = []
  for clips in clips_per_device:
    alone = clips / rate
    for devices in PREDICTED:
      exchange = cluster.seconds(found, devices)
      rows.append(
        {
          "clips per device": clips,
          "devices": devices,
          "ms computing": 1e3 * alone,
          "ms exchanging": 1e3 * exchange,
          "clips/s": devices * clips / (alone + exchange),
          "efficiency %": 100 * alone / (alone + exchange),
        }
      )
  return rows


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  arguments = parse(argv)
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", max(arguments.devices))
  try:
    if arguments.topology:
      topology = topologies.get_topology_desc(arguments.topology, platform="tpu")
      devices = list(topology.devices)
    else:
      devices = jax.devices()
    found, parameters = exchanged(arguments.config, devices)
    same = compare(arguments.small_config, arguments.devices, arguments.batch)
  except (FileNotFoundError, ValueError) as error:
    sys.exit(f"error: {error}")
  kinds = collectives.by_kind(found)
  predicted = predict(found, Cluster(), arguments.rate, arguments.clips_per_device)
  print(
    f"{arguments.config}, {parameters:,} parameters, on {len(devices)} x "
    f"{devices[0].device_kind}, per step and device\n"
  )
  timing.print_table(
    ["collective", "number", "MB"], [[kind, n, size / 1e6] for kind, (n, size) in kinds.items()]
  )
  print(f"\n{arguments.small_config}, one step on the same {arguments.batch} clips\n")
  timing.print_table(list(same[0]), [list(row.values()) for row in same])
  print(f"\npredicted for {arguments.rate:g} clips/s on one device and {Cluster()}\n")
  timing.print_table(list(predicted[0]), [list(row.values()) for row in predicted])
  timing.print_json(
    {
      "benchmark": "scaling",
      "environment": timing.environment(),
      "compiled_for": f"{len(devices)} x {devices[0].device_kind}",
      "parameters": parameters,
      "collectives": kinds,
      "equality": same,
      "predicted": predicted,
    }
  )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
  """Parses the arguments."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.scaling",
    description="Measures the communication of a sharded training step, and predicts its speed.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--config", default="ma52", help="config that is compiled, not run")
  parser.add_argument(
    "--small_config", default="demo", help="config that is run on every device count"
  )
  parser.add_argument("--devices", nargs="+", type=int, default=[1, 2, 4, 8], help="simulated")
  parser.add_argument("--batch", type=int, default=16, help="clips on all devices together")
  parser.add_argument("--topology", help="TPUs to compile for, such as v5e:2x4 (needs libtpu)")
  parser.add_argument("--rate", type=float, default=600.0, help="assumed clips/s of one device")
  parser.add_argument(
    "--clips_per_device", nargs="+", type=int, default=[32, 4], help="batches of the prediction"
  )
  arguments = parser.parse_args(argv)
  for count in arguments.devices:
    if arguments.batch % count:
      parser.error(f"--batch {arguments.batch} does not divide among {count} devices")
  return arguments


if __name__ == "__main__":
  main()

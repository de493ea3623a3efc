"""What some processes compute together, for tests/test_hosts.py.

  python -m tests.hosts OUT.npz DATA COORDINATOR COUNT INDEX ORDER

ORDER is that of the devices in the mesh: `plain`, host after host, or `mixed`, the first device of
every host, then the second of every host. The latter is what JAX may choose on slices of TPUs.
"""

import itertools
import sys

import jax
import numpy as np

from configs import ma52
from pcan_jax import hosts, mesh
from pcan_jax.spec import flatten_outputs
from tests.tiny_config import shrink

NUM_STEPS = 2


def main(out: str, data: str, coordinator: str, count: int, index: int, order: str) -> None:
  # On a crowded machine, hosts are silent for long without being lost.
  hosts.HEARTBEAT_SECONDS = 600
  with hosts.joined(coordinator, count, index):
    compute(out, data, count, index, order)


def compute(out: str, data: str, count: int = 1, index: int = 0, order: str = "plain") -> None:
  """Takes some steps and evaluates two splits; the first host writes what came of it."""
  if order == "mixed":
    of_hosts = [[d for d in jax.devices() if d.process_index == host] for host in range(count)]
    devices = [device for row in zip(*of_hosts) for device in row]
    make = mesh.data_mesh
    mesh.data_mesh = lambda: make(devices)
  from pcan_jax.evaluation.protocol import Evaluator
  from pcan_jax.training import loop
  from pcan_jax.training.step import compile_step

  config = shrink(ma52.get_config("pcan_pose"))
  config.data.path = data
  run = loop.prepare(config)
  init, step = compile_step(run.spec, run.schedule, run.mesh)
  state, found = init(), {}
  for number, batch in enumerate(itertools.islice(run.batches(), NUM_STEPS)):
    state, terms = step(state, batch)
    found |= {f"step{number}/{name}": value for name, value in jax.device_get(terms).items()}
  evaluator = Evaluator(run.spec, run.dataset)
  for split in ("val", "test"):
    results = evaluator(state.model(), split, num_clips=1)
    about = {"ids": np.array(results.ids), "actions": results.actions}
    about |= flatten_outputs(results.outputs)
    found |= {f"{split}/{name}": values for name, values in about.items()}
  if index == 0:
    np.savez(out, **found)


if __name__ == "__main__":
  _, out, data, coordinator, count, index, order = sys.argv
  main(out, data, coordinator, int(count), int(index), order)

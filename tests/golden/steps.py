"""The arrays and the operations of full-size steps."""

import hashlib
from typing import Any

import jax

from benchmarks import workload
from benchmarks.workload import Program
from pcan_jax.config import load_config


def trace(variant: str) -> dict[str, Program]:
  """The training and the evaluation step of a variant of ma52, on two clips."""
  config = load_config(f"ma52:{variant}")
  return {kind: workload.trace(config, kind, batch_size=2) for kind in workload.KINDS}


def digest(programs: dict[str, Program]) -> dict[str, Any]:
  """Of each step 10^9 operations, and the arrays of the state or the variables that it takes.

  XLA adds operations in float32, so that their order counts in the seventh digit.
  """
  found = {}
  for kind, program in programs.items():
    state, _ = program.traced.in_avals[0]
    arrays = sorted(
      f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}"
      for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    )
    found[kind] = {
      "arrays": len(arrays),
      "parameters": program.num_parameters,
      "sha256": hashlib.sha256("\n".join(arrays).encode()).hexdigest(),
      "gigaoperations": round(program.operations / 1e9, 2),
    }
  return found

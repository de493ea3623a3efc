"""A mesh of all devices along one axis, and how arrays are placed on it.

Batches are sharded, everything else is replicated. Under `jax.jit` the compiler adds the reductions
over devices: BatchNorm, class means and gradients are those of the global batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int64

PyTree = Any

GPU_OPTIONS = {
  # cuBLAS adds biases and residuals to its products; Triton's products leave them to another pass.
  "xla_gpu_enable_triton_gemm": False,
  # Steps that are repeated end in the same bits, for 7 % of the time on an H200.
  "xla_gpu_exclude_nondeterministic_ops": True,
}


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Devices along one axis, `data`; by default all of them, in the order that XLA prefers."""
  if devices is None:
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
  return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
  """Every device holds an equal part of the first axis."""
  return NamedSharding(mesh, PartitionSpec("data"))


def compiler_options(device: jax.Device) -> dict[str, Any] | None:
  """What steps on a device are compiled with, beside XLA's defaults."""
  return GPU_OPTIONS if device.platform == "gpu" else None


def jit_step(step: Callable[..., Any], mesh: Mesh, **options: Any) -> jax.stages.Wrapped:
  """Jits a function of (replicated arrays, a sharded batch) with replicated results."""
  # JAX finds traces by the function, and a bound method equals itself: it would return the old one
  # after the config behind it was changed.
  return jax.jit(
    functools.partial(step),
    in_shardings=(replicated(mesh), sharded(mesh)),
    out_shardings=replicated(mesh),
    compiler_options=compiler_options(mesh.devices.flat[0]),
    **options,
  )


def jit_once(make: Callable[..., PyTree], mesh: Mesh) -> jax.stages.Wrapped:
  """Jits a function that is called once, such as an initialisation; its results are replicated.

  On a CPU, optimising the random numbers of each parameter takes longer than it saves.
  """
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  options = {"xla_backend_optimization_level": 1} if on_cpu else None
  return jax.jit(make, out_shardings=replicated(mesh), compiler_options=options)


def local_rows(mesh: Mesh, batch_size: int) -> Int64[np.ndarray, " b"]:
  """The rows of a batch that this host's devices hold, in rising order."""
  held = sharded(mesh).addressable_devices_indices_map((batch_size,)).values()
  everything = np.arange(batch_size, dtype=np.int64)
  return np.sort(np.concatenate([everything[rows] for rows in held]))


def send(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Sends this host's rows of a batch, in the order of `local_rows`, to the devices that hold them.

  A mesh may take the devices of several hosts in any order.
  """
  sharding = sharded(mesh)
  num_rows = len(next(iter(batch.values())))
  batch_size = num_rows * mesh.size // len(mesh.local_devices)
  rows = local_rows(mesh, batch_size)

  def place(values: np.ndarray) -> jax.Array:
    def part(index: tuple[slice, ...]) -> np.ndarray:
      start, stop, _ = index[0].indices(batch_size)
      first = int(np.searchsorted(rows, start))
      return values[first : first + stop - start]

    return jax.make_array_from_callback((batch_size, *values.shape[1:]), sharding, part)

  return {name: place(values) for name, values in batch.items()}

"""Accelerators that programs are compiled for, here or not: files in `benchmarks/targets`."""

import dataclasses
import importlib.metadata
import os
import pathlib
import tomllib
from typing import Any

import jax
from jax.experimental import topologies

FOLDER = pathlib.Path(__file__).parent / "targets"
PRECISIONS = ("bfloat16", "float32", "highest")


class MissingCompilerError(RuntimeError):
  """A target cannot be compiled for; the message says why, and which packages do that."""


@dataclasses.dataclass(frozen=True)
class Target:
  """An accelerator by its vendor's figures.

  Attributes:
    title: its name in tables.
    source: where the figures are from.
    platform: of the compiler, "cuda" or "tpu".
    memory: in GB.
    bandwidth: of the memory, in bytes per second.
    launch: seconds from one kernel to the next.
    peak: operations per second of products by precision: "bfloat16", "float32" as JAX computes it
      by default on this device, and "highest", which is true float32. Without sparsity.
    topologies: by number of devices, as the compiler names them.
    description: of a GPU, the fields of XLA's `GpuDeviceInfoProto`; empty for TPUs.
    libraries: of a GPU, the version of cuDNN to compile for.
  """

  title: str
  source: list[str]
  platform: str
  memory: float
  bandwidth: float
  launch: float
  peak: dict[str, float]
  topologies: dict[str, str]
  description: dict[str, Any] = dataclasses.field(default_factory=dict)
  libraries: dict[str, int] = dataclasses.field(default_factory=dict)

  def devices(self, count: int = 1) -> list[jax.Device]:
    """Devices to compile for, which cannot run anything.

    Raises:
      ValueError: there is no topology of so many devices.
      MissingCompilerError: no compiler for the platform is installed, or it knows no such device.
    """
    if str(count) not in self.topologies:
      raise ValueError(f"{self.title} is described for {', '.join(self.topologies)} devices only")
    topology = self.topologies[str(count)]
    try:
      if self.platform == "tpu":
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # nobody is there to be asked
        # Some TPUs are described in hosts only, of which the first chips are taken.
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)[:count]
      return list(
        topologies.get_topology_desc(
          platform=self.platform, target_config=self.text(), topology=topology
        ).devices
      )
    except Exception as error:  # the kind depends on the plugin and on JAX's version
      version = importlib.metadata.version("jax")
      packages = (
        f"'jax[tpu]=={version}'"
        if self.platform == "tpu"
        else f"--no-deps jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version}"
      )
      raise MissingCompilerError(
        f"no compiler for {self.title} as {topology!r}: {error} (is it installed? "
        f"pip install {packages})"
      ) from error

  def text(self) -> str:
    """A GPU as text of XLA's `GpuTargetConfigProto`."""
    fields = {
      "gpu_device_info": self.description,
      "platform_name": "CUDA",
      "dnn_version_info": self.libraries,
      "device_description_str": self.title,
    }
    return "\n".join(_text_proto(fields)) + "\n"


def names() -> list[str]:
  """Targets that are described."""
  return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Target:
  """A target by name.

  Raises:
    ValueError: there is none of this name, or its file lacks a figure.
  """
  path = FOLDER / f"{name}.toml"
  if not path.is_file():
    raise ValueError(f"no target called {name!r}; there are {', '.join(names())}")
  try:
    target = Target(**tomllib.loads(path.read_text()))
  except TypeError as error:
    raise ValueError(f"{path}: {error}") from error
  missing = set(PRECISIONS) - set(target.peak)
  if missing:
    raise ValueError(f"{path}: no peak for {', '.join(sorted(missing))}")
  return target


def _text_proto(fields: dict[str, Any]) -> list[str]:
  lines = []
  for name, value in fields.items():
    if isinstance(value, dict):
      lines += [f"{name} {{", *(f"  {line}" for line in _text_proto(value)), "}"]
    elif isinstance(value, str):
      # An enumeration's names have no quotes.
      lines.append(f"{name}: {value}" if value.isupper() and "_" in value else f'{name}: "{value}"')
    else:
      lines.append(f"{name}: {str(value).lower() if isinstance(value, bool) else value}")
  return lines

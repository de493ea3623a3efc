"""Settings that let XLA run fast on a CPU; a process must be started with them.

  eval "$(python -m pcan_jax.cpu)"      for everything that a shell starts from then on

The command line starts itself again with them where JAX finds nothing but a CPU. What they gain is
in docs/PERFORMANCE.md.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shlex
from collections.abc import Mapping

# XLA asks for gigabytes at every step, and having the system clear them each time can take as long
# as the step itself: huge pages, one heap for all threads, and nothing given back.
GLIBC_TUNABLES = ":".join(
  f"glibc.malloc.{value}"
  for value in (
    "hugetlb=1",
    "arena_max=1",
    "mmap_max=0",
    f"trim_threshold={10**11}",
    f"top_pad={10**9}",
  )
)

# Matrix products and convolutions by oneDNN, which XLA's build brings along, and by Eigen where it
# is not wired up (JAX 0.10); sums by YNNPACK, which has all of them otherwise.
XLA_FLAGS = (
  "--xla_cpu_use_onednn=true",
  "--xla_cpu_experimental_onednn_custom_call=true",
  "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE",
)

# From 0.11 on, JAX fails to write programs that call oneDNN, and the process may crash in it.
_KEEP_PROGRAMS = "JAX_ENABLE_COMPILATION_CACHE"


def settings(environment: Mapping[str, str]) -> dict[str, str]:
  """The variables to set, and to what; those that are set already stay as they are.

  Args:
    environment: the variables of the process.
  """
  found = {}
  if platform.libc_ver()[0] == "glibc" and "GLIBC_TUNABLES" not in environment:
    found["GLIBC_TUNABLES"] = GLIBC_TUNABLES
  if platform.machine() == "x86_64":
    flags = environment.get("XLA_FLAGS", "").split()
    chosen = {flag.split("=")[0] for flag in flags}
    missing = [flag for flag in XLA_FLAGS if flag.split("=")[0] not in chosen]
    if missing:
      found["XLA_FLAGS"] = " ".join(flags + missing)
    if _jax_version() >= (0, 11) and _KEEP_PROGRAMS not in environment:
      found[_KEEP_PROGRAMS] = "false"
  return found


def _jax_version() -> tuple[int, ...]:
  return tuple(int(number) for number in importlib.metadata.version("jax").split(".")[:2])


def is_certain(environment: Mapping[str, str]) -> bool:
  """Whether JAX can only find a CPU: it is told to, or no package for an accelerator is installed.

  Args:
    environment: the variables of the process.
  """
  if environment.get("JAX_PLATFORMS"):
    return environment["JAX_PLATFORMS"] == "cpu"
  plugins = importlib.metadata.entry_points(group="jax_plugins")
  return not (plugins or any(map(importlib.util.find_spec, ("jax_plugins", "libtpu"))))


if __name__ == "__main__":
  for name, value in settings(os.environ).items():
    print(f"export {name}={shlex.quote(value)}")

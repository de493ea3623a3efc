"""What a checkpoint was made with: versions, source code, devices."""

import datetime
import functools
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

_PACKAGES = (
  "pcan_jax",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "numpy",
  "tensorflow",
  "tensorflow-cpu",
)


def made_with() -> dict[str, Any]:
  """Plain values, ready for JSON.

  Returns:
    `time` (UTC), `python`, `packages` (versions of those installed), `revision` (of the checkout
    that the code is in, "" if in none), `devices` (how many of which kind) and `hosts`.
  """
  return {
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "python": platform.python_version(),
    "packages": _versions(),
    "revision": _revision(),
    "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "hosts": jax.process_count(),
  }


@functools.cache
def _versions() -> dict[str, str]:
  versions = {}
  for package in _PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return versions


@functools.cache
def _revision() -> str:
  checkout = pathlib.Path(__file__).parents[1]
  if not (checkout / ".git").exists():
    return ""
  describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
  try:
    return subprocess.run(
      describe, cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError):  # no git, or the checkout of somebody else
    return ""

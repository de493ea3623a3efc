"""Starting JAX where an accelerator may be missing: one line says what is used instead, and why."""

import importlib.metadata
import logging
import os

# Plugins of JAX by the device that they are for, and what to look at if it is not found.
_PLUGINS = {
  "jax-cuda13-plugin": ("GPU", "nvidia-smi should list a GPU and a driver for CUDA 13"),
  "jax-cuda12-plugin": ("GPU", "nvidia-smi should list a GPU and a driver for CUDA 12"),
  "libtpu": ("TPU", "this should be a TPU VM, with no other process on its TPU"),
}


def start_jax() -> tuple[str, str]:
  """Imports JAX and starts its backend.

  Returns:
    Its name ("cpu", "gpu" or "tpu"), and a sentence on an accelerator that was installed for but
    not found; empty if there is none.

  Raises:
    ValueError: `JAX_PLATFORMS` asks for something that cannot be had.
  """
  # JAX logs a traceback for a plugin without its device, and goes on.
  logging.getLogger("jax._src.xla_bridge").setLevel(logging.CRITICAL)
  import jax

  chosen = os.environ.get("JAX_PLATFORMS", "")
  try:
    backend = jax.default_backend()
  except (AssertionError, RuntimeError) as error:
    reason = str(error).split(" (set JAX_PLATFORMS")[0] or "it finds no such device"
    hints = [hint for _, hint in _installed().values()]
    advice = hints[0] if hints else "no plugin for an accelerator is installed (pcan_jax[cuda])"
    raise ValueError(
      f"JAX_PLATFORMS={chosen} cannot be had: {reason}; {advice}. Unset it to use the CPU"
    ) from None
  if backend != "cpu" or chosen:
    return backend, ""
  missing = [
    f"{package} is installed, but JAX finds no {device}: {hint}"
    for package, (device, hint) in _installed().items()
  ]
  if not missing:
    return backend, ""
  return backend, f"{missing[0]}. Running on the CPU (JAX_PLATFORMS=cpu silences this)"


def _installed() -> dict[str, tuple[str, str]]:
  found = {}
  for package, about in _PLUGINS.items():
    try:
      importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
    found[package] = about
  return found

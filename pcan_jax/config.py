"""Loads configs by name, wherever they lie."""

import importlib.util

from ml_collections import ConfigDict

from pcan_jax import shipped


def load_config(name: str) -> ConfigDict:
  """Loads a config.

  Args:
    name: `ma52` or another one that is shipped in `configs/`, or the path of a file with a function
      `get_config`; `:VARIANT` behind it is what that is called with.

  Raises:
    FileNotFoundError: there is no such config.
    ValueError: it has no such variant.
  """
  name, _, variant = name.partition(":")
  path = shipped.find_file(name, "configs", ".py", "config")
  spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*([variant] if variant else []))

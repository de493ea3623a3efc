"""The resolved text of a config and its variants."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from configs.ma52 import VARIANTS
from pcan_jax.config import load_config

NAMES = ("ma52", "demo", "lookalikes", "small", "utd_mhad")


def resolved(name: str) -> str:
  """Every value of a config, and below each variant's name those of its values that differ."""
  default = dict(_lines(load_config(name)))
  text = [f"{key} = {value}\n" for key, value in default.items()]
  for variant in VARIANTS:
    values = dict(_lines(load_config(f"{name}:{variant}")))
    text.append(f"\n[{variant}]\n")
    text += [
      f"{key} = {values.get(key, 'absent')}\n"
      for key in sorted(default | values)
      if values.get(key) != default.get(key)
    ]
  return "".join(text)


def _lines(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, str]]:
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _lines(value, f"{prefix}{key}.")
    else:
      yield prefix + key, repr(value)

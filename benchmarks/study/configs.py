"""From a row to a config, and the digests that say whether two configs are the same run."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from benchmarks.study.tables import Study
from pcan_jax.config import load_config
from pcan_jax.training.resume import FREE_FIELDS

# What earlier versions did, which had no such field: it counts as absent.
_EARLIER = {
  "data.label_share": 1.0,
  "loss.pcc_fp_weight": 1.0,
  "loss.pcc_body_weight": 1.0,
  "loss.pda_of": "prototypes",
  "loss.pda_between": "all",
  "loss.prototype_samples": "true_positives",
  "loss.prototype_start": "normal",
  "model.rgb.kind": "slowonly",
  "optimizer.name": "sgd",
  "optimizer.betas": [0.9, 0.999],
  "optimizer.layer_decay": 1.0,
}
_EVALUATION = (
  "data.eval_split",
  "eval.num_clips",
  "eval.flip",
  "eval.gamma.rgb",
  "eval.gamma.pose",
)


@dataclasses.dataclass(frozen=True)
class Resolved:
  """A row for one data set.

  Attributes:
    config: every value, but for the seed and the weights that a run starts from.
    weights: digest of what decides the weights; equal for rows that share their training.
    digest: of that and of what decides the evaluation.
    variant: of the config, or what has that as its variant.
    name: of the config, as the command line takes it.
    flags: the values that the row changes, as the command line takes them.
    origins: per stream the row that a run starts from.
  """

  config: ConfigDict
  weights: str
  digest: str
  variant: str
  name: str
  flags: tuple[str, ...]
  origins: dict[str, "Resolved"]


def resolve(study: Study, name: str, config_name: str, data: pathlib.Path) -> Resolved:
  """The config of a row.

  Args:
    study, name: the row.
    config_name: of the config that the row is a variant of.
    data: the folder of the data set.

  Raises:
    ValueError: there is no such row, or it has a value that the config has no field for.
  """
  rows = {**study.rows, **study.sources}
  if name not in rows:
    raise ValueError(f"no row {name!r}; there are: {', '.join(study.rows)}")
  row = rows[name]
  full_name = f"{row.config}:{config_name}" if row.config else f"{config_name}:{row.variant}"
  config = load_config(full_name)
  for field, value in row.values.items():
    _set(config, field, value)
  config.data.path = str(data)
  config.log_gradients = study.log_gradients
  origins = {
    stream: resolve(study, other, config_name, data) for stream, other in row.origins.items()
  }
  given = dict(_leaves(json.loads(config.to_json_best_effort())))
  decides = {
    field: value
    for field, value in given.items()
    if field != "seed" and not field.startswith(FREE_FIELDS)
  }
  decides |= {f"init_from.{stream}": origin.weights for stream, origin in origins.items()}
  weights = _digest(decides)
  logged = {"log_gradients": study.log_gradients} if study.log_gradients else {}
  flags = tuple(f"--config.{field}={value}" for field, value in {**row.values, **logged}.items())
  digest = _digest({"weights": weights} | {field: given[field] for field in _EVALUATION})
  return Resolved(config, weights, digest, row.config or row.variant, full_name, flags, origins)


def _set(config: ConfigDict, field: str, value: Any) -> None:
  *groups, last = field.split(".")
  for group in groups:
    config = config[group]
  if last not in config:
    raise ValueError(f"the config has no field {field!r}")
  config[last] = value


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
  for name, value in values.items():
    if isinstance(value, dict):
      yield from _leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def _digest(values: dict[str, Any]) -> str:
  """16 hexadecimal digits.

  Zeros and empty values, but not None, count as absent: a field that is added later and switched
  off changes none. So does the value of `_EARLIER`, where that is something else.
  """
  present = {
    name: value
    for name, value in values.items()
    if (value != _EARLIER[name] if name in _EARLIER else value or value is None)
  }
  text = json.dumps(present, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Trains PCAN, or evaluates a checkpoint.

python launch.py --config=configs/ma52.py --workdir=runs/ma52
python launch.py --mode=eval --workdir=runs/ma52
"""

import logging
import os
import pathlib
import sys

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file; single values: --config.optimizer.epochs=5", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, logs and results go.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "eval: DIR or DIR/STEP, if not --workdir.")
_DATA = flags.DEFINE_string("data", None, "eval: data set, if not the one trained on.")
_SPLIT = flags.DEFINE_string("split", None, "eval: split, if not the config's eval_split.")
_NUM_CLIPS = flags.DEFINE_integer("num_clips", None, "eval: clips per video.", lower_bound=1)


def main(_: list[str]) -> None:
  _show_log()
  # Imported late, so that --help and mistyped flags answer at once.
  from pcan_jax import evaluate, train

  if _MODE.value == "train" and (_CONFIG.value is None or _WORKDIR.value is None):
    raise app.UsageError("--mode=train needs --config and --workdir")
  source = _WORKDIR.value if _MODE.value == "train" else _CHECKPOINT.value or _WORKDIR.value
  if source is None:
    raise app.UsageError("--mode=eval needs --workdir or --checkpoint")
  try:
    if _MODE.value == "train":
      train.train(_CONFIG.value, pathlib.Path(source))
    evaluate.evaluate_checkpoint(
      source,
      pathlib.Path(_WORKDIR.value or source),
      data_path=_DATA.value,
      split=_SPLIT.value,
      num_clips=_NUM_CLIPS.value,
    )
  except (FileNotFoundError, ValueError, FloatingPointError) as error:
    sys.exit(f"error: {error}")


def _show_log() -> None:
  """Prints what this project logs, and only errors of the libraries it uses."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it is greeted at every log level
  absl_logging.set_verbosity(absl_logging.ERROR)
  log = logging.getLogger("pcan_jax")
  log.addHandler(logging.StreamHandler(sys.stdout))
  log.setLevel(logging.INFO)
  log.propagate = False


if __name__ == "__main__":
  app.run(main)

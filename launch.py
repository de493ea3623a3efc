"""Trains PCAN, or evaluates a checkpoint.

  python launch.py --config=configs/ma52.py --workdir=runs/ma52
  python launch.py --mode=eval --workdir=runs/ma52
"""

import pathlib

from absl import app, flags, logging
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
  # Imported late, so that --help and mistyped flags answer at once.
  from pcan_jax import evaluate, train

  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().setFormatter(None)
  try:
    if _MODE.value == "train":
      if _CONFIG.value is None or _WORKDIR.value is None:
        raise app.UsageError("--mode=train needs --config and --workdir")
      train.train(_CONFIG.value, pathlib.Path(_WORKDIR.value))
    checkpoint = _CHECKPOINT.value or _WORKDIR.value
    if checkpoint is None:
      raise app.UsageError("--mode=eval needs --workdir or --checkpoint")
    evaluate.evaluate_checkpoint(
      checkpoint,
      pathlib.Path(_WORKDIR.value or _CHECKPOINT.value),
      data_path=_DATA.value,
      split=_SPLIT.value,
      num_clips=_NUM_CLIPS.value,
    )
  except (FileNotFoundError, ValueError, FloatingPointError) as error:
    logging.error("%s", error)
    raise SystemExit(1) from error


if __name__ == "__main__":
  app.run(main)

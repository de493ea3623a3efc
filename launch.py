r"""Trains PCAN, evaluates it, reports on it, and predicts with it.

python launch.py --config=configs/ma52.py --workdir=runs/ma52
python launch.py --mode=eval --workdir=runs/ma52
python launch.py --mode=report --workdir=runs/ma52 --baseline=runs/ma52_posec3d
python launch.py --mode=predict --checkpoint=runs/ma52 --video=clips/ --pose=poses.pkl --out=found
python launch.py --mode=export --checkpoint=runs/ma52 --out=exported
"""

import logging
import os
import pathlib
import sys
import warnings

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags
from tqdm.contrib.logging import logging_redirect_tqdm

_MODES = ("train", "eval", "report", "predict", "export")

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file; single values: --config.optimizer.epochs=5", lock_config=True
)
_MODE = flags.DEFINE_enum("mode", "train", _MODES, "What to do.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, logs and results go.")
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "eval, predict, export: DIR or DIR/STEP, if not --workdir."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "train: one of everything, nothing is written.")
_OVERFIT_BATCH = flags.DEFINE_bool("overfit_batch", False, "train: can one batch be learned?")
_MULTI_HOST = flags.DEFINE_bool("multi_host", False, "One process per host: TPU pods, clusters.")
_DATA = flags.DEFINE_string("data", None, "eval, report: data set, if not the one trained on.")
_SPLIT = flags.DEFINE_string("split", None, "eval, report: split, if not the config's eval_split.")
_NUM_CLIPS = flags.DEFINE_integer(
  "num_clips", None, "eval, predict, export: clips per video, if not the config's.", lower_bound=1
)
_RECTIFY = flags.DEFINE_bool("rectify", True, "eval: correct predictions by the prototypes.")
_BASELINE = flags.DEFINE_string("baseline", None, "report: working directory to compare with.")
_OUT = flags.DEFINE_string("out", None, "predict, export: directory to write to.")
_VIDEO = flags.DEFINE_string("video", None, "predict: a video, or a folder of videos.")
_POSE = flags.DEFINE_string("pose", None, "predict: poses of the videos, see docs/DATA.md.")
_WINDOW = flags.DEFINE_float("window", None, "predict: seconds per window; default: whole videos.")
_STRIDE = flags.DEFINE_float("stride", None, "predict: seconds between windows (half a window).")
_OVERLAY = flags.DEFINE_bool("overlay", False, "predict: also write videos with the predictions.")
_FEATURES = flags.DEFINE_bool("features", False, "predict: also write embeddings and logits.")


def main(_: list[str]) -> None:
  run = {"train": _train, "eval": _eval, "report": _report, "predict": _predict, "export": _export}
  try:
    if _MULTI_HOST.value:
      import jax

      jax.distributed.initialize()
      if jax.process_index():  # one host speaks for all
        logging.getLogger("pcan_jax").setLevel(logging.WARNING)
    with logging_redirect_tqdm([logging.getLogger("pcan_jax")]):  # lines above progress bars
      run[_MODE.value]()
  except (FileNotFoundError, ValueError, FloatingPointError) as error:
    sys.exit(f"error: {error}")


# Libraries are imported late, so that --help and mistyped flags answer at once.


def _train() -> None:
  from pcan_jax.training import loop as train
  from pcan_jax.training import preflight

  if _CONFIG.value is None:
    raise app.UsageError("--mode=train needs --config and --workdir")
  if _DRY_RUN.value or _OVERFIT_BATCH.value:
    check = preflight.dry_run if _DRY_RUN.value else preflight.overfit_batch
    check(_CONFIG.value)
    return
  train.train(_CONFIG.value, pathlib.Path(_needed(_WORKDIR)))
  _eval()


def _eval() -> None:
  from pcan_jax.evaluation.protocol import evaluate_checkpoint

  source = _source()
  evaluate_checkpoint(
    source,
    pathlib.Path(_WORKDIR.value or source),
    data_path=_DATA.value,
    split=_SPLIT.value,
    num_clips=_NUM_CLIPS.value,
    rectify=_RECTIFY.value,
  )


def _report() -> None:
  from pcan_jax.report import write_report

  page = write_report(
    pathlib.Path(_needed(_WORKDIR)),
    baseline=pathlib.Path(_BASELINE.value) if _BASELINE.value else None,
    split=_SPLIT.value,
    data_path=_DATA.value,
  )
  print(page)


def _predict() -> None:
  from pcan_jax.prediction.files import predict_files

  failed = predict_files(
    _source(),
    pathlib.Path(_needed(_VIDEO)),
    pose=pathlib.Path(_POSE.value) if _POSE.value else None,
    output=pathlib.Path(_needed(_OUT)),
    window=_WINDOW.value,
    stride=_STRIDE.value,
    num_clips=_NUM_CLIPS.value,
    overlay=_OVERLAY.value,
    features=_FEATURES.value,
  )
  if failed:
    sys.exit(f"error: {failed} file(s) with a problem, see above")


def _export() -> None:
  from pcan_jax.prediction.export import export_checkpoint

  output = pathlib.Path(_needed(_OUT))
  print(export_checkpoint(_source(), output, num_clips=_NUM_CLIPS.value))


def _needed(flag: flags.FlagHolder[str | None]) -> str:
  if flag.value is None:
    raise app.UsageError(f"--mode={_MODE.value} needs --{flag.name}")
  return flag.value


def _source() -> str:
  source = _CHECKPOINT.value or _WORKDIR.value
  if source is None:
    raise app.UsageError(f"--mode={_MODE.value} needs --workdir or --checkpoint")
  return source


def _show_log() -> None:
  """Prints what this project logs, and only errors of the libraries it uses."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it is greeted at every log level
  absl_logging.set_verbosity(absl_logging.ERROR)
  log = logging.getLogger("pcan_jax")
  log.addHandler(logging.StreamHandler(sys.stdout))
  log.setLevel(logging.INFO)
  log.propagate = False


def _keep_compiled_programs() -> None:
  """Has them written to disk, so that the second start takes seconds."""
  cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pcan_jax"
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
  # On a CPU, JAX 0.12 cannot write programs that contain oneDNN's (`pcan_jax.cpu`).
  warnings.filterwarnings("ignore", "Error writing persistent compilation .* std::bad_alloc")


def _suit_cpu() -> None:
  """Starts the program again with `pcan_jax.cpu.settings`, unless there is an accelerator."""
  from pcan_jax import cpu

  settings = cpu.settings(os.environ)
  if _MULTI_HOST.value or not settings:
    return
  import jax

  if jax.default_backend() == "cpu":
    os.environ.update(settings)
    os.execv(sys.executable, sys.orig_argv)


def start() -> None:
  """Prepares the process and runs what the flags say."""
  app.call_after_init(_show_log)
  app.call_after_init(_keep_compiled_programs)
  app.call_after_init(_suit_cpu)  # the first to import JAX, which reads what the others set
  app.run(main)


if __name__ == "__main__":
  start()

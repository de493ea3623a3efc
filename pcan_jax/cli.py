"""The command line: `pcan`, which is also `python -m pcan_jax` and `python launch.py`.

A first word names a command with a command line of its own; without one, `--mode` says what to do
with a model. Libraries are imported late, so that help and mistyped flags answer at once.
"""

import contextlib
import importlib
import importlib.util
import logging
import os
import pathlib
import signal
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from absl import app, flags

from pcan_jax import cpu, devices, hosts
from pcan_jax.console import define_config_flag, leave_out_keras, run_with_flags, show_log
from pcan_jax.writing import told_shortly

if TYPE_CHECKING:
  from ml_collections import ConfigDict

  from pcan_jax.evaluation.results import Results

COMMANDS = {
  "synthetic": ("data.synthetic.__main__", "draw clips, to try everything without a data set"),
  "download": ("data.download", "fetch MA-52 from the Hugging Face Hub"),
  "extract_pose": ("data.extract_pose", "estimate the poses in videos; needs uv"),
  "import_clips": ("data.import_clips", "arrange videos of your own as MA-52 is"),
  "import_annotations": ("data.import_annotations", "cut what was coded in ELAN or BORIS"),
  "import_features": ("data.import_features", "store features of another network with clips"),
  "check": ("data.check", "check clips or a data set, and show samples"),
  "build": ("data.build", "build a data set of clips"),
  "tune_events": ("pcan_jax.prediction.tune", "find what counts as an event for a model"),
  "yardstick": ("pcan_jax.yardstick.__main__", "what a simple classifier gets on a data set"),
  "convert": ("pcan_jax.torch.command", "convert a PyTorch checkpoint"),
  "hub": ("pcan_jax.hub.__main__", "share a model on the Hugging Face Hub"),
  "describe": ("pcan_jax.describe", "say what checkpoints hold and where they come from"),
  "agreement": ("pcan_jax.agreement.__main__", "say how well two codings agree"),
  "review": ("pcan_jax.review.__main__", "write a page to review a coding on"),
  "submission": ("pcan_jax.evaluation.submission", "check a file for the challenge"),
}
"""What a first word may be: the module with its `main`, and what that does."""

_FROM = "workdir checkpoint"  # flags that say where a model is
_SCORING = "data split num_clips rectify flip"  # flags of an evaluation
_ENSEMBLE = "weights fit_weights branches"  # of one of several checkpoints together
_HOSTS = "coordinator num_hosts host wait"  # which only mean something with --multi_host
_VIDEOS = "video pose fps out window stride num_clips overlay features events formats review"
MODES = {
  "train": (
    "--config=NAME[:VARIANT] --workdir=DIR: train, go on where a run ended, evaluate",
    f"config workdir allow_changes folds dry_run overfit_batch multi_host {_HOSTS} {_SCORING}",
  ),
  "eval": (
    "--workdir=DIR [--checkpoint=DIR,DIR]: evaluate, several together",
    f"{_FROM} multi_host {_HOSTS} {_SCORING} {_ENSEMBLE}",
  ),
  "report": ("--workdir=DIR: write a page on a run", "workdir baseline data split"),
  "predict": ("--checkpoint=DIR --video=PATH --pose=PATH --out=DIR", f"{_FROM} {_VIDEOS}"),
  "export": ("--checkpoint=DIR --out=DIR: one function", f"{_FROM} out num_clips"),
}
"""What `--mode` may be: what that does, and the flags that concern it."""

FLAGS = flags.FLAGS


def main() -> None:
  """Runs what the command line asks for."""
  try:
    _run_command()
  except BrokenPipeError:  # of `pcan --help | head`, which has read enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
  except KeyboardInterrupt:  # what it leaves, it goes on from
    sys.exit(128 + signal.SIGINT)


def _run_command() -> None:
  program, *words = sys.argv
  if words[:1] == ["help"]:
    words = [*words[1:], "--help"]
  if words and words[0] in COMMANDS:
    sys.argv = [f"{program} {words[0]}", *words[1:]]
    _command_module(words[0]).main()
  elif words and not words[0].startswith("-"):
    sys.exit(f"error: no command {words[0]!r}; `pcan --help` lists them")
  else:
    sys.argv = [program, *words]
    _define_flags()
    app.call_after_init(show_log)
    app.call_after_init(_leave_out_keras)
    app.call_after_init(_keep_compiled_programs)
    app.call_after_init(_suit_cpu)  # the first to import JAX, which reads what the others set
    run_with_flags(run_mode, _usage(), __name__)


def _command_module(name: str) -> types.ModuleType:
  module = COMMANDS[name][0]
  # In a checkout, `data/` lies beside the package; an installed package has it within.
  if module.startswith("data.") and importlib.util.find_spec("pcan_jax.data"):
    module = f"pcan_jax.{module}"
  return importlib.import_module(module)


def _usage() -> str:
  def rows(texts: Iterable[tuple[str, str]]) -> str:
    return "".join(f"  {name:20}{text}\n" for name, text in texts)

  return (
    "usage: pcan COMMAND ...      prepare data, convert, check (pcan COMMAND --help)\n"
    "       pcan [--mode=MODE] --FLAG=VALUE ...      work with a model\n\n"
    f"commands:\n{rows((name, text) for name, (_, text) in COMMANDS.items())}\n"
    f"modes (without --mode: train):\n{rows((name, text) for name, (text, _) in MODES.items())}"
  )


def _define_flags() -> None:
  define_config_flag()
  text, switch = flags.DEFINE_string, flags.DEFINE_bool
  flags.DEFINE_enum("mode", "train", MODES, "What to do.")
  text("workdir", None, "Where checkpoints, logs and results go (eval: the checkpoint's).")
  text("checkpoint", None, "eval, predict, export: DIR, DIR/best or DIR/checkpoints/STEP.")
  flags.DEFINE_list("weights", None, "eval: of several checkpoints, such as 2,1,1; default: equal.")
  text("fit_weights", None, "eval: split on which the weights are chosen; not the evaluated one.")
  flags.DEFINE_list("branches", ["fused"], "eval: fused, rgb or pose of each checkpoint, or all.")
  flags.DEFINE_list("allow_changes", [], "train: settings that may differ from the checkpoint's.")
  flags.DEFINE_enum("folds", None, ["person"], "train: cross-validate, a run per person.")
  switch("dry_run", False, "train: one of everything, nothing is written.")
  switch("overfit_batch", False, "train: sanity check, overfit one batch.")
  switch("multi_host", False, "train, eval: one process per host, on TPU slices and clusters.")
  text("coordinator", None, "multi_host: HOST:PORT of the first host, if JAX does not find it.")
  flags.DEFINE_integer("num_hosts", None, "multi_host: how many there are.", lower_bound=1)
  flags.DEFINE_integer("host", None, "multi_host: which one this is, from 0.", lower_bound=0)
  flags.DEFINE_integer(
    "wait", hosts.DEFAULT_WAIT, "multi_host: seconds to wait for the others.", lower_bound=1
  )
  text("data", None, "eval, report: data set, if not the one trained on; one per checkpoint.")
  text("split", None, "eval, report: split, if not the config's eval_split.")
  flags.DEFINE_integer(
    "num_clips", None, "eval, predict, export: clips per video, if not the config's.", lower_bound=1
  )
  switch("rectify", True, "eval: correct predictions by the prototypes.")
  switch("flip", None, "eval: average with mirrored clips, if not as the config's eval.flip.")
  text("baseline", None, "report: working directory to compare with.")
  text("out", None, "predict, export: directory to write to.")
  text("video", None, "predict: a video, or a folder of videos.")
  text("pose", None, "predict: poses, see docs/DATA.md; of videos they are estimated if missing.")
  flags.DEFINE_float("fps", None, "predict: frames per second of poses without videos (30).")
  flags.DEFINE_float("window", None, "predict: seconds per window; default: whole videos.")
  flags.DEFINE_float("stride", None, "predict: seconds between windows (half a window).")
  flags.DEFINE_list(
    "formats", [], "predict: write the events for other tools, see docs/CODING.md: eaf,boris,..."
  )
  switch("review", False, "predict: a page per video to review the events on.")
  switch("events", False, "predict: what happens when, as events.csv and events.json.")
  switch("overlay", False, "predict: also write videos with the predictions.")
  switch("features", False, "predict: also write embeddings and logits.")


def run_mode() -> None:
  """Does what the flags say."""
  from tqdm.contrib.logging import logging_redirect_tqdm

  run = {"train": _train, "eval": _eval, "report": _report, "predict": _predict, "export": _export}
  try:
    _refuse_flags_of_other_modes()
    log = logging.getLogger("pcan_jax")
    with _hosts(), logging_redirect_tqdm([log]):  # lines above progress bars
      run[FLAGS.mode]()
  except (ImportError, OSError, ValueError, FloatingPointError) as error:
    sys.exit(f"error: {error}")


def _refuse_flags_of_other_modes() -> None:
  known = {"mode", *MODES[FLAGS.mode][1].split()}
  for flag in FLAGS.get_flags_for_module(__name__):
    if flag.present and flag.name.split(".")[0] not in known:
      raise ValueError(f"--{flag.name} means nothing with --mode={FLAGS.mode}")
    if flag.present and flag.name in _HOSTS.split() and not FLAGS.multi_host:
      raise ValueError(f"--{flag.name} means nothing without --multi_host")


@contextlib.contextmanager
def _hosts() -> Iterator[None]:
  """All hosts together, of which one speaks; or only this one."""
  if not FLAGS.multi_host:
    yield
    return
  with hosts.joined(FLAGS.coordinator, FLAGS.num_hosts, FLAGS.host, FLAGS.wait):
    import jax

    if jax.process_index():
      logging.getLogger("pcan_jax").setLevel(logging.WARNING)
    yield


def _train() -> None:
  config = _needed("config")
  if FLAGS.folds and (FLAGS.dry_run or FLAGS.overfit_batch or FLAGS.data or FLAGS.split):
    raise ValueError(
      "--folds trains and evaluates a run per person, each on its own people; leave out --dry_run, "
      "--overfit_batch, --data and --split"
    )
  if FLAGS.dry_run or FLAGS.overfit_batch:
    _refuse_beside_a_check()
    from pcan_jax.training import preflight

    check = preflight.dry_run if FLAGS.dry_run else preflight.overfit_batch
    check(config)
    return
  workdir = pathlib.Path(_needed("workdir"))
  from pcan_jax.training.loop import train

  if FLAGS.folds:
    _train_folds(config, workdir)
    return
  evaluates = _can_be_evaluated(config)
  train(config, workdir, FLAGS.allow_changes)
  if evaluates:
    _evaluate([str(workdir)], workdir, config)


def _can_be_evaluated(config: "ConfigDict") -> bool:
  """Whether there is something to evaluate after training, which is better known before."""
  if "decoder" in config.model:  # pretraining predicts nothing
    return False
  from pcan_jax.evaluation.protocol import open_evaluated

  dataset, split = open_evaluated(config.data, FLAGS.data), FLAGS.split or config.data.eval_split
  if dataset.has_split(split):
    return True
  lacking = f"{dataset.path} has no split {split!r}, only {', '.join(dataset.splits)}"
  if FLAGS.split:
    raise ValueError(f"{lacking}; choose another --split")
  logging.getLogger("pcan_jax").warning(
    "the model will not be evaluated: %s (config.data.eval_split)", lacking
  )
  return False


def _refuse_beside_a_check() -> None:
  check = "dry_run" if FLAGS.dry_run else "overfit_batch"
  for name in ("overfit_batch", "allow_changes", *_SCORING.split()):
    if FLAGS[name].present and name != check:
      raise ValueError(f"--{name} means nothing with --{check}")


def _train_folds(config: "ConfigDict", workdir: pathlib.Path) -> None:
  from pcan_jax.training.folds import cross_validate
  from pcan_jax.training.loop import train

  def run(config: "ConfigDict", fold: pathlib.Path) -> "Results":
    train(config, fold, FLAGS.allow_changes)
    return _evaluate([str(fold)], fold, config)

  table = cross_validate(config, workdir, run)
  logging.getLogger("pcan_jax").info("\n%s\n\nby person, in %%", table)


def _eval() -> None:
  sources = _several(FLAGS.checkpoint) if FLAGS.checkpoint else [_source()]
  from pcan_jax.checkpoints import workdir_of

  if not all(sources):
    raise ValueError(f"--checkpoint={FLAGS.checkpoint} names nothing at one of its commas")
  if len(sources) > 1:
    _needed("workdir")
  workdir = pathlib.Path(FLAGS.workdir) if FLAGS.workdir else workdir_of(sources[0])
  _evaluate(sources, workdir)


def _evaluate(
  sources: Sequence[str], workdir: pathlib.Path, config: "ConfigDict | None" = None
) -> "Results":
  """Evaluates checkpoints as the flags say, with the yardstick beside them.

  After training, what flags leave open is as in `config`, not as in the checkpoint's: a run that
  was finished before has not been saved again.
  """
  weights = _weights()
  import jax

  from pcan_jax.evaluation.protocol import evaluate_checkpoints
  from pcan_jax.yardstick.beside import print_beside

  data_paths = [path or None for path in _several(FLAGS.data or "")]
  split, num_clips, flip = FLAGS.split, FLAGS.num_clips, FLAGS.flip
  if config is not None:
    data_paths = [FLAGS.data or config.data.path]
    split, num_clips = split or config.data.eval_split, num_clips or config.eval.num_clips
    flip = config.eval.flip if flip is None else flip
  results = evaluate_checkpoints(
    sources,
    workdir,
    data_paths=data_paths,
    branches=FLAGS.branches,
    weights=weights,
    fit_split=FLAGS.fit_weights,
    split=split,
    num_clips=num_clips,
    rectify=FLAGS.rectify,
    flip=flip,
  )
  if jax.process_index() == 0:
    print_beside(results, sources[0], workdir, split=split, data_path=data_paths[0])
  return results


def _several(paths: str) -> list[str]:
  """The paths between commas; a path that has a comma itself is taken whole if it exists."""
  from pcan_jax.checkpoints import BEST

  place = pathlib.Path(paths)
  whole = (place.parent if place.name == BEST else place).exists()
  return [paths] if whole else paths.split(",")


def _weights() -> list[float] | None:
  try:
    return None if FLAGS.weights is None else [float(weight) for weight in FLAGS.weights]
  except ValueError as error:
    raise ValueError(f"--weights must be numbers such as 2,1,1 ({error})") from error


def _report() -> None:
  workdir = pathlib.Path(_needed("workdir"))
  from pcan_jax.report import write_report

  with told_shortly(f"the report of {workdir} cannot be written"):
    page = write_report(
      workdir,
      baseline=pathlib.Path(FLAGS.baseline) if FLAGS.baseline else None,
      split=FLAGS.split,
      data_path=FLAGS.data,
    )
  print(page)


def _predict() -> None:
  source, output = _source(), pathlib.Path(_needed("out"))
  from pcan_jax.prediction.files import predict_files

  with told_shortly(f"{output} cannot be written to"):
    failed = predict_files(
      source,
      pathlib.Path(FLAGS.video) if FLAGS.video else None,
      pose=pathlib.Path(FLAGS.pose) if FLAGS.pose else None,
      output=output,
      window=FLAGS.window,
      stride=FLAGS.stride,
      num_clips=FLAGS.num_clips,
      overlay=FLAGS.overlay,
      features=FLAGS.features,
      events=FLAGS.events,
      formats=FLAGS.formats,
      review=FLAGS.review,
      fps=FLAGS.fps,
    )
  if failed:
    sys.exit(f"error: {failed} file(s) with a problem, see above")


def _export() -> None:
  source, output = _source(), pathlib.Path(_needed("out"))
  from pcan_jax.prediction.export import export_checkpoint

  print(export_checkpoint(source, output, num_clips=FLAGS.num_clips))


def _needed(name: str) -> Any:
  value = FLAGS[name].value
  if value is None:
    raise ValueError(f"--mode={FLAGS.mode} needs --{name}; `pcan --help` says more")
  return value


def _source() -> str:
  source = FLAGS.checkpoint or FLAGS.workdir
  if source is None:
    raise ValueError(f"--mode={FLAGS.mode} needs --workdir or --checkpoint; see `pcan --help`")
  if FLAGS.checkpoint and FLAGS.workdir:
    raise ValueError(
      f"--checkpoint={FLAGS.checkpoint} and --workdir={FLAGS.workdir} both name the model: give one"
    )
  return source


def _leave_out_keras() -> None:
  if FLAGS.mode != "train":
    leave_out_keras()


def _keep_compiled_programs() -> None:
  """Has them written to disk, so that the second start takes seconds."""
  cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pcan_jax"
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))


def _suit_cpu() -> None:
  """Starts the program again with `pcan_jax.cpu.settings`, unless there is an accelerator."""
  missing = ""
  if FLAGS.multi_host:
    only_cpu = cpu.is_certain(os.environ)  # JAX must not look for devices before it knows all hosts
  else:
    try:
      backend, missing = devices.start_jax()
    except ValueError as error:
      sys.exit(f"error: {error}")
    only_cpu = backend == "cpu"
  settings = cpu.settings(os.environ)
  if only_cpu and settings:
    os.environ.update(settings)
    os.execv(sys.executable, sys.orig_argv)
  if missing:
    logging.getLogger("pcan_jax").warning(missing)

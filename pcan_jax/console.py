"""What commands do before they import anything large: flags, help, silence."""

import logging
import os
import sys
from collections.abc import Callable, Sequence

import absl.logging
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from pcan_jax.config import load_config

flags.disclaim_key_flags()  # those defined here belong to the command that asked for them


def quiet_libraries() -> None:
  """Keeps TensorFlow and TFDS, not yet imported, from writing to standard error for no reason."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its greeting comes at every level
  logging.getLogger("tensorflow").setLevel(logging.ERROR)
  absl.logging.set_verbosity(absl.logging.ERROR)


def leave_out_keras() -> None:
  """Keeps TensorFlow, not yet imported, from importing Keras, which takes as long as the rest.

  Not for a process that trains, or starts one that does: clu's writer of events needs Keras.
  """
  if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # the legacy one is not installed


def show_log() -> None:
  """Prints what this project logs, and only errors of the libraries it uses."""
  quiet_libraries()
  log = logging.getLogger("pcan_jax")
  log.addHandler(logging.StreamHandler(sys.stdout))
  log.setLevel(logging.INFO)
  log.propagate = False


def define_config_flag() -> None:
  """Defines `--config=NAME[:VARIANT]`, as `load_config` takes it, and `--config.FIELD=VALUE`."""
  config_flags.DEFINE_config_file(
    "config", None, "Name or file, then :VARIANT; single values: --config.optimizer.epochs=5."
  )
  flags.FLAGS["config"].parser = _ConfigParser()


def run_with_flags(run: Callable[[], None], usage: str, module: str) -> None:
  """Parses the command line with absl's flags, then runs; mistakes end the program with one line.

  Args:
    run: what to do.
    usage: the head of the help, which nothing and `--help` ask for.
    module: name of the module that defined the flags, all of which are listed.
  """
  if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
    listed = flags.FLAGS.module_help(module).partition(":\n")[2]
    print(f"{usage}\nflags:\n{listed}")
    return
  app.run(lambda _: run(), flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
  try:
    rest = flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    hint = ""
    if error.flagname.startswith("config."):
      hint = (
        "; fields of a config come with --config=NAME, in training. An evaluation takes --data, "
        "--split and --num_clips"
      )
    sys.exit(f"error: {str(error).splitlines()[0]}{hint}")
  except flags.Error as error:
    sys.exit(f"error: {str(error).splitlines()[0]}")
  except AttributeError as error:
    reason = error.args[0]
    if isinstance(reason, KeyError):  # of config_flags; others are of the config file
      sys.exit(f"error: the config has no field {reason.args[0]}")
    raise
  if rest[1:]:
    sys.exit(f"error: nothing is known of {' '.join(rest[1:])!r}; flags start with --")
  return rest


class _ConfigParser(flags.ArgumentParser):
  """Does for a flag what `load_config` does."""

  def parse(self, argument: str) -> ConfigDict:
    try:
      return load_config(argument).lock()
    except FileNotFoundError as error:
      raise ValueError(error) from error  # which absl reports with the flag

  def flag_type(self) -> str:
    return "config"

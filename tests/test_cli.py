"""What the command line answers before anything large is imported, and what imports what."""

import os
import subprocess
import sys

import pytest

from pcan_jax import cli
from pcan_jax.cli import COMMANDS, MODES
from pcan_jax.shipped import ROOT
from tests.command_lines import answers

CONFIGS = ", ".join(sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py")))


def python(*arguments):
  return subprocess.run(
    [sys.executable, *map(str, arguments)],
    capture_output=True,
    text=True,
    timeout=120,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "GLIBC_TUNABLES": ""},
  )


def test_help_lists_commands_modes_and_flags():
  first = python("launch.py")
  assert first.returncode == 0 and first.stderr == ""
  for text in (*COMMANDS, *MODES, "--workdir", "--config"):
    assert text in first.stdout
  for arguments in (["launch.py", "help"], ["-m", "pcan_jax", "--mode=eval", "--help"]):
    assert python(*arguments).stdout == first.stdout


def test_a_reader_who_leaves_early_sees_no_traceback():
  reading, writing = os.pipe()
  os.close(reading)
  command = [sys.executable, "launch.py", "--help"]
  result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
  os.close(writing)
  assert (result.returncode, result.stderr) == (1, "")


def test_an_interrupted_command_ends_without_a_traceback(monkeypatch):
  def interrupted():
    raise KeyboardInterrupt

  monkeypatch.setattr(cli, "_run_command", interrupted)
  with pytest.raises(SystemExit, match="130"):
    cli.main()


def test_commands_have_help_without_tensorflow():
  code = """if True:
    import contextlib, io, sys
    from pcan_jax.cli import COMMANDS, main
    assert "jax" not in sys.modules
    for command in COMMANDS:
      sys.argv = ["pcan", "help", command]
      with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
        main()
      assert output.getvalue().startswith(f"usage: pcan {command} "), command
    assert "tensorflow" not in sys.modules
  """
  result = python("-c", code)
  assert result.returncode == 0, result.stderr


MISTAKES = {
  "biuld SOURCE OUT": "no command 'biuld'",
  "help biuld": "no command 'biuld'",
  "--mode=eval --workdir=runs/a runs/b": "nothing is known of 'runs/b'",
  "--mode=evaluate": "<train|eval|report|predict|export>",
  "--wrkdir=runs/a": "flag 'wrkdir'",
  "--config=ma51 --workdir=runs/a": f"choose from {CONFIGS}, or give the path",
  "--config=ma52:pcan_depth": "no variant 'pcan_depth'",
  "--config=configs/ma52.py --config.optimizer.lr=1": "no field 'lr'",
  "--config=demo --config.optimizer.epochs=many": "--config.optimizer.epochs=many",
  "convert --config=ma51": f"choose from {CONFIGS}",
  "convert --config=ma52 --workdir=runs/a": "--source",
  "convert --config=ma52 --source=a.pth --workdir=runs/a b.pth": "nothing is known of 'b.pth'",
  "--workdir=runs/a": "needs --config",
  "--config=demo": "needs --workdir",
  "--mode=eval --workdir=runs/a --config.data.path=b": "An evaluation takes --data, --split and",
  "--mode=export --checkpoint=runs/a": "needs --out",
  "--mode=eval": "needs --workdir or --checkpoint",
  "--mode=eval --workdir=runs/a --config=demo --config.seed=1": "--config means nothing",
  "--mode=report --workdir=runs/a --nooverlay": "--overlay means nothing with --mode=report",
  "--mode=eval --workdir=runs/a --host=1": "--host means nothing without --multi_host",
  "--mode=eval --workdir=runs/a --multi_host": "JAX finds no cluster here",
  "--config=ma52 --workdir=runs/a": "MA-52 is under licence",
  "--mode=eval --workdir=runs/a": "no checkpoint at",
  "--mode=report --workdir=runs/a": "reports need sklearn: pip install 'pcan_jax[report]'",
}
# Looks for no accelerator, and does without the extra that reports need. What many lines import is
# imported once.
PREPARE = """cli._suit_cpu = lambda: None
sys.modules["sklearn"] = None
import pcan_jax.evaluation.protocol, pcan_jax.training.loop"""


@pytest.fixture(scope="module")
def mistakes():
  return answers(list(MISTAKES), PREPARE)


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_answered_with_one_line(mistakes, line):
  code, stdout, stderr = mistakes[line]
  assert code == 1 and stdout in ("", "waiting up to 300 s for all hosts\n")
  assert stderr.startswith("error: ") and stderr.count("\n") == 1
  assert MISTAKES[line] in stderr


def test_models_are_loaded_without_what_only_training_needs():
  """The package itself does without JAX, too: `Recognizer` is imported when it is asked for."""
  code = """if True:
    import sys
    import pcan_jax
    assert pcan_jax.__all__ and "jax" not in sys.modules
    import pcan_jax.prediction.recognizer
    import pcan_jax.training.step
    assert pcan_jax.Recognizer is pcan_jax.prediction.recognizer.Recognizer
    print(*({"tensorflow", "tensorflow_datasets", "clu", "av"} & set(sys.modules)))
  """
  result = python("-c", code)
  assert result.returncode == 0, result.stderr
  assert result.stdout.strip() == ""

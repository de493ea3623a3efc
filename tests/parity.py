"""Computes what the reference files hold, from inputs of your own.

  python -m tests.parity losses IN.npz OUT.npz
  python -m tests.parity data IN.npz OUT.npz
  python -m tests.parity forward --seed 7 --batch 2 --size 224 OUT.npz

A command is the module `tests/parity_COMMAND.py`; `COMMAND --help` describes it.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = ("losses", "data", "forward")


def main(argv: Sequence[str]) -> None:
  """Runs the command that the first argument names with the remaining ones."""
  parser = argparse.ArgumentParser(
    prog="python -m tests.parity",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("command", choices=COMMANDS)
  args = parser.parse_args(argv[:1])
  importlib.import_module(f"tests.parity_{args.command}").main(argv[1:])


if __name__ == "__main__":
  main(sys.argv[1:])

"""Answers of the command line, from one process that forks for each line."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

_PROGRAM = """if True:
  import json, os, sys, tempfile, types
  from pcan_jax import cli

  def answer(words):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
      child = os.fork()
      if not child:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.argv = ["pcan", *words]
        code = 0
        try:
          cli.main()
        except SystemExit as stop:
          code = stop.code or 0
          if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
        except BaseException:
          sys.excepthook(*sys.exc_info())
          code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
      code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
      out.seek(0), err.seek(0)
      return code, out.read(), err.read()

"""


class Answer(NamedTuple):
  """How a process ended, and what it printed."""

  code: int
  stdout: str
  stderr: str


def answers(lines: list[str], prepare: str = "") -> dict[str, Answer]:
  """Runs `pcan` with each line of arguments.

  Args:
    lines: arguments, separated by spaces.
    prepare: code that runs before, with the module `cli` at hand.
  """
  prepared = "".join(f"  {line}\n" for line in prepare.splitlines())
  run = f"  json.dump([answer(line.split()) for line in {lines!r}], sys.stdout)\n"
  result = subprocess.run(
    [sys.executable, "-c", _PROGRAM + prepared + run],
    capture_output=True,
    text=True,
    timeout=300,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "GLIBC_TUNABLES": ""},
  )
  assert result.returncode == 0, result.stderr
  return {line: Answer(*found) for line, found in zip(lines, json.loads(result.stdout))}

"""Holds compiled steps to what they moved and held in memory when the budget was last written.

  make check-compiled                            compares, in an environment of its own
  python -m benchmarks.compiled_budget           the same, in this one
  python -m benchmarks.compiled_budget --write   renews benchmarks/compiled_budget.json

The budget has bytes per clip and temporaries of each program; more than TOLERANCE above either is
an error. Other versions of JAX compile other programs, so only the version in the file compares.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

import jax

from benchmarks.compiled import Case, Compiled, compile_case
from benchmarks.kernels import Totals
from benchmarks.target import MissingCompilerError

FILE = pathlib.Path(__file__).with_suffix(".json")
TOLERANCE = 0.03
# The quick ones first: what does not compile at all is found in a minute.
CASES = (
  Case("h200", "demo", "evaluation", "bfloat16", "none", 1, 16),
  Case("h200", "demo", "training", "bfloat16", "none", 1, 16),
  Case("v5e", "demo", "evaluation", "bfloat16", "none", 1, 16),
  Case("h200", "ma52", "evaluation", "bfloat16", "none", 1, 20),
  Case("h200", "ma52", "training", "bfloat16", "none", 1, 32),
)


def figures(one: Compiled) -> dict[str, float]:
  """What the budget limits."""
  return {
    "MB per clip": round(Totals.of(one.kernels).num_bytes / one.case.batch / 1e6, 3),
    "temporaries MB": round(one.temporaries / 1e6, 3),
  }


def over(found: dict[str, dict[str, float]], budget: dict[str, dict[str, float]]) -> list[str]:
  """What is more than TOLERANCE above the budget, or not in it, in words."""
  wrong = [f"{program} is not in the budget" for program in found if program not in budget]
  for program, allowed in budget.items():
    for figure, value in found.get(program, {}).items():
      if value > (1 + TOLERANCE) * allowed[figure]:
        wrong.append(f"{program}: {value:.1f} {figure}, {allowed[figure]:.1f} in the budget")
  return wrong


def key(case: Case) -> str:
  """How the file names a program."""
  return f"{case.target} {case.config} {case.kind} {case.dtype} {case.batch}"


def measure(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
  """Figures of the programs for which a compiler is installed, by their names in the file."""
  found = {}
  for case in cases:
    try:
      found[key(case)] = figures(compile_case(case))
    except MissingCompilerError as error:
      print(f"left out: {error}", file=sys.stderr)
    else:
      print(key(case), found[key(case)], file=sys.stderr, flush=True)
  return found


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.compiled_budget",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--write", action="store_true", help="the figures of today are the budget")
  parser.add_argument(
    "--configs", nargs="+", default=["demo", "ma52"], help="only their programs (demo ma52)"
  )
  arguments = parser.parse_args(argv)
  jax.config.update("jax_platforms", "cpu")  # no driver is looked for
  budget = json.loads(FILE.read_text())
  same = jax.__version__ == budget["jax"]
  if not (same or arguments.write):
    sys.exit(f"error: the budget is for JAX {budget['jax']}, this is {jax.__version__}")
  found = measure([case for case in CASES if case.config in arguments.configs])
  if not found:
    sys.exit("error: no compiler is installed for any of the programs")
  if arguments.write:
    programs = (budget["programs"] if same else {}) | found
    FILE.write_text(json.dumps({"jax": jax.__version__, "programs": programs}, indent=2) + "\n")
    return
  wrong = over(found, budget["programs"])
  sys.exit("error: " + "\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
  main()

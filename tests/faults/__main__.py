"""`python -m tests.faults [SECTION ...]` tries faults and writes docs/RELIABILITY.md."""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import random
import tempfile
import time

import jax

from pcan_jax.console import quiet_libraries
from tests.faults import changes, damage, disk, hosts, inputs, kills, numbers, page, soak
from tests.faults.trials import Ground
from tests.tiny_source import write_tiny_source

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "results" / "reliability"
SECTIONS = {
  "kills": (kills.trials, 20, "Killed and stopped"),
  "damage": (damage.trials, 1000, "Damaged checkpoints"),
  "disk": (disk.trials, 8, "Full and read-only disks"),
  "numbers": (numbers.trials, 5, "Numbers that are none"),
  "changes": (changes.trials, 100, "Another run in the same place"),
  "hosts": (hosts.trials, 4, "Several hosts"),
  "inputs": (inputs.trials, 2500, "Damaged inputs"),
  "soak": (soak.trials, 1000, "A long run"),
}
"""By name what tries, how often, and the heading on the page."""


def main() -> None:
  """Tries what the command line names."""
  parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
  parser.add_argument(
    "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all"
  )
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--render", action="store_true", help="write the page, try nothing")
  args = parser.parse_args()
  unknown = set(args.sections) - set(SECTIONS)
  if unknown:
    parser.error(f"no section {', '.join(sorted(unknown))}")
  quiet_libraries()
  failed = 0
  for name in [] if args.render else args.sections or SECTIONS:
    failed += _run(name, args.seed)
  kept = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
  titles = {name: title for name, (_, _, title) in SECTIONS.items()}
  (ROOT / "docs" / "RELIABILITY.md").write_text(page.render(kept, titles))
  raise SystemExit(bool(failed))


def _run(name: str, seed: int) -> int:
  """Tries one section and keeps what it found; returns how many trials were not survived."""
  from data.build import build  # TensorFlow, once it has been quieted

  trials, count, title = SECTIONS[name]
  print(title, flush=True)
  start, found = time.monotonic(), []
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    dataset = build(write_tiny_source(root / "source"), root / "dataset", side=48, jobs=1)
    for trial in trials(Ground(root, dataset, random.Random(f"{seed} {name}")), count):
      found.append(trial)
      if trial.seconds is not None or not trial.survived or len(found) % 100 == 1:
        print(
          f"  {'survived' if trial.survived else 'FAILED'}  {trial.fault}: {trial.ended}",
          flush=True,
        )
  page.write_section(
    RESULTS / f"{name}.json",
    {
      "seed": seed,
      "date": datetime.date.today().isoformat(),
      "jax": jax.__version__,
      "machine": f"{platform.machine()}, {os.cpu_count()} cores",
      "minutes": (time.monotonic() - start) / 60,
      "trials": [dataclasses.asdict(trial) for trial in found],
    },
  )
  return sum(not trial.survived for trial in found)


if __name__ == "__main__":
  main()

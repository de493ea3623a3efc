"""docs/RELIABILITY.md, made of what was tried."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.faults.trials import Trial

_HEAD = """# Reliability

What a run is meant to survive, tried on real processes, files and disks. `python -m tests.faults`
repeats it and makes this page; `python -m tests.faults SECTION` repeats one section. A part of it,
with a fixed seed, is in `make test`.

*Survived* means: no saved step was lost, no number was wrong, the program ended or went on as it
should, and said so in words, without a traceback. *Recovery* is the time from the next start to its
first new step, imports and compilation included: the median and the longest.
"""


def render(sections: Mapping[str, dict[str, Any]], titles: Mapping[str, str]) -> str:
  """The page.

  Args:
    sections: by name what `to_json` gave.
    titles: of the sections, in their order.
  """
  parts = [_HEAD]
  for name, title in titles.items():
    parts.append(f"## {title}\n")
    if name in sections:
      section = sections[name]
      parts.append(_table([Trial(**trial) for trial in section["trials"]]))
      parts.append(
        f"Seed {section['seed']}, {section['date']}, JAX {section['jax']}, {section['machine']}, "
        f"{section['minutes']:.0f} min.\n"
      )
    else:
      parts.append("Not tried yet.\n")
  return "\n".join(parts)


def _table(trials: Sequence[Trial]) -> str:
  lines = [
    "| fault | tried | survived | recovery | how it ended, for example |",
    "|---|---|---|---|---|",
  ]
  for fault in dict.fromkeys(trial.fault for trial in trials):
    of_kind = [trial for trial in trials if trial.fault == fault]
    survived = [trial for trial in of_kind if trial.survived]
    seconds = [trial.seconds for trial in of_kind if trial.seconds is not None]
    recovery = f"{np.median(seconds):.0f} s, {max(seconds):.0f} s" if seconds else ""
    shown = [trial for trial in of_kind if not trial.survived] or survived[:1]
    ended = "<br>".join(_cell(trial.ended) for trial in shown)
    lines.append(
      f"| {_cell(fault)} | {len(of_kind):,} | {len(survived):,} | {recovery} | {ended} |"
    )
  return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ")[:300]


def write_section(path: pathlib.Path, section: dict[str, Any]) -> None:
  """Keeps what a section found."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(section, indent=1) + "\n")

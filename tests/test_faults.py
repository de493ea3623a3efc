"""A few of the faults that `python -m tests.faults` tries by the hundred."""

import pathlib
import random

import pytest

from tests.faults import __main__ as faults
from tests.faults import page
from tests.faults.trials import Ground, Trial

COUNTS = {"kills": 2, "damage": 3, "inputs": 60}
"""Sections that tests of their own do not cover, and how often."""


@pytest.mark.parametrize(
  "section",
  [
    pytest.param(name, marks=pytest.mark.long if name in ("kills", "damage") else ())
    for name in COUNTS
  ],
)
def test_faults_are_survived(section, tiny_dataset_path, tmp_path):
  ground = Ground(tmp_path, tiny_dataset_path, random.Random(section))
  trials = list(faults.SECTIONS[section][0](ground, COUNTS[section]))
  assert trials and all(trial.survived for trial in trials), [t for t in trials if not t.survived]


def test_the_page_shows_what_was_not_survived():
  trials = [Trial("a", True, "well", 2.0), Trial("a", False, "a | b"), Trial("c", True, "fine")]
  table = page._table(trials)
  assert "| a | 2 | 1 | 2 s, 2 s | a \\| b |" in table
  assert "| c | 1 | 1 |  | fine |" in table


def test_the_page_is_made_of_the_results():
  root = pathlib.Path(faults.__file__).parents[2]
  kept = {path.stem: faults.json.loads(path.read_text()) for path in faults.RESULTS.glob("*.json")}
  titles = {name: title for name, (_, _, title) in faults.SECTIONS.items()}
  assert (root / "docs" / "RELIABILITY.md").read_text() == page.render(kept, titles)
  for section in kept.values():
    assert all(trial["survived"] for trial in section["trials"])

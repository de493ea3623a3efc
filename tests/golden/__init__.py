"""What a refactoring must leave as it is, kept in files of this folder.

  python -m tests.golden     writes them anew

A change that is meant shows as a difference of these files in review. Others fail the tests.
"""

import difflib
import json
import pathlib
from typing import Any

FOLDER = pathlib.Path(__file__).parent


def load(name: str) -> Any:
  """What a file of this folder holds: text, or of a JSON file its values."""
  text = (FOLDER / name).read_text()
  return json.loads(text) if name.endswith(".json") else text


def save(name: str, found: Any) -> None:
  """Writes what `load` returns."""
  (FOLDER / name).write_text(_text(found))


def require_same(name: str, found: Any, wanted: Any) -> None:
  """Raises AssertionError with the difference between what was found and what a file holds."""
  lines = (_text(values).splitlines(keepends=True) for values in (wanted, found))
  difference = "".join(difflib.unified_diff(*lines, f"tests/golden/{name}", "found now", n=1))
  assert not difference, (
    f"{difference}\nIf this change is meant, write the file anew with `python -m tests.golden`, "
    "look at its difference and commit it."
  )


def _text(values: Any) -> str:
  return values if isinstance(values, str) else json.dumps(values, indent=1) + "\n"

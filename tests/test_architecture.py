"""Imports go one way, and docs/ARCHITECTURE.md shows them as they are.

python -m tests.test_architecture      prints the picture for docs/ARCHITECTURE.md
"""

import ast
import functools
import importlib
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "pcan_jax"
DOCUMENT = ROOT / "docs" / "ARCHITECTURE.md"

# From the ground up: each wing may import those before it.
WINGS = {
  "names": (
    "labels",
    "keypoints",
    "shipped",
    "config",
    "console",
    "content",
    "cpu",
    "devices",
    "extras",
    "hosts",
    "tables",
    "writing",
  ),
  "coding": ("coding",),
  "review": ("review",),
  "clips": ("clips",),
  "feed": ("feed",),
  "cosine": ("cosine",),
  "network": ("network",),
  "method": ("method",),
  "inputs": ("heatmaps", "inputs"),
  "spec": ("spec",),
  "checkpoints": ("mesh", "digests", "provenance", "saved_steps", "checkpoints"),
  "evaluation": ("evaluation",),
  "yardstick": ("yardstick",),
  "training": ("training",),
  "prediction": ("prediction",),
  "torch": ("torch",),
  "report": ("report",),
  "hub": ("hub",),
  "agreement": ("agreement",),
  "commands": ("cli", "describe", "__main__", "__init__"),
}
WING_OF = {module: wing for wing, modules in WINGS.items() for module in modules}
# What only some wings may import, wherever in a file.
HEAVY = {
  "jax": set(WINGS) - {"clips", "coding", "review", "agreement"},
  "flax": set(WINGS) - {"clips", "coding", "review", "agreement", "feed"},
  "tensorflow": {"feed"},
  "tensorflow_datasets": {"feed"},
  "clu": {"training"},
  "av": {"clips", "feed", "prediction"},
  "matplotlib": {"report", "agreement"},
  "sklearn": {"report", "yardstick"},
}


@functools.cache
def imports(path):
  """The dotted names that a file imports, late imports included."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0 or path.is_relative_to(ROOT / "data"), f"{path}: import absolutely"
      module = node.module or ""
      found |= {f"{module}.{alias.name}" for alias in node.names} if node.level == 0 else set()
  return found


def files(folder):
  return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def wing(path):
  return WING_OF[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]


def edges():
  """Which wing imports which."""
  found = {name: set() for name in WINGS}
  for path in files(PACKAGE):
    for name in imports(path):
      top, *inner = name.split(".")
      if top == "pcan_jax" and inner and inner[0] in WING_OF:
        found[wing(path)].add(WING_OF[inner[0]])
  return {name: others - {name} for name, others in found.items()}


def test_each_wing_imports_only_those_below():
  order = list(WINGS)
  upwards = [
    f"{importer} -> {imported}"
    for importer, others in edges().items()
    for imported in others
    if order.index(imported) > order.index(importer)
  ]
  assert upwards == []


@pytest.mark.parametrize("folder", ["data", "benchmarks", "configs", "tests", "launch"])
def test_the_package_imports_nothing_around_it(folder):
  guilty = [
    str(path) for path in files(PACKAGE) if any(n.split(".")[0] == folder for n in imports(path))
  ]
  assert guilty == []


def test_data_is_commands_that_nothing_imports():
  around = [*files(ROOT / "benchmarks"), *files(ROOT / "configs"), ROOT / "launch.py"]
  guilty = [str(path) for path in around if any(n.split(".")[0] == "data" for n in imports(path))]
  assert guilty == []


@pytest.mark.parametrize("package", HEAVY)
def test_large_packages_stay_where_they_belong(package):
  guilty = {
    str(path.relative_to(ROOT))
    for path in files(PACKAGE)
    if any(name.split(".")[0] == package for name in imports(path))
    and wing(path) not in HEAVY[package]
  }
  assert guilty == set()


@pytest.mark.parametrize(
  "folder", [path.name for path in sorted(PACKAGE.iterdir()) if (path / "__init__.py").is_file()]
)
def test_each_wing_says_what_lives_there(folder):
  docstring = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))
  assert docstring and len(docstring) < 240


@pytest.mark.parametrize("folder", ["pcan_jax", "data", "configs", "benchmarks"])
def test_no_file_is_longer_than_450_lines(folder):
  assert [str(p) for p in files(ROOT / folder) if len(p.read_text().splitlines()) > 450] == []


def picture():
  """The wings and their imports as a Mermaid graph, without arrows that follow from others."""
  found = edges()
  below = {name: set(others) for name, others in found.items()}
  for name in WINGS:  # from the ground up, so that what is below is complete
    below[name] |= {far for near in found[name] for far in below[near]}
  lines = ["```mermaid", "graph TD"]
  for name, others in found.items():
    implied = {far for near in others for far in below[near]}
    lines += [f"  {name} --> {other}" for other in WINGS if other in others - implied]
  return "\n".join([*lines, "```"])


def test_the_picture_shows_the_real_imports():
  text = DOCUMENT.read_text(encoding="utf-8")
  assert picture() in text, "paste what `python -m tests.test_architecture` prints"


def test_the_way_of_a_clip_names_what_exists():
  text = DOCUMENT.read_text(encoding="utf-8")
  named = set(
    re.findall(
      r"`((?:clips|feed|inputs|network|method|spec|training|evaluation|"
      r"prediction|checkpoints|heatmaps|mesh)(?:\.(?!py`)\w+)+)`",
      text,
    )
  )
  assert len(named) > 12
  for name in sorted(named):
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
      try:
        found = importlib.import_module(".".join(["pcan_jax", *parts[:count]]))
      except ModuleNotFoundError:
        continue
      for part in parts[count:]:
        found = getattr(found, part, None)
      assert found is not None, f"{name} does not exist"
      break


if __name__ == "__main__":
  sys.stdout.write(picture() + "\n")

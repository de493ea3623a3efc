"""What documents and notebooks name exists: commands, flags, modules, files, links."""

import functools
import importlib
import importlib.util
import json
import pathlib
import re

import pytest

from pcan_jax import cli
from pcan_jax.config import load_config

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = {
  str(path.relative_to(ROOT)): path
  for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")]
}
MODULES_OF_COMMANDS = {name: module for name, (module, _) in cli.COMMANDS.items()}
FOLDERS = ("pcan_jax", "data", "configs", "benchmarks", "tests")
# Flags of other programs that documents speak of.
FOREIGN_FLAGS = {"hand", "write_json", "beam_pipeline_options"}
OURS = r"\b(?:pcan_jax|data|benchmarks|configs|tests)\b"

every_document = pytest.mark.parametrize("name", DOCUMENTS)


@functools.cache
def text_of(name):
  """A document with continued lines joined; of a notebook, its cells."""
  text = DOCUMENTS[name].read_text(encoding="utf-8")
  if name.endswith(".ipynb"):
    text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
  if name == "CHANGELOG.md":  # its tables begin with what was before
    text = re.sub(r"^( *)\|[^|]*\|", r"\1|", text, flags=re.MULTILINE)
  return text.replace("\\\n", " ")


def commands(text):
  """Program and arguments of every command, in code blocks and in lines of text."""
  programs = r"(pcan|python launch\.py|python -m [\w.]+|uv run [\w/.]+)"
  return re.findall(rf"(?:^|`|\$ |!|&& |\(|bin/){programs}(?: ([^`#&\n]*)|(?=[`)\n]))", text, re.M)


@functools.cache
def source_of(module):
  """The source of a module, or of what `python -m` runs of a package; None if there is none."""
  try:
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
      spec = importlib.util.find_spec(f"{module}.__main__")
  except ModuleNotFoundError:
    return None
  return spec and pathlib.Path(spec.origin).read_text(encoding="utf-8")


@functools.cache
def flags_of(module):
  """The flags that the source of a module defines."""
  source = source_of(module)
  found = set(re.findall(r'"--([\w-]+)"', source))
  found |= set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
  if "add_source_arguments(parser)" in source and module != "data.build":
    found |= flags_of("data.build")
  if "add_import_arguments(parser" in source and module != "data.import_arguments":
    found |= flags_of("data.import_arguments")
  if "define_config_flag()" in source:
    found.add("config")
  return found | {"help"}


def flags_of_modes():
  return {"mode", "help"}.union(*(flags.split() for _, flags in cli.MODES.values()))


def known_flags(program, arguments):
  """The flags of a command; None if that is another project's."""
  if program.startswith("uv run"):
    module = program.removeprefix("uv run ").removesuffix(".py").replace("/", ".")
  elif program.startswith("python -m"):
    module = program.removeprefix("python -m ")
    if module == "tests.parity":
      module += f"_{arguments[0]}"
  else:
    if not arguments or arguments[0].startswith("-") or arguments[0].isupper():
      return flags_of_modes()
    module = MODULES_OF_COMMANDS[arguments[0]]
  return flags_of(module) if re.match(OURS, module) else None


def plain(flag, known):
  """A flag without its value, and without the `no` of a switch."""
  name = re.match(r"--([\w-]+)", flag)[1]
  return name.removeprefix("no") if name not in known else name


@every_document
def test_commands_and_modules_exist(name):
  missing = []
  for program, arguments in commands(text_of(name)):
    word = (arguments.split() or [""])[0]
    if program.startswith("python -m"):
      if source_of(program.removeprefix("python -m ")) is None:
        missing.append(program)
    elif program.startswith("uv run"):
      if not (ROOT / program.removeprefix("uv run ")).is_file():
        missing.append(program)
    elif re.match(r"[a-z]", word) and word not in cli.COMMANDS:
      missing.append(f"{program} {word}")
  assert missing == []


@every_document
def test_flags_exist(name):
  unknown = []
  for program, arguments in commands(text_of(name)):
    words = arguments.split()
    flags = [word.strip("'\"[]") for word in words if word.strip("'\"[").startswith("--")]
    known = known_flags(program, words) if flags else None
    if known is not None:
      unknown += [f"{program} {words[0]} {f}" for f in flags if plain(f, known) not in known]
  assert unknown == []


@every_document
def test_flags_that_are_named_alone_exist(name):
  modules = [*MODULES_OF_COMMANDS.values()]
  modules += [f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("[!_]*.py")]
  known = FOREIGN_FLAGS | flags_of_modes().union(*map(flags_of, modules))
  flags = re.findall(r"`['\"]?(--[\w-]+)", text_of(name))
  assert [flag for flag in flags if plain(flag, known) not in known] == []


@every_document
def test_configs_and_their_fields_exist(name):
  text = text_of(name)
  for config in set(re.findall(r"--configs?=?\s?([a-z][\w/.]*(?::[a-z_0-9]+)?)(?![\w:])", text)):
    load_config(config)
  fields = set(re.findall(r"--config\.([\w.]+)", text))
  fields |= set(re.findall(r"`config\.(?!py|json)([\w.]+)", text))
  configs = [load_config(kind).to_dict() for kind in ("ma52", "ma52:vit", "features")]

  def has(config, field):
    for part in field.split("."):
      config = config.get(part) if isinstance(config, dict) else None
    return config is not None

  missing = [
    field
    for field in sorted(fields)
    if field.islower() and not any(has(config, field) for config in configs)  # NAME is the reader's
  ]
  assert missing == []


def exists(dotted):
  """Whether MODULE.NAME.FIELD is there; `pcan_jax.data` and `.configs` are of the wheel."""
  parts = re.sub(r"^pcan_jax\.(?=(data|configs)\b)", "", dotted).split(".")
  for count in range(len(parts), 0, -1):
    try:
      found = importlib.import_module(".".join(parts[:count]))
    except ModuleNotFoundError as error:
      if not error.name.startswith(parts[0]):
        return True  # an optional package
      continue
    for part in parts[count:]:
      if part in getattr(found, "__dataclass_fields__", ()):
        return True
      if not hasattr(found, part):
        return False
      found = getattr(found, part)
    return True
  return False


@every_document
def test_dotted_names_exist(name):
  text = text_of(name)
  # But for `config.data.path`, `data.sampling=repeat` and names of files.
  dotted = rf"(?<![\w/.]){OURS}(?:\.(?!py\b|md\b)[A-Za-z_]\w*)+(?![\w=])"
  named = set(re.findall(dotted, text))
  for module, imported in re.findall(r"^ *from ([\w.]+) import ([\w, ]+)", text, re.MULTILINE):
    if re.match(OURS, module):
      named |= {f"{module}.{part.split(' as ')[0].strip()}" for part in imported.split(",")}
  assert [dotted for dotted in sorted(named) if not exists(dotted)] == []


@every_document
def test_files_exist(name):
  named = set(re.findall(r"`((?:[a-z_]\w*/)*[a-z_]\w*\.(?:py|md|sh|csv))`", text_of(name)))
  named -= {
    "clips.csv",
    "actions.csv",
    "prediction.csv",
    "predictions.csv",
    "events.csv",
    "table.md",
  }
  named -= {
    "codings.csv",
    "annotations/codings.csv",
    "annotations/persons.csv",
    "detections.csv",
    "my.py",
  }
  found = {path for path in named if (ROOT / path).is_file()}
  found |= {path for path in named if any(any((ROOT / f).rglob(path)) for f in FOLDERS)}
  assert named - found == set()


def anchors(path):
  """The anchors that a page gives its headings."""
  text = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
  headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_links_lead_somewhere(name):
  broken = []
  text = re.sub(r"`[^`\n]*`", "", text_of(name))
  for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
    if re.match(r"[a-z]+:", target):
      continue
    path = (DOCUMENTS[name].parent / target).resolve() if target else DOCUMENTS[name]
    if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
      broken.append(f"{target}#{anchor}" if anchor else target)
  assert broken == []

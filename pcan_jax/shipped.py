"""What comes with the package and is found by name: configs, label trees, weights to start from.

In a checkout the first two lie beside the package, in `configs/` and `data/`; an installed package
carries both within itself.
"""

import pathlib

_PACKAGE = pathlib.Path(__file__).parent
ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""The folder that holds `configs/` and `data/`."""

STARTS = _PACKAGE / "starts"
"""The folder of weights to start from; `benchmarks/shipped_start.py` says how they are made."""

_START = "shipped:"


def find_start(name: str) -> str:
  """The path of the checkpoint that a user means by a path, or by `shipped:` and a name.

  Raises:
    FileNotFoundError: no weights of that name are shipped; the message lists those that are.
  """
  if not name.startswith(_START):
    return name
  shipped = {_START + path.name: str(path) for path in sorted(STARTS.iterdir())}
  if name not in shipped:
    raise FileNotFoundError(f"no weights called {name!r}: choose from {', '.join(shipped)}")
  return shipped[name]


def find_file(name: str, folder: str, suffix: str, kind: str) -> pathlib.Path:
  """The file that a user means by a path or a name.

  Args:
    name: path of a file, or the name of one that is shipped, without its suffix.
    folder: where those are, below `ROOT`.
    suffix: of the files.
    kind: what to call them in messages.

  Raises:
    FileNotFoundError: there is neither; the message lists what is shipped.
  """
  path = pathlib.Path(name)
  if path.is_file():
    return path
  shipped = {path.stem: path for path in sorted((ROOT / folder).glob(f"[!_]*{suffix}"))}
  if name in shipped:
    return shipped[name]
  raise FileNotFoundError(
    f"no {kind} called {name!r}: choose from {', '.join(shipped)}, or give the path of a "
    f"{suffix} file"
  )

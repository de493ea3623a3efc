"""The label tree: actions, the body parts they belong to, and how both are read from CSV.

No other module knows how many actions or body parts there are.
"""

import collections
import csv
import dataclasses
import functools
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from pcan_jax import shipped
from pcan_jax.tables import read_rows

LEVELS = ("action", "body")
"""What a clip is classified by; a body part is the parent of its actions."""

# Soft hyphen, zero-width space, word joiner and byte order mark.
_UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))

_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class LabelTree:
  """A two-level tree of labels.

  Attributes:
    actions: name of every action; the position is the action's id.
    bodies: name of every body part; the position is the body part's id.
    parents: id of the body part of every action.

  Raises:
    ValueError: a name appears twice, or a parent is not the id of a body part.
  """

  actions: tuple[str, ...]
  bodies: tuple[str, ...]
  parents: tuple[int, ...]

  def __post_init__(self) -> None:
    if not self.actions:
      raise ValueError("a label tree needs at least one action")
    if len(self.parents) != len(self.actions):
      raise ValueError(f"{len(self.actions)} actions but {len(self.parents)} parents")
    for kind, names in (("action", self.actions), ("body part", self.bodies)):
      repeated = sorted({name for name in names if names.count(name) > 1})
      if repeated:
        raise ValueError(f"{kind} names must differ, but these are repeated: {repeated}")
    for action, parent in zip(self.actions, self.parents):
      if not 0 <= parent < len(self.bodies):
        raise ValueError(f"action {action!r} has parent {parent}, not in 0..{len(self.bodies) - 1}")

  @property
  def num_actions(self) -> int:
    return len(self.actions)

  @property
  def num_bodies(self) -> int:
    return len(self.bodies)

  @property
  def mirrored(self) -> list[tuple[str, str]]:
    """Pairs of actions whose names differ in nothing but left and right."""
    known = {name.lower(): name for name in self.actions}
    pairs = [(name, known.get(_SIDE.sub(_other_side, name).lower())) for name in self.actions]
    return [(name, other) for name, other in pairs if other and name < other]

  @property
  def of_a_side(self) -> list[str]:
    """Actions whose names say left or right."""
    return [name for name in self.actions if _SIDE.search(name)]

  @functools.cached_property
  def body_of(self) -> dict[str, str]:
    """The body part of every action, by name."""
    return {action: self.bodies[parent] for action, parent in zip(self.actions, self.parents)}

  def subset(self, actions: Sequence[str]) -> "LabelTree":
    """The tree of some actions, in this order, and of their body parts."""
    parents = [self.body_of[action] for action in actions]
    bodies = tuple(dict.fromkeys(parents))
    return LabelTree(tuple(actions), bodies, tuple(map(bodies.index, parents)))

  @classmethod
  def read_csv(cls, path: str | os.PathLike[str]) -> "LabelTree":
    """Reads a tree from a file with the header `id,action,body`.

    Rows are in the order of their ids, 0 first. Body parts are numbered in the order in which they
    first appear.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not such a table; the message names the line.
    """
    path = pathlib.Path(path)
    if not path.is_file():
      raise FileNotFoundError(f"no label tree at {path}: expected a CSV file 'id,action,body'")
    actions, bodies, parents = [], [], []
    rows = read_rows(path)
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    if not {"id", "action", "body"} <= set(header):
      raise ValueError(f"{path}: the first line must be 'id,action,body', not {','.join(header)!r}")
    for line, cells in rows[1:]:
      row = collections.defaultdict(str, zip(header, map(plain_name, cells)))
      where = f"{path}, line {line}"
      if row["id"] != str(len(actions)):
        raise ValueError(f"{where}: expected id {len(actions)}, found {row['id']!r}")
      if not row["action"] or not row["body"]:
        raise ValueError(f"{where}: 'action' and 'body' must not be empty")
      if row["body"] not in bodies:
        bodies.append(row["body"])
      actions.append(row["action"])
      parents.append(bodies.index(row["body"]))
    try:
      return cls(tuple(actions), tuple(bodies), tuple(parents))
    except ValueError as error:
      raise ValueError(f"{path}: {error}") from error

  def write_csv(self, path: str | os.PathLike[str]) -> None:
    """Writes the file that `read_csv` reads."""
    with pathlib.Path(path).open("w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["id", "action", "body"])
      for index, (action, parent) in enumerate(zip(self.actions, self.parents)):
        writer.writerow([index, action, self.bodies[parent]])

  def to_dict(self) -> dict[str, list[Any]]:
    """The tree as plain lists, ready for JSON."""
    return {field: list(values) for field, values in dataclasses.asdict(self).items()}

  @classmethod
  def from_dict(cls, tree: dict[str, list[Any]]) -> "LabelTree":
    """Inverse of `to_dict`."""
    return cls(tuple(tree["actions"]), tuple(tree["bodies"]), tuple(tree["parents"]))


def _other_side(side: re.Match[str]) -> str:
  return "right" if side[0].lower() == "left" else "left"


def plain_name(text: str) -> str:
  """A name with composed accents, without white space at its ends and characters that none sees."""
  return unicodedata.normalize("NFC", text.translate(_UNSEEN).strip())


def similar_names(names: Iterable[str]) -> list[str]:
  """Pairs of names that differ only in case, spaces, dashes, underscores or unseen characters."""
  first: dict[str, str] = {}
  pairs = ((first.setdefault(_folded(name), name), name) for name in names)
  return [f"{other!r} and {name!r}" for other, name in dict.fromkeys(pairs) if other != name]


def _folded(name: str) -> str:
  return "".join(
    char
    for char in unicodedata.normalize("NFKC", name).casefold()
    if unicodedata.category(char) not in ("Cf", "Pc", "Pd") and not char.isspace()
  )


def get_tree(name: str | os.PathLike[str]) -> LabelTree:
  """Reads a label tree by its name, such as `ma52`, or from a CSV file.

  Args:
    name: of a tree that is shipped in `data/trees`, or the path of a file for `LabelTree.read_csv`.

  Raises:
    FileNotFoundError: there is neither.
    ValueError: the file is not a label tree.
  """
  return LabelTree.read_csv(shipped.find_file(str(name), "data/trees", ".csv", "label tree"))

"""Digests of a checkpoint's files, so that a changed bit is found before it becomes a number."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import orbax.checkpoint as ocp

from pcan_jax.content import sha256

ITEM = "digests"
"""The item of a checkpoint that holds the digests of all others."""

DIGESTED = ("model", "training", "description")
"""The others."""

_FILE = "sha256.json"
_COMMITTED = "commit_success.txt"  # written by Orbax behind each item, after its files


def of_items(checkpoint: pathlib.Path) -> dict[str, str]:
  """The digests of all files of a checkpoint's items, by `ITEM/PATH`, as they are now."""
  found = {}
  for item in DIGESTED:
    for path in sorted((checkpoint / item).rglob("*")):
      if path.is_file() and path.name != _COMMITTED:
        found[path.relative_to(checkpoint).as_posix()] = sha256(path)
  return found


def are_recorded(checkpoint: pathlib.Path) -> bool:
  """Whether a checkpoint was written with digests; earlier versions wrote none."""
  return (checkpoint / ITEM).is_dir()


def find_change(checkpoint: pathlib.Path) -> str | None:
  """What differs between the files of a checkpoint and its digests; None if nothing does."""
  try:
    recorded = json.loads((checkpoint / ITEM / _FILE).read_bytes())
  except (FileNotFoundError, ValueError) as error:
    return f"its digests cannot be read ({error})"
  present = of_items(checkpoint)
  for name, digest in recorded.items():
    if name not in present:
      return f"{name} is missing"
    if present[name] != digest:
      return f"{name} is not what was written"
  return None


def of_checkpoint(checkpoint: pathlib.Path) -> str:
  """Identifies a checkpoint by the content of its items: 32 hexadecimal digits."""
  listing = json.dumps(of_items(checkpoint), sort_keys=True)
  return hashlib.sha256(listing.encode()).hexdigest()[:32]


class DigestHandler(ocp.CheckpointHandler):
  """Writes the item of digests when Orbax has finished all items before it.

  It is part of what is renamed to a checkpoint at the end of a save: there is none without digests.
  """

  def save(self, directory: Any, args: "DigestSave") -> None:
    """Writes nothing yet: the other items are written in the background."""

  def finalize(self, directory: Any) -> None:
    folder = pathlib.Path(directory)
    (folder / _FILE).write_text(json.dumps(of_items(folder.parent), indent=1) + "\n")

  def restore(self, directory: Any, args: "DigestRestore | None" = None) -> dict[str, str]:
    return json.loads((pathlib.Path(directory) / _FILE).read_bytes())


@ocp.args.register_with_handler(DigestHandler, for_save=True)
@dataclasses.dataclass
class DigestSave(ocp.args.CheckpointArgs):
  """Asks for digests."""


@ocp.args.register_with_handler(DigestHandler, for_restore=True)
@dataclasses.dataclass
class DigestRestore(ocp.args.CheckpointArgs):
  """Orbax wants one of each kind."""

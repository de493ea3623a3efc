"""What the writers of annotation files share: names of files, milliseconds, body parts."""

import importlib
import pathlib
import types
from collections.abc import Sequence

from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.reading import media_stem
from pcan_jax.extras import needed_by
from pcan_jax.labels import LabelTree

TIER = "events"
"""Tier of events whose label the tree does not have and that say none."""


def optional(package: str) -> types.ModuleType:
  """Imports a package of the extra `coding`.

  Raises:
    ModuleNotFoundError: it is not installed; the message says how to install it.
  """
  with needed_by("this format needs", "coding"):
    return importlib.import_module(package)


def tier_of(event: Event, tree: LabelTree) -> str:
  """The tier to write an event to: its own, else the body part of its label."""
  return event.tier or tree.body_of.get(event.label, TIER)


def milliseconds(event: Event) -> tuple[int, int]:
  """Onset and offset in whole milliseconds, at least one apart."""
  onset = round(event.onset * 1000)
  return onset, max(round(event.offset * 1000), onset + 1)


def files_for(
  codings: Sequence[Coding], output_dir: pathlib.Path, suffix: str
) -> list[pathlib.Path]:
  """A file per coding, named after its video.

  Raises:
    ValueError: two codings are of one video, or of videos that differ in their suffixes alone.
  """
  files: dict[pathlib.Path, str] = {}
  for coding in codings:
    path = output_dir / f"{media_stem(coding.video)}{suffix}"
    if path in files:
      raise ValueError(
        f"the codings of {files[path]} and {coding.video} would both be written to {path}; give "
        "one coding per video, or rename one of the videos"
      )
    files[path] = coding.video
  return list(files)

"""Writes the page on which a person reviews the events of a video."""

import base64
import hashlib
import html
import json
import mimetypes
import os
import pathlib
import urllib.parse

from pcan_jax.coding.events import Coding
from pcan_jax.coding.reading import media_name
from pcan_jax.coding.writing import milliseconds
from pcan_jax.labels import LabelTree
from pcan_jax.writing import replace_file

_SCRIPTS = (
  "model.js",
  "csv.js",
  "eaf.js",
  "timeline.js",
  "pointer.js",
  "panel.js",
  "keys.js",
  "page.js",
)
_FRAME_MS = 40
"""How far a key moves a border or the player."""


def write_review(
  coding: Coding,
  tree: LabelTree | None,
  video: str | os.PathLike[str],
  output: str | os.PathLike[str],
) -> pathlib.Path:
  """Writes one self-contained page: no server, no network; only the video stays beside it.

  Events without a confidence count as reviewed; the page saves what a person accepted or changed
  without one.

  Args:
    coding: the events.
    tree: labels to choose from, with their body parts; None for those of the events.
    video: the file to play. Its path from the page must stay the same.
    output: folder for the page; it is created.

  Returns:
    The page: `VIDEO.review.html`, with the name of the video without its suffix.
  """
  video, folder = pathlib.Path(video), pathlib.Path(output)
  folder.mkdir(parents=True, exist_ok=True)
  page = page_of(video, folder)
  here = pathlib.Path(__file__).parent
  parts = {
    name: (here / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *_SCRIPTS)
  }
  functions = "\n".join(parts[name] for name in _SCRIPTS)
  script = f'"use strict";\n(() => {{\n{functions}}})();\n'
  filled = {
    "@POLICY@": _policy(script, parts["page.css"]),
    "@TITLE@": html.escape(video.name),
    "@STYLE@": parts["page.css"],
    "@DATA@": _as_json(_data(coding, tree, video, folder)),
    "@SCRIPT@": script,
  }
  content = ""
  rest = parts["page.html"]
  while rest:  # from left to right, so that names may hold marks
    place, mark = min(
      ((rest.find(mark), mark) for mark in filled if mark in rest), default=(-1, "")
    )
    content += rest if place < 0 else rest[:place] + filled[mark]
    rest = "" if place < 0 else rest[place + len(mark) :]
  replace_file(page, content)
  return page


def page_of(video: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """The page of a video in a folder."""
  return folder / f"{video.stem}.review.html"


def is_of_another(page: pathlib.Path, video: pathlib.Path) -> bool:
  """Whether there is a page, and of another video of this name."""
  link = f'"url": {_as_json(_url(video, page.parent))}'
  return page.is_file() and link not in page.read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
  """Lets the page run its own script and style, play local videos, and nothing else."""
  hashes = [
    base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (script, style)
  ]
  return (
    f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
    "img-src data:; media-src 'self' file: blob:; base-uri 'none'; form-action 'none'"
  )


def _as_json(data: object) -> str:
  """JSON that may stand in HTML: no text in it can end its element."""
  return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _data(
  coding: Coding, tree: LabelTree | None, video: pathlib.Path, folder: pathlib.Path
) -> dict[str, object]:
  bodies = {} if tree is None else tree.body_of
  events = [
    {
      "onset": onset,
      "offset": offset,
      "label": event.label,
      "tier": event.tier or bodies.get(event.label, ""),
      "subject": event.subject,
      "confidence": event.confidence,
    }
    for event in coding.events
    for onset, offset in [milliseconds(event)]
  ]
  known = dict.fromkeys((body, action) for action, body in bodies.items())
  found = dict.fromkeys((str(event["tier"]), event["label"]) for event in events)
  order = {body: place for place, body in enumerate(tree.bodies if tree is not None else ())}
  labels = sorted(known | found, key=lambda key: (order.get(key[0], len(order)), key[0]))
  return {
    "video": {
      "name": media_name(coding.video) or video.name,
      "url": _url(video, folder),
      "type": mimetypes.guess_type(video.name)[0] or "unknown",
    },
    "duration": round(1000 * (coding.duration or 0)),
    "frame": _FRAME_MS,
    "labels": [{"tier": tier, "label": label} for tier, label in labels],
    "events": events,
  }


def _url(video: pathlib.Path, folder: pathlib.Path) -> str:
  """Where the video is, seen from the page."""
  try:
    relative = os.path.relpath(video.absolute(), folder.absolute())
  except ValueError:  # on another drive of Windows
    return video.absolute().as_uri()
  return "/".join(urllib.parse.quote(part) for part in pathlib.PurePath(relative).parts)

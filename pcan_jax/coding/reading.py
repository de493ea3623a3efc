"""What the readers of annotation files share: bounded reading, point events, names of media.

The files are other people's: their size is limited, and whatever is left out is told.
"""

import codecs
import json
import ntpath
import pathlib
import posixpath
from collections.abc import Callable
from typing import Any

from pcan_jax.coding.events import Event

MAX_BYTES = 256 << 20
"""Size of the largest file that is read. An hour of dense coding is below 10 MB."""

Tell = Callable[[str], None]
"""Takes one line about what was left out or understood in another way than written."""

_BYTE_ORDER_MARKS = (
  (codecs.BOM_UTF8, "utf-8-sig"),
  (codecs.BOM_UTF16_LE, "utf-16"),
  (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_bytes(path: pathlib.Path) -> bytes:
  """The content of a file of bounded size.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is larger than `MAX_BYTES`.
  """
  if not path.is_file():
    raise FileNotFoundError(f"no file of codings at {path}")
  with path.open("rb") as file:
    content = file.read(MAX_BYTES + 1)
  if len(content) > MAX_BYTES:
    raise ValueError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no file of codings is")
  return content


def decode(content: bytes, path: pathlib.Path) -> str:
  """Text in UTF-8, or in UTF-16 with a byte order mark, as spreadsheets write it.

  Raises:
    ValueError: it is in another encoding.
  """
  encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
  try:
    return content.decode(encoding)
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not text in UTF-8 ({error.reason}); save it as UTF-8") from error


def parse_json(content: bytes, path: pathlib.Path) -> Any:
  """JSON of bounded size and depth.

  Raises:
    ValueError: it is not JSON.
  """
  try:
    return json.loads(decode(content, path), parse_constant=_refuse_constant)
  except (_NoNumber, json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f"{path}: not JSON, or damaged ({error})") from error


class _NoNumber(ValueError):
  pass


def _refuse_constant(name: str) -> float:
  raise _NoNumber(f"the number {name}")


def plain_path(path: str) -> str:
  """A path as other systems write it, with forward slashes."""
  is_windows = "\\" in path and (ntpath.splitdrive(path)[0] or "/" not in path)
  return path.replace("\\", "/") if is_windows else path


def media_name(path: str) -> str:
  """The name of a media file, whichever system wrote its path."""
  return posixpath.basename(plain_path(path))


def media_stem(path: str) -> str:
  """The name of a media file without its suffix."""
  name = media_name(path)
  return name.rpartition(".")[0] or name


class Points:
  """Collects the point events of a file, which have a time but no length.

  Args:
    seconds: length of the events that are made of them, around their times; None refuses them.
    path: of the file, for the error.
  """

  def __init__(self, seconds: float | None, path: pathlib.Path) -> None:
    if seconds is not None and not 0 < seconds < float("inf"):
      raise ValueError(f"the length of point events must be positive, not {seconds}")
    self._seconds = seconds
    self._path = path
    self._refused: list[str] = []

  def event(self, time: float, label: str, **fields: Any) -> list[Event]:
    """The event around a time: one, or none if point events are refused at the end.

    Raises:
      ValueError: it would end before the video starts.
    """
    if self._seconds is None:
      self._refused.append(f"{label!r} at {time:g} s")
      return []
    end = time + self._seconds / 2
    if end <= 0:
      raise ValueError(f"{self._path}: {label!r} at {time:g} s lies before the video")
    try:
      return [Event(max(time - self._seconds / 2, 0.0), end, label, **fields)]
    except ValueError as error:
      raise ValueError(f"{self._path}: {error}") from error

  def check(self) -> None:
    """Call after the last event.

    Raises:
      ValueError: there were point events, and no length to give them.
    """
    if self._refused:
      more = f" and {len(self._refused) - 1} more" if len(self._refused) > 1 else ""
      raise ValueError(
        f"{self._path}: {self._refused[0]}{more} are point events, without a length; give them one "
        "with --point_seconds, such as --point_seconds=1"
      )

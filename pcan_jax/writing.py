"""Writing to disk: finding out early whether that is possible, and never leaving half a file."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

_SIGNS = (
  "No space left on device",
  "Disk quota exceeded",
  "Read-only file system",
  "Permission denied",
  "File too large",
)


def require_writable(folder: str | os.PathLike[str]) -> pathlib.Path:
  """Makes a folder and writes a file to it, before the work whose results it is to hold.

  Returns:
    The folder.

  Raises:
    OSError: that is not possible; the message says why.
  """
  folder = pathlib.Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
      file.write(b" ")
      file.flush()
  except OSError as error:
    raise type(error)(f"cannot write to {folder}: {error.strerror}") from error
  return folder


def replace_file(path: pathlib.Path, content: bytes | str) -> None:
  """Writes a file as a whole: whoever reads it, even after a crash, finds the old or the new one.

  Raises:
    OSError: it cannot be written; the old one is left.
  """
  unfinished = path.with_name(f"{path.name}.unfinished")
  try:
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    unfinished.replace(path)
  except OSError as error:
    unfinished.unlink(missing_ok=True)
    raise type(error)(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def told_shortly(what: str) -> Iterator[None]:
  """Turns what a full disk leads to in libraries, in whatever thread, into one sentence.

  Args:
    what: what cannot be done, as the sentence begins: "the checkpoint cannot be written to DIR".

  Raises:
    OSError: instead of the libraries' errors; an OSError that names its file is passed on as it is.
  """
  try:
    yield
  except OSError as error:
    if error.filename is None and error.strerror is not None:
      raise type(error)(f"{what}: {error.strerror}") from error
    raise
  except Exception as error:
    reasons = (str(error), *map(str, getattr(error, "exceptions", ())))
    for sign in _SIGNS:
      if any(sign.lower() in reason.lower() for reason in reasons):
        raise OSError(f"{what}: {sign}") from error
    raise

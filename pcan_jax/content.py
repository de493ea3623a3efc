"""Identifies files by their content."""

import hashlib
import os


def sha256(path: str | os.PathLike[str]) -> str:
  """The SHA-256 of a file, in hexadecimal digits."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()

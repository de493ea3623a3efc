"""Reads small tables as spreadsheets and people write them: CSV with commas, semicolons or tabs."""

import codecs
import csv
import os
import pathlib


def read_rows(path: str | os.PathLike[str]) -> list[tuple[int, list[str]]]:
  """The rows of a table that are not empty, with the numbers of their lines.

  Args:
    path: of a file in UTF-8, or in UTF-16 with a byte order mark.

  Returns:
    The first row is that of the names. Cells are as they stand in the file.

  Raises:
    ValueError: it is no such table; the message names the file.
  """
  path = pathlib.Path(path)
  with path.open("rb") as file:
    mark = file.read(2)
  encoding = "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
  try:
    with path.open(newline="", encoding=encoding) as file:
      first = next((line for line in file if line.strip(" ,;\t\r\n")), "")
      file.seek(0)
      lines = csv.reader(file, strict=True, delimiter=max(",;\t", key=first.count))
      return [(lines.line_num, cells) for cells in lines if any(cell.strip() for cell in cells)]
  except (UnicodeError, csv.Error) as error:
    raise ValueError(f"{path}: not CSV in UTF-8 ({error}); save it as CSV in UTF-8") from error

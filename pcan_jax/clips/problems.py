"""Problems of clips that cannot be used: as one message, and as a table."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Sequence

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Problem:
  """What is wrong with one record of the source.

  Attributes:
    id: of the clip.
    split: of the clip.
    reason: what is wrong and what to do.
  """

  id: str
  split: str
  reason: str

  def __str__(self) -> str:
    return f"{self.split}/{self.id}: {self.reason}"


def describe_problems(where: str | os.PathLike[str], problems: Sequence[Problem]) -> str:
  """Formats a message with the first few problems and the number of all."""
  shown = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
  more = len(problems) - _SHOWN
  return f"{where}: {len(problems)} bad clip{'s' * (len(problems) > 1)}:{shown}" + (
    f"\n  and {more} more" if more > 0 else ""
  )


def write_problems(path: pathlib.Path, problems: Sequence[Problem]) -> None:
  """Writes all problems to a CSV file, or deletes the file of an earlier run if there are none."""
  if not problems:
    path.unlink(missing_ok=True)
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w", newline="", encoding="utf-8") as file:
    rows = csv.writer(file)
    rows.writerow(["split", "id", "reason"])
    rows.writerows((problem.split, problem.id, problem.reason) for problem in problems)

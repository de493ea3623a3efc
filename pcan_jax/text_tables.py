"""Tables of cells as text for a terminal, and cells for LaTeX."""

from collections.abc import Sequence

_SPECIAL = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
_SPECIAL |= {char: f"\\{char}" for char in "&%$#_{}"}


def aligned(rows: Sequence[Sequence[str]]) -> str:
  """Cells to the right of columns as wide as they need to be; a line below the first row."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  head, *lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)
  return "\n".join([head, "-" * len(head), *lines])


def in_latex(cell: str) -> str:
  """A cell without what LaTeX would take for its own."""
  return "".join(_SPECIAL.get(char, char) for char in cell)

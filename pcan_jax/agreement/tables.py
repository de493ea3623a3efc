"""Agreement as tables: for the terminal, in Markdown and in LaTeX."""

import math
from collections.abc import Sequence

from pcan_jax.coding.agreement import MEASURES, QUANTILES, Agreement, Disagreement, Scope, Value
from pcan_jax.text_tables import in_latex

ALL = "all"
NOTHING = "no counterpart"
SHOWN = ("kappa_time", "kappa_active", "kappa_events", "f1_0.1", "f1_0.25", "f1_0.5", "map")
"""The measures of the table by class; all are in `agreement.json`."""

_DASH = "–"


def number(value: float, digits: int = 2) -> str:
  """A number, or a dash where it is not defined; never -0.00."""
  if not math.isfinite(value):
    return _DASH
  return f"{round(value, digits) + 0.0:.{digits}f}"


def with_interval(value: Value) -> str:
  """A value with its interval, if there is one."""
  if not math.isfinite(value.low):
    return number(value.value)
  return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"


def scope_name(scope: Scope) -> str:
  """What a row of a table is about."""
  return scope.label or scope.tier or ALL


def class_name(key: tuple[str, str] | None) -> str:
  """A class, with its tier."""
  return NOTHING if key is None else f"{key[0]}: {key[1]}"


def overall_rows(found: Agreement) -> list[tuple[str, str]]:
  """Each measure of all events, with its interval."""
  return [
    (MEASURES[name] + (" (s)" if "set_" in name else ""), with_interval(value))
    for name, value in found.overall.values.items()
    if not name.startswith("ap_")
  ]


def scope_header() -> tuple[str, ...]:
  """The header of `scope_rows`."""
  return ("", "events A", "events B", *(MEASURES[name] for name in SHOWN))


def scope_rows(scopes: Sequence[Scope], intervals: bool = False) -> list[tuple[str, ...]]:
  """Rows of the measures in `SHOWN`."""
  return [
    (
      scope_name(scope),
      *map(str, scope.events),
      *(
        _DASH
        if name not in scope.values
        else with_interval(scope.values[name])
        if intervals
        else number(scope.values[name].value)
        for name in SHOWN
      ),
    )
    for scope in scopes
  ]


def difference_header() -> tuple[str, ...]:
  """The header of `difference_rows`."""
  return ("", "border", "mean", "median", *(f"{100 * q:g} %" for q in QUANTILES if q != 0.5))


def difference_rows(scopes: Sequence[Scope]) -> list[tuple[str, ...]]:
  """Differences of onsets and offsets, the second coder minus the first, in seconds."""
  rows = []
  for scope in scopes:
    for border in ("onset", "offset"):
      mean, median = (scope.values[f"{border}_{kind}"] for kind in ("mean", "median"))
      quantiles = [q for level, q in zip(QUANTILES, scope.quantiles[border]) if level != 0.5]
      rows.append(
        (
          scope_name(scope),
          border,
          with_interval(mean),
          with_interval(median),
          *(number(quantile) for quantile in quantiles),
        )
      )
  return rows


def disagreement_rows(found: Sequence[Disagreement]) -> list[tuple[str, ...]]:
  """Which classes were coded as which others, and how often."""
  return [(class_name(one.first), class_name(one.second), str(one.count)) for one in found]


def facts(found: Agreement, names: tuple[str, str]) -> dict[str, str]:
  """What was compared, and how."""
  count = len(found.videos)
  return {
    "A": names[0],
    "B": names[1],
    "compared": f"{count} video{'s' if count > 1 else ''}, {found.seconds / 60:.1f} minutes, "
    f"{found.overall.events[0]} and {found.overall.events[1]} events",
    "time unit": f"{found.unit:g} s",
    "matched events": f"share at least {100 * found.overlap:g} % of the longer one",
  } | ({"intervals": "95 %, bootstrap over videos"} if count > 1 else {})


def text(found: Agreement, names: tuple[str, str]) -> str:
  """All of it for a terminal."""
  parts = [
    _columns([(f"{name}:", fact) for name, fact in facts(found, names).items()], left=2),
    *(f"note: {note}" for note in found.notes),
    "",
    _columns(overall_rows(found), left=1),
    "",
    _columns([scope_header(), *scope_rows(_scopes(found))], left=1),
  ]
  if found.disagreements:
    head = ("A", "B", "events")
    parts += ["", _columns([head, *disagreement_rows(found.disagreements[:15])], left=2)]
  return "\n".join(parts)


def _scopes(found: Agreement) -> list[Scope]:
  return [found.overall, *found.tiers, *found.classes]


def _columns(rows: Sequence[Sequence[str]], left: int) -> str:
  """Rows in columns, the first ones aligned left."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return "\n".join(
    "  ".join(
      f"{cell:<{width}}" if place < left else f"{cell:>{width}}"
      for place, (cell, width) in enumerate(zip(row, widths))
    ).rstrip()
    for row in rows
  )


def markdown(found: Agreement, names: tuple[str, str]) -> str:
  """All of it in Markdown."""
  lines = [f"- {name}: {_plain(fact)}" for name, fact in facts(found, names).items()]
  lines += [f"- {_plain(note)}" for note in found.notes]
  return "\n".join(
    [
      "# Agreement",
      "",
      *lines,
      "",
      _markdown_table(("all events", "value"), overall_rows(found), left=1),
      _markdown_table(scope_header(), scope_rows(_scopes(found), intervals=True), left=1),
      _markdown_table(difference_header(), difference_rows([found.overall, *found.tiers]), left=2),
      _markdown_table(("A", "B", "events"), disagreement_rows(found.disagreements), left=2),
    ]
  )


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
  marks = ["---" if place < left else "---:" for place in range(len(header))]
  lines = [header, marks, *([_plain(cell) for cell in row] for row in rows)]
  return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _plain(cell: str) -> str:
  """A text in one line that Markdown leaves as it is."""
  return "".join(f"\\{char}" if char in "\\|*_`<>#" else char for char in " ".join(cell.split()))


def latex(found: Agreement, names: tuple[str, str]) -> str:
  """The table by body part and class in LaTeX, for the package booktabs."""
  head = " & ".join(_escaped(cell) for cell in scope_header())
  lines = [f"% {name}: {' '.join(fact.split())}" for name, fact in facts(found, names).items()]
  lines += [f"\\begin{{tabular}}{{l{'r' * (len(SHOWN) + 2)}}}", "\\toprule", f"{head} \\\\"]
  for scopes in ([found.overall], found.tiers, found.classes):
    lines.append("\\midrule")
    lines += [" & ".join(_escaped(cell) for cell in row) + " \\\\" for row in scope_rows(scopes)]
  return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _escaped(cell: str) -> str:
  return in_latex(" ".join(cell.split())).replace(_DASH, "--")

"""The page about an agreement: the tables, and figures of what they say."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from pcan_jax.agreement import tables
from pcan_jax.coding.agreement import MEASURES, Agreement, Scope
from pcan_jax.coding.detection import THRESHOLDS
from pcan_jax.report import page, style

_MOST_CLASSES = 60
_MEANING = (
  "Kappa is agreement beyond chance: 1 is complete, 0 is what chance gives. By time, each unit of "
  "time counts; by events, each event, those without a counterpart too. F1 is the share of events "
  "that both have with the same label and at least this intersection over union; mAP is the mean "
  "average precision of the detection task of MMA-52, over IoUs from 0.1 to 0.9, with A as truth."
)


def write_page(path: pathlib.Path, found: Agreement, names: tuple[str, str]) -> pathlib.Path:
  """Writes the page, and its figures as PNG and PDF beside it.

  Args:
    path: of the page.
    found: the agreement.
    names: of the two codings.

  Returns:
    `path`.
  """
  with style.applied():
    page.write_page(
      path,
      title=f"Agreement of {pathlib.PurePath(names[0]).name} and {pathlib.PurePath(names[1]).name}",
      facts=tables.facts(found, names),
      sections=_sections(found),
      figures=path.parent / "figures",
    )
  return path


def _sections(found: Agreement) -> list[page.Section]:
  if not found.classes:
    return [page.Section("overall", "All events", ["Neither coding has an event.", *found.notes])]
  measures = [("", "value"), tables.overall_rows(found)]
  return [
    page.Section(
      "overall",
      "All events",
      [_MEANING, *found.notes],
      [page.Table("All events, with 95 % intervals", *measures)],
    ),
    page.Section(
      "tiers",
      "Body parts",
      ["The tiers of the codings, or the body parts of the label tree."],
      [_table("By tier", found.tiers, ())],
      [_kappas("tiers", found.tiers)],
    ),
    page.Section(
      "classes",
      "Labels",
      ["Each label against all others. Intervals of rare labels are wide."],
      [_table("By label", found.classes, ("kappa_active",))],
      [_kappas("classes", found.classes[:_MOST_CLASSES])],
    ),
    page.Section(
      "disagreements",
      "Disagreements",
      ["Matched events with different labels, and events that only one coder has."],
      [
        page.Table(
          "Events by both labels",
          ("A", "B", "events"),
          tables.disagreement_rows(found.disagreements),
          True,
          2,
        )
      ],
      [_confusions(found)],
    ),
    page.Section(
      "borders",
      "Onsets and offsets",
      ["Matched events with the same label: seconds by which B is later than A."],
      [
        page.Table(
          "Differences in seconds",
          tables.difference_header(),
          tables.difference_rows([found.overall, *found.tiers, *found.classes]),
          text_columns=2,
        )
      ],
      [_borders([found.overall, *found.tiers])],
    ),
    page.Section(
      "precision",
      "Average precision",
      ["By intersection over union, averaged over the labels that A has."],
      pictures=[_precision(found)],
    ),
  ]


def _table(caption: str, scopes: Sequence[Scope], without: Sequence[str]) -> page.Table:
  """The table of scopes without some measures; values and their intervals stay in one line."""
  left_out = {tables.scope_header().index(MEASURES[name]) for name in without}

  def kept(cells: Sequence[str]) -> list[str]:
    return [cell for place, cell in enumerate(cells) if place not in left_out]

  rows = [
    [name, *(cell.replace(" ", "\u00a0") for cell in cells)]
    for name, *cells in map(kept, tables.scope_rows(scopes, intervals=True))
  ]
  return page.Table(caption, kept(tables.scope_header()), rows)


def _kappas(name: str, scopes: Sequence[Scope]) -> page.Picture:
  """Kappa by events with intervals, a dot per scope."""
  labels = [style.short(tables.scope_name(scope)) for scope in scopes]
  height = 0.9 + 0.22 * len(scopes)
  figure = style.new_figure(4.6 + style.label_width(labels), height)
  axis = figure.subplots()
  for kind, colour, marker, shift in (
    ("kappa_events", style.BLUE, "o", -0.13),
    ("kappa_time", style.VERMILLION, "D", 0.13),
  ):
    values = [scope.values[kind] for scope in scopes]
    rows = np.arange(len(scopes)) + shift
    centres = np.array([value.value for value in values])
    ends = np.array([[value.low, value.high] for value in values])
    kind_label = {"kappa_events": "by events", "kappa_time": "by time"}[kind]
    axis.plot(centres, rows, marker, color=colour, markersize=4, label=kind_label)
    axis.hlines(rows, ends[:, 0], ends[:, 1], color=colour, linewidth=1.2)
  axis.axvline(0, color=style.GREY, linewidth=0.8)
  axis.set_yticks(range(len(scopes)), labels)
  axis.set_ylim(len(scopes) - 0.5, -0.5)
  axis.set_xlim(min(-0.05, axis.get_xlim()[0]), 1.03)
  axis.set_xlabel("kappa")
  axis.grid(True, axis="x")
  figure.legend(loc="outside upper left", ncols=2)
  return page.Picture(
    f"kappa_{name}",
    figure,
    "Kappa by events (circles) and by time unit (diamonds), with 95 % intervals.",
    "Dots with intervals; the numbers are in the table above.",
  )


def _confusions(found: Agreement) -> page.Picture:
  """Matched events by the labels of both coders."""
  used = np.flatnonzero(found.matched.sum(0) + found.matched.sum(1))
  busiest = sorted(
    used[used < len(found.classes)],
    key=lambda number: -int(found.matched[number].sum() + found.matched[:, number].sum()),
  )
  shown = [*sorted(busiest[:_MOST_CLASSES]), len(found.classes)]
  counts = found.matched[np.ix_(shown, shown)]
  names = [style.short(scope.label) for scope in found.classes] + [tables.NOTHING]
  labels = [names[number] for number in shown]
  side = 1.2 + 0.24 * len(shown) + style.label_width(labels)
  figure = style.new_figure(side, side, layout="compressed")
  axis = figure.subplots()
  axis.imshow(np.log1p(counts), cmap=style.SHARES, aspect="equal")
  darkest = np.log1p(counts).max() or 1.0
  for row, column in zip(*np.nonzero(counts)):
    colour = style.text_on(to_hex(style.SHARES(np.log1p(counts[row, column]) / darkest)))
    axis.text(column, row, counts[row, column], ha="center", va="center", color=colour, size=7)
  axis.set_xticks(range(len(shown)), labels, rotation=90)
  axis.set_yticks(range(len(shown)), labels)
  axis.set_xlabel("B")
  axis.set_ylabel("A")
  return page.Picture(
    "confusions",
    figure,
    "Events by the labels of A (rows) and B (columns); darker is more. Off the diagonal, one is "
    "taken for the other, or has no counterpart within its tier.",
    "A matrix of counts; the most frequent disagreements are in the table above.",
  )


def _borders(scopes: Sequence[Scope]) -> page.Picture:
  """Quantiles of onset and offset differences."""
  labels = [style.short(tables.scope_name(scope)) for scope in scopes]
  figure = style.new_figure(4.6 + style.label_width(labels), 1.0 + 0.34 * len(scopes))
  axis = figure.subplots()
  for border, colour, marker, shift in (
    ("onset", style.BLUE, "o", -0.15),
    ("offset", style.VERMILLION, "D", 0.15),
  ):
    quantiles = np.array([scope.quantiles[border] for scope in scopes])
    rows = np.arange(len(scopes)) + shift
    axis.hlines(rows, quantiles[:, 0], quantiles[:, 4], color=colour, linewidth=1)
    axis.hlines(rows, quantiles[:, 1], quantiles[:, 3], color=colour, linewidth=3)
    axis.plot(quantiles[:, 2], rows, marker, color=colour, markersize=5, label=border)
  axis.axvline(0, color=style.GREY, linewidth=0.8)
  axis.set_yticks(range(len(scopes)), labels)
  axis.set_ylim(len(scopes) - 0.5, -0.5)
  axis.set_xlabel("seconds by which B is later")
  axis.grid(True, axis="x")
  figure.legend(loc="outside upper left", ncols=2)
  return page.Picture(
    "borders",
    figure,
    "Medians (onset: circles, offset: diamonds), the middle half (thick) and the middle 90 % "
    "(thin) of the differences.",
    "Lines with a median each; the numbers are in the table above.",
  )


def _precision(found: Agreement) -> page.Picture:
  """Average precision over the thresholds."""
  figure: Figure = style.new_figure(4.6, 3.0)
  axis = figure.subplots()
  values = [found.overall.values[f"ap_{level:g}"] for level in THRESHOLDS]
  axis.plot(THRESHOLDS, [value.value for value in values], "o-", color=style.BLUE, markersize=4)
  axis.fill_between(
    THRESHOLDS,
    [value.low for value in values],
    [value.high for value in values],
    color=style.SKY,
    alpha=0.3,
    linewidth=0,
  )
  axis.set_ylim(-0.02, 1.02)
  axis.set_xlabel("intersection over union")
  axis.set_ylabel("mean average precision")
  axis.grid(True)
  return page.Picture(
    "precision",
    figure,
    "Mean average precision by the overlap that is asked for, with its 95 % interval.",
    "A curve that falls with the overlap; "
    + ", ".join(
      f"{level:g}: {tables.number(value.value)}" for level, value in zip(THRESHOLDS, values)
    ),
  )

"""Maps what was coded to a label tree: tiers to body parts, labels to actions.

Without a mapping, a tier is a body part and a label an action; with a label tree, the body part
follows from the action. The name of a person at an end of the name of their tier does not count.

A mapping is a table with the columns `tier,label,body,action` and, if tiers are those of people,
`person`. Of its rows, the first one whose tier and label fit counts; an empty cell fits everything.
An empty `body`, `action` or `person` changes nothing; the action `-` leaves the coding out.
"""

import collections
import dataclasses
import difflib
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

from pcan_jax.coding.csv_codings import read_table
from pcan_jax.coding.events import Event
from pcan_jax.coding.reading import read_bytes
from pcan_jax.labels import LabelTree, plain_name

from .findings import Finding

BACKGROUND = "background"
"""Action, and body part, of stretches in which nothing was coded."""

_LEFT_OUT = "-"
_NO_TIER = "all"
_COLUMNS = ("tier", "label", "body", "action", "person")
_FREE_TEXT = 20  # so many labels that hardly repeat are no vocabulary

Key = tuple[str, str]
"""Tier and label, as they were coded."""


@dataclasses.dataclass(frozen=True)
class Labels:
  """What the codings were understood to mean.

  Attributes:
    meanings: body part and action of every tier and label; None for those left out.
    counts: number of codings of every tier and label.
    persons: whom every tier and label is about, where the mapping says so.
  """

  meanings: Mapping[Key, tuple[str, str] | None]
  counts: Mapping[Key, int]
  persons: Mapping[Key, str]

  def of(self, event: Event) -> tuple[str, str] | None:
    """Body part and action of an event, or None if it is left out."""
    return self.meanings[event.tier, event.label]

  def person(self, event: Event) -> str:
    """Whom an event is about; empty if that is not said."""
    return self.persons.get((event.tier, event.label), plain_name(event.subject))

  def describe(self) -> list[str]:
    """A table of what was understood, line by line."""
    rows = [("coded", "as", "codings")]
    for (tier, label), meaning in sorted(self.meanings.items()):
      coded = f"{tier} / {label}" if tier else label
      taken = "left out" if meaning is None else " / ".join(meaning)
      taken += f", {self.persons[tier, label]}" if (tier, label) in self.persons else ""
      rows.append((_line(coded), taken, str(self.counts[tier, label])))
    wide = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"  {a:{wide[0]}}  {b:{wide[1]}}  {c:>7}" for a, b, c in rows]


def read_mapping(path: pathlib.Path) -> list[dict[str, str]]:
  """Reads the rows of a mapping.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not such a table.
  """
  if not path.is_file():
    raise FileNotFoundError(f"no mapping at {path}: expected a CSV file 'tier,label,body,action'")
  header, *rows = read_table(read_bytes(path), path) or [[]]
  header = [name.lower() for name in header]
  if set(header) | {"person"} != set(_COLUMNS) or not rows:
    raise ValueError(
      f"{path}: the first line must be 'tier,label,body,action', with ',person' if you like, and "
      "rows below it"
    )
  found = []
  for number, row in enumerate(rows, 2):
    if len(row) > len(header):
      raise ValueError(f"{path}, row {number}: {len(row)} cells in {len(header)} columns")
    cells = dict(zip(header, map(plain_name, row)))
    found.append({name: cells.get(name, "") for name in _COLUMNS})
  return found


def understand(
  events: Iterable[Event],
  mapping: Sequence[Mapping[str, str]],
  tree: LabelTree | None,
  findings: list[Finding],
) -> Labels:
  """Finds the body part and the action of all that was coded.

  Args:
    events: of all sessions.
    mapping: rows of `read_mapping`.
    tree: the label tree; None makes body parts of tiers and actions of labels.
    findings: labels that have no place in the tree, and tiers of free text, are added to these.
  """
  events = list(events)
  counts = collections.Counter((event.tier, event.label) for event in events)
  bodies = _without_people(events)
  mapped = {key: _mapped(key, bodies[key[0]], mapping) for key in counts}
  unused = [row for row in mapping if not any(_fits(row, key) for key in counts)]
  for row in unused:
    detail = f"no coding has the tier {row['tier']!r} and the label {row['label']!r}"
    findings.append(Finding("unused row of the mapping", ",".join(row.values()), detail, False))
  _find_free_text({key: counts[key] for key in counts if mapped[key]}, findings)
  meanings = _in_tree(mapped, tree, counts, findings) if tree else _own_tree(mapped)
  rows = {key: _row(key, mapping) for key in counts}
  return Labels(meanings, counts, {key: r["person"] for key, r in rows.items() if r["person"]})


def _without_people(events: Iterable[Event]) -> dict[str, str]:
  """The tiers without the names of the people whose tiers they are: `Ann_head` becomes `head`."""
  subjects: dict[str, set[str]] = collections.defaultdict(set)
  for event in events:
    subjects[event.tier].add(event.subject)
  found = {}
  for tier, names in subjects.items():
    name = _line(tier)
    if len(names) == 1 and (subject := re.escape(_line(next(iter(names))))):
      rest = re.sub(rf"^{subject}[\W_]+|[\W_]+{subject}$", "", name)
      name = rest or name
    found[tier] = name
  return found


def _fits(row: Mapping[str, str], key: Key) -> bool:
  return all(not row[name] or _same(row[name], text) for name, text in zip(_COLUMNS, key))


def _same(name: str, other: str) -> bool:
  return _plain(name) == _plain(other)


def _plain(name: str) -> str:
  """A name without what people write differently: case, spaces, underscores."""
  return "".join(plain_name(name).casefold().replace("_", " ").split())


def _line(name: str) -> str:
  """A name on one line: labels may hold line breaks, lists of clips may not."""
  return " ".join(plain_name(name).split())


def _row(key: Key, mapping: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
  """The row of the mapping that counts; an empty one if there is none."""
  return next((row for row in mapping if _fits(row, key)), dict.fromkeys(_COLUMNS, ""))


def _mapped(key: Key, body: str, mapping: Sequence[Mapping[str, str]]) -> tuple[str, str] | None:
  """Body part, if known, and action of a tier and label; None if it is left out."""
  row = _row(key, mapping)
  if row["action"] == _LEFT_OUT:
    return None
  return row["body"] or body, row["action"] or _line(key[1])


def _own_tree(mapped: Mapping[Key, tuple[str, str] | None]) -> dict[Key, tuple[str, str] | None]:
  """Body parts and actions as they are named, with names of actions that are unique."""
  bodies: dict[str, set[str]] = collections.defaultdict(set)
  for body, action in filter(None, mapped.values()):
    bodies[action].add(body or _NO_TIER)
  found: dict[Key, tuple[str, str] | None] = {}
  for key, meaning in mapped.items():
    if meaning is None:
      found[key] = None
      continue
    body, action = meaning[0] or _NO_TIER, meaning[1]
    if len(bodies[action]) > 1:
      found[key] = body, f"{action} ({body})"
    else:
      found[key] = body, f"{body} {action}" if action.isdecimal() else action
  return found


def _in_tree(
  mapped: Mapping[Key, tuple[str, str] | None],
  tree: LabelTree,
  counts: Mapping[Key, int],
  findings: list[Finding],
) -> dict[Key, tuple[str, str] | None]:
  exact = {name: index for index, name in enumerate(tree.actions)}
  similar: dict[str, list[int]] = collections.defaultdict(list)
  for index, name in enumerate(tree.actions):
    similar[_plain(name)].append(index)
  found: dict[Key, tuple[str, str] | None] = {}
  for (tier, label), meaning in mapped.items():
    found[tier, label] = None
    if meaning is None:
      continue
    candidates = [exact[meaning[1]]] if meaning[1] in exact else similar[_plain(meaning[1])]
    if len(candidates) == 1:
      action = tree.actions[candidates[0]]
      found[tier, label] = tree.body_of[action], action
      continue
    close = difflib.get_close_matches(meaning[1], tree.actions, 3, 0.6)
    hint = f"; close to {', '.join(map(repr, close))}" if close else ""
    detail = (
      f"{counts[tier, label]} codings; no action of the tree has this name{hint}. A row "
      f"'{tier},{label},,ACTION' of the --mapping names it, with the ACTION - it is left out"
    )
    coded = f"{tier} / {label}" if tier else label
    findings.append(Finding("label not in the tree", _line(coded), detail, is_error=True))
  return found


def _find_free_text(counts: Mapping[Key, int], findings: list[Finding]) -> None:
  of_tier: dict[str, list[int]] = collections.defaultdict(list)
  for (tier, _), count in counts.items():
    of_tier[tier].append(count)
  for tier, numbers in of_tier.items():
    if len(numbers) >= _FREE_TEXT and len(numbers) > sum(numbers) / 2:
      detail = (
        f"{len(numbers)} labels in {sum(numbers)} codings look like free text; a row "
        f"'{tier},,,-' of the --mapping leaves the tier out"
      )
      findings.append(Finding("tier of free text", tier, detail, is_error=False))

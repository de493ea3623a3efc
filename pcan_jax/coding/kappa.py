"""Cohen's kappa, plainly and with events that only one coder has.

Everything is computed from the margins of a table of categories, so that tables of videos can be
added up with weights. R is the number of weightings, K that of categories.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Margins:
  """What kappa needs to know of tables of categories, first coder in rows, second in columns.

  Attributes:
    agreed: sums of the diagonals.
    rows: sums of the rows.
    columns: sums of the columns.
  """

  agreed: Float[np.ndarray, " r"]
  rows: Float[np.ndarray, "r k"]
  columns: Float[np.ndarray, "r k"]

  @classmethod
  def of_labels(
    cls, first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"], k: int
  ) -> "Margins":
    """The margins of one table that counts pairs of categories, in 0..k-1."""
    return cls(
      np.array([(first == second).sum()], dtype=float),
      np.bincount(first, minlength=k)[None].astype(float),
      np.bincount(second, minlength=k)[None].astype(float),
    )

  @classmethod
  def of_tables(cls, tables: Float[np.ndarray, "r k k"]) -> "Margins":
    """The margins of tables."""
    return cls(np.trace(tables, axis1=1, axis2=2), tables.sum(2), tables.sum(1))

  @classmethod
  def stacked(cls, parts: Sequence["Margins"]) -> "Margins":
    """Those of several tables, one after the other."""
    return cls(
      np.concatenate([part.agreed for part in parts]),
      np.concatenate([part.rows for part in parts]),
      np.concatenate([part.columns for part in parts]),
    )

  @classmethod
  def summed(cls, parts: Sequence["Margins"]) -> "Margins":
    """Those of the sums of tables."""
    return cls(
      sum(part.agreed for part in parts),
      sum(part.rows for part in parts),
      sum(part.columns for part in parts),
    )

  def weighted(self, weights: Float[np.ndarray, "w r"]) -> "Margins":
    """The margins of weighted sums of the tables."""
    return Margins(weights @ self.agreed, weights @ self.rows, weights @ self.columns)


def cohen_kappa(margins: Margins) -> Float[np.ndarray, " r"]:
  """Agreement beyond what the margins give by chance.

  Returns:
    Per table: 1 for complete agreement, 0 for what chance gives, NaN for an empty table. Also 1 if
    both coders used a single category, the same one, for everything.

  References:
    Cohen, A coefficient of agreement for nominal scales, Educational and Psychological
    Measurement 1960.
  """
  total = margins.rows.sum(1)
  by_chance = (margins.rows * margins.columns).sum(1) / np.maximum(total, 1) ** 2
  return _beyond_chance(margins.agreed, by_chance * total, total)


def event_kappa(margins: Margins) -> Float[np.ndarray, " r"]:
  """Kappa of events, the last category being "no counterpart".

  Nobody can count the events that neither coder saw, so the last cell of the table is empty by
  construction. Chance agreement is that of a table with this zero, the same margins and otherwise
  independent coders; ELAN and EasyDIAg find it by iterative proportional fitting, but one zero in a
  corner has a closed form. Unlike there, values below 0 are not set to 0.

  Args:
    margins: of tables that count events: a pair twice, an event without a counterpart once.

  Returns:
    Per table; NaN for an empty table, and for one with a single label that is not in complete
    agreement: chance then explains everything.

  References:
    Holle and Rein, EasyDIAg: A tool for easy determination of interrater agreement, Behavior
    Research Methods 2015.
  """
  total = margins.rows.sum(1)
  rows, columns = margins.rows[:, :-1], margins.columns[:, :-1]
  matched = rows.sum(1) + columns.sum(1) - total
  by_chance = matched * (rows * columns).sum(1) / _nonzero(rows.sum(1) * columns.sum(1))
  used = (rows + columns > 0).sum(1)
  values = _beyond_chance(margins.agreed, by_chance, total)
  return np.where((used > 1) | (margins.agreed == total), values, np.nan)


def _nonzero(values: np.ndarray) -> np.ndarray:
  return np.where(values > 0, values, 1.0)


def _beyond_chance(
  agreed: Float[np.ndarray, " r"],
  by_chance: Float[np.ndarray, " r"],
  total: Float[np.ndarray, " r"],
) -> Float[np.ndarray, " r"]:
  complete = (agreed == total) & (total > 0)
  left = total - by_chance
  possible = (left > 1e-9 * np.maximum(total, 1)) & ~complete
  values = (agreed - by_chance) / np.where(possible, left, 1.0)
  return np.where(complete, 1.0, np.where(possible, values, np.nan))

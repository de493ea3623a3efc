"""Damaged files of every kind that is read."""

from collections.abc import Iterator

from tests.faults.trials import Ground, Trial
from tests.hostile_inputs import KINDS, SHARES, attack


def trials(ground: Ground, count: int) -> Iterator[Trial]:
  """So many mutations of all kinds together."""
  for kind in KINDS:
    seed = ground.random.randrange(2**31)
    try:
      outcomes = attack(kind, round(SHARES[kind] * count), seed, ground.new_folder())
    except AssertionError as error:
      yield Trial(f"a damaged {kind}", survived=False, ended=str(error))
      continue
    for outcome, number in sorted(outcomes.items()):
      ended = "an error that names it" if outcome == "error" else f"read as a {outcome}"
      yield from [Trial(f"a damaged {kind}", survived=True, ended=ended)] * number

"""Packages that only some commands need; `pip install 'pcan_jax[EXTRA]'` brings them along."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needed_by(what: str, extra: str) -> Iterator[None]:
  """Says how to install a package that cannot be imported within.

  Args:
    what: what needs it, as the message begins: "reports need".
    extra: that has it.

  Raises:
    ModuleNotFoundError: it is missing.
  """
  try:
    yield
  except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    if package == "pcan_jax":
      raise
    raise ModuleNotFoundError(
      f"{what} {package}: pip install 'pcan_jax[{extra}]', or '.[{extra}]' in a checkout",
      name=package,
    ) from error

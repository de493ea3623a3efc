"""An HTML page with tables and figures about an evaluated run, and files for a paper.

Raises:
  ModuleNotFoundError: a library of the extra `pcan_jax[report]` is not installed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from pcan_jax.report.write import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
  """Imports `write_report` when it is asked for: other pages use the style without JAX."""
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  try:
    from pcan_jax.report import write
  except ModuleNotFoundError as error:
    library = (error.name or "").partition(".")[0]
    if library == "pcan_jax":
      raise
    raise ModuleNotFoundError(
      f"reports need {library}: pip install 'pcan_jax[report]', or '.[report]' in a checkout",
      name=library,
    ) from error
  return write.write_report

"""An HTML page with tables and figures about an evaluated run, and files for a paper.

Raises:
  ModuleNotFoundError: a library of the extra `pcan_jax[report]` is not installed.
"""

from typing import TYPE_CHECKING, Any

from pcan_jax.extras import needed_by

if TYPE_CHECKING:
  from pcan_jax.report.write import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
  """Imports `write_report` when it is asked for: other pages use the style without JAX."""
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  with needed_by("reports need", "report"):
    from pcan_jax.report import write
  return write.write_report

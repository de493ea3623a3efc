"""An HTML page with tables and figures about an evaluated run, and files for a paper.

Raises:
  ModuleNotFoundError: a library of the extra `pcan_jax[report]` is not installed.
"""

try:
  from pcan_jax.report.write import write_report
except ModuleNotFoundError as error:
  library = (error.name or "").partition(".")[0]
  if library == "pcan_jax":
    raise
  raise ModuleNotFoundError(
    f"reports need {library}: pip install 'pcan_jax[report]', or '.[report]' in a checkout",
    name=library,
  ) from error

__all__ = ["write_report"]

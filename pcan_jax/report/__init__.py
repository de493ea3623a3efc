"""A page with tables and figures about an evaluated run, and files for a paper beside it."""

from pcan_jax.report.write import write_report

__all__ = ["write_report"]

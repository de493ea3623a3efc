"""The command `pcan` of a checkout that is not installed: `python launch.py --help`."""

from pcan_jax.cli import main

if __name__ == "__main__":
  main()

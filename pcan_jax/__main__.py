"""`python -m pcan_jax` is the command `pcan`."""

from pcan_jax.cli import main

if __name__ == "__main__":
  main()

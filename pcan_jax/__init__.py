"""Micro-action recognition with PCAN in JAX and Flax."""

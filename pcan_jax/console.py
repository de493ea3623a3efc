"""What every command does before it imports anything large."""

import logging
import os

import absl.logging


def quiet_libraries() -> None:
  """Keeps TensorFlow and TFDS, not yet imported, from writing to standard error for no reason."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its greeting comes at every level
  logging.getLogger("tensorflow").setLevel(logging.ERROR)
  absl.logging.set_verbosity(absl.logging.ERROR)

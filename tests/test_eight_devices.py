"""Tests on eight simulated devices, in a process that has them: more would slow all other tests."""

import os
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parent / "eight_devices"


def test_eight_devices():
  flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
  result = subprocess.run(
    [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", str(FOLDER)],
    env=os.environ | {"XLA_FLAGS": flags},
    cwd=FOLDER.parents[1],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stdout + result.stderr

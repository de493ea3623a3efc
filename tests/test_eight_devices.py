"""Tests on eight simulated devices, in a process that has them: more would slow all other tests."""

import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent / "eight_devices"


@pytest.mark.parametrize("marked", ["not long", pytest.param("long", marks=pytest.mark.long)])
def test_eight_devices(marked):
  flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
  result = subprocess.run(
    [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider"]
    + ["-m", marked, str(FOLDER)],
    env=os.environ | {"XLA_FLAGS": flags},
    cwd=FOLDER.parents[1],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stdout + result.stderr

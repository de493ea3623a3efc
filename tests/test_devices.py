"""What is said where an accelerator is missing."""

import subprocess
import sys

import pytest

from pcan_jax import devices


def test_a_cpu_alone_is_nothing_to_talk_about(monkeypatch):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  monkeypatch.setattr(devices, "_installed", dict)
  assert devices.start_jax() == ("cpu", "")


def test_a_platform_that_cannot_be_had_is_refused_in_a_line():
  ended = subprocess.run(
    [sys.executable, "-c", "from pcan_jax.devices import start_jax; start_jax()"],
    env={"JAX_PLATFORMS": "cuda"},
    capture_output=True,
    text=True,
    timeout=120,
  )
  last = ended.stderr.splitlines()[-1]
  assert last.startswith("ValueError: JAX_PLATFORMS=cuda cannot be had: ")
  assert last.endswith("Unset it to use the CPU")


@pytest.mark.parametrize(
  "package, words", [("jax-cuda13-plugin", "finds no GPU: nvidia-smi"), ("libtpu", "finds no TPU")]
)
def test_a_plugin_without_its_device_is_named(monkeypatch, package, words):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  monkeypatch.setattr(devices, "_installed", lambda: {package: devices._PLUGINS[package]})
  backend, missing = devices.start_jax()
  assert backend == "cpu"
  assert missing.startswith(f"{package} is installed")
  assert words in missing
  assert "Running on the CPU" in missing


def test_a_chosen_cpu_is_not_questioned(monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  monkeypatch.setattr(devices, "_installed", lambda: devices._PLUGINS)
  assert devices.start_jax() == ("cpu", "")

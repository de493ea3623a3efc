"""Settings for CPUs, and that launch.py starts again with them, once."""

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import subprocess
import sys

import pytest

from pcan_jax import cpu

ROOT = pathlib.Path(__file__).parents[1]
LINUX_X86 = platform.libc_ver()[0] == "glibc" and platform.machine() == "x86_64"
needs_linux_x86 = pytest.mark.skipif(not LINUX_X86, reason="the settings are for glibc and x86-64")


@needs_linux_x86
def test_settings_are_complete_after_one_round():
  found = cpu.settings({"XLA_FLAGS": "--xla_foo=1"})
  assert found["GLIBC_TUNABLES"] == cpu.GLIBC_TUNABLES
  assert found["XLA_FLAGS"].split() == ["--xla_foo=1", *cpu.XLA_FLAGS]
  assert cpu.settings(found) == {}


@needs_linux_x86
def test_what_is_set_already_stays():
  own = {"GLIBC_TUNABLES": "", "XLA_FLAGS": "--xla_cpu_use_onednn=false"}
  own["JAX_ENABLE_COMPILATION_CACHE"] = "true"
  wanted = " ".join(["--xla_cpu_use_onednn=false", *cpu.XLA_FLAGS[1:]])
  assert cpu.settings(own) == {"XLA_FLAGS": wanted}


@needs_linux_x86
@pytest.mark.parametrize("version, kept", [("0.10.2", True), ("0.11.0", False), ("1.0.0", False)])
def test_programs_are_kept_where_jax_can_write_them(monkeypatch, version, kept):
  monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
  assert ("JAX_ENABLE_COMPILATION_CACHE" not in cpu.settings({})) == kept
  own = {"JAX_ENABLE_COMPILATION_CACHE": "true"}
  assert "JAX_ENABLE_COMPILATION_CACHE" not in cpu.settings(own)


def test_other_systems_are_left_alone(monkeypatch):
  monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
  monkeypatch.setattr(platform, "machine", lambda: "arm64")
  assert cpu.settings({}) == {}


@needs_linux_x86
def test_a_shell_can_take_them():
  command = f'eval "$({sys.executable} -m pcan_jax.cpu)"; echo "$GLIBC_TUNABLES|$XLA_FLAGS"'
  environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
  output = subprocess.run(
    ["bash", "-c", command], env=environment, capture_output=True, text=True, check=True
  )
  assert output.stdout.strip() == f"{cpu.GLIBC_TUNABLES}|{' '.join(cpu.XLA_FLAGS)}"


@needs_linux_x86
def test_launch_starts_again_with_them_once(tmp_path):
  """Seen from a config file, which every start reads."""
  (tmp_path / "config.py").write_text(
    "import os\n"
    "from ml_collections import ConfigDict\n"
    "def get_config():\n"
    f"  with open({str(tmp_path / 'starts')!r}, 'a') as file:\n"
    "    print(os.environ.get('GLIBC_TUNABLES'), os.environ.get('XLA_FLAGS'), file=file)\n"
    "  return ConfigDict()\n"
  )
  environment = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", "XLA_FLAGS")}
  result = subprocess.run(
    [sys.executable, "launch.py", f"--config={tmp_path / 'config.py'}"],
    env=environment,
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert "needs --workdir" in result.stdout + result.stderr
  assert (tmp_path / "starts").read_text().splitlines() == [
    "None None",
    f"{cpu.GLIBC_TUNABLES} {' '.join(cpu.XLA_FLAGS)}",
  ]


@pytest.mark.parametrize(
  ("platforms", "packages", "expected"),
  [("cpu", {"libtpu"}, True), ("cuda,cpu", (), False), ("", (), True), ("", {"libtpu"}, False)],
)
def test_whether_there_can_be_an_accelerator(monkeypatch, platforms, packages, expected):
  monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in packages or None)
  assert cpu.is_certain({"JAX_PLATFORMS": platforms}) is expected

"""The wheel, installed where nothing of the checkout is in reach, does what the checkout does."""

import json
import pathlib
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest
import setuptools

from tests.test_launch import TOY, environment

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = (
  "pcan_jax",
  "data",
  "configs",
  "pyproject.toml",
  "requirements.txt",
  "README.md",
  "LICENSE",
)
needs_setuptools = pytest.mark.skipif(
  int(setuptools.__version__.split(".")[0]) < 77,
  reason="building needs the setuptools of pcan_jax[test]",
)


def check(*command, cwd):
  variables = environment()
  variables.pop("PYTHONPATH", None)
  result = subprocess.run(
    list(map(str, command)), cwd=cwd, env=variables, capture_output=True, text=True, timeout=300
  )
  assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
  return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """Built of a copy, because building leaves folders behind."""
  folder = tmp_path_factory.mktemp("wheel")
  for name in SOURCES:
    copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
    copy(ROOT / name, folder / name)
  pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
  check(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir=.", ".", cwd=folder)
  (path,) = folder.glob("*.whl")
  return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
  """The `bin` of a fresh environment that has the wheel, and sees the packages of this one."""
  folder = tmp_path_factory.mktemp("environment")
  venv.create(folder, with_pip=False, symlinks=True)
  python = folder / "bin/python"
  pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", f"--python={python}"]
  check(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
  packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
  (site,) = folder.glob("lib/python*/site-packages")
  (site / "test_environment.pth").write_text("\n".join(packages))
  return folder / "bin"


@needs_setuptools
def test_the_wheel_holds_one_package_and_all_of_it(wheel):
  with zipfile.ZipFile(wheel) as file:
    names = {name for name in file.namelist() if ".dist-info/" not in name}
  sources = {
    str(pathlib.Path(inside, path.relative_to(ROOT / folder)))
    for folder, inside in {
      "pcan_jax": "pcan_jax",
      "data": "pcan_jax/data",
      "configs": "pcan_jax/configs",
    }.items()
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.suffix != ".pyc"
  }
  assert names == sources


@needs_setuptools
def test_it_trains_evaluates_and_predicts_from_an_empty_folder(installed, tmp_path):
  pcan = installed / "pcan"
  code = "import pcan_jax, sys; print(*sys.path, pcan_jax.__file__, sep='\\n')"
  *folders, package = check(installed / "python", "-c", code, cwd=tmp_path).splitlines()
  assert package.startswith(str(installed.parent))
  assert not any(pathlib.Path(tmp_path, folder, "launch.py").exists() for folder in folders)

  check(pcan, "synthetic", "--out=source", "--train=16", "--val=4", "--height=64", cwd=tmp_path)
  built = check(pcan, "build", "source", "dataset", "--side=48", "--jobs=1", cwd=tmp_path)
  toy = [*TOY, "--config.data.path=dataset"]
  table = check(pcan, "--config=demo:pcan_pose", "--workdir=run", *toy, cwd=tmp_path)
  assert "F1 mean" in table
  metrics = (tmp_path / "run/eval/val/metrics.json").read_text()
  evaluate = ["--mode=eval", "--workdir=again", "--checkpoint=run", f"--data={built.strip()}"]
  check(pcan, *evaluate, cwd=tmp_path)
  assert json.loads((tmp_path / "again/eval/val/metrics.json").read_text()) == json.loads(metrics)
  videos = ["--video=source/raw_videos/val", "--pose=source/pose/MA52_val.pkl", "--out=found"]
  check(pcan, "--mode=predict", "--checkpoint=run", *videos, cwd=tmp_path)
  assert (tmp_path / "found/predictions.csv").read_text().count("\n") == 5

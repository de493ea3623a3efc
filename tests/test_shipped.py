"""Configs and label trees are found by name, from wherever a command is run."""

import pytest

from pcan_jax.config import load_config
from pcan_jax.labels import LabelTree, get_tree
from pcan_jax.shipped import ROOT


def test_names_and_paths_mean_the_same(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert load_config("ma52:pcan_rgb") == load_config(f"{ROOT / 'configs/ma52.py'}:pcan_rgb")
  assert load_config("ma52") == load_config("ma52:pcan") != load_config("demo")
  assert get_tree("ma52") == LabelTree.read_csv(ROOT / "data/trees/ma52.csv")


def test_a_file_of_ones_own_may_build_on_a_shipped_one(tmp_path):
  (tmp_path / "mine.py").write_text(
    "from pcan_jax.config import load_config\n"
    "def get_config():\n"
    "  config = load_config('demo')\n"
    "  config.seed = 7\n"
    "  return config\n"
  )
  config = load_config(str(tmp_path / "mine.py"))
  assert config.seed == 7
  config.seed = 0
  assert config == load_config("demo")


def test_unknown_names_are_answered_with_those_there_are():
  with pytest.raises(FileNotFoundError, match="no config called 'ma51': choose from .*ma52"):
    load_config("ma51")
  with pytest.raises(FileNotFoundError, match="no .* called 'ma51': choose from ma52"):
    get_tree("ma51")
  with pytest.raises(ValueError, match="no variant 'pcan_depth'"):
    load_config("demo:pcan_depth")

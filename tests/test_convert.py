import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from pcan_jax.checkpoints import load_model
from pcan_jax.config import load_config
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree, get_tree
from pcan_jax.spec import ModelSpec
from pcan_jax.torch.convert import convert
from pcan_jax.torch.weights import to_state_dict
from tests import parity_forward
from tests.tiny_config import shrink
from tests.torch_files import save_state_dict

ROOT = pathlib.Path(__file__).parents[1]
TREE = get_tree("ma52")


@pytest.fixture
def spec():
  config = shrink(load_config("ma52:pcan_pose"))
  return ModelSpec(config, TREE, get_layout("openpose-28"), stored_size=32)


@pytest.fixture
def weights(spec):
  """A state dict for the network of `spec`."""
  state_dict = to_state_dict(parity_forward.zeros(jax.eval_shape(spec.init)))
  return {name: parity_forward.draw_tensor(name, x.shape) for name, x in state_dict.items()}


def test_converted_checkpoint_loads(tmp_path, spec, weights):
  source = save_state_dict(tmp_path / "weights.pth", weights)
  assert convert(source, tmp_path / "run", spec).notes == ()
  loaded, variables, step = load_model(tmp_path / "run")
  assert step == 0
  assert loaded.tree == TREE
  found = to_state_dict(variables)
  assert set(found) == set(weights)
  for name, tensor in weights.items():
    np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_errors_name_file_and_directory(tmp_path, spec, weights):
  stranger = weights | {"cls_head.other": np.zeros(1, np.float32)}
  source = save_state_dict(tmp_path / "weights.pth", stranger)
  with pytest.raises(ValueError, match=r"weights.pth: the weights .*\n.*unused: cls_head.other"):
    convert(source, tmp_path / "run", spec)
  (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
  with pytest.raises(ValueError, match="run/checkpoints holds checkpoints already"):
    convert(source, tmp_path / "run", spec)


def command(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "pcan_jax", "convert", *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
    timeout=300,
  )


def test_command_says_what_it_left_out(tmp_path, spec, weights):
  slowonly = {
    name.replace("pose_path.", "").replace("fc_pose", "fc_cls"): x
    for name, x in weights.items()
    if not name.startswith("cls_head.fr_") and "coarse" not in name
  }
  slowonly["cls_head.fc_cls.weight"] = np.zeros((60, 32), np.float32)
  slowonly["cls_head.fc_cls.bias"] = np.zeros(60, np.float32)
  source = save_state_dict(tmp_path / "slowonly.pth", slowonly)
  tree = LabelTree(("nod", "wave", "point"), ("head", "arm"), (0, 1, 1))
  tree.write_csv(tmp_path / "tree.csv")
  result = command(
    "--config=configs/ma52.py:pcan_pose",
    "--config.model.pose.stem_features=8",
    "--config.model.pose.blocks=(1,1,1)",
    "--config.model.pose.widths=(8,8,8)",
    "--config.input.test_size=32",
    f"--source={source}",
    f"--workdir={tmp_path / 'run'}",
    f"--tree={tmp_path / 'tree.csv'}",
    "--layout=coco-17",
    "--stored_size=48",
    "--reinit_stem",
  )
  assert result.returncode == 0, result.stderr
  assert "action classifier of pose: 60 classes in the file, 3 here" in result.stdout
  assert "pose stem: 28 keypoints in the file, 17 here" in result.stdout
  assert f"parameters to {tmp_path / 'run'}/checkpoints/0" in result.stdout
  converted, _, step = load_model(tmp_path / "run")
  assert (converted.tree, converted.layout.name, step) == (tree, "coco-17", 0)
  assert converted.stored_size == 48

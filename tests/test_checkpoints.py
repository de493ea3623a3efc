import logging
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax.checkpoints import Checkpoints, locate, workdir_of
from pcan_jax.config import load_config
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.spec import ModelSpec

SPEC = ModelSpec(
  load_config("ma52:posec3d_rgb"),
  LabelTree(("nod", "wave"), ("head", "arm"), (0, 1)),
  get_layout("openpose-28"),
  stored_size=48,
)
MODEL = {"params": {"a": jnp.arange(6.0).reshape(2, 3)}, "prototypes": {}}
TRAINING = {"step": jnp.array(3), "opt_state": (jnp.ones(2), {"trace": jnp.zeros(3)})}


def shapes(tree):
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


@pytest.fixture
def saved(tmp_path):
  with Checkpoints(tmp_path / "checkpoints") as checkpoints:
    for step in (3, 5):
      checkpoints.save(step, MODEL, TRAINING, SPEC)
  return tmp_path


def test_round_trip(saved):
  assert locate(saved)[1] == 5
  for name in ("", "checkpoints", "checkpoints/3"):
    assert workdir_of(saved / name) == saved
  with Checkpoints(saved / "checkpoints") as checkpoints:
    restored = checkpoints.restore(3, model=shapes(MODEL), training=shapes(TRAINING))
    spec = checkpoints.read_spec(3)
  jax.tree.map(np.testing.assert_array_equal, restored, {"model": MODEL, "training": TRAINING})
  assert spec.tree == SPEC.tree
  assert spec.layout == SPEC.layout
  assert spec.stored_size == 48
  assert spec.config.model.dropout == 0.5
  assert tuple(spec.config.model.streams) == ("rgb",)


def test_only_the_newest_are_kept(tmp_path):
  with Checkpoints(tmp_path, max_to_keep=1) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, MODEL, TRAINING, SPEC)
  assert locate(tmp_path) == (tmp_path, 2)
  assert not (tmp_path / "1").exists()


def test_locate_accepts_workdir_directory_and_step(saved):
  directory = saved / "checkpoints"
  assert locate(saved) == (directory, 5)
  assert locate(directory) == (directory, 5)
  assert locate(directory / "3") == (directory, 3)


@pytest.mark.parametrize("name", [".", "nowhere", "7"])
def test_no_checkpoint_is_said(tmp_path, name):
  with pytest.raises(FileNotFoundError, match="no checkpoint at"):
    locate(tmp_path / name)


def test_another_model_is_named(saved):
  other = {"params": {"a": jnp.zeros((2, 4)), "b": jnp.zeros(1)}, "prototypes": {}}
  with (
    Checkpoints(saved / "checkpoints") as checkpoints,
    pytest.raises(ValueError, match="holds another model") as error,
  ):
    checkpoints.restore(5, model=shapes(other))
  assert "params/a: checkpoint (2, 3), model (2, 4)" in str(error.value)
  assert "params/b: checkpoint lacks it" in str(error.value)


def test_what_threads_say_of_a_failed_save_is_left_out(tmp_path, monkeypatch, caplog):
  """The save itself says it; and all else is said as ever."""
  heard = []
  monkeypatch.setattr(sys, "unraisablehook", heard.append)
  before = sys.unraisablehook
  closed, other = (
    types.SimpleNamespace(exc_value=RuntimeError(words))
    for words in ("Event loop is closed", "another")
  )
  failure = {"exc_info": ValueError("RESOURCE_EXHAUSTED")}
  asyncio = logging.getLogger("asyncio")
  with Checkpoints(tmp_path):
    sys.unraisablehook(closed)
    sys.unraisablehook(other)
    asyncio.error("Task exception was never retrieved", **failure)
    asyncio.error("plain")
  assert heard == [other] and sys.unraisablehook == before
  asyncio.error("later", **failure)
  assert caplog.messages == ["plain", "later"]

"""Damage to checkpoints is found, named, and passed over alike by training and evaluation."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from pcan_jax import digests, saved_steps
from pcan_jax.checkpoints import Checkpoints, locate
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.saved_steps import SavedStep
from pcan_jax.spec import ModelSpec
from pcan_jax.training import resume

EARLIER = pathlib.Path(__file__).parent / "earlier" / "run"
SPEC = ModelSpec(
  ConfigDict(
    {"model": {"streams": ("rgb",)}, "augmentation": {"flip": 0.5}, "eval": {"flip": False}}
  ),
  LabelTree(("nod", "wave"), ("head", "arm"), (0, 1)),
  get_layout("openpose-28"),
  stored_size=48,
)
MODEL = {"params": {"a": jnp.arange(600.0).reshape(20, 30)}, "prototypes": {}}
TRAINING = {"step": jnp.array(3), "opt_state": ({"trace": jnp.linspace(0, 1, 300)},)}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
  directory = tmp_path_factory.mktemp("run") / "checkpoints"
  with Checkpoints(directory) as checkpoints:
    for step in (40, 60):
      checkpoints.save(step, MODEL, TRAINING, SPEC, f1_mean=1 / step)
  return directory


@pytest.fixture
def directory(original, tmp_path):
  return shutil.copytree(original, tmp_path / "run" / "checkpoints")


def files_of(directory, step):
  return sorted(
    path
    for item in digests.DIGESTED
    for path in (directory / str(step) / item).rglob("*")
    if path.is_file() and path.name != "commit_success.txt"
  )


def assert_passed_over(directory, step=60, good=40):
  """Evaluation names the last good one and stops; training starts from it."""
  with pytest.raises(ValueError, match=rf"{step} is damaged: .*last good one is \S+/{good};"):
    locate(directory.parent)
  start, problems = resume.find_start(directory)
  assert start == SavedStep(directory, good) and [saved.step for saved in problems] == [step]
  resume.clear_the_way(directory, problems)
  assert locate(directory.parent) == (directory, good)
  assert (directory / f"{step}.damaged").is_dir()


def test_a_flipped_bit_in_any_file_is_found(directory):
  """Every file, at random places: 31 of 85 such checkpoints were once restored without a word."""
  rng = np.random.default_rng(0)
  saved = SavedStep(directory, 60)
  files = files_of(directory, 60)
  assert len(files) > 8
  for path in [*files, directory / "60" / "digests" / "sha256.json"]:
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(damaged))
    assert saved.find_problem() or path.name == "sha256.json", path
    path.write_bytes(content)
  assert saved.find_problem() is None


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_incomplete_files_are_found(directory, damage):
  for path in files_of(directory, 60):
    content = path.read_bytes()
    if damage == "gone":
      path.unlink()
    else:
      path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    problem = SavedStep(directory, 60).find_problem()
    assert problem, path
    path.write_bytes(content)


@pytest.mark.parametrize("item", [*digests.DIGESTED, digests.ITEM])
def test_a_missing_item_is_passed_over(directory, item):
  shutil.rmtree(directory / "60" / item)
  assert_passed_over(directory)


def test_an_empty_folder_is_passed_over(directory):
  (directory / "61").mkdir()
  assert_passed_over(directory, step=61, good=60)


def test_broken_json_is_passed_over(directory):
  (directory / "60" / "description" / "metadata").write_text('{"config": {')
  assert_passed_over(directory)


def test_damage_to_orbax_own_notes_changes_nothing(directory):
  """They hold times and class names; no number comes from there."""
  (directory / "60" / "_CHECKPOINT_METADATA").write_text("{")
  assert locate(directory) == (directory, 60)
  with Checkpoints(directory, max_to_keep=2) as checkpoints:
    checkpoints.save(80, MODEL, TRAINING, SPEC)
  assert locate(directory) == (directory, 80)


def test_what_is_no_checkpoint_is_left_alone(directory):
  for name in (
    "60.bak",
    "60 (copy)",
    "061",
    "61.orbax-checkpoint-tmp",
    "61.orbax-checkpoint-tmp-7",
  ):
    shutil.copytree(directory / "60", directory / name)
  (directory / "70").write_text("a file")
  assert locate(directory.parent) == (directory, 60)
  start, problems = resume.find_start(directory)
  assert start.step == 60 and problems == {}
  resume.clear_the_way(directory, problems)  # removes what an interrupted save has left
  assert saved_steps.find_others(directory) == ["061", "60 (copy)", "60.bak", "70"]
  with Checkpoints(directory, max_to_keep=1) as checkpoints:
    checkpoints.save(61, MODEL, TRAINING, SPEC)
  assert locate(directory) == (directory, 61)


def test_a_folder_of_damaged_checkpoints_does_not_start_anew(directory):
  for step in (40, 60):
    shutil.rmtree(directory / str(step) / "model")
  with pytest.raises(ValueError, match="no checkpoint in .* is good .*60: without model"):
    resume.find_start(directory)
  with pytest.raises(ValueError, match="There is no good one beside it"):
    locate(directory)


def test_a_step_named_by_its_path_is_examined_too(directory):
  assert locate(directory / "40") == (directory, 40)
  shutil.rmtree(directory / "40" / "training")
  with pytest.raises(ValueError, match=r"40 is damaged: without training.*last good one is \S+/60"):
    locate(directory / "40")


def test_the_digest_is_of_the_content_alone(directory, original):
  saved = SavedStep(directory, 60)
  assert saved.digest == SavedStep(original, 60).digest != SavedStep(original, 40).digest
  (directory / "60" / "notes.txt").write_text("mine")
  assert saved.digest == SavedStep(original, 60).digest and saved.find_problem() is None


@pytest.fixture
def earlier(tmp_path):
  shutil.copytree(EARLIER, tmp_path / "run")
  directory = tmp_path / "run" / "checkpoints"
  shutil.copytree(directory / "4", directory / "8")
  return directory


@pytest.mark.slow
def test_a_checkpoint_without_digests_is_read_to_find_damage(earlier):
  assert locate(earlier.parent) == (earlier, 8)
  chunks = (path for path in (earlier / "8" / "model").rglob("d/*"))
  largest = max(chunks, key=lambda path: path.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:1000])
  assert 'model cannot be read (OUT_OF_RANGE: Error reading "params.' in (
    SavedStep(earlier, 8).find_problem()
  )
  assert_passed_over(earlier, step=8, good=4)


@pytest.mark.slow
def test_a_checkpoint_of_nan_from_an_earlier_version_is_passed_over(earlier):
  saved = SavedStep(earlier, 8)
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved.shapes("model")
  )
  model = jax.tree.map(lambda x: x * jnp.nan, saved.restore("model", shapes))
  import orbax.checkpoint as ocp

  shutil.rmtree(saved.path / "model")
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(saved.path / "model", model)
  assert_passed_over(earlier, step=8, good=4)


def test_the_best_checkpoint_is_kept_beside_the_last_ones(tmp_path):
  with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:
    for step, f1_mean in ((1, 0.2), (2, 0.7), (3, None), (4, 0.5)):
      checkpoints.save(step, MODEL, TRAINING, SPEC, f1_mean=f1_mean)
  with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:  # the run goes on
    for step, f1_mean in ((5, 0.6), (6, 0.1)):
      checkpoints.save(step, MODEL, TRAINING, SPEC, f1_mean=f1_mean)
  assert [saved.step for saved in saved_steps.find_steps(tmp_path)] == [6, 5, 2]
  assert locate(tmp_path / "best") == (tmp_path, 2)
  assert locate(tmp_path) == (tmp_path, 6)
  shutil.rmtree(tmp_path / "2" / "model")
  with pytest.raises(ValueError, match="2 is damaged"):
    locate(tmp_path / "best")


def test_without_evaluation_there_is_no_best(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, MODEL, TRAINING, SPEC)
  with pytest.raises(FileNotFoundError, match="none that training evaluated"):
    locate(tmp_path / "best")


def test_a_checkpoint_says_what_it_was_made_with(directory):
  made_with = json.loads((directory / "60" / "description" / "metadata").read_text())["made_with"]
  assert made_with["packages"]["jax"] == jax.__version__
  assert made_with["devices"].endswith(jax.devices()[0].device_kind) and made_with["hosts"] == 1

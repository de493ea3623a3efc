"""A run goes on only as the run that it was."""

import dataclasses
import json
import pathlib

import pytest

from configs import ma52
from pcan_jax.checkpoints import locate
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.saved_steps import SavedStep
from pcan_jax.spec import ModelSpec
from pcan_jax.training import loop, resume
from tests.tiny_config import shrink
from tests.tiny_source import TREE, write_tiny_source


@pytest.fixture(scope="module")
def spec(tiny_dataset):
  config = shrink(ma52.get_config())
  config.data.path = str(tiny_dataset.path)
  return ModelSpec(config, tiny_dataset.tree, tiny_dataset.layout, tiny_dataset.stored_size)


@pytest.fixture(scope="module")
def description(spec, tiny_dataset):
  run = {"dataset": {"path": "somewhere", "fingerprint": tiny_dataset.fingerprint}}
  return json.loads(json.dumps(spec.to_json() | {"run": run}))


def changes(description, spec, dataset, **fields):
  config = spec.config.copy_and_resolve_references()
  config.update_from_flattened_dict(fields)
  spec = dataclasses.replace(spec, config=config)
  return [change.name for change in resume.find_changes(description, spec, dataset)]


def test_the_same_run_has_no_changes(description, spec, tiny_dataset):
  assert changes(description, spec, tiny_dataset) == []


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("optimizer.batch_size", 24),
    ("optimizer.learning_rate", 0.1),
    ("optimizer.decay_epochs", (1.0, 2.0)),
    ("seed", 1),
    ("loss.pda_weight", 0.0),
    ("model.fusion", "late"),
    ("augmentation.flip", 0.0),
    ("data.sampling", "repeat"),
    ("data.train_split", "val"),
    ("init_from.checkpoint", "elsewhere"),
  ],
)
def test_what_decides_on_weights_must_not_change(description, spec, tiny_dataset, field, value):
  assert changes(description, spec, tiny_dataset, **{field: value}) == [field]


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("log_every", 7),
    ("data.path", "moved"),
    ("data.instructions", "others"),
    ("data.eval_split", "test"),
    ("eval.num_clips", 3),
    ("eval.every_epochs", 0.0),
    ("checkpoints.every_minutes", 1.0),
    ("checkpoints.keep", 9),
    ("model.remat", "blocks"),
    ("optimizer.epochs", 40.0),  # the step schedule does not depend on it
  ],
)
def test_what_decides_on_none_may_change(description, spec, tiny_dataset, field, value):
  assert changes(description, spec, tiny_dataset, **{field: value}) == []


def test_a_cosine_schedule_depends_on_its_length(description, spec, tiny_dataset):
  cosine = json.loads(json.dumps(description))
  cosine["config"]["optimizer"]["schedule"] = "cosine"
  found = changes(
    cosine, spec, tiny_dataset, **{"optimizer.schedule": "cosine", "optimizer.epochs": 40.0}
  )
  assert found == ["optimizer.epochs"]


def test_labels_keypoints_size_and_data_must_not_change(description, spec, tiny_dataset):
  def found(**fields):
    return resume.find_changes(description, dataclasses.replace(spec, **fields), tiny_dataset)

  actions = (TREE.actions[1], TREE.actions[0], *TREE.actions[2:])
  (change,) = found(tree=LabelTree(actions, TREE.bodies, TREE.parents))
  assert change == ("labels", "'nod' (action 0)", "'shake'")
  assert [c.name for c in found(layout=get_layout("coco-17"))] == ["keypoints"]
  assert found(stored_size=99) == [("stored_size", 48, 99)]
  other = json.loads(json.dumps(description))
  other["run"]["dataset"]["fingerprint"] = "0" * 32
  assert changes(other, spec, tiny_dataset) == ["data"]


def test_a_field_that_an_earlier_version_lacked_had_its_default(description, spec, tiny_dataset):
  earlier = json.loads(json.dumps(description))
  del earlier["config"]["input"]["heatmaps"], earlier["run"]
  assert changes(earlier, spec, tiny_dataset) == []
  assert changes(earlier, spec, tiny_dataset, **{"input.heatmaps": "limbs"}) == ["input.heatmaps"]


def test_a_run_of_an_earlier_version_goes_on():
  earlier = pathlib.Path(__file__).parent / "earlier"
  saved, dataset = SavedStep(*locate(earlier / "run")), open_dataset(earlier / "dataset")
  config = shrink(ma52.get_config())
  config.optimizer.epochs, config.data.path = 4.0, str(earlier / "dataset")
  spec = ModelSpec(config, dataset.tree, dataset.layout, dataset.stored_size)
  assert resume.require_same_run(saved, spec, dataset, allowed=[]) == []


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
  """The same clips twice; the second data set has two labels in another order."""
  from data.build import build

  directory = tmp_path_factory.mktemp("relabelled")
  source = write_tiny_source(directory / "source", {"train": 8, "val": 2})
  build(source, directory / "a", side=32, jobs=1)
  actions = (TREE.actions[1], TREE.actions[0], *TREE.actions[2:])
  LabelTree(actions, TREE.bodies, TREE.parents).write_csv(source / "annotations" / "actions.csv")
  build(source, directory / "b", side=32, jobs=1)
  return directory / "a", directory / "b"


@pytest.mark.slow
def test_a_run_refuses_other_labels_and_records_what_is_allowed(datasets, tmp_path, monkeypatch):
  """The weights of one label were once stored under the name of another."""
  config = shrink(ma52.get_config("posec3d_pose"))
  config.optimizer.epochs, config.eval.every_epochs = 1.0, 0.0
  config.data.path = datasets[0].name  # relative
  with monkeypatch.context() as patch:
    patch.chdir(datasets[0].parent)
    loop.train(config, tmp_path)
  assert SavedStep(*locate(tmp_path)).spec.config.data.path == str(datasets[0])
  before = (tmp_path / "config.json").read_text()

  longer = config.copy_and_resolve_references()
  longer.data.path, longer.optimizer.epochs, longer.seed = str(datasets[1]), 2.0, 5
  with pytest.raises(ValueError, match="other settings") as error:
    loop.train(longer, tmp_path)
  for part in ("labels: was 'nod'", "seed: was 0, now 5", "fingerprint"):
    assert part in str(error.value)
  assert "--allow_changes=seed,labels,data" in str(error.value)
  assert (tmp_path / "config.json").read_text() == before

  loop.train(longer, tmp_path, allow_changes=["seed", "labels", "data"])
  saved = SavedStep(*locate(tmp_path))
  assert saved.step == 2 and saved.spec.tree.actions[0] == "shake"
  run = saved.description["run"]
  assert run["dataset"]["fingerprint"] == open_dataset(datasets[1]).fingerprint
  assert {"step": 1, "name": "seed", "was": 0, "now": 5} in run["allowed_changes"]
  assert (tmp_path / "config-until-step-1.json").read_text() == before

  shorter = longer.copy_and_resolve_references()
  shorter.optimizer.epochs = 1.0
  with pytest.raises(ValueError, match="is at step 2, and optimizer.epochs=1 ends at 1"):
    loop.train(shorter, tmp_path)

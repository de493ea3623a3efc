"""A model is shared on a hub, and fetched from it."""

import hashlib
import shutil

import huggingface_hub.constants
import pytest
import yaml

from pcan_jax.evaluation.protocol import evaluate_checkpoint
from pcan_jax.hub.__main__ import main
from pcan_jax.prediction import pretrained
from pcan_jax.prediction.recognizer import Recognizer
from pcan_jax.saved_steps import SavedStep
from tests.local_hub import TOKEN, LocalHub, serve
from tests.test_yardstick import dataset  # noqa: F401, a fixture
from tests.tiny_checkpoint import write_tiny_checkpoint

NAME = "somebody/small-model"


@pytest.fixture(scope="module")
def workdir(dataset, tmp_path_factory):  # noqa: F811
  workdir = write_tiny_checkpoint(tmp_path_factory.mktemp("run"), dataset, "pcan_pose")
  evaluate_checkpoint(workdir, workdir)
  return workdir


@pytest.fixture
def hub(monkeypatch, tmp_path):
  monkeypatch.setenv("HF_TOKEN", TOKEN)
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
  with serve(LocalHub({}, kind="models")) as hub:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield hub


def test_what_is_pushed_is_what_is_loaded(hub, workdir, capsys):
  main(["push", str(workdir), NAME, "--license", "cc-by-nc-4.0"])
  assert capsys.readouterr().out.strip() == f"{hub.endpoint}/{NAME}"
  main(["push", str(workdir), NAME])  # again: another commit of the same model
  files = hub.repos[NAME]
  assert "README.md" in files and any(name.startswith("checkpoints/0/model/") for name in files)
  files |= {"model.py": b"raise SystemExit", "checkpoints/0/model/../../../evil": b"x"}
  shared = Recognizer.from_pretrained(NAME)
  ours = Recognizer.load(workdir)
  assert shared.spec.to_json() == ours.spec.to_json()
  found = pretrained.find_pretrained(NAME)
  assert SavedStep(found / "checkpoints", 0).digest == SavedStep(workdir / "checkpoints", 0).digest
  asked = {path for path, _ in hub.requests}
  assert asked and all(path.startswith("checkpoints/0/") and ".." not in path for path in asked)


def test_the_card_says_what_it_is(workdir, capsys, dataset):  # noqa: F811
  main(["push", str(workdir), NAME, "--dry_run"])
  card = capsys.readouterr().out
  header = yaml.safe_load(card.split("---\n")[1])
  assert header["library_name"] == "pcan_jax" and "license" not in header
  (model,) = header["model-index"]
  assert {m["name"] for m in model["results"][0]["metrics"]} == {
    "action top-1", "body top-1", "F1 mean",
  }  # fmt: skip
  for text in (
    f'from_pretrained("{NAME}")', "Training: 27 clips of 3 people", "Evaluation: 9 clips of 1",
    "Videos are not part of it", "**hand**: b, c", "95 % bootstrap intervals", "@inproceedings",
    "README.md",
  ):  # fmt: skip
    assert text in card
  assert str(workdir) not in card and "p3" not in card  # neither folders nor people


def test_a_path_is_loaded_as_it_is_and_a_wrong_name_is_said(hub, workdir):
  assert pretrained.find_pretrained(workdir) == workdir
  with pytest.raises(FileNotFoundError, match="no model on the hub has such a name"):
    Recognizer.from_pretrained("runs/no/where")
  with pytest.raises(FileNotFoundError, match="no model at .*nobody/nothing"):
    Recognizer.from_pretrained("nobody/nothing")


def test_what_is_not_as_listed_is_refused(hub, workdir, tmp_path):
  main(["push", str(workdir), NAME])
  path = next(name for name in hub.repos[NAME] if name.endswith("manifest.ocdbt"))
  hub.wrong_digests.add(path)
  with pytest.raises(ValueError, match="is not what the hub lists; it was deleted"):
    Recognizer.from_pretrained(NAME)
  hub.wrong_digests.clear()
  hub.repos[NAME] |= {"checkpoints/7/description/metadata": b"{}"}
  with pytest.raises(FileNotFoundError, match="checkpoints of 2 steps"):
    Recognizer.from_pretrained(NAME)


def test_a_damaged_checkpoint_is_not_pushed(workdir, tmp_path, capsys):
  shutil.copytree(workdir, tmp_path / "run")
  file = next((tmp_path / "run" / "checkpoints" / "0" / "model" / "d").iterdir())
  file.write_bytes(file.read_bytes()[:-1] + b"!")
  with pytest.raises(SystemExit, match="is damaged"):
    main(["push", str(tmp_path / "run"), NAME, "--dry_run"])
  with pytest.raises(SystemExit):
    main(["push", str(workdir), "no name"])
  assert "is not the name of a model" in capsys.readouterr().err


def test_git_and_sha256_digests_are_compared(tmp_path):
  path = tmp_path / "file"
  path.write_bytes(b"content")
  # What `git hash-object` says.
  assert pretrained._is_listed(path, None, "6b584e8ece562ebffc15d38808cd6b98fc3d97ea")
  assert not pretrained._is_listed(path, None, "0" * 40)
  assert pretrained._is_listed(path, hashlib.sha256(b"content").hexdigest(), None)
  assert not pretrained._is_listed(path, hashlib.sha256(b"other").hexdigest(), None)

"""Uploads a checkpoint with its card."""

import pathlib
import shutil
import tempfile

from pcan_jax.checkpoints import locate
from pcan_jax.hub.card import SharedRun, model_card
from pcan_jax.prediction.pretrained import explained
from pcan_jax.saved_steps import SavedStep


def write_shared(run: pathlib.Path, name: str, folder: pathlib.Path, license_id: str | None) -> str:
  """Writes what is shared to a folder: the checkpoint and the card.

  Args:
    run: a working directory (its latest checkpoint), DIR/best, or DIR/checkpoints/STEP.
    name: of the model, user/model.
    folder: to write to; must not have a folder `checkpoints`.
    license_id: as for `model_card`.

  Returns:
    The card.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it is damaged, or predicts nothing.
  """
  saved = SavedStep(*locate(run))
  if saved.spec.pretrains:
    raise ValueError(
      f"{run} holds masked pretraining, which predicts nothing; share a model that started from it"
    )
  card = model_card(SharedRun.read(saved, run), name, license_id)
  shutil.copytree(saved.path, folder / "checkpoints" / str(saved.step))
  (folder / "README.md").write_text(card, encoding="utf-8")
  return card


def push(
  run: pathlib.Path, name: str, *, private: bool = False, license_id: str | None = None
) -> str:
  """Shares a model on the hub; a model that is there already is replaced by a new commit.

  Args:
    run, name, license_id: as for `write_shared`.
    private: whether a new repository is to be seen by its owner alone.

  Returns:
    The address of the model.

  Raises:
    FileNotFoundError: there is no checkpoint, or no such user on the hub.
    ValueError: the checkpoint is damaged.
    OSError: the hub cannot be reached, or refuses.
  """
  import huggingface_hub

  with tempfile.TemporaryDirectory() as directory:
    write_shared(run, name, pathlib.Path(directory), license_id)
    api = huggingface_hub.HfApi()
    with explained(name):
      api.create_repo(name, private=private, exist_ok=True)
      api.upload_folder(
        repo_id=name,
        folder_path=directory,
        commit_message="A checkpoint of pcan_jax and its card",
        delete_patterns=["checkpoints/*"],
      )
  return f"{api.endpoint}/{name}"

"""What cannot be written is said in one sentence, before the work where that is possible."""

import errno
import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ma52
from data import build, check, import_clips
from pcan_jax.checkpoints import Checkpoints, locate
from pcan_jax.content import sha256
from pcan_jax.evaluation import protocol
from pcan_jax.prediction.export import export_checkpoint
from pcan_jax.saved_steps import find_steps
from pcan_jax.training import loop
from pcan_jax.training.workdir import claimed, require_room
from pcan_jax.writing import replace_file, require_writable, told_shortly
from tests.test_saved_steps import SPEC
from tests.tiny_checkpoint import write_tiny_checkpoint
from tests.tiny_config import shrink
from tests.tiny_source import write_tiny_source


@pytest.fixture
def disk(tmp_path):
  """Mounts a disk of a size, or one that only can be read; skips where that is not allowed."""
  mounted = []

  def mount(options):
    folder = tmp_path / "disk"
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
      pytest.skip("needs the right to mount a disk")
    mounted.append(folder)
    return folder

  yield mount
  for folder in mounted:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match=r"^cannot write to \S+/file/run: Not a directory$"):
    require_writable(tmp_path / "file" / "run")
  with pytest.raises(OSError, match="^cannot write to"), claimed(tmp_path / "file" / "run"):
    pass


def test_a_read_only_folder_is_noticed_before_the_work(disk, tiny_dataset, tmp_path, monkeypatch):
  workdir = write_tiny_checkpoint(tmp_path / "run", tiny_dataset)
  folder = disk("ro,size=1m")
  message = rf"^cannot write to {folder}\S*: Read-only file system$"
  monkeypatch.setattr(protocol, "Evaluator", None)
  with pytest.raises(OSError, match=message):
    protocol.evaluate_checkpoint(workdir, folder)
  monkeypatch.setattr(jax.export, "export", None)
  with pytest.raises(OSError, match=message):
    export_checkpoint(workdir, folder)
  config = shrink(ma52.get_config())
  config.data.path = str(tiny_dataset.path)
  monkeypatch.setattr(loop, "compile_step", None)
  with pytest.raises(OSError, match=message):
    loop.train(config, folder / "run")


def test_data_commands_say_in_one_sentence_that_they_cannot_write(disk, tmp_path):
  source = write_tiny_source(tmp_path / "source", {"train": 2, "val": 1})
  (tmp_path / "clips.csv").write_text("video,label\ntrain_000.mp4,a/b\ntrain_001.mp4,a/b\n")
  videos = ["--videos", str(source / "raw_videos" / "train"), "--no_poses", "--copy"]

  def say(folder, reason):
    said = rf"^error: [^\n]*{folder}\S*[^\n]*{reason}$|^error: .*{reason}: '{folder}\S*'$"
    with pytest.raises(SystemExit, match=said):
      build.main([str(source), str(folder / "out"), "--side=96", "--jobs=1"])
    with pytest.raises(SystemExit, match=said):
      out = ["--out", str(folder / "source"), "--jobs=1"]
      import_clips.main([str(tmp_path / "clips.csv"), *videos, *out])

  say(disk("size=8k"), "No space left on device")
  folder = disk("ro,size=1m")
  say(folder, "Read-only file system")
  with pytest.raises(SystemExit, match=f"^error: cannot write to {folder}: Read-only"):
    check.main([str(source), "--html", str(folder / "page.html")])


def test_room_for_a_checkpoint_is_looked_for(tmp_path):
  require_room(tmp_path, 1)
  with pytest.raises(OSError, match="MB free, and a checkpoint takes 1000000000000.0 MB"):
    require_room(tmp_path, 10**18)


def test_a_disk_that_fills_up_costs_only_the_new_checkpoint(disk):
  folder = disk("size=3m")
  noise = jnp.asarray(np.random.default_rng(0).random(10**5, np.float32))
  model, training = {"params": {"a": noise}, "prototypes": {}}, {"step": jnp.array(1)}
  with Checkpoints(folder / "checkpoints", max_to_keep=1) as checkpoints:
    checkpoints.save(1, model, training, SPEC)
  (folder / "ballast").write_bytes(bytes(2_400_000))
  with (
    pytest.raises(OSError, match="cannot be written to .*whole.: No space left on device"),
    Checkpoints(folder / "checkpoints", max_to_keep=1) as checkpoints,
  ):
    checkpoints.save(2, model, training, SPEC)
  assert locate(folder)[1] == 1
  (folder / "ballast").unlink()
  with Checkpoints(folder / "checkpoints", max_to_keep=1) as checkpoints:
    checkpoints.save(2, model, training, SPEC)
  assert [saved.step for saved in find_steps(folder / "checkpoints")] == [2]


def test_a_file_is_replaced_as_a_whole(disk):
  folder = disk("size=1m")
  replace_file(folder / "a", "old")
  with pytest.raises(OSError, match=r"^cannot write \S+/a: No space left on device$"):
    replace_file(folder / "a", bytes(2_000_000))
  assert (folder / "a").read_text() == "old" and os.listdir(folder) == ["a"]
  replace_file(folder / "a", "new")
  assert sha256(folder / "a").startswith("11507a0e2f5e69d5dfa40a62a1bd7b6e")


def test_a_failure_without_a_file_is_told_with_one():
  bare = OSError(errno.ENOSPC, "No space left on device")
  with pytest.raises(OSError, match="^DIR cannot be written to: No space left on device$"):
    with told_shortly("DIR cannot be written to"):
      raise bare
  named = OSError(errno.ENOSPC, "No space left on device", "/some/file")
  with pytest.raises(OSError, match="/some/file"), told_shortly("DIR cannot be written to"):
    raise named

"""A simple classifier of the joints, beside evaluations."""

import builtins
import logging
import shutil

import numpy as np
import pytest

from data.build import build
from data.import_clips import import_clips
from pcan_jax.checkpoints import locate
from pcan_jax.evaluation.protocol import evaluate_checkpoint
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.saved_steps import SavedStep
from pcan_jax.yardstick import beside
from pcan_jax.yardstick.__main__ import main
from pcan_jax.yardstick.features import KINDS, joint_features
from pcan_jax.yardstick.measured import _fit_predict, measure_yardstick
from tests.tiny_checkpoint import write_tiny_checkpoint

PEOPLE = 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  """Skeletons of four people; what moves, and how, says which of three actions it is."""
  folder = tmp_path_factory.mktemp("moves")
  rng = np.random.default_rng(0)
  poses, lines = {}, ["video,label,person,split"]
  for person in range(PEOPLE):
    body = rng.uniform(60, 140, (28, 2))
    for number in range(9):
      time = np.linspace(0, 1, int(rng.integers(12, 30)))
      action = number % 3
      keypoints = np.tile(body, (len(time), 1, 1)) + rng.normal(0, 0.5, (len(time), 28, 2))
      keypoints[:, action] += 60 * np.sin(2 * np.pi * time)[:, None]
      name = f"p{person}_{number}"
      poses[f"{name}/keypoints"] = keypoints[None] * rng.uniform(0.8, 1.2)
      poses[f"{name}/scores"] = np.ones((1, len(time), 28))
      split = "val" if person == PEOPLE - 1 else "train"
      lines.append(f"{name},{'hand' if action else 'head'}/{'abc'[action]},p{person},{split}")
  np.savez(folder / "poses.npz", **poses)
  (folder / "clips.csv").write_text("\n".join(lines))
  import_clips(folder / "clips.csv", None, folder / "source", poses=folder / "poses.npz")
  return open_dataset(build(folder / "source", folder / "dataset", side=48, jobs=1))


def test_plain_movements_are_recognised(dataset):
  found = measure_yardstick(dataset, "train", "val")
  assert found.metrics["action_top1"] == found.metrics["body_top1"] == 1
  assert (found.train_clips, found.eval_clips) == (27, 9)
  assert "SVM on joints" in str(found) and "action top-1 100.00" in str(found)
  few = measure_yardstick(dataset, "train", "val", label_share=1 / 3)
  assert (few.train_clips, few.eval_clips) == (9, 9)
  # The other three persons are trained on instead.
  held = measure_yardstick(dataset.hold_out(["p0"]), "train", "val")
  assert (held.train_clips, held.eval_clips) == (27, 9)


def test_features_do_not_depend_on_place_and_size():
  rng = np.random.default_rng(0)
  keypoints, scores = rng.uniform(0, 100, (1, 20, 5, 2)), np.ones((1, 20, 5))
  for kind in KINDS:
    ours = joint_features(keypoints, scores, kind)
    np.testing.assert_allclose(ours, joint_features(3 * keypoints - 40, scores, kind), atol=1e-4)
    assert ours.shape == joint_features(keypoints[:, :7], scores[:, :7], kind).shape
    assert not joint_features(keypoints, 0 * scores, kind).any()
  # A joint that is lost for a while is on its way between where it was seen.
  moving = np.tile(np.arange(20.0)[None, :, None, None], (1, 1, 5, 2)) + np.arange(5)[:, None]
  lost = scores.copy()
  lost[0, 5:9, 2] = 0
  np.testing.assert_allclose(
    joint_features(moving, lost, "place"), joint_features(moving, scores, "place"), atol=1e-5
  )


def test_it_is_printed_beside_an_evaluation_and_kept(dataset, tmp_path, caplog, monkeypatch):
  workdir = write_tiny_checkpoint(tmp_path, dataset, "pcan_pose")
  results = evaluate_checkpoint(workdir, workdir)
  caplog.set_level(logging.INFO, "pcan_jax")
  beside.print_beside(results, workdir, workdir)
  assert "yardstick, in %: action top-1 100.00" in caplog.text
  assert "less than this simple classifier" in caplog.text
  config = SavedStep(*locate(workdir)).spec.config.data
  kept = beside.read_kept(workdir, "val", dataset.fingerprint, config)
  assert kept["metrics"]["action_top1"] == 1
  assert beside.read_kept(workdir, "val", "another data set", config) is None
  for field, value in (("held_out", ("p0",)), ("label_share", 0.5), ("train_split", "test")):
    other = config.copy_and_resolve_references()
    other[field] = value
    assert beside.read_kept(workdir, "val", dataset.fingerprint, other) is None
  caplog.clear()
  monkeypatch.setattr("pcan_jax.yardstick.measured.measure_yardstick", None)  # not needed again
  beside.print_beside(results, workdir, workdir)
  assert "action top-1 100.00" in caplog.text
  caplog.clear()
  monkeypatch.setattr(beside, "MAX_CLIPS", 26)
  beside.print_beside(results, workdir, workdir)
  assert caplog.text == ""


def test_without_scikit_learn_one_line_says_so(dataset, tmp_path, monkeypatch, capsys):
  real = builtins.__import__

  def missing(name, *args, **kwargs):
    if name == "sklearn":
      raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", missing)
  with pytest.raises(SystemExit, match=r"^error: it needs sklearn: pip install"):
    main([str(dataset.path)])


def test_the_command_prints_a_line(dataset, tiny_dataset_path, tmp_path, capsys):
  main([str(dataset.path)])
  assert capsys.readouterr().out.startswith("yardstick, 9 clips of split 'val', in %: action top-1")
  with pytest.raises(SystemExit, match="'test' have no label"):
    main([str(tiny_dataset_path), "--split", "test"])
  shutil.copytree(dataset.path, tmp_path / "copy")
  with pytest.raises(SystemExit, match="has no split 'dev'"):
    main([str(tmp_path / "copy"), "--split", "dev"])


@pytest.mark.parametrize("count", [3, 25])
def test_a_clip_of_each_action_is_no_reason_to_warn(count):
  found = _fit_predict(np.eye(count), np.arange(count), 1.0, part=np.array([0]))
  assert 1 <= found.item() < count

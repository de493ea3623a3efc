import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from pcan_jax.checkpoints import load_model
from pcan_jax.evaluation.calibration import Temperature
from pcan_jax.evaluation.protocol import Evaluator, evaluate_checkpoint
from pcan_jax.evaluation.results import Origin, Results
from pcan_jax.evaluation.submission import check_submission
from pcan_jax.feed.pipeline import evaluation_batches
from pcan_jax.inputs import preprocess
from pcan_jax.saved_steps import SavedStep
from tests.tiny_checkpoint import write_tiny_checkpoint
from tests.tiny_source import TREE

KEYS = {
  "action_top1",
  "action_top5",
  "body_top1",
  "f1_body_macro",
  "f1_body_micro",
  "f1_action_macro",
  "f1_action_micro",
  "f1_mean",
}


@pytest.fixture(scope="module")
def workdir(tiny_dataset, tmp_path_factory):
  return write_tiny_checkpoint(tmp_path_factory.mktemp("run"), tiny_dataset)


@pytest.fixture(scope="module")
def evaluated(workdir):
  """The results in the working directory."""
  return evaluate_checkpoint(workdir, workdir)


def test_every_clip_of_the_split_is_evaluated_and_written(workdir, evaluated, tiny_dataset):
  results = evaluated
  written = json.loads((workdir / "eval/val/metrics.json").read_text())
  assert written["num_videos"] == tiny_dataset.num_clips("val") == len(results.ids)
  assert written["num_clips"] == 2
  for branch in ("fused", "rgb", "pose"):
    assert written[branch].keys() == KEYS
    assert all(0 <= value <= 1 for value in written[branch].values())
  rows = (workdir / "eval/val/predictions.csv").read_text().splitlines()
  assert rows[0].startswith("id,action,top1,top2") and len(rows) == 1 + len(results.ids)
  temperature = Temperature.read(workdir / "eval/val")
  assert temperature.nll_after <= temperature.nll_before and temperature.num_videos == len(rows) - 1
  assert Temperature.read(workdir) == temperature  # for predictions


def test_an_earlier_step_replaces_nothing_of_the_last_one(workdir, tmp_path):
  run = tmp_path / "run"
  for step in "01":
    shutil.copytree(workdir / "checkpoints" / "0", run / "checkpoints" / step)
  evaluate_checkpoint(run / "checkpoints" / "0", run)
  assert (run / "eval" / "val-step-0" / "metrics.json").is_file()
  assert Temperature.read(run) is None and not (run / "eval" / "val").exists()


def test_what_is_computed_otherwise_replaces_nothing(workdir, tmp_path):
  evaluate_checkpoint(workdir, tmp_path, num_clips=1, rectify=False)
  evaluate_checkpoint(workdir, tmp_path, flip=True)
  assert {path.name for path in (tmp_path / "eval").iterdir() if path.is_dir()} == {
    "val-1clip-norectify",
    "val-flip",
  }


def test_a_split_without_labels_gives_a_submission(workdir, tmp_path):
  results = evaluate_checkpoint(workdir, tmp_path, split="test")
  assert results.metrics == {} and (results.actions == -1).all()
  check_submission(tmp_path / "eval/test/submission.zip", results.ids, TREE)


def test_results_are_read_as_they_were_written(workdir, tiny_dataset, tmp_path):
  results = evaluate_checkpoint(workdir, tmp_path, num_clips=1)
  read = Results.read(tmp_path / "eval/val-1clip")
  assert Temperature.read(tmp_path / "eval/val-1clip") and Temperature.read(tmp_path) is None
  assert read.ids == results.ids and read.metrics == results.metrics and read.num_clips == 1
  written = json.loads((tmp_path / "eval/val-1clip/metrics.json").read_text())
  origin = Origin(0, SavedStep(workdir / "checkpoints", 0).digest, tiny_dataset.fingerprint)
  assert read.origin == results.origin == origin
  assert dataclasses.asdict(origin).items() <= written.items()
  jax.tree.map(
    np.testing.assert_array_equal,
    (read.actions, read.outputs),
    (results.actions, results.outputs),
  )
  assert read.outputs["rgb"]["action"]["embedding"].shape == (len(read.ids), 16)


def test_results_that_cannot_be_read_are_to_be_made_again(tmp_path):
  with pytest.raises(FileNotFoundError, match="--mode=eval"):
    Results.read(tmp_path)
  scores = {"ids": np.array(["a"]), "actions": np.array([0]), "num_clips": 10}
  earlier = {
    "probabilities/fused/action": np.ones((1, 2)),
    "embeddings/rgb/action": np.ones((1, 4)),
  }
  np.savez(tmp_path / "scores.npz", **scores, **earlier)
  with pytest.raises(ValueError, match="earlier version: run pcan --mode=eval .* again"):
    Results.read(tmp_path)
  np.savez(tmp_path / "scores.npz", **scores, **{"fused/action/probabilities": np.ones((1, 2))})
  with pytest.raises(ValueError, match="earlier version"):  # which says not what it is of
    Results.read(tmp_path)
  (tmp_path / "scores.npz").write_bytes((tmp_path / "scores.npz").read_bytes()[:200])
  with pytest.raises(ValueError, match="scores.npz is damaged"):
    Results.read(tmp_path)


def test_probabilities_are_fused_by_their_mean(evaluated):
  for level in ("action", "body"):
    fused, *streams = (
      evaluated.outputs[branch][level]["probabilities"] for branch in ("fused", "rgb", "pose")
    )
    np.testing.assert_allclose(streams[0].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(fused, np.mean(streams, axis=0), rtol=1e-5)


def test_the_batch_size_does_not_change_the_result(workdir, evaluated, tiny_dataset):
  spec, variables, _ = load_model(workdir)
  assert spec.config.eval.batch_size == 8  # clips; with 2 clips per video, 4 and 16 videos
  spec.config.eval.batch_size = 32
  results = evaluated, Evaluator(spec, tiny_dataset)(variables, "val", num_clips=2)
  assert results[0].ids == results[1].ids
  small, large = (found.outputs["fused"]["action"]["probabilities"] for found in results)
  np.testing.assert_allclose(small, large, atol=1e-5)


def test_rectification_adds_the_cosines_to_the_prototypes(workdir, tiny_dataset):
  spec, variables, _ = load_model(workdir)
  variables = jax.device_get(variables)  # one device is enough
  gamma = {"rgb": 2.0, "pose": 3.0}
  spec.config.eval.gamma.update(gamma)
  batch = next(evaluation_batches(tiny_dataset, "val", spec.frame_sampling(1), batch_size=4))
  batch = {name: jnp.asarray(batch[name]) for name in spec.batch_shapes(4, 1)}
  rectified = jax.jit(spec.predict)(variables, batch)

  @jax.jit
  def logits_and_embeddings(variables, clips):
    return spec.model.apply(variables, preprocess(clips, spec.test_preprocessing), train=False)

  plain = logits_and_embeddings(variables, {name: x[:, 0] for name, x in batch.items()})
  for stream in ("rgb", "pose"):
    z = plain[stream]["action"]["embedding"]
    p = variables["prototypes"][stream]["action"]
    cosine = (z @ p.T) / np.outer(np.linalg.norm(z, axis=1), np.linalg.norm(p, axis=1))
    expected = plain[stream]["action"]["logits"] + gamma[stream] * cosine
    found = rectified[stream]["action"]
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
    wanted = special.softmax(expected, axis=-1)
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-5)
    bodies = [outputs[stream]["body"]["logits"] for outputs in (rectified, plain)]
    np.testing.assert_allclose(*bodies, atol=1e-5)


def test_a_checkpoint_needs_no_config_but_the_same_labels(workdir, tiny_dataset):
  spec, _, _ = load_model(workdir)
  tree = dataclasses.replace(spec.tree, actions=tuple(f"{name}?" for name in spec.tree.actions))
  with pytest.raises(ValueError, match="label tree"):
    Evaluator(dataclasses.replace(spec, tree=tree), tiny_dataset)
  with pytest.raises(ValueError, match="--side 999"):
    Evaluator(dataclasses.replace(spec, stored_size=999), tiny_dataset)

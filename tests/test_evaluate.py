import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ma52
from pcan_jax import spec as inference
from pcan_jax.evaluation import protocol as evaluate
from pcan_jax.evaluation.results import Results
from pcan_jax.evaluation.submission import check_submission
from pcan_jax.feed import input_pipeline
from pcan_jax.inputs import preprocess
from pcan_jax.training import loop as train
from tests.tiny_config import shrink
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
def workdir(tiny_dataset_path, tmp_path_factory):
  config = shrink(ma52.get_config())
  config.data.path = str(tiny_dataset_path)
  config.eval.every_epochs = 0.0
  config.optimizer.epochs = 1.0
  directory = tmp_path_factory.mktemp("run")
  train.train(config, directory)
  return directory


def test_every_clip_of_the_split_is_evaluated_and_written(workdir, tiny_dataset, tmp_path):
  results = evaluate.evaluate_checkpoint(workdir, tmp_path)
  written = json.loads((tmp_path / "eval/val/metrics.json").read_text())
  assert written["num_videos"] == tiny_dataset.num_clips("val") == len(results.ids)
  assert written["num_clips"] == 2
  for branch in ("fused", "rgb", "pose"):
    assert written[branch].keys() == KEYS
    assert all(0 <= value <= 1 for value in written[branch].values())
  rows = (tmp_path / "eval/val/predictions.csv").read_text().splitlines()
  assert rows[0].startswith("id,action,top1,top2") and len(rows) == 1 + len(results.ids)


def test_a_split_without_labels_gives_a_submission(workdir, tmp_path):
  results = evaluate.evaluate_checkpoint(workdir, tmp_path, split="test")
  assert results.metrics == {} and (results.actions == -1).all()
  check_submission(tmp_path / "eval/test/submission.zip", results.ids, TREE)


def test_results_are_read_as_they_were_written(workdir, tmp_path):
  results = evaluate.evaluate_checkpoint(workdir, tmp_path, num_clips=1)
  read = Results.read(tmp_path / "eval/val-1clip")
  assert read.ids == results.ids and read.metrics == results.metrics and read.num_clips == 1
  jax.tree.map(
    np.testing.assert_array_equal,
    (read.actions, read.probabilities, read.embeddings),
    (results.actions, results.probabilities, results.embeddings),
  )
  assert read.embeddings["rgb"]["action"].shape == (len(read.ids), 16)
  with pytest.raises(FileNotFoundError, match="--mode=eval"):
    Results.read(tmp_path / "eval/val")


def test_probabilities_are_fused_by_their_mean(workdir, tmp_path):
  results = evaluate.evaluate_checkpoint(workdir, tmp_path)
  for level in ("action", "body"):
    streams = [results.probabilities[stream][level] for stream in ("rgb", "pose")]
    np.testing.assert_allclose(streams[0].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(
      results.probabilities["fused"][level], np.mean(streams, axis=0), rtol=1e-5
    )


def test_the_batch_size_does_not_change_the_result(workdir, tmp_path, tiny_dataset):
  model, variables, description, _ = inference.load(workdir)
  results = []
  for batch_size in (16, 32):  # clips; with 8 devices and 2 clips per video, 8 and 16 videos
    description.config.eval.batch_size = batch_size
    evaluator = evaluate.Evaluator(model, description, tiny_dataset)
    results.append(evaluator(variables, "val", num_clips=2))
  assert results[0].ids == results[1].ids
  np.testing.assert_allclose(
    results[0].probabilities["fused"]["action"],
    results[1].probabilities["fused"]["action"],
    atol=1e-5,
  )


def test_rectification_adds_the_cosines_to_the_prototypes(workdir, tiny_dataset):
  model, variables, description, _ = inference.load(workdir)
  plain_gamma, gamma = {"rgb": 0.0, "pose": 0.0}, {"rgb": 2.0, "pose": 3.0}
  clips = evaluate.clips(description.config, 1)
  batch = next(input_pipeline.evaluation_batches(tiny_dataset, "val", clips, batch_size=4))
  batch = {k: jnp.asarray(batch[k]) for k in ("rgb", "keypoints", "keypoint_scores")}
  sizes = inference.preprocessing(description)
  plain, rectified = (
    inference.predict_step(variables, batch, model=model, sizes=sizes, gamma=g)
    for g in (plain_gamma, gamma)
  )
  flat = {name: values[:, 0] for name, values in batch.items()}
  outputs = model.apply(variables, preprocess(flat, sizes), train=False)
  for stream in ("rgb", "pose"):
    z = outputs[stream]["action_embedding"]
    p = variables["prototypes"][stream]["action"]
    cosine = (z @ p.T) / np.outer(np.linalg.norm(z, axis=1), np.linalg.norm(p, axis=1))
    expected = jax.nn.softmax(outputs[stream]["action_logits"] + gamma[stream] * cosine)
    np.testing.assert_allclose(rectified["probabilities"][stream]["action"], expected, atol=1e-5)
    np.testing.assert_array_equal(
      rectified["logits"][stream]["body"], plain["logits"][stream]["body"]
    )


def test_a_checkpoint_needs_no_config_but_the_same_labels(workdir, tiny_dataset):
  import dataclasses

  model, _, description, _ = inference.load(workdir)
  tree = dataclasses.replace(
    description.tree, actions=tuple(f"{name}?" for name in description.tree.actions)
  )
  other = dataclasses.replace(description, tree=tree)
  with pytest.raises(ValueError, match="label tree"):
    evaluate.Evaluator(model, other, tiny_dataset)
  other = dataclasses.replace(description, stored_size=999)
  with pytest.raises(ValueError, match="--side 999"):
    evaluate.Evaluator(model, other, tiny_dataset)

"""Persons of a data set: held out, divided into folds, and summed up."""

import json

import numpy as np
import pytest

from pcan_jax.clips.sampling import FrameSampling
from pcan_jax.config import load_config
from pcan_jax.evaluation.metrics import Predictions, measure
from pcan_jax.evaluation.results import Results
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.feed.person_folds import person_folds
from pcan_jax.feed.pipeline import evaluation_batches, read_keypoints, training_batches
from pcan_jax.training.folds import cross_validate, summarise
from tests.test_skeletons import dataset, source  # noqa: F401, fixtures


def test_held_out_people_are_the_evaluation_and_nobody_else(dataset):  # noqa: F811
  held = dataset.hold_out(["p1", "val0"])
  assert held.splits == ["train", "val"]
  assert set(held.persons("val")) == {"p1", "val0"}
  assert not set(held.persons("train")) & {"p1", "val0"}
  everyone = [*dataset.clip_ids("train"), *dataset.clip_ids("val")]
  assert sorted(held.clip_ids("train") + held.clip_ids("val")) == sorted(everyone)
  assert held.num_clips("val") == len(held.actions("val"))
  poses = dict(zip(dataset.clip_ids("val"), read_keypoints(dataset, "val")))
  poses |= dict(zip(dataset.clip_ids("train"), read_keypoints(dataset, "train")))
  for name, (keypoints, _) in zip(held.clip_ids("val"), read_keypoints(held, "val")):
    np.testing.assert_array_equal(keypoints, poses[name][0])


def test_batches_are_of_the_clips_of_their_split(dataset):  # noqa: F811
  held = dataset.hold_out(["p1", "val0"])
  sampling = FrameSampling(rgb_frames=0, pose_frames=4, num_clips=1, max_persons=1)
  batches = list(evaluation_batches(held, "val", sampling, batch_size=4))
  found = np.concatenate([b["action"][b["mask"] > 0] for b in batches])
  np.testing.assert_array_equal(found, held.actions("val"))
  sampling = FrameSampling(rgb_frames=0, pose_frames=4, num_clips=None, max_persons=1)
  count = held.num_clips("train")
  batch = next(training_batches(held, "train", sampling, batch_size=count, seed=0))
  assert sorted(batch["action"]) == sorted(held.actions("train"))


def test_a_data_set_that_knows_nobody_says_what_to_do(tiny_dataset, dataset, tmp_path):  # noqa: F811
  with pytest.raises(ValueError, match=r"does not say who is in its clips.*persons\.csv"):
    tiny_dataset.persons("train")
  with pytest.raises(ValueError, match="no clip of the person 'nobody'"):
    dataset.hold_out(["nobody"])
  with pytest.raises(ValueError, match="names every person"):
    open_dataset(dataset.path, held_out=["p0", "p1", "p2", "val0", "val1", "val2"])
  config = load_config("small")
  config.data.path = str(tiny_dataset.path)
  with pytest.raises(ValueError, match="does not say who is in its clips"):
    cross_validate(config, tmp_path, lambda config, workdir: None)


def test_folds_hold_everybody_once_and_about_as_many_clips():
  persons = ["a"] * 9 + ["b"] * 5 + ["c"] * 4 + ["d"]
  assert person_folds(persons, 10) == [["a"], ["b"], ["c"], ["d"]]
  assert person_folds(persons, 2) == [["a", "d"], ["b", "c"]]
  with pytest.raises(ValueError, match="the same person"):
    person_folds(["a", "a"], 10)


def test_an_interval_is_students():
  mean, low, high = summarise([0.5, 0.7, 0.9])
  assert mean == pytest.approx(0.7)
  # 4.3027 is the 97.5 % quantile of t with two degrees of freedom.
  assert high - mean == pytest.approx(4.3027 * 0.2 / np.sqrt(3), rel=1e-4)
  assert low == pytest.approx(2 * mean - high)
  assert np.isnan(summarise([0.5])[1])


def test_every_person_is_evaluated_by_the_run_without_them(dataset, tmp_path):  # noqa: F811
  config = load_config("small")
  config.data.path = str(dataset.path)
  seen = []

  def run(config, workdir):
    """Gets the clips of even numbers right."""
    held = open_dataset(config.data.path, held_out=config.data.held_out)
    seen.append((workdir.name, *config.data.held_out))
    ids, actions = held.clip_ids("val"), held.actions("val")
    said = [a if int(name[-1]) % 2 == 0 else (a + 1) % 6 for name, a in zip(ids, actions)]
    bodies = np.asarray(dataset.tree.parents)[said]
    outputs = {
      "action": {"probabilities": np.eye(6)[said]},
      "body": {"probabilities": np.eye(3)[bodies]},
    }
    predictions = Predictions.of_scores(np.eye(6)[said], np.eye(3)[bodies], actions, dataset.tree)
    metrics = {"fused": measure(predictions, actions, dataset.tree)}
    return Results(ids, actions, 1, {"fused": outputs}, metrics)

  table = cross_validate(config, tmp_path, run)
  people = ["p0", "p1", "p2", "val0", "val1", "val2"]
  assert sorted(person for _, person in seen) == people
  assert [fold for fold, _ in seen] == [f"fold-{number}" for number in range(1, 7)]
  summary = json.loads((tmp_path / "folds.json").read_text())
  assert sorted(summary["people"]) == people
  top1 = [values["action_top1"] for values in summary["people"].values()]
  # train has clips 0..15 of p0, p1, p2 in turns; of p0 those of even number are 0, 6, 12.
  assert summary["people"]["p0"]["action_top1"] == pytest.approx(3 / 6)
  assert summary["mean"]["action_top1"]["mean"] == pytest.approx(np.mean(top1))
  assert "95 % interval" in table and table.splitlines()[-2].split()[0] == "mean"

"""Ensembles: the mean of what the members say, of the same clips and labels only."""

import dataclasses
import html
import json
import logging
import shutil

import numpy as np
import pytest
from scipy import optimize

from data.build import build
from pcan_jax.checkpoints import locate
from pcan_jax.evaluation import protocol
from pcan_jax.evaluation.calibration import Temperature
from pcan_jax.evaluation.ensembles import most_likely_weights
from pcan_jax.evaluation.metrics import Predictions, measure
from pcan_jax.evaluation.origins import Origin
from pcan_jax.evaluation.protocol import evaluate_checkpoint, evaluate_checkpoints
from pcan_jax.evaluation.results import Results
from pcan_jax.evaluation.submission import check_submission
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.report import examples, statistics, style, write_report
from pcan_jax.report.evaluated_run import read_run
from pcan_jax.saved_steps import SavedStep
from tests.tiny_checkpoint import write_tiny_checkpoint
from tests.tiny_source import TREE

LEVELS = {"action": TREE.num_actions, "body": TREE.num_bodies}


def write_scores(workdir, dataset, split, seed, clips=None, **origin):
  """Results of the checkpoint in a working directory, as its own evaluation would leave them."""
  rng = np.random.default_rng(seed)
  saved = SavedStep(*locate(workdir))
  streams = saved.spec.config.model.streams
  ids = clips or dataset.clip_ids(split)
  labels = dict(zip(dataset.clip_ids(split), dataset.actions(split)))
  actions = np.array([labels[name] for name in ids])
  truth = {"action": actions, "body": np.asarray(TREE.parents)[actions]}

  def draw(level):
    raw = rng.random((len(ids), LEVELS[level])) + 0.5 * seed * np.eye(LEVELS[level])[truth[level]]
    return {"probabilities": (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)}

  outputs = {branch: {level: draw(level) for level in LEVELS} for branch in ("fused", *streams)}
  metrics = {}
  if (actions >= 0).all():
    for branch, levels in outputs.items():
      scores = (levels[level]["probabilities"] for level in LEVELS)
      metrics[branch] = measure(Predictions.of_scores(*scores, actions, TREE), actions, TREE)
  of = Origin(saved.step, saved.digest, dataset.fingerprint, **origin)
  results = Results(ids, actions, 2, outputs, metrics, of)
  results.write(workdir / "eval" / split, TREE)
  return results


@pytest.fixture(scope="module")
def small_dataset(tiny_dataset_path, tmp_path_factory):
  """The same clips, stored smaller."""
  source = next(p / "source" for p in tiny_dataset_path.parents if (p / "source").is_dir())
  return open_dataset(build(source, tmp_path_factory.mktemp("small") / "data", side=40, jobs=1))


@pytest.fixture(scope="module")
def members(tiny_dataset, small_dataset, tmp_path_factory):
  """Both streams, and poses alone of another data set."""
  folder = tmp_path_factory.mktemp("members")
  return (
    write_tiny_checkpoint(folder / "both", tiny_dataset),
    write_tiny_checkpoint(folder / "poses", small_dataset, "pcan_pose"),
  )


@pytest.fixture
def scored(members, tiny_dataset, small_dataset, tmp_path, monkeypatch):
  """Copies of the members with results on every split, which no evaluation can replace."""
  monkeypatch.setattr(protocol, "Evaluator", None)
  found = []
  for seed, (member, dataset) in enumerate(zip(members, (tiny_dataset, small_dataset))):
    workdir = shutil.copytree(member, tmp_path / member.name)
    order = np.random.default_rng(9).permutation
    for split in ("train", "val", "test"):
      write_scores(workdir, dataset, split, seed, [*order(dataset.clip_ids(split)).tolist()])
    found.append(workdir)
  return found


def by_id(results, branch, level, ids):
  rows = [results.ids.index(name) for name in ids]
  return results.outputs[branch][level]["probabilities"][rows].astype(np.float64)


@pytest.mark.slow
def test_members_of_different_networks_and_data_sets_are_evaluated_once(
  members, tmp_path, monkeypatch, caplog
):
  caplog.set_level(logging.INFO, "pcan_jax")
  first = shutil.copytree(members[0], tmp_path / "both")
  alone = [evaluate_checkpoint(first, first)]
  found = evaluate_checkpoints([first, members[1]], tmp_path / "out")
  assert f"{first}: results read from {first}/eval/val" in caplog.text
  (kept,) = (tmp_path / "out/members").iterdir()
  alone.append(Results.read(kept / "eval/val"))
  assert kept.name == alone[1].origin.checkpoint and not (members[1] / "eval").exists()
  for level in LEVELS:
    mean = np.mean([by_id(results, "fused", level, found.ids) for results in alone], axis=0)
    np.testing.assert_allclose(found.outputs["fused"][level]["probabilities"], mean, rtol=1e-6)
  for member, results in zip(found.origin.members, alone):
    assert (member.origin, member.metrics) == (results.origin, results.metrics["fused"])

  one = evaluate_checkpoints(members[1:], tmp_path / "one", weights=[3.0])  # it is that run
  assert one.origin == alone[1].origin and not (tmp_path / "one/members").exists()
  for name in ("metrics.json", "predictions.csv"):
    assert (tmp_path / "one/eval/val" / name).read_bytes() == (
      kept / "eval/val" / name
    ).read_bytes()

  monkeypatch.setattr(protocol, "Evaluator", None)  # not needed again
  again = evaluate_checkpoints([first, members[1]], tmp_path / "out", weights=[1.0, 3.0])
  for level in LEVELS:
    ours, theirs = (by_id(results, "fused", level, again.ids) for results in alone)
    scores = again.outputs["fused"][level]["probabilities"]
    np.testing.assert_allclose(scores, 0.25 * ours + 0.75 * theirs, rtol=1e-6)


def test_weights_branches_and_metrics_are_those_computed_by_hand(scored, tmp_path, caplog):
  caplog.set_level(logging.INFO, "pcan_jax")
  stored = [Results.read(workdir / "eval/val") for workdir in scored]
  found = evaluate_checkpoints(
    [scored[0], scored[0], scored[1]],
    tmp_path / "out",
    branches=["rgb", "fused", "pose"],
    weights=[2.0, 1.0, 1.0],
  )
  assert list(found.outputs) == ["fused"]
  scores = []
  for level in LEVELS:
    expected = (
      0.5 * by_id(stored[0], "rgb", level, found.ids)
      + 0.25 * by_id(stored[0], "fused", level, found.ids)
      + 0.25 * by_id(stored[1], "pose", level, found.ids)
    )
    scores.append(found.outputs["fused"][level]["probabilities"])
    np.testing.assert_allclose(scores[-1], expected, rtol=1e-6)
    np.testing.assert_allclose(scores[-1].sum(axis=1), 1, rtol=1e-6)
  by_hand = measure(Predictions.of_scores(*scores, found.actions, TREE), found.actions, TREE)
  assert found.metrics == {"fused": by_hand}
  read = Results.read(tmp_path / "out/eval/val")
  assert read.origin == found.origin and read.metrics == found.metrics and read.ids == found.ids
  written = json.loads((tmp_path / "out/eval/val/metrics.json").read_text())
  assert written["fused"] == by_hand and written["ensemble"]["weights"] == "given"
  for member, workdir, branch, weight in zip(
    written["ensemble"]["members"],
    (scored[0], scored[0], scored[1]),
    ("rgb", "fused", "pose"),
    (0.5, 0.25, 0.25),
  ):
    saved = SavedStep(*locate(workdir))
    assert (member["path"], member["branch"], member["weight"]) == (str(workdir), branch, weight)
    assert member["origin"]["checkpoint"] == saved.digest and "description" not in member
    assert f"{weight:.3f}" in caplog.text and saved.digest in caplog.text
  temperature = Temperature.read(tmp_path / "out/eval/val")
  assert (temperature.checkpoint, temperature.step) == (found.origin.checkpoint, None)
  assert Temperature.read(tmp_path / "out") is None


def test_results_of_other_settings_are_computed_again(scored, tmp_path, monkeypatch):
  class Evaluates(Exception):
    """In place of an evaluation."""

  def evaluate(*_):
    raise Evaluates

  monkeypatch.setattr(protocol, "_evaluate", evaluate)
  evaluate_checkpoints(scored, tmp_path / "out")
  for options in ({"rectify": False}, {"num_clips": 1}, {"split": "train", "num_clips": 3}):
    with pytest.raises(Evaluates):
      evaluate_checkpoints(scored, tmp_path / "out", **options)
  place = scored[0] / "eval/val"
  results = Results.read(place)
  of = results.origin
  for other in (
    dataclasses.replace(results, origin=dataclasses.replace(of, checkpoint="0" * 32)),
    dataclasses.replace(results, origin=dataclasses.replace(of, dataset="0" * 32)),
    dataclasses.replace(results, origin=dataclasses.replace(of, rectified=None)),
    results.in_order(results.ids[:-1]),
  ):
    other.write(place, TREE)
    with pytest.raises(Evaluates):
      evaluate_checkpoints(scored, tmp_path / "out")
  (place / "scores.npz").write_bytes(b"PK")
  with pytest.raises(Evaluates):
    evaluate_checkpoints(scored, tmp_path / "out")


def test_weights_are_chosen_on_the_split_that_is_named(scored, tmp_path, caplog):
  caplog.set_level(logging.INFO, "pcan_jax")
  found = evaluate_checkpoints(scored, tmp_path / "out", split="val", fit_split="train")
  fit, weights = found.origin.fit, [member.weight for member in found.origin.members]
  assert (fit.split, fit.num_videos, found.origin.split) == ("train", 16, "val")
  stored = [Results.read(workdir / "eval/train") for workdir in scored]
  ids, actions = stored[0].ids, stored[0].actions
  truth = {"action": actions, "body": np.asarray(TREE.parents)[actions]}
  of_truth = np.array(
    [
      [by_id(results, "fused", level, ids)[range(16), truth[level]] for level in LEVELS]
      for results in stored
    ]
  ).reshape(2, 32)

  def nll(share):
    return -np.log(share * of_truth[0] + (1 - share) * of_truth[1]).mean()

  best = optimize.minimize_scalar(nll, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
  assert weights == pytest.approx([best.x, 1 - best.x], abs=1e-4) and weights[1] > weights[0]
  assert (fit.nll_before, fit.nll_after) == pytest.approx((nll(0.5), best.fun))
  assert "chosen on the 16 videos of split 'train'" in caplog.text
  assert f"trained on 'train': {scored[0]}, {scored[1]}." in caplog.text
  written = json.loads((tmp_path / "out/eval/val/metrics.json").read_text())["ensemble"]
  assert written["fit"]["split"] == "train" and "'train'" in written["weights"]
  evaluate_checkpoints(scored, tmp_path / "out", weights=weights)
  kept = Results.read(tmp_path / "out/eval/val")
  assert kept.origin.checkpoint == found.origin.checkpoint and kept.origin.fit is None


def test_the_most_likely_weights():
  rng = np.random.default_rng(0)
  good, bad = rng.uniform(0.5, 1, 400), rng.uniform(0, 0.4, 400)
  assert most_likely_weights(np.array([good, bad])) == pytest.approx([1, 0], abs=1e-6)
  assert most_likely_weights(np.array([good, good, good])) == pytest.approx([1 / 3] * 3)
  mixed = np.where(rng.random(400) < 0.7, [good, bad], [bad, good])
  np.testing.assert_allclose(most_likely_weights(mixed), [0.7, 0.3], atol=0.12)


def test_a_split_without_labels_gives_a_submission(scored, tmp_path):
  results = evaluate_checkpoints(scored, tmp_path / "out", split="test", fit_split="val")
  assert results.metrics == {} and results.origin.members[0].metrics == {}
  check_submission(tmp_path / "out/eval/test/submission.zip", results.ids, TREE)
  lines = (tmp_path / "out/eval/test/prediction.csv").read_text().splitlines()
  best = results.outputs["fused"]["action"]["probabilities"].argmax(axis=1)
  assert {line.split(",")[0]: int(line.split(",")[1]) for line in lines[1:]} == {
    f"{name}.mp4": action for name, action in zip(results.ids, best)
  }
  assert Results.read(tmp_path / "out/eval/test").origin == results.origin


def edited(dataset, folder, change):
  """A copy of a data set with other metadata."""
  shutil.copytree(dataset.path, folder)
  (path,) = folder.rglob("metadata.json")
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))
  return folder


def test_members_that_do_not_fit_are_refused_by_name(scored, small_dataset, tmp_path):
  out = tmp_path / "out"

  def refuses(message, paths=scored, output=out, **options):
    with pytest.raises(ValueError, match=message):
      evaluate_checkpoints(paths, output, **options)

  def changed(name, change):
    data = edited(small_dataset, tmp_path / name, change)
    return {"data_paths": [None, str(data)]}

  def another_id(content):
    content["splits"]["val"]["ids"][3] = "another"

  def another_label(content):
    content["splits"]["val"]["actions"][3] = 5

  def twice(content):
    content["splits"]["val"]["ids"][3] = content["splits"]["val"]["ids"][4]

  def no_val(content):
    content["splits"]["val"]["actions"] = [-1] * 7

  ids = small_dataset.clip_ids("val")
  refuses(
    rf"{tmp_path}/ids, the data set of {scored[1]}, lacks 1 of the clips of 'val' in \S+, that of "
    rf"{scored[0]}, such as '{ids[3]}'",
    **changed("ids", another_id),
  )
  refuses(
    rf"1 clip\(s\) of 'val' have other labels in {tmp_path}/labels than in \S+, such as "
    rf"'{ids[3]}': 'tap' instead of",
    **changed("labels", another_label),
  )
  refuses(
    rf"{tmp_path}/twice has two clips of 'val' with the id '{ids[4]}'", **changed("twice", twice)
  )
  refuses(r"7 clip\(s\) .* such as '\S+': none instead of '\w+'", **changed("unlabelled", no_val))
  refuses("has no split 'dev'; it has", split="dev")
  refuses("has no split 'dev'; it has", fit_split="dev")
  refuses("--fit_weights=val is the split that is evaluated", fit_split="val")
  refuses("clips of 'test' have no labels to choose weights by", fit_split="test")
  refuses("--weights and --fit_weights contradict", fit_split="train", weights=[1.0, 1.0])
  refuses(r"--weights has 3 numbers for 2 checkpoint\(s\)", weights=[1.0, 1.0, 1.0])
  for weights in ([1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
    refuses("--weights must be numbers of at least 0", weights=weights)
  refuses(f"{scored[1]} has no branch 'rgb' .* it has fused, pose", branches=["rgb"])
  refuses(r"--branches names 3 for 2 checkpoint\(s\)", branches=["fused"] * 3)
  refuses(r"--data names 3 for 2 checkpoint\(s\)", data_paths=[None] * 3)
  refuses(f"{scored[0]} and {scored[0]}/ are the same checkpoint", [scored[0], f"{scored[0]}/"])
  refuses("is the working directory of a run", output=scored[1])
  refuses("mean nothing with one checkpoint", scored[:1], fit_split="train")
  refuses("mean nothing with one checkpoint", scored[:1], branches=["rgb"])
  refuses(f"{small_dataset.path} stores frames of 40 px", data_paths=[str(small_dataset.path)])
  assert not (out / "eval/val/metrics.json").exists()


def test_other_labels_and_settings_of_checkpoints_are_refused(
  scored, tiny_dataset, tmp_path, monkeypatch
):
  def renamed(content):
    content["tree"]["actions"][2] = "wink"

  other = open_dataset(edited(tiny_dataset, tmp_path / "renamed", renamed))
  third = write_tiny_checkpoint(tmp_path / "third", other, "pcan_pose")
  with pytest.raises(
    ValueError, match=f"{third} has another label tree than .* 'arm/wink' in place"
  ):
    evaluate_checkpoints([*scored, third], tmp_path / "out")

  spec = SavedStep.spec.fget

  def changed(saved):
    found = spec(saved)
    if saved.folder == scored[1]:
      found.config.data.eval_split = "train"
      found.config.eval.num_clips = 4
    return found

  monkeypatch.setattr(SavedStep, "spec", property(changed))
  with pytest.raises(ValueError, match=rf"differ \(.*: val, {scored[1]}: train\): .* --split"):
    evaluate_checkpoints(scored, tmp_path / "out")
  with pytest.raises(ValueError, match=rf"differ \(.*: 2, {scored[1]}: 4\): .* --num_clips"):
    evaluate_checkpoints(scored, tmp_path / "out", split="val")
  shutil.copytree(scored[1] / "eval/val", scored[1] / "eval/val-2clip")
  evaluate_checkpoints(scored, tmp_path / "out", split="val", num_clips=2)
  assert (tmp_path / "out/eval/val/metrics.json").is_file()


def test_a_report_shows_members_weights_and_where_they_come_from(scored, tmp_path, monkeypatch):
  monkeypatch.setattr(style, "save", lambda figure, path: b"")  # tests/test_report.py looks at them
  monkeypatch.setattr(statistics, "RESAMPLES", 5)
  monkeypatch.setattr(examples, "_PER_KIND", 1)
  out = tmp_path / "out"
  evaluate_checkpoints(scored, out, split="test")
  found = evaluate_checkpoints(scored, out, fit_split="train")
  text = html.unescape(write_report(out, baseline=scored[0]).read_text())
  for member, results in zip(found.origin.members, scored):
    assert member.path in text and f"{member.weight:.3f}" in text
    assert member.origin.checkpoint in text and member.origin.dataset in text
    assert f"{100 * Results.read(results / 'eval/val').metrics['fused']['f1_mean']:.2f}" in text
  assert "chosen on the 16 videos of split 'train'" in text
  assert text.count("An ensemble has none of its own") == 4
  row = (out / "report/table.md").read_text().splitlines()[2]
  assert row.startswith("| out | ensemble |")
  assert f"{100 * found.metrics['fused']['f1_mean']:.2f}" in row
  evaluate_checkpoints(scored, out, split="train")
  with pytest.raises(ValueError, match="was evaluated on train, val: choose one with --split"):
    read_run(out)
  assert read_run(out, "train").results.metrics
  with pytest.raises(FileNotFoundError, match="no results of the ensemble .* on dev"):
    read_run(out, "dev")
  with pytest.raises(ValueError, match="eval/test holds no labels"):
    read_run(out, "test")

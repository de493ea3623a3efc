"""The study runner: tables, digests, lines, statistics, page."""

import csv
import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.study import configs, explain, intervals, lines, page, runs, summaries, tables
from benchmarks.study.__main__ import parse_seeds
from benchmarks.study.tables import Row, Study
from pcan_jax.evaluation.metrics import Predictions, measure
from pcan_jax.evaluation.results import Results as Evaluated
from pcan_jax.labels import LabelTree

ROOT = pathlib.Path(__file__).parents[1]
TREE = LabelTree(("nod", "bow", "wave"), ("head", "arm"), (0, 0, 1))
DATA = pathlib.Path("datasets/lookalikes")

HEADLINE = {
  "posec3d_pose": "53afa3a697153eda",
  "posec3d_rgb": "dce5a149d3918112",
  "posec3d": "a2fd133aa76a60d5",
  "posec3d_scratch": "3acd7da677337353",
  "pcan_pose": "22dff789e8ae610e",
  "pcan_rgb": "185762dcb7207553",
  "pcan": "f9edb0e421862820",
  "pcan_scratch": "fe607f23f73fbe19",
}

TOY_CONFIG = """
from configs import ma52
from tests.tiny_config import shrink

def get_config(variant):
  config = shrink(ma52.get_config(variant))
  config.eval.every_epochs = 0.0
  return config
"""


@pytest.fixture
def results(tmp_path):
  return lines.Results(tmp_path / "results")


def guesses(rng, actions, right=0.6):
  """Predictions that are right that often."""
  wrong = rng.random(len(actions)) > right
  action = np.where(wrong, rng.integers(TREE.num_actions, size=len(actions)), actions)
  return Predictions(action, np.asarray(TREE.parents)[action], action >= 0)


def line_of(row, seed, predictions, actions, data="toy"):
  """A line as a run would leave it."""
  line = dict.fromkeys(lines.COLUMNS, "1") | {
    "row": row,
    "seed": str(seed),
    "data": data,
    "fingerprint": "f" * 32,
    "split": "val",
    "digest": f"digest of {row}",
  }
  for branch in lines.BRANCHES:
    for metric, value in measure(predictions, actions, TREE).items():
      line[f"{branch}/{metric}"] = f"{value:.6f}" if branch == "pose" else ""
  return line


def fill(results, study="parts", seeds=3, clips=300, gain=0.1):
  """A baseline and a better row."""
  rng = np.random.default_rng(0)
  actions = rng.integers(TREE.num_actions, size=clips)
  labels = lines.Labels(TREE, actions)
  for seed in range(seeds):
    for row, right in (("posec3d", 0.6), ("pcan", 0.6 + gain)):
      found = guesses(rng, actions, right)
      results.add(study, line_of(row, seed, found, actions), {"pose": found}, labels)
  return actions


# Tables and digests.


@pytest.mark.parametrize(
  ("study", "config"),
  [
    (study, config)
    for study in tables.STUDIES
    for config in (["small"] if study == "small" else ["lookalikes", "utd_mhad", "ma52"])
  ],
)
def test_rows_are_configs_that_differ(study, config):
  table = tables.STUDIES[study]
  found = {name: configs.resolve(table, name, config, DATA) for name in table.rows}
  assert len({what.digest for what in found.values()}) == len(found)
  for name, row in table.rows.items():
    assert row.against != name
    assert not row.against or found[row.against].config.model.streams == (
      found[name].config.model.streams
    )
    if row.values:
      changed = configs.resolve(Study("", "", {name: Row(row.variant)}), name, config, DATA)
      assert changed.digest != found[name].digest


def test_rows_that_differ_in_evaluation_only_share_their_training():
  table = tables.STUDIES["parts"]
  plain, other = (
    configs.resolve(table, name, "lookalikes", DATA) for name in ("pcan", "without rectification")
  )
  assert plain.weights == other.weights
  assert plain.digest != other.digest


def test_digests_ignore_places_and_what_is_switched_off():
  table = tables.STUDIES["parts"]
  here = configs.resolve(table, "pcan", "lookalikes", DATA)
  there = configs.resolve(table, "pcan", "lookalikes", pathlib.Path("elsewhere"))
  assert here.digest == there.digest
  assert configs._digest({"a": 1, "new_weight": 0.0}) == configs._digest({"a": 1})
  assert configs._digest({"a": 1, "new_weight": 0.5}) != configs._digest({"a": 1})


def test_runs_of_earlier_versions_are_still_the_same():
  """As long as what came since is switched off."""
  found = {
    name: configs.resolve(tables.STUDIES["headline"], name, "lookalikes_full", DATA).digest
    for name in tables.STUDIES["headline"].rows
  }
  assert found == HEADLINE


def test_the_third_step_depends_on_the_first_two():
  table = tables.STUDIES["headline"]
  scratch, step = (
    configs.resolve(table, name, "lookalikes", DATA) for name in ("pcan_scratch", "pcan")
  )
  assert scratch.weights != step.weights
  assert {stream: origin.variant for stream, origin in step.origins.items()} == {
    "rgb": "pcan_rgb",
    "pose": "pcan_pose",
  }


def test_mistakes_are_named():
  with pytest.raises(ValueError, match="no row 'nothing'"):
    configs.resolve(tables.STUDIES["parts"], "nothing", "lookalikes", DATA)
  with pytest.raises(ValueError, match="its study does not have"):
    Study("", "", {"a": Row("pcan", against="b")})
  with pytest.raises(ValueError, match="no field 'loss.nothing'"):
    configs.resolve(Study("", "", {"a": Row("pcan", {"loss.nothing": 1})}), "a", "ma52", DATA)
  with pytest.raises(ValueError, match="like 0-4"):
    parse_seeds("many")
  assert parse_seeds("0-2,7") == [0, 1, 2, 7]


# Lines.


def test_what_is_written_is_read(results):
  actions = fill(results, seeds=1)
  line, _ = results.lines("parts")
  assert results.find("values", lines.key_of(line))["study"] == "parts"
  labels = results.labels(line)
  assert labels.tree == TREE
  np.testing.assert_array_equal(labels.actions, actions)
  found = results.predictions("parts")[lines.key_of(line)]["pose"]
  metrics = measure(found, labels.actions, labels.tree)
  assert metrics["f1_mean"] == pytest.approx(float(line["pose/f1_mean"]), abs=1e-6)


def test_a_run_of_another_study_is_copied(results):
  fill(results, seeds=1)
  line = results.find("values", lines.key_of(results.lines("parts")[1]))
  results.copy(line, "values", "pcan")
  (copied,) = results.lines("values")
  assert copied == {name: line[name] for name in lines.COLUMNS}
  assert results.predictions("values").keys() == {lines.key_of(line)}


def test_other_columns_or_labels_are_refused(results, tmp_path):
  actions = fill(results, seeds=1)
  line, found = results.lines("parts")[0], guesses(np.random.default_rng(0), actions)
  with pytest.raises(ValueError, match="other labels"):
    results.add("parts", line, {"pose": found}, lines.Labels(TREE, (actions + 1) % 3))
  path = tmp_path / "results" / "parts.csv"
  path.write_text("row,seed,unknown\n")
  with pytest.raises(ValueError, match="columns that this version does not write: .'unknown'"):
    results.add("parts", line, {"pose": found}, lines.Labels(TREE, actions))


def test_lines_of_an_earlier_version_get_the_columns_that_are_new(results, tmp_path):
  actions = fill(results, seeds=1)
  path = tmp_path / "results" / "parts.csv"
  rows = list(csv.reader(path.read_text().splitlines()))
  new = [index for index, name in enumerate(rows[0]) if "/gradient_" in name]
  for row in rows:
    for index in reversed(new):
      del row[index]
  with path.open("w", newline="") as file:
    csv.writer(file, lineterminator="\n").writerows(rows)
  before = results.lines("parts")
  assert before[0]["pose/gradient_pda"] == "" and before[0]["pose/mended"] == "1"
  found = guesses(np.random.default_rng(1), actions)
  results.add(
    "parts", line_of("pcan", 7, found, actions), {"pose": found}, lines.Labels(TREE, actions)
  )
  *earlier, last = results.lines("parts")
  assert earlier == before and last["pose/gradient_pda"] == "1"
  assert path.read_text().count("gradient_pda") == 2


# Statistics.


def test_resampling_is_measuring_the_chosen_clips():
  rng = np.random.default_rng(0)
  actions = rng.integers(TREE.num_actions, size=40)
  found = guesses(rng, actions)
  drawn = intervals.resample(found, actions, TREE)
  weights = intervals.clip_weights(40).astype(int)
  for resample in range(3):
    chosen = np.repeat(np.arange(40), weights[resample])
    for metric, value in measure(found, actions, TREE, chosen).items():
      assert drawn[metric][resample] == pytest.approx(value, abs=1e-6), metric


@pytest.mark.parametrize("seeds", [2, 5])
def test_intervals_of_few_seeds_cover_the_truth(seeds):
  """Where only seeds matter, 95 % of the intervals must hold the true difference, here 0.02."""
  rng = np.random.default_rng(seeds)
  covered = 0
  for _ in range(200):
    gains = 0.02 + 0.01 * rng.normal(size=seeds)
    row = {str(s): (gain, np.full(intervals.RESAMPLES, gain)) for s, gain in enumerate(gains)}
    baseline = {s: (0.0, np.zeros(intervals.RESAMPLES)) for s in row}
    found = intervals.difference(row, baseline)
    covered += found.low <= 0.02 <= found.high
  assert 0.85 <= covered / 200 <= 1.0


def test_differences_are_paired_and_say_what_is_clear():
  draws = np.random.default_rng(0).normal(0.5, 0.1, intervals.RESAMPLES)
  baseline = {"0": (0.5, draws), "1": (0.52, draws + 0.02), "9": (0.1, draws)}
  row = {"0": (0.55, draws + 0.05), "1": (0.58, draws + 0.08)}
  found = intervals.difference(row, baseline)
  assert found.seeds == 2
  assert found.mean == pytest.approx(0.055)
  assert found.low <= 0.055 <= found.high
  one = intervals.difference({"0": row["0"]}, baseline)
  assert (one.low, one.high) == pytest.approx((0.05, 0.05))
  assert one.verdict == "above"
  assert intervals.difference({"0": baseline["0"]}, {"0": row["0"]}).verdict == "below"
  assert intervals.difference({"3": row["0"]}, baseline) is None


def test_over_seeds():
  found = intervals.over_seeds([1.0, 2.0, 3.0])
  assert (found.mean, found.deviation) == (2.0, 1.0)
  assert found.high - 2.0 == pytest.approx(4.302653 / np.sqrt(3))
  assert np.isnan(intervals.over_seeds([1.0]).low)


def test_grouping_by_the_clips_that_are_reported_flatters():
  """Two runs that guess alike: hard actions gain nothing, unless luck chose them."""
  rng = np.random.default_rng(0)
  tree = LabelTree(tuple(map(str, range(40))), ("all",), (0,) * 40)
  actions = np.repeat(np.arange(40), 10)

  def guess():
    right = rng.random(len(actions)) < 0.55
    action = np.where(right, actions, (actions + 1) % 40)
    return [Predictions(action, 0 * action, right)]

  gains = {True: [], False: []}
  for _ in range(20):
    baseline, row = guess(), guess()
    for honest, found in gains.items():
      groups = intervals.gains_by_difficulty(row, baseline, actions, tree, honest)
      found.append(groups["hard"][1])
  assert abs(np.mean(gains[True])) < 0.04
  assert np.mean(gains[False]) > 0.1


# The page.


def test_the_page_says_what_is_clear(results):
  fill(results, gain=0.25)
  (section,) = summaries.summarise(results)
  text = page.page([section])
  assert "`pcan` is clearly above `posec3d`" in text
  assert "1 clip per video" in text and "6 runs" in text and "(1 core, JAX 1)" in text
  assert section.rows["pcan"]["pose"].means["f1_mean"].seeds == 3
  assert "images/results_parts_toy.png" in text
  assert "| `pcan` | pose | 1.000 |" in text  # gradients
  shown = f"{100 * section.rows['posec3d']['pose'].means['action_top1'].mean:.2f}"
  assert shown in page.table(section)
  block = "<!-- study: parts toy -->\nold\n<!-- end of study -->\n"
  assert page.fill_blocks(block, [section]).count("| `pcan` |") == 1
  with pytest.raises(ValueError, match="no results of study"):
    page.fill_blocks("<!-- study: parts mars -->\n<!-- end of study -->", [section])


def test_a_difference_of_nothing_is_not_clear(results):
  fill(results, gain=0.0)
  assert "`pcan` cannot be distinguished from `posec3d`" in page.page(summaries.summarise(results))


def test_the_figure_shows_every_comparison(results):
  pytest.importorskip("matplotlib")
  from benchmarks.study.figures import draw_differences

  fill(results)
  (section,) = summaries.summarise(results)
  axes = draw_differences(section).axes[0]
  assert [label.get_text() for label in axes.get_yticklabels()] == ["pcan, pose"]


def test_lines_of_unknown_rows_are_refused(results):
  actions = fill(results, seeds=1)
  found = guesses(np.random.default_rng(0), actions)
  line = line_of("removed", 0, found, actions)
  results.add("parts", line, {"pose": found}, lines.Labels(TREE, actions))
  with pytest.raises(ValueError, match="no row 'removed'"):
    summaries.summarise(results)


# Running.


@pytest.mark.long
def test_runs_leave_lines_and_are_never_repeated(tmp_path, tiny_dataset_path, results, monkeypatch):
  monkeypatch.chdir(ROOT)
  (tmp_path / "toy.py").write_text(TOY_CONFIG)
  place = runs.Place(
    pathlib.Path(tiny_dataset_path), str(tmp_path / "toy.py"), tmp_path / "runs", results
  )
  rows = ("pcan", "without rectification")
  runs.run_study("parts", place, rows, [3])
  first, second = results.lines("parts")
  assert (first["row"], second["row"], first["seed"]) == (*rows, "3")
  assert first["pose/action_top1"]
  assert not first["fused/action_top1"]  # a copy of the only stream
  # They share their training, and what it goes on from.
  assert len(list((tmp_path / "runs").glob("*/*/checkpoints"))) == 2

  started = []
  monkeypatch.setattr(runs, "_start", lambda *args: started.append(args))
  runs.run_study("parts", place, rows, [3])
  runs.run_study("values", place, ["pcan"], [3])
  assert started == []
  assert len(results.lines("parts")) == 2
  (copied,) = results.lines("values")
  assert copied == first
  assert [section.study for section in summaries.summarise(results)] == ["parts", "values"]


def test_a_row_starts_from_the_rows_that_it_names(tmp_path, results, monkeypatch):
  started = []
  monkeypatch.setattr(runs, "_start", lambda what, *args: started.append((what.variant, args[-1])))
  place = runs.Place(DATA, "lookalikes", tmp_path, results)
  what = configs.resolve(tables.STUDIES["headline"], "pcan", "lookalikes", DATA)
  runs._trained(what, 0, place, "f" * 32)
  assert sorted(started) == [("pcan_pose", None), ("pcan_rgb", None)]


def test_missing_runs_go_seed_by_seed(tmp_path, results):
  place = runs.Place(DATA, "lookalikes", tmp_path, results)
  todo = runs.missing_runs("parts", place, "f" * 32, ["posec3d", "pcan"], [0, 1])
  assert [(run.seed, run.row) for run in todo] == [
    (0, "posec3d"),
    (0, "pcan"),
    (1, "posec3d"),
    (1, "pcan"),
  ]
  with pytest.raises(ValueError, match="no study"):
    runs.missing_runs("nothing", dataclasses.replace(place), "f" * 32, [], [0])


# What explains a result.


def test_explanations_count_what_rectification_did():
  actions = np.array([0, 1, 2, 2])

  def results(action, body):
    levels = {
      "action": {"probabilities": np.eye(3)[action]},
      "body": {"probabilities": np.eye(2)[body]},
    }
    return Evaluated(list("abcd"), actions, 1, {"fused": levels, "pose": levels}, {})

  plain, rectified = results([0, 0, 0, 2], [0, 0, 0, 0]), results([1, 1, 0, 2], [0, 0, 0, 0])
  prototypes = {"pose": {"action": jnp.array([[1.0, 0], [1, 1], [0, 1]])}}
  found = explain.explain(rectified, plain, prototypes, TREE)
  assert found == pytest.approx(
    {
      "pose/share_a1": 0.25,  # action 1 taken for 0, of the same body part
      "pose/share_a2": 0.25,
      "pose/share_a3": 0.25,
      "pose/mended": 0.25,
      "pose/spoilt": 0.25,
      "pose/cosine_siblings": np.sqrt(0.5),
      "pose/cosine_strangers": np.sqrt(0.5) / 2,
    }
  )
  without = explain.explain(plain, plain, {}, TREE)
  assert without.keys() == {"pose/share_a1", "pose/share_a2", "pose/share_a3"}

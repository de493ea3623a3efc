import dataclasses
import html.parser
import importlib
import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
from clu import metric_writers

from pcan_jax.checkpoints import locate
from pcan_jax.evaluation.metrics import Predictions, measure
from pcan_jax.evaluation.results import Origin, Results
from pcan_jax.feed.dataset import Dataset, open_dataset
from pcan_jax.feed.pipeline import read_frames
from pcan_jax.labels import get_tree
from pcan_jax.report import examples, statistics, style, tables, write_report
from pcan_jax.report.evaluated_run import align, read_curves, read_run
from pcan_jax.report.report_data import read_report_data
from pcan_jax.saved_steps import SavedStep
from tests.tiny_checkpoint import write_tiny_checkpoint

NUM_CLIPS = 7  # of the tiny data set's split val


def make_results(workdir: pathlib.Path, dataset: Dataset, seed: int = 0) -> Results:
  """Of the checkpoint in a working directory."""
  saved = SavedStep(*locate(workdir))
  spec = saved.spec
  rng = np.random.default_rng(seed)
  tree, streams = spec.tree, spec.config.model.streams
  actions = np.arange(NUM_CLIPS) % tree.num_actions
  truth = {"action": actions, "body": np.asarray(tree.parents)[actions]}
  sizes = {"action": tree.num_actions, "body": tree.num_bodies}

  def scores(level):
    raw = rng.random((NUM_CLIPS, sizes[level])) + 0.4 * np.eye(sizes[level])[truth[level]]
    return {"probabilities": (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)}

  outputs = {"fused": {}} | {
    stream: {level: scores(level) for level in sizes} for stream in streams
  }
  for level in sizes:
    of_streams = [outputs[stream][level]["probabilities"] for stream in streams]
    outputs["fused"][level] = {"probabilities": np.mean(of_streams, axis=0)}
  if spec.config.model.prototypes:
    for stream in streams:
      for level, dims in (("action", 16), ("body", 8)):
        embedding = rng.normal(size=(NUM_CLIPS, dims)).astype(np.float32)
        outputs[stream][level]["embedding"] = embedding
  metrics = {}
  for branch, levels in outputs.items():
    of_levels = (levels[level]["probabilities"] for level in sizes)
    metrics[branch] = measure(Predictions.of_scores(*of_levels, actions, tree), actions, tree)
  ids = [f"val_{index:03}" for index in range(NUM_CLIPS)]
  origin = Origin(saved.step, saved.digest, dataset.fingerprint)
  return Results(ids, actions, num_clips=2, outputs=outputs, metrics=metrics, origin=origin)


def write_events(workdir, streams):
  writer = metric_writers.SummaryWriter(str(workdir))
  names = ["num_tp", "num_fn_a1", "num_fn_a2", "num_fn_a3", "num_fp", "action_top1", "ce_action"]
  for step in range(1, 31):
    scalars = {f"{stream}/{name}": step / 30 for stream in streams for name in names}
    writer.write_scalars(step, scalars | {"loss": 5 - step / 10, "learning_rate": 0.1})
  writer.close()


def write_run(directory, dataset, variant="pcan", seed=0, **changes):
  """A working directory as training and evaluation leave it, without either."""
  write_tiny_checkpoint(directory, dataset, variant)
  results = dataclasses.replace(make_results(directory, dataset, seed), **changes)
  results.write(directory / "eval/val", dataset.tree)
  return directory


@pytest.fixture(scope="module")
def runs(tiny_dataset, tmp_path_factory):
  directory = tmp_path_factory.mktemp("runs")
  pcan = write_run(directory / "pcan", tiny_dataset)
  write_events(pcan, ("rgb", "pose"))
  return pcan, write_run(directory / "posec3d", tiny_dataset, "posec3d", seed=1)


def quick(patch, pixels_per_inch, resamples):
  """Coarse figures, few of them; embedding fonts, see test_report_figures.py, takes longest."""
  patch.setattr(style, "_PIXELS_PER_INCH", pixels_per_inch)
  patch.setitem(style._PAPER, "pdf.use14corefonts", True)
  patch.setattr(statistics, "RESAMPLES", resamples)
  patch.setattr(examples, "_PER_KIND", 1)


@pytest.fixture(scope="module")
def report(runs):
  with pytest.MonkeyPatch.context() as patch:
    quick(patch, 40, 50)
    return write_report(runs[0], baseline=runs[1])


class Page(html.parser.HTMLParser):
  """What a browser would find."""

  VOID = {"meta", "link", "img", "br"}

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.headings, self.text = [], [], {}, []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, f"</{tag}> out of place"

  def handle_data(self, data):
    if self.open and self.open[-1] not in ("style", "script"):
      self.text.append(data)

  def attributes(self, tag, name):
    return [found[name] for kind, found in self.tags if kind == tag and name in found]


def test_the_page_is_complete_and_needs_no_other_file(report):
  text = report.read_text()
  page = Page(text)
  assert not page.open
  ids = page.attributes("section", "id")
  assert ids == [
    "results",
    "differences",
    "accuracy",
    "confusion",
    "difficulty",
    "gain",
    "clips",
    "sets",
    "prototypes",
    "map",
    "calibration",
    "training",
    "config",
  ]
  assert page.attributes("a", "href") == [f"#{name}" for name in ids]
  images = page.attributes("img", "src")
  assert all(source.startswith("data:image/png;base64,") for source in images)
  assert len(page.attributes("img", "alt")) == len(images)
  assert all(len(alt) > 20 for alt in page.attributes("img", "alt"))
  assert "http" not in "".join(images) + text.split("</style>")[0]
  assert not [tag for tag, _ in page.tags if tag == "script"]


def test_every_figure_of_the_page_is_a_png_and_a_pdf_beside_it(report):
  page = Page(report.read_text())
  names = sorted(word[8:-4] for word in page.text if word.startswith("figures/"))
  folder = report.parent / "figures"
  assert {"confusion_action", "confusion_body", "class_gain", "map_rgb", "clip_1"} <= set(names)
  assert names == sorted(path.stem for path in folder.glob("*.png"))
  assert names == sorted(path.stem for path in folder.glob("*.pdf"))


def test_the_table_holds_the_metrics_of_run_and_baseline(runs, report):
  for workdir in runs:
    metrics = json.loads((workdir / "eval/val/metrics.json").read_text())
    for branch, name in (("fused", "both streams"), ("rgb", "RGB"), ("pose", "pose")):
      top1, mean = (100 * metrics[branch][metric] for metric in ("body_top1", "f1_mean"))
      for file in ("table.md", "table.tex"):
        lines = (report.parent / file).read_text().splitlines()
        (row,) = [line for line in lines if f"{workdir.name} " in line and f" {name} " in line]
        assert f"{top1:.2f}" in row and f"{mean:.2f}" in row


def test_reproduce_shows_the_paper_table():
  text = pathlib.Path("docs/REPRODUCE.md").read_text(encoding="utf-8")
  shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
  header = [cells for cells in shown if cells[:1] == ["row of the paper"]]
  assert header == [["row of the paper", "VARIANT", *tables.HEADER[2:]]]
  variants = {"PoseConv3D": "posec3d", "PCAN": "pcan"}
  streams = {"both streams": "", "RGB": "_rgb", "pose": "_pose"}
  for row in tables.paper_rows():
    method = row.method.partition(",")[0]
    variant = variants[method] + streams[row.streams]
    assert [f"{method}, {row.streams}", f"`{variant}`", *row.cells[2:]] in shown


def test_paper_rows_only_beside_its_own_labels(runs):
  run = read_run(runs[0])
  assert {row.source for row in tables.table_rows(run, None)} == {"run"}
  ma52 = dataclasses.replace(run, spec=dataclasses.replace(run.spec, tree=get_tree("ma52")))
  paper = [row for row in tables.table_rows(ma52, None) if row.source == "paper"]
  assert len(paper) == 6
  for row in paper:  # F1 mean is the mean of the four; micro F1 is accuracy
    assert row.values[-1] == pytest.approx(np.mean(row.values[3:7]), abs=0.011)
    assert (row.values[4], row.values[6]) == row.values[:2]


def test_labels_and_names_are_taken_as_text(runs):
  run = read_run(runs[0])
  odd = dataclasses.replace(run, workdir=run.workdir.with_name("50%_of|a&b"))
  rows = tables.table_rows(odd, None)
  assert "| 50%_of\\|a&b |" in tables.markdown(rows)
  assert "50\\%\\_of|a\\&b & both streams" in tables.latex(rows)


def test_one_stream_without_prototypes_data_or_events_is_said_so(
  tiny_dataset, tmp_path, monkeypatch
):
  quick(monkeypatch, 20, 5)
  monkeypatch.chdir(tmp_path)
  gone = shutil.copytree(tiny_dataset.path, tmp_path / "gone")
  workdir = write_run(tmp_path / "rgb", open_dataset(gone), "posec3d_rgb")
  shutil.rmtree(gone)
  page = write_report(workdir, output=tmp_path / "elsewhere")
  assert page == tmp_path / "elsewhere/index.html"
  text = html.unescape(page.read_text())
  assert "has one stream" in text
  assert text.count("This run has no prototypes") == 2
  assert f"There is no data set at {gone}" in text
  assert text.count("There are no TensorBoard events") == 2
  assert "--baseline=WORKDIR" in text
  assert len(list(page.parent.glob("figures/clip_*.png"))) > 0
  with pytest.raises(FileNotFoundError, match="no data set at also_nowhere"):
    write_report(workdir, data_path="also_nowhere")


def test_what_is_missing_is_an_error_that_says_what_to_do(tiny_dataset, tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint at"):
    write_report(tmp_path)
  workdir = write_tiny_checkpoint(tmp_path / "run", tiny_dataset)
  with pytest.raises(FileNotFoundError, match="--mode=eval"):
    write_report(workdir)
  unlabelled = dataclasses.replace(
    make_results(workdir, tiny_dataset), actions=np.full(NUM_CLIPS, -1), metrics={}
  )
  unlabelled.write(workdir / "eval/test", tiny_dataset.tree)
  with pytest.raises(ValueError, match="eval/test holds no labels"):
    write_report(workdir, split="test")


def test_results_of_another_checkpoint_are_refused(tiny_dataset, tmp_path):
  """A report after further training once showed the scores from before."""
  workdir = write_run(tmp_path / "run", tiny_dataset)
  assert read_run(workdir).results.origin.dataset == tiny_dataset.fingerprint
  shutil.copytree(workdir / "checkpoints/0", workdir / "checkpoints/9")
  with pytest.raises(ValueError, match="results of step 0, .* of step 9, .*--mode=eval"):
    read_run(workdir)
  shutil.rmtree(workdir / "checkpoints")
  write_tiny_checkpoint(workdir, tiny_dataset, "posec3d")  # the same step, other weights
  with pytest.raises(ValueError, match="results of step 0, .* of step 0, is another"):
    read_run(workdir)


def test_a_baseline_is_paired_by_id(runs):
  run, baseline = (read_run(workdir) for workdir in runs)
  order = np.random.default_rng(0).permutation(NUM_CLIPS)
  shuffled = dataclasses.replace(
    baseline.results,
    ids=[baseline.results.ids[row] for row in order],
    actions=baseline.results.actions[order],
    outputs=jax.tree.map(lambda values: values[order], baseline.results.outputs),
  )
  aligned = align(dataclasses.replace(baseline, results=shuffled), run)
  assert aligned.results.ids == run.results.ids
  jax.tree.map(np.testing.assert_array_equal, aligned.results.outputs, baseline.results.outputs)


def test_a_baseline_of_other_clips_or_labels_is_an_error(runs):
  run, baseline = (read_run(workdir) for workdir in runs)

  def changed(**changes):
    return dataclasses.replace(baseline, results=dataclasses.replace(baseline.results, **changes))

  with pytest.raises(ValueError, match="1 are only in the run, 1 only in the baseline, such as"):
    align(changed(ids=[*run.results.ids[:-1], "another"]), run)
  with pytest.raises(ValueError, match="different labels for 1 clips, such as 'val_000'"):
    align(changed(actions=run.results.actions + (np.arange(NUM_CLIPS) == 0)), run)
  tree = dataclasses.replace(run.tree, bodies=("skull", *run.tree.bodies[1:]))
  other = dataclasses.replace(baseline, spec=dataclasses.replace(baseline.spec, tree=tree))
  with pytest.raises(ValueError, match="another label tree"):
    align(other, run)


def test_examples_are_of_the_kind_they_are_said_to_be(runs):
  run, baseline = (read_run(workdir) for workdir in runs)
  chosen = examples.choose_examples(run, align(baseline, run))
  assert chosen and len({example.row for example in chosen}) == len(chosen)
  right, body_right = run.right("action"), run.right("body")
  baseline_right = baseline.right("action")
  for example in chosen:
    row = example.row
    expected = {
      "Right here, wrong in the baseline": right[row] and not baseline_right[row],
      "Wrong here, right in the baseline": not right[row] and baseline_right[row],
      "Body part right, action wrong (A1)": not right[row] and body_right[row],
      "Body part and action wrong (A2)": not right[row] and not body_right[row],
      "Body part wrong, action right (A3)": right[row] and not body_right[row],
    }
    assert expected[example.kind]


def test_the_labels_of_an_earlier_version_are_read_from_its_records(
  runs, tiny_dataset_path, tmp_path
):
  shutil.copytree(tiny_dataset_path, tmp_path / "earlier")
  (metadata,) = (tmp_path / "earlier").rglob("metadata.json")
  content = json.loads(metadata.read_text())
  for split in content["splits"].values():
    del split["actions"]
  metadata.write_text(json.dumps(content))
  arguments = {"baseline": None, "split": None}
  found = read_report_data(runs[0], **arguments, data_path=tiny_dataset_path).dataset
  assert found.train_support.sum() == 16 and found.train_note == found.frames_note == ""
  with pytest.raises(ValueError, match=r"of another data set than \S+: evaluate again.*--data"):
    read_report_data(runs[0], **arguments, data_path=tmp_path / "earlier")
  run = write_run(tmp_path / "run", open_dataset(tmp_path / "earlier"))
  earlier = read_report_data(run, **arguments, data_path=tmp_path / "earlier").dataset
  np.testing.assert_array_equal(earlier.train_support, found.train_support)
  jax.tree.map(np.testing.assert_array_equal, earlier.frames, found.frames)
  assert earlier.frames_note == ""


@pytest.mark.parametrize("library", ["matplotlib", "jinja2", "sklearn", "threadpoolctl"])
def test_without_its_libraries_a_report_says_what_to_install(monkeypatch, library):
  for name in [*sys.modules]:
    if name == library or name.startswith((f"{library}.", "pcan_jax.report")):
      monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, library, None)
  message = rf"reports need {library}: pip install 'pcan_jax\[report\]'"
  with pytest.raises(ModuleNotFoundError, match=message):
    _ = importlib.import_module("pcan_jax.report").write_report


def test_frames_are_those_of_the_clip_asked_for(tiny_dataset):
  found = read_frames(tiny_dataset, "val", ["val_004", "val_002", "absent"], 6)
  assert sorted(found) == ["val_002", "val_004"]
  assert read_frames(tiny_dataset, "val", [], 6) == {}
  for clip, colour in (("val_002", 2), ("val_004", 1)):  # the square has the action's colour
    assert found[clip].shape[0] == 6
    assert found[clip].max(axis=(0, 1, 2)).argmax() == colour


def test_curves_are_read_whole(runs):
  curves = read_curves(runs[0])
  np.testing.assert_array_equal(curves["loss"].steps, np.arange(1, 31))
  np.testing.assert_allclose(curves["loss"].values, 5 - np.arange(1, 31) / 10, rtol=1e-6)
  assert read_curves(runs[1]) == {}

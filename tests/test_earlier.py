"""Data sets and checkpoints of earlier versions still train, evaluate and predict alike."""

import json
import pathlib

import jax
import numpy as np
import pytest

from pcan_jax.checkpoints import Checkpoints, load_model, locate
from pcan_jax.evaluation.protocol import Evaluator
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.prediction.recognizer import Recognizer
from pcan_jax.spec import flatten_outputs
from pcan_jax.training import loop
from pcan_jax.training.step import compile_step
from tests import earlier_augmentation
from tests.tiny_source import make_clip

EARLIER = pathlib.Path(__file__).parent / "earlier"
EXPECTED = json.loads((EARLIER / "expected.json").read_text())
with np.load(EARLIER / "expected.npz") as arrays:
  EXPECTED_OUTPUTS = dict(arrays)


@pytest.fixture(scope="module")
def dataset():
  return open_dataset(EARLIER / "dataset")


def assert_outputs(found, prefix):
  wanted = {name: x for name, x in EXPECTED_OUTPUTS.items() if name.startswith(f"{prefix}/")}
  wanted = {name.removeprefix(f"{prefix}/"): x for name, x in wanted.items() if name.count("/") > 1}
  found = flatten_outputs(found)
  assert wanted.keys() <= found.keys()
  for name, array in wanted.items():
    np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_run_goes_on_as_it_would_have(monkeypatch):
  """But for what the augmentation draws, which it is given as that version drew it."""
  monkeypatch.setattr(
    "pcan_jax.training.step.preprocess",
    lambda batch, config, _: earlier_augmentation.preprocess(batch, config, batch["key"][0]),
  )
  directory, step = locate(EARLIER / "run")
  with Checkpoints(directory) as checkpoints:
    config = checkpoints.read_spec(step).config
    config.data.path = str(EARLIER / "dataset")
    run = loop.prepare(config)
    init, step_fn = compile_step(run.spec, run.schedule, run.mesh)
    state = init()
    state = state.restored(**checkpoints.restore(step, **state.targets()))
  for batch, wanted in zip(run.batches(step), EXPECTED["steps"][step:]):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    state, terms = step_fn(state, batch | {"key": jax.random.split(key)[:1]})
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(wanted, rel=1e-3)
  assert int(state.step) == len(EXPECTED["steps"])


def test_a_checkpoint_is_evaluated_to_the_same_scores(dataset):
  spec, variables, _ = load_model(EARLIER / "run")
  results = Evaluator(spec, dataset)(variables, "val", num_clips=2)
  assert results.ids == EXPECTED_OUTPUTS["eval/ids"].tolist()
  assert results.actions.tolist() == EXPECTED_OUTPUTS["eval/actions"].tolist()
  assert_outputs(results.outputs, "eval")
  for branch, metrics in EXPECTED["metrics"].items():
    assert results.metrics[branch] == pytest.approx(metrics)


def test_a_checkpoint_predicts_the_same():
  frames, keypoints = make_clip(np.random.default_rng(3), 2)
  scores = np.full(keypoints.shape[:3], 0.9, np.float32)
  prediction = Recognizer.load(EARLIER / "run", num_clips=2).predict(frames, keypoints, scores)
  assert_outputs(prediction.outputs, "predict")


def test_labels_that_an_earlier_data_set_keeps_in_its_records_are_found(dataset):
  assert dataset.actions("val").tolist() == EXPECTED_OUTPUTS["eval/actions"].tolist()
  assert (dataset.actions("test") == -1).all()

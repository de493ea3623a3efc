"""Temperature: recovered where it is known, never worse than none."""

import dataclasses

import numpy as np
import pytest
from scipy.special import softmax

from pcan_jax.evaluation.calibration import TEMPERATURE_FILE, Temperature, fit_temperature, soften

OF = {"split": "val", "checkpoint": "abc", "step": 3}


def draw(scale, num=4000, classes=5, seed=0):
  """Probabilities at `scale` times the logits from which the true classes were drawn."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 1.5, (num, classes))
  true = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((num, 1))).sum(axis=1)
  return softmax(scale * logits, axis=1), true


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_makes_up_for_a_scale(scale):
  probabilities, true = draw(scale)
  found = fit_temperature(probabilities, true, **OF)
  assert found.temperature == pytest.approx(scale, rel=0.08)
  assert found.nll_after <= found.nll_before and found.ece_after < 0.03
  assert (found.num_videos, found.split, found.step) == (4000, "val", 3)
  if scale == 3.0:
    assert found.ece_before > 0.1


def test_softening_is_a_division_of_logits():
  logits = np.random.default_rng(0).normal(0, 2, (6, 4))
  softer = soften(softmax(logits, axis=1), 2.5)
  np.testing.assert_allclose(softer, softmax(logits / 2.5, axis=1), rtol=1e-9)
  np.testing.assert_allclose(soften(softer, 1.0), softer)
  assert np.isfinite(soften(np.array([[1.0, 0.0]]), 0.5)).all()


def test_without_labels_there_is_no_temperature():
  probabilities, true = draw(1.0, num=10)
  assert fit_temperature(probabilities, -np.ones_like(true), **OF) is None
  some = np.where(np.arange(10) < 4, -1, true)
  assert fit_temperature(probabilities, some, **OF).num_videos == 6


@pytest.mark.parametrize("sureness", [1.0, 0.7])
def test_a_model_that_is_always_right_does_not_get_surer(sureness):
  probabilities = np.full((3, 3), (1 - sureness) / 2)
  np.fill_diagonal(probabilities, sureness)
  found = fit_temperature(probabilities, np.arange(3), **OF)
  assert found.temperature == 1 and found.nll_after == found.nll_before


def test_files(tmp_path):
  found = fit_temperature(*draw(2.0, num=50), **OF)
  assert Temperature.read(tmp_path) is None
  found.write(tmp_path)
  assert Temperature.read(tmp_path) == found
  for content in ("{", "{}", "[1]"):
    (tmp_path / TEMPERATURE_FILE).write_text(content)
    with pytest.raises(ValueError, match="temperature.json is damaged"):
      Temperature.read(tmp_path)
  dataclasses.replace(found, temperature=-1.0).write(tmp_path)
  with pytest.raises(ValueError, match="temperature -1"):
    Temperature.read(tmp_path)

"""How far probabilities can be taken at their word, and the temperature that makes up for it."""

import dataclasses
import json
import pathlib

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize

from pcan_jax.writing import replace_file

CALIBRATION_BINS = 15
TEMPERATURE_FILE = "temperature.json"
"""In the folder of results, and beside the folder of checkpoints of what was evaluated."""

_RANGE = (0.05, 20.0)  # of temperatures
SMALLEST = 1e-12
"""Replaces probabilities that float32 rounded to 0 in logarithms."""


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Accuracy of predictions by confidence.

  Attributes:
    edges: of the bins of confidence, which have equal width.
    count: predictions per bin.
    confidence: mean confidence per bin; NaN for empty bins.
    accuracy: share of right predictions per bin; NaN for empty bins.
    error: expected calibration error, the mean of |accuracy - confidence| over predictions.
  """

  edges: Float[np.ndarray, " edges"]
  count: Int[np.ndarray, " bins"]
  confidence: Float[np.ndarray, " bins"]
  accuracy: Float[np.ndarray, " bins"]
  error: float


def calibrate(probabilities: Float[np.ndarray, "n k"], true: Int[np.ndarray, " n"]) -> Calibration:
  """Bins predictions by the probability of the predicted class.

  References:
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
  """
  confidence = probabilities.max(axis=1).astype(np.float64)
  right = probabilities.argmax(axis=1) == true
  edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
  # A bin includes its upper edge, so that a confidence of 1 is in the last one.
  index = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, CALIBRATION_BINS - 1)
  count = np.bincount(index, minlength=CALIBRATION_BINS)
  filled = np.where(count > 0, count, np.nan)
  mean_confidence = np.bincount(index, confidence, CALIBRATION_BINS) / filled
  accuracy = np.bincount(index, right, CALIBRATION_BINS) / filled
  gaps = np.abs(accuracy - mean_confidence)
  return Calibration(
    edges, count, mean_confidence, accuracy, float(np.nansum(gaps * count) / len(true))
  )


@dataclasses.dataclass(frozen=True)
class Temperature:
  """The temperature of a model, and what it was fitted on.

  Attributes:
    temperature: by which the logarithms of probabilities are divided; above 1 for a model that is
      too sure.
    nll_before, nll_after: mean negative log likelihood of the true actions at temperature 1, and
      at this one.
    ece_before, ece_after: the expected calibration error, likewise.
    split: of the data set.
    num_videos: in it.
    checkpoint: digest of the checkpoint, or of an ensemble.
    step: of the checkpoint; None for an ensemble.
  """

  temperature: float
  nll_before: float
  nll_after: float
  ece_before: float
  ece_after: float
  split: str
  num_videos: int
  checkpoint: str
  step: int | None

  def write(self, folder: pathlib.Path) -> None:
    """Writes it to a folder."""
    replace_file(folder / TEMPERATURE_FILE, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

  @classmethod
  def read(cls, folder: pathlib.Path) -> "Temperature | None":
    """Reads what `write` wrote; None if there is none.

    Raises:
      ValueError: the file is damaged.
    """
    path = folder / TEMPERATURE_FILE
    if not path.is_file():
      return None
    try:
      found = cls(**json.loads(path.read_text(encoding="utf-8")))
      if not _RANGE[0] <= found.temperature <= _RANGE[1]:
        raise ValueError(f"temperature {found.temperature}")
    except (ValueError, TypeError) as error:
      raise ValueError(f"{path} is damaged ({error}): delete it and evaluate again") from error
    return found


def soften(probabilities: Float[np.ndarray, "n k"], temperature: float) -> Float[np.ndarray, "n k"]:
  """Divides the logarithms of probabilities by a temperature.

  For the softmax of logits it is the same as dividing these. Here probabilities are means over
  streams and clips, which have no logits.
  """
  logits = np.log(np.maximum(probabilities, SMALLEST).astype(np.float64)) / temperature
  scores = np.exp(logits - logits.max(axis=1, keepdims=True))
  return scores / scores.sum(axis=1, keepdims=True)


def fit_temperature(
  probabilities: Float[np.ndarray, "n k"],
  actions: Int[np.ndarray, " n"],
  *,
  split: str,
  checkpoint: str,
  step: int | None,
) -> Temperature | None:
  """Fits a temperature to the labels of a split: the one with the smallest NLL.

  A split without a mistake does not say how far its confidence should rise; it stays.

  Args:
    probabilities: of the actions, of every video.
    actions: the true ones, -1 where unknown.
    split, checkpoint, step: what was evaluated.

  Returns:
    None if no video has a label.

  References:
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
  """
  known = actions >= 0
  probabilities, actions = probabilities[known], actions[known]
  if not len(actions):
    return None

  def nll(temperature: float) -> float:
    chosen = soften(probabilities, temperature)[np.arange(len(actions)), actions]
    return float(-np.log(np.maximum(chosen, SMALLEST)).mean())

  # Without a mistake, the likelihood grows for as long as the temperature falls.
  lowest = _RANGE[0] if (probabilities.argmax(axis=1) != actions).any() else 1.0
  found = optimize.minimize_scalar(
    lambda log: nll(np.exp(log)), bounds=np.log((lowest, _RANGE[1])), method="bounded"
  )
  best = float(np.exp(found.x))
  temperature = best if nll(best) < nll(1.0) else 1.0
  return Temperature(
    temperature=temperature,
    nll_before=nll(1.0),
    nll_after=nll(temperature),
    ece_before=calibrate(probabilities, actions).error,
    ece_after=calibrate(soften(probabilities, temperature), actions).error,
    split=split,
    num_videos=len(actions),
    checkpoint=checkpoint,
    step=step,
  )

"""Which event rules and which temperature belong to a checkpoint, and the scores they are for."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pcan_jax.evaluation.calibration import TEMPERATURE_FILE, Temperature, soften
from pcan_jax.labels import LabelTree
from pcan_jax.prediction.events import EventRules, WindowScores
from pcan_jax.prediction.recognizer import Prediction, Recognizer
from pcan_jax.prediction.videos import Window
from pcan_jax.saved_steps import SavedStep
from pcan_jax.writing import replace_file

TUNED_FILE = "events.json"
"""Beside the folder of checkpoints: rules found by `pcan tune_events`."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EventSettings:
  """How events are found with a checkpoint.

  Attributes:
    rules: what counts as an event.
    temperature: of the probabilities.
    origin: where both come from, for people.
  """

  rules: EventRules
  temperature: float
  origin: str

  def changed(self, **values: float | int | None) -> "EventSettings":
    """With other rules, where values are given."""
    given = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(self, rules=dataclasses.replace(self.rules, **given))


def settings_of(saved: SavedStep) -> EventSettings:
  """The settings of a checkpoint: tuned ones, or else those of its config.

  Raises:
    ValueError: a file beside the checkpoint is damaged; the message names it.
  """
  tuned, fitted = saved.folder / TUNED_FILE, Temperature.read(saved.folder)
  values = saved.spec.config.events
  rules, origin = EventRules.of_values(dict(values)), "event rules of the config"
  if tuned.is_file():
    try:
      found = json.loads(tuned.read_text(encoding="utf-8"))
      rules = EventRules.of_values(found["events"])
      on = found["tuned_on"]
      origin = f"event rules of {tuned}, tuned on {on['num_events']} events in {on['codings']}"
      _warn_of_other(tuned, on["checkpoint"], saved, "pcan tune_events")
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(f"{tuned} is damaged ({error}): delete it, or tune again") from error
  if fitted is None:
    return EventSettings(rules, 1.0, f"{origin}; no temperature (`pcan --mode=eval` fits one)")
  _warn_of_other(saved.folder / TEMPERATURE_FILE, fitted.checkpoint, saved, "pcan --mode=eval")
  origin += f"; temperature {fitted.temperature:.3f}, fitted to split {fitted.split!r}"
  return EventSettings(rules, fitted.temperature, origin)


def _warn_of_other(path: pathlib.Path, digest: str, saved: SavedStep, command: str) -> None:
  if digest != saved.digest:
    _log.warning(
      "%s is of another checkpoint than step %d; run `%s` again", path, saved.step, command
    )


def write_tuned(saved: SavedStep, rules: EventRules, tuned_on: dict[str, Any]) -> pathlib.Path:
  """Stores rules beside a checkpoint, with what they were tuned on."""
  path = saved.folder / TUNED_FILE
  content = {"events": dataclasses.asdict(rules), "tuned_on": tuned_on}
  replace_file(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
  return path


def window_scores(
  recognizer: Recognizer,
  windows: Sequence[Window],
  predictions: Sequence[Prediction],
  temperature: float,
) -> WindowScores:
  """What events are found in: probabilities at a temperature, and distances to prototypes."""
  fused = np.stack([one.outputs["fused"]["action"]["probabilities"] for one in predictions])
  probabilities = soften(fused, temperature)
  prototypes = {stream: levels["action"] for stream, levels in recognizer.prototypes.items()}
  likely = probabilities.argmax(axis=1)
  distances = [
    [
      _distance(one.outputs[stream]["action"]["embedding"], own[action])
      for stream, own in prototypes.items()
    ]
    for one, action in zip(predictions, likely)
  ]
  return WindowScores(
    starts=np.array([window.start_seconds for window in windows]),
    ends=np.array([window.end_seconds for window in windows]),
    probabilities=probabilities,
    distances=np.mean(distances, axis=1) if prototypes else np.full(len(windows), np.nan),
  )


def _distance(embedding: np.ndarray, prototype: np.ndarray) -> float:
  """1 minus the cosine of two vectors; 1 if one is zero."""
  norm = np.linalg.norm(embedding) * np.linalg.norm(prototype)
  return 1.0 - float(np.dot(embedding, prototype) / norm) if norm > 0 else 1.0


def without_background(tree: LabelTree, background: str) -> LabelTree:
  """The classes that can be events, which are a coder's vocabulary."""
  return tree.subset([action for action in tree.actions if action != background] or tree.actions)

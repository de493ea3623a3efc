"""Collects the events of predicted videos, and writes them as asked for."""

import csv
import io
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from pcan_jax.coding.events import Coding
from pcan_jax.prediction.event_settings import EventSettings, window_scores, without_background
from pcan_jax.prediction.events import find_events, score_moments
from pcan_jax.prediction.recognizer import Prediction, Recognizer
from pcan_jax.prediction.videos import Video, Window
from pcan_jax.writing import replace_file

_COLUMNS = ("video", "start", "end", "label", "tier", "confidence")

_log = logging.getLogger(__name__)


class EventFiles:
  """The events of all videos of a prediction.

  Args:
    recognizer: the model.
    settings: what counts as an event.
  """

  def __init__(self, recognizer: Recognizer, settings: EventSettings) -> None:
    self._recognizer, self._settings = recognizer, settings
    self.codings: list[Coding] = []

  def add(
    self, name: str, video: Video, windows: Sequence[Window], predictions: Sequence[Prediction]
  ) -> Coding:
    """Finds the events of a video, and returns them."""
    settings, duration = self._settings, float(video.times[-1])
    scores = window_scores(self._recognizer, windows, predictions, settings.temperature)
    moments = score_moments(scores, settings.rules)
    events = find_events(moments, self._recognizer.tree, settings.rules, duration)
    self.codings.append(Coding(name, tuple(events), duration))
    for event in events:
      _log.info(
        "%s  %.2f-%.2f s  %s %.0f %%  | %s",
        *(name, event.onset, event.offset, event.label, 100 * event.confidence, event.tier),
      )
    return self.codings[-1]

  def write(self, output: pathlib.Path) -> None:
    """Writes `events.csv` and `events.json`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for coding in self.codings:
      for event in coding.events:
        times = (f"{event.onset:.3f}", f"{event.offset:.3f}")
        confidence = f"{event.confidence:.4f}"
        table.writerow([coding.video, *times, event.label, event.tier, confidence])
    replace_file(output / "events.csv", text.getvalue())
    replace_file(output / "events.json", json.dumps(self._summary(), indent=1) + "\n")

  def _summary(self) -> dict[str, Any]:
    rules = vars(self._settings.rules)
    tree = without_background(self._recognizer.tree, self._settings.rules.background)
    return {
      "rules": rules | {"temperature": self._settings.temperature},
      "origin": self._settings.origin,
      "actions": tree.actions,
      "videos": [
        {
          "video": coding.video,
          "duration": coding.duration,
          "events": [
            {
              "start": event.onset,
              "end": event.offset,
              "label": event.label,
              "tier": event.tier,
              "confidence": round(event.confidence, 4),
            }
            for event in coding.events
          ],
        }
        for coding in self.codings
      ],
    }

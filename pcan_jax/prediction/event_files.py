"""Collects the events of predicted videos, and writes them as asked for."""

import json
import logging
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from pcan_jax.coding.csv_codings import write_table
from pcan_jax.coding.events import Coding
from pcan_jax.coding.formats import write_codings
from pcan_jax.labels import LabelTree
from pcan_jax.prediction.event_settings import EventSettings, window_scores, without_background
from pcan_jax.prediction.events import find_events, score_moments
from pcan_jax.prediction.recognizer import Prediction, Recognizer
from pcan_jax.prediction.videos import Video, Window
from pcan_jax.review.write import write_review
from pcan_jax.writing import replace_file

_COLUMNS = ("video", "start", "end", "label", "tier", "confidence")

_log = logging.getLogger(__name__)


def check_formats(formats: Sequence[str]) -> None:
  """Checks the names of formats, before any work.

  Raises:
    ImportError: an optional package is missing; the message says how to install it.
    ValueError: one is unknown.
  """
  for name in formats:
    with tempfile.TemporaryDirectory() as folder:
      write_codings(name, [Coding("video.mp4", ())], LabelTree(("a",), ("b",), (0,)), folder)


class EventFiles:
  """The events of all videos of a prediction.

  Args:
    recognizer: the model.
    settings: what counts as an event.
  """

  def __init__(self, recognizer: Recognizer, settings: EventSettings) -> None:
    self._recognizer, self._settings = recognizer, settings
    self._tree = without_background(recognizer.tree, settings.rules.background)
    # By the names of the videos in tables; the codings have their paths, which documents link.
    self._codings: dict[str, Coding] = {}

  def add(
    self, name: str, video: Video, windows: Sequence[Window], predictions: Sequence[Prediction]
  ) -> None:
    """Finds the events of a video."""
    settings, duration = self._settings, float(video.times[-1])
    scores = window_scores(self._recognizer, windows, predictions, settings.temperature)
    moments = score_moments(scores, settings.rules)
    events = find_events(moments, self._recognizer.tree, settings.rules, duration)
    self._codings[name] = Coding(str(video.path), tuple(events), duration)
    for event in events:
      _log.info(
        "%s  %.2f-%.2f s  %s %.0f %%  | %s",
        *(name, event.onset, event.offset, event.label, 100 * event.confidence, event.tier),
      )

  def write(self, output: pathlib.Path, formats: Sequence[str], *, review: bool) -> None:
    """Writes `events.csv`, `events.json`, the files of annotation tools, and pages.

    Args:
      output: folder for the files.
      formats: of `pcan_jax.coding.formats`.
      review: whether to write pages on which the events are reviewed, see `pcan_jax.review`.

    Raises:
      ImportError: an optional package is missing; the message says how to install it.
    """
    rows = [
      (name, f"{event.onset:.3f}", f"{event.offset:.3f}", event.label, event.tier, confidence)
      for name, coding in self._codings.items()
      for event in coding.events
      for confidence in [f"{event.confidence:.4f}"]
    ]
    write_table(output / "events.csv", [_COLUMNS, *rows])
    replace_file(output / "events.json", json.dumps(self._summary(), indent=1) + "\n")
    for name in formats:
      # The challenge has the ids of all classes.
      tree = self._recognizer.tree if name == "detections" else self._tree
      for path in write_codings(name, list(self._codings.values()), tree, output):
        _log.info("%s", path)
    for name, coding in self._codings.items() if review else ():
      folder = (output / name).parent  # as overlays, by the folders of the videos
      _log.info("%s", write_review(coding, self._tree, coding.video, folder))

  def _summary(self) -> dict[str, Any]:
    rules = vars(self._settings.rules)
    return {
      "rules": rules | {"temperature": self._settings.temperature},
      "origin": self._settings.origin,
      "actions": self._tree.actions,
      "videos": [
        {
          "video": name,
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
        for name, coding in self._codings.items()
      ],
    }

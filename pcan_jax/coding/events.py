"""Events in recordings: one label from an onset to an offset."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True, order=True)
class Event:
  """A stretch of a recording in which one thing happens.

  Attributes:
    onset: seconds from the start of the recording.
    offset: seconds from the start of the recording, after `onset`.
    label: name of the action.
    tier: what the label was coded under: a tier of ELAN, a category of BORIS, a body part. Empty
      where there is no such thing.
    subject: whom it concerns; empty where that is not said.
    confidence: between 0 and 1; None for a person's coding.

  Raises:
    ValueError: times are not finite, negative or in the wrong order, the label is empty, or the
      confidence is not between 0 and 1.
  """

  onset: float
  offset: float
  label: str
  tier: str = ""
  subject: str = ""
  confidence: float | None = dataclasses.field(default=None, compare=False)

  def __post_init__(self) -> None:
    if not (math.isfinite(self.onset) and math.isfinite(self.offset)):
      raise ValueError(
        f"event {self.label!r}: times must be finite, not {self.onset}, {self.offset}"
      )
    if not 0 <= self.onset < self.offset:
      raise ValueError(
        f"event {self.label!r}: expected 0 <= onset < offset, found {self.onset} and {self.offset}"
      )
    if not self.label:
      raise ValueError(f"the event from {self.onset} s to {self.offset} s has no label")
    if self.confidence is not None and not 0 <= self.confidence <= 1:
      raise ValueError(f"event {self.label!r}: confidence {self.confidence} is not in 0..1")

  @property
  def duration(self) -> float:
    """Seconds from onset to offset."""
    return self.offset - self.onset


@dataclasses.dataclass(frozen=True)
class Coding:
  """All events of one recording by one coder, human or model.

  Attributes:
    video: name of the video file, or a path to it.
    events: in order of their onsets.
    duration: seconds of the recording; None where the file does not say.
    fps: frames per second of the recording; None where the file does not say.
  """

  video: str
  events: tuple[Event, ...]
  duration: float | None = None
  fps: float | None = None

  def __post_init__(self) -> None:
    object.__setattr__(self, "events", tuple(sorted(self.events)))

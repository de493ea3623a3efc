"""Average precision of events, as the detection task of MMA-52 measures it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from pcan_jax.coding.events import Event
from pcan_jax.coding.matching import ROUNDING, overlaps

THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))
"""The IoUs over which the challenge averages (MMAD/PointTAD/datasets/evaluate.py in the baseline
that its organisers published, VUT-HFUT/MAC_2024_baseline)."""


@dataclasses.dataclass(frozen=True)
class Detections:
  """Events of one label that were found in a video.

  Attributes:
    confidence: of each, in falling order.
    right: whether it is one of the true events, per threshold of IoU.
    truths: how many true events there are.
  """

  confidence: Float[np.ndarray, " n"]
  right: Bool[np.ndarray, "t n"]
  truths: int


def detect(truths: Sequence[Event], found: Sequence[Event]) -> Detections:
  """Decides which events of one label are right.

  The most confident come first. Each takes the free true event with which its IoU is largest.

  Args:
    truths: the true events of a label in a video.
    found: the predicted ones; those without a confidence count as certain.
  """
  found = sorted(found, key=lambda event: (-_confidence(event), event.onset, event.offset))
  right = np.zeros((len(THRESHOLDS), len(found)), dtype=bool)
  free = np.ones((len(THRESHOLDS), len(truths)), dtype=bool)
  durations = np.array([truth.duration for truth in truths], dtype=float)
  for number, event in enumerate(found if truths else []):
    shared = overlaps(event, truths)
    ious = shared / (durations + event.duration - shared)
    for level, threshold in enumerate(THRESHOLDS):
      best = int(np.argmax(np.where(free[level], ious, -1.0)))
      if free[level, best] and ious[best] >= threshold - ROUNDING:
        right[level, number], free[level, best] = True, False
  return Detections(np.array([_confidence(event) for event in found]), right, len(truths))


def _confidence(event: Event) -> float:
  return 1.0 if event.confidence is None else event.confidence


def average_precision(
  videos: Sequence[Detections], weights: Float[np.ndarray, "r v"]
) -> Float[np.ndarray, "r t"]:
  """Area below the curve of precision over recall, with precision made to fall.

  Equal confidences make one point of the curve, so that the order of videos does not matter.

  Args:
    videos: detections of one label.
    weights: how often each video counts.

  Returns:
    Per weighting and threshold of `THRESHOLDS`; NaN without true events.
  """
  truths = weights @ np.array([video.truths for video in videos], dtype=float)
  confidence = np.concatenate([video.confidence for video in videos])
  result = np.zeros((len(weights), len(THRESHOLDS)))
  if confidence.size:
    owner = np.repeat(np.arange(len(videos)), [video.confidence.size for video in videos])
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.diff(confidence[order], append=np.inf))
    each = weights[:, owner[order]]
    counted = np.cumsum(each, axis=1)[:, ends]
    right = np.concatenate([video.right for video in videos], axis=1)[:, order]
    for level in range(len(THRESHOLDS)):
      hits = np.cumsum(each * right[level], axis=1)[:, ends]
      precision = hits / np.maximum(counted, 1e-12)
      precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
      gained = np.diff(hits, axis=1, prepend=0.0)
      result[:, level] = (gained * precision).sum(1) / np.maximum(truths, 1)
  return np.where(truths[:, None] > 0, result, np.nan)

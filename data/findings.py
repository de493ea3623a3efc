"""Measures the clips of a source directory or a built data set, and finds what is wrong."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from pcan_jax.clips.source_layout import UNLABELLED
from pcan_jax.labels import LabelTree

OUTSIDE_SHARE = 0.1
"""A clip with a larger share of its keypoints outside the frame is reported."""

POSES = "poses "

WITHOUT_PERSON_SHARE = 0.5
"""A clip with a larger share of frames without a person is reported."""


@dataclasses.dataclass(frozen=True)
class ClipFacts:
  """Measurements of one readable clip.

  Attributes:
    id: of the clip.
    split: of the clip.
    action: id of the action, -1 if unlabelled.
    num_frames: frames of the video.
    fps: frames per second.
    size: (h, w) of the video in pixels.
    persons: number of persons in the arrays of poses.
    frames_without_person: frames in which no keypoint was detected.
    outside: share of the detected keypoints that lie outside the frame, 0 to 1.
    trimmed: whether video and poses differ by a frame.
    varying: whether the frames of the video are unevenly spaced in time.
    damage: damage of the video that does not keep it from being read; empty if there is none.
    digest: of the video file or, after `POSES`, of the poses of a clip without one, to find equal
      ones; empty for stored clips.
  """

  id: str
  split: str
  action: int
  num_frames: int
  fps: float
  size: tuple[int, int]
  persons: int
  frames_without_person: int
  outside: float
  trimmed: bool
  varying: bool
  damage: str
  digest: str

  @property
  def kind(self) -> int | str:
    """The action; each unlabelled clip is a kind of its own."""
    return self.id if self.action == UNLABELLED else self.action


def measure_clip(
  name: str,
  split: str,
  record: Mapping[str, Any],
  keypoints: Float[np.ndarray, "m t v 2"],
  size: tuple[int, int],
  digest: str = "",
) -> ClipFacts:
  """Measures a clip.

  Args:
    name, split, digest: see `ClipFacts`.
    record: the clip, from `encode_clip` or from a shard.
    keypoints: (x, y) of the record's persons, in pixels of the frame.
    size: (h, w) of that frame.
  """
  height, width = size
  detected = record["keypoint_scores"] > 0
  x, y = np.moveaxis(keypoints, -1, 0)
  outside = detected & ~((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))
  return ClipFacts(
    id=name,
    split=split,
    action=int(record["action"]),
    num_frames=int(record["num_frames"]),
    fps=float(record["fps"]),
    size=tuple(map(int, record["original_size"])),
    persons=len(detected),
    frames_without_person=int((~detected.any(axis=(0, 2))).sum()),
    outside=float(outside.sum() / max(detected.sum(), 1)),
    trimmed=record.get("trimmed", False),
    varying=bool((np.diff(record.get("order", ())) != 1).any()),
    damage="; ".join(record.get("damage", ())),
    digest=digest,
  )


@dataclasses.dataclass(frozen=True)
class Finding:
  """An error or a warning.

  Attributes:
    kind: a short title; findings of one kind are shown together.
    clip: split/id, or the name of a file.
    detail: what is wrong, and what to do.
    is_error: whether it breaks a build or makes results wrong.
  """

  kind: str
  clip: str
  detail: str
  is_error: bool


@dataclasses.dataclass
class CheckResult:
  """The result of a check.

  Attributes:
    title: what was checked.
    tree: the label tree.
    clips: the readable clips of every split.
    findings: errors and warnings.
  """

  title: str
  tree: LabelTree
  clips: dict[str, list[ClipFacts]]
  findings: list[Finding]

  @property
  def errors(self) -> list[Finding]:
    return [finding for finding in self.findings if finding.is_error]

  def counts(self, split: str) -> "collections.Counter[int]":
    """Number of clips per action id."""
    return collections.Counter(clip.action for clip in self.clips[split])


def examine_clips(clips: Mapping[str, Sequence[ClipFacts]], tree: LabelTree) -> Iterator[Finding]:
  """Finds oddities of readable clips, each by itself and in comparison with the others."""
  for split, of_split in clips.items():
    rates = collections.Counter(round(clip.fps, 1) for clip in of_split)
    for clip in of_split:
      name = f"{split}/{clip.id}"
      if clip.frames_without_person == clip.num_frames:
        detail = "no person is detected in any frame; the whole frame is taken"
        yield Finding("no person", name, detail, is_error=False)
      elif clip.frames_without_person > WITHOUT_PERSON_SHARE * clip.num_frames:
        detail = f"{clip.frames_without_person} of {clip.num_frames} frames"
        yield Finding("frames without a person", name, detail, is_error=False)
      if clip.outside > OUTSIDE_SHARE:
        detail = f"{clip.outside:.0%} of its detected keypoints"
        yield Finding("keypoints outside the frame", name, detail, is_error=False)
      if clip.damage:
        yield Finding("damaged video", name, clip.damage, is_error=False)
      if clip.varying:
        detail = "its frames are not evenly spaced in time; some are dropped, others repeated"
        yield Finding("varying frame rate", name, detail, is_error=False)
      if clip.trimmed:
        detail = "video and poses differ by one frame; the longer one is cut"
        yield Finding("frame count", name, detail, is_error=False)
      if round(clip.fps, 1) != rates.most_common(1)[0][0]:
        detail = f"{clip.fps:g}, most others have {rates.most_common(1)[0][0]:g}"
        yield Finding("frames per second", name, detail, is_error=False)
  yield from _find_duplicates(clips)
  yield from _find_empty_classes(clips, tree)


def _find_duplicates(clips: Mapping[str, Sequence[ClipFacts]]) -> Iterator[Finding]:
  first_with_id: dict[str, ClipFacts] = {}
  first_with_digest: dict[str, ClipFacts] = {}
  for clip in (clip for of_split in clips.values() for clip in of_split):
    name = f"{clip.split}/{clip.id}"
    other = first_with_id.setdefault(clip.id, clip)
    if other is not clip:
      detail = f"{other.split}/{other.id} has the same id; rename one"
      yield Finding("duplicate", name, detail, is_error=True)
    if not clip.digest:
      continue
    other = first_with_digest.setdefault(clip.digest, clip)
    same = "has the same poses" if clip.digest.startswith(POSES) else "is the same video"
    if other is not clip and other.split != clip.split:
      detail = f"{other.split}/{other.id} {same}; keep it in one split"
      yield Finding("duplicate", name, detail, is_error=True)
    elif other is not clip:
      kind = "repeated poses" if clip.digest.startswith(POSES) else "repeated video"
      yield Finding(kind, name, f"{other.split}/{other.id} {same}", is_error=False)


def _find_empty_classes(
  clips: Mapping[str, Sequence[ClipFacts]], tree: LabelTree
) -> Iterator[Finding]:
  """Finds the actions without a clip in labelled splits."""
  for split, of_split in clips.items():
    present = {clip.action for clip in of_split} - {UNLABELLED}
    for action in sorted(set(range(tree.num_actions)) - present) if present else ():
      yield Finding("no clip", f"{split}, {action} {tree.actions[action]}", "", is_error=False)


def print_findings(found: Sequence[Finding], shown: int) -> None:
  """Prints errors, then warnings, up to `shown` of each kind."""
  for is_error, title in ((True, "error"), (False, "warning")):
    chosen = [finding for finding in found if finding.is_error == is_error]
    print(f"\n{len(chosen)} {title}{'s' * (len(chosen) != 1)}")
    for kind in dict.fromkeys(finding.kind for finding in chosen):
      of_kind = [finding for finding in chosen if finding.kind == kind]
      print(f"  {kind} ({len(of_kind)})")
      for finding in of_kind[:shown]:
        print(f"    {finding.clip}" + f": {finding.detail}" * bool(finding.detail))
      if len(of_kind) > shown:
        print(f"    and {len(of_kind) - shown} more")


def describe_clips(clips: Sequence[ClipFacts]) -> str:
  """Summarises clips in one line: number, frames, rates and sizes."""
  if not clips:
    return "no readable clip"
  frames = np.array([clip.num_frames for clip in clips])
  rates = sorted({round(clip.fps, 2) for clip in clips})
  sizes = collections.Counter(clip.size for clip in clips).most_common()
  persons = max(clip.persons for clip in clips)
  shown = ", ".join(f"{width} x {height}" for (height, width), _ in sizes[:3])
  return (
    f"{len(clips)} clips of {frames.min()} to {frames.max()} frames "
    f"(median {np.median(frames):g}), {_span(rates)} fps, "
    f"{shown}{' and other sizes' if len(sizes) > 3 else ''}, "
    f"{persons} person{'s' * (persons != 1)}"
  )


def _span(values: Sequence[float]) -> str:
  return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"

"""Label Studio: tasks with predictions, and the labelling configuration to show them with.

Its timelines count frames from 1, the last one included:
https://labelstud.io/tags/timelinelabels. Exact times, tiers and subjects are kept in the `meta` of
a region; they hold as long as nobody moves it.
"""

import json
import math
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.reading import Tell, media_name, parse_json
from pcan_jax.coding.writing import files_for, milliseconds, tier_of
from pcan_jax.labels import LabelTree
from pcan_jax.writing import replace_file

_FPS = 25.0  # to write with, where the rate is not known: Label Studio only divides by it
_DEFAULT_FPS = 24.0  # Label Studio's
_SERVED = "/data/local-files/?d="


def is_label_studio(content: bytes) -> bool:
  """Whether a file is likely to hold tasks of Label Studio."""
  return content.lstrip()[:1] == b"[" and (
    b'"annotations"' in content or b'"predictions"' in content
  )


def read_label_studio(
  content: bytes, path: pathlib.Path, point_seconds: float | None, tell: Tell
) -> list[Coding]:
  """Reads timelines: a coding per task and annotation; its prediction, if it has no annotation.

  The frame rate is `fps` in the data of the task, else Label Studio's default of 24. There are no
  point events: a region is at least one frame long.

  Raises:
    ValueError: the file is not Label Studio's, or damaged.
  """
  del point_seconds
  codings = []
  for index, task in enumerate(parse_json(content, path)):
    where = f"{path}: task {index}"
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
      raise ValueError(f"{where}: not a task of Label Studio: 'data' is missing")
    video = next(
      (data[key] for key in ("video", "video_url") if isinstance(data.get(key), str)), ""
    )
    if not video:
      raise ValueError(f"{where}: 'data' names no video")
    fps = data.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < math.inf:
      tell(f"{where}: no frame rate 'fps' in its data; taken as {_DEFAULT_FPS:g}, the default")
      fps = _DEFAULT_FPS
    done = [a for a in task.get("annotations") or [] if a and not a.get("was_cancelled")]
    for result in done or (task.get("predictions") or [])[:1]:
      events = tuple(_events(result.get("result") or [], float(fps), where))
      codings.append(Coding(_video(video), events, fps=float(fps)))
  return codings


def _video(url: str) -> str:
  """The name of a video; uploads have a prefix of eight hexadecimal digits."""
  parsed = urllib.parse.urlsplit(url)
  named = urllib.parse.parse_qs(parsed.query).get("d", [urllib.parse.unquote(parsed.path)])[0]
  name = media_name(named)
  return re.sub("^[0-9a-f]{8}-", "", name) if "/upload/" in named else name


def _events(regions: Sequence[Any], fps: float, where: str) -> Iterator[Event]:
  for region in regions:
    value = region.get("value") if isinstance(region, dict) else None
    if not isinstance(value, dict) or "timelinelabels" not in value:
      continue
    meta = region.get("meta") if isinstance(region.get("meta"), dict) else {}
    try:
      for span in value["ranges"]:
        frames = int(span["start"]), int(span["end"])
        onset, offset = meta.get("seconds") or (0, 0)
        if _frames(onset, offset, fps) != frames:
          onset, offset = (frames[0] - 1) / fps, frames[1] / fps
        for label in value["timelinelabels"]:
          score = region.get("score")
          yield Event(
            max(float(onset), 0.0),
            float(offset),
            label.strip(),
            str(meta.get("tier", "")),
            str(meta.get("subject", "")),
            None if score is None else float(score),
          )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
      raise ValueError(f"{where}: a region of a timeline is damaged ({error!r:.80})") from error


def _frames(onset: float, offset: float, fps: float) -> tuple[int, int]:
  """The first and last frame of a stretch, from 1."""
  first = math.floor(onset * fps + 1e-6) + 1
  return first, max(math.ceil(offset * fps - 1e-6), first)


def write_label_studio(
  codings: Sequence[Coding], tree: LabelTree, output_dir: pathlib.Path
) -> list[pathlib.Path]:
  """Writes `label_studio.json`, to import, and `label_studio.xml`, the labelling configuration.

  Videos are to be served from Label Studio's folder of local files.
  """
  files_for(codings, output_dir, "")  # no two of one name
  labels = dict.fromkeys(tree.actions)
  labels |= dict.fromkeys(event.label for coding in codings for event in coding.events)
  tasks = [_task(coding, tree) for coding in codings]
  config = "\n".join(
    [
      "<View>",
      '  <Video name="video" value="$video" frameRate="$fps"/>',
      '  <TimelineLabels name="actions" toName="video">',
      *(f"    <Label value={quoteattr(label)}/>" for label in labels),
      "  </TimelineLabels>",
      "</View>\n",
    ]
  )
  paths = [output_dir / "label_studio.json", output_dir / "label_studio.xml"]
  replace_file(paths[0], json.dumps(tasks, ensure_ascii=False, indent=1))
  replace_file(paths[1], config)
  return paths


def _task(coding: Coding, tree: LabelTree) -> Mapping[str, Any]:
  fps = coding.fps or _FPS
  regions = [_region(index, event, fps, tree) for index, event in enumerate(coding.events)]
  return {
    "data": {
      "video": _SERVED + urllib.parse.quote(media_name(coding.video)),
      "fps": fps,
    },
    "predictions": [{"model_version": "pcan_jax", "result": regions}],
  }


def _region(index: int, event: Event, fps: float, tree: LabelTree) -> Mapping[str, Any]:
  onset, offset = (time / 1000 for time in milliseconds(event))
  start, end = _frames(onset, offset, fps)
  return {
    "id": f"event{index}",
    "type": "timelinelabels",
    "from_name": "actions",
    "to_name": "video",
    "origin": "prediction",
    "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": [event.label]},
    "meta": {
      "seconds": [onset, offset],
      "tier": tier_of(event, tree),
      "subject": event.subject,
    },
    **({} if event.confidence is None else {"score": event.confidence}),
  }

"""WebVTT: subtitles that any browser shows beside a video.

A cue per event. Its text is marked up by classes, which browsers do not show:
`<c.tier>head</c> <c.label>nod</c> <c.subject>Ann</c> <c.confidence>0.870</c>`. Cues of others are
labels as a whole; `<v NAME>` is the subject. https://www.w3.org/TR/webvtt1/
"""

import html
import pathlib
import re
import urllib.parse
from collections.abc import Sequence

from pcan_jax.coding.csv_codings import seconds
from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.reading import Points, Tell, decode, media_name
from pcan_jax.coding.writing import files_for, milliseconds, optional, tier_of
from pcan_jax.labels import LabelTree
from pcan_jax.writing import replace_file

_VIDEO = "video: "
_PART = re.compile(r"<c\.(tier|label|subject|confidence)>(.*?)</c>", re.DOTALL)
_TIME = r"(\d{2,}:)?[0-5]\d:[0-5]\d\.\d{3}"
_TIMES = re.compile(rf"\s*{_TIME}[ \t]+-->[ \t]+{_TIME}(\s|$)")
_ARROW = re.compile(r"\s*[\d:.,]+\s*-*>|.*-->")
_VOICE = re.compile(r"<v(?:\.[^ >]*)? ([^>]*)>")


def is_vtt(content: bytes) -> bool:
  """Whether a file is WebVTT."""
  return content.removeprefix(b"\xef\xbb\xbf").startswith(b"WEBVTT")


def read_vtt(
  content: bytes, path: pathlib.Path, point_seconds: float | None, tell: Tell
) -> list[Coding]:
  """Reads a coding; the video is the one that a comment names, else named like the file.

  Raises:
    ImportError: webvtt-py is not installed.
    ValueError: the file is not WebVTT, or damaged.
  """
  webvtt = optional("webvtt")
  text = decode(content, path).removeprefix("\ufeff")
  stated = _require_times(text, path)
  try:
    cues = webvtt.WebVTT.from_string(text)
  except (webvtt.errors.MalformedFileError, webvtt.errors.MalformedCaptionError) as error:
    raise ValueError(f"{path}: not WebVTT, or damaged ({error})") from error
  named = [text for text in cues.header_comments if text.startswith(_VIDEO)]
  video = urllib.parse.unquote(named[0].removeprefix(_VIDEO)).strip() if named else path.stem
  if len(cues) < stated:
    tell(f"{path}: {stated - len(cues)} cue(s) without text; left out")
  points, events = Points(point_seconds, path), []
  for cue in cues:
    onset, offset = (seconds(time, str(path)) for time in (cue.start, cue.end))
    label, fields = _parts(cue.raw_text)
    if not label:
      tell(f"{path}: the cue at {cue.start} is empty; left out")
    elif offset < onset:
      tell(f"{path}: the cue at {cue.start} ends before it starts; left out")
    elif offset == onset:
      events += points.event(onset, label, **fields)
    else:
      events.append(Event(onset, offset, label, **fields))
  points.check()
  return [Coding(video or path.stem, tuple(events))]


def _require_times(text: str, path: pathlib.Path) -> int:
  """Counts the lines of times; webvtt-py passes over cues whose times are wrong.

  Raises:
    ValueError: what stands around an arrow is no time.
  """
  count = 0
  for number, line in enumerate(text.splitlines(), 1):
    if _TIMES.match(line):
      count += 1
    elif _ARROW.match(line):
      raise ValueError(
        f"{path}, line {number}: {line.strip()[:60]!r} are no times of a cue, such as "
        "00:01.000 --> 00:02.500"
      )
  return count


def _parts(text: str) -> tuple[str, dict[str, str | float | None]]:
  """The label of a cue, and the other fields of its event."""
  parts = {name: html.unescape(part).strip() for name, part in _PART.findall(text)}
  if "label" not in parts:
    voice = _VOICE.search(text)
    plain = html.unescape(re.sub("<[^>]*>", "", text)).strip()
    return plain, {"subject": html.unescape(voice[1]).strip() if voice else ""}
  stated = parts.get("confidence", "")
  confidence = min(float(stated), 1.0) if re.fullmatch(r"[01]\.\d{1,9}", stated) else None
  return parts["label"], {
    "tier": parts.get("tier", ""),
    "subject": parts.get("subject", ""),
    "confidence": confidence,
  }


def write_vtt(
  codings: Sequence[Coding], tree: LabelTree, output_dir: pathlib.Path
) -> list[pathlib.Path]:
  """Writes a file per coding.

  Raises:
    ImportError: webvtt-py is not installed.
  """
  webvtt = optional("webvtt")
  paths = files_for(codings, output_dir, ".vtt")
  for coding, path in zip(codings, paths):
    captions = [
      webvtt.Caption(*map(_timestamp, milliseconds(event)), _text(event, tree))
      for event in coding.events
    ]
    comment = f"{_VIDEO}{urllib.parse.quote(media_name(coding.video), safe=' ')}"
    replace_file(path, webvtt.WebVTT(captions=captions, header_comments=[comment]).content + "\n")
  return paths


def _timestamp(time: int) -> str:
  minutes, rest = divmod(time, 60_000)
  return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


def _text(event: Event, tree: LabelTree) -> str:
  parts = {"tier": tier_of(event, tree), "label": event.label, "subject": event.subject}
  if event.confidence is not None:
    parts["confidence"] = f"{event.confidence:.3f}"
  return " ".join(f"<c.{name}>{_escaped(part)}</c>" for name, part in parts.items() if part)


def _escaped(text: str) -> str:
  """Escapes markup, and line breaks, which may not be empty lines."""
  return html.escape(text, quote=False).replace("\n", "&#10;").replace("\r", "&#13;")

"""Overlay videos: skeletons on the frames, and bars of the most likely classes beside them."""

import pathlib
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from pcan_jax.clips.skeleton import draw_skeletons
from pcan_jax.clips.video_writer import VideoWriter
from pcan_jax.keypoints import KeypointLayout
from pcan_jax.prediction.recognizer import Prediction
from pcan_jax.prediction.videos import Video, Window

# Small videos are enlarged so that text beside them is legible; large ones are reduced.
_MIN_HEIGHT, _MAX_HEIGHT = 480, 1080
_NUM_ACTIONS, _NUM_BODIES = 5, 3

# Sizes in the panel, in units of 1/480 of its height.
_PANEL_WIDTH = 340
_MARGIN = 16
_ROW_HEIGHT = 42
_TEXT_SCALE = 0.45

# RGB; distinguishable for the colour-blind, too.
_ACTION_BAR, _BODY_BAR = (86, 180, 233), (230, 159, 0)
_BACKGROUND, _TRACK = (24, 24, 27), (63, 63, 70)
_TEXT, _FAINT_TEXT = (250, 250, 250), (180, 180, 186)


def write_overlay(
  video: Video,
  windows: Sequence[Window],
  predictions: Sequence[Prediction],
  layout: KeypointLayout,
  path: pathlib.Path,
) -> None:
  """Writes an mp4 of a video with its poses, if any, and predictions.

  Every frame keeps its time, and shows the window whose centre is closest.

  Args:
    video: the video.
    windows, predictions: at least one window, in order, and their predictions.
    layout: of the video's keypoints.
    path: of the mp4; created when complete.
  """
  height = min(max(video.size[0], _MIN_HEIGHT), _MAX_HEIGHT) // 2 * 2
  scale = height / video.size[0]
  width = max(round(video.size[1] * scale), 1)
  panel_width = round(_PANEL_WIDTH * height / 480)
  panel_width += (width + panel_width) % 2  # H.264 needs even sizes
  centres = np.array([(window.start_seconds + window.end_seconds) / 2 for window in windows])
  middles = (video.times[1:] + video.times[:-1]) / 2
  shown = panel = None
  with VideoWriter(path, (height, width + panel_width), video.fps, crf=20) as writer:
    for index, frame in enumerate(video.frames()):
      interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
      image = cv2.resize(frame, (width, height), interpolation=interpolation)
      if video.keypoints is not None:
        draw_skeletons(image, video.keypoints[:, index] * scale, video.scores[:, index], layout)
      nearest = int(np.abs(centres - middles[index]).argmin())
      if nearest != shown:  # one panel at a time, as a long video has thousands
        panel = draw_panel(windows[nearest], predictions[nearest], (height, panel_width))
        shown = nearest
      writer.add(np.hstack([image, panel]), float(video.times[index]))


def draw_panel(
  window: Window, prediction: Prediction, size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
  """Draws the most likely actions and body parts of a window as bars, on a panel of (h, w)."""
  height, width = size
  unit = height / 480
  panel = np.full((height, width, 3), _BACKGROUND, np.uint8)
  margin, percent_width = round(_MARGIN * unit), round(52 * unit)
  seconds = f"{window.start_seconds:.2f} - {window.end_seconds:.2f} s"
  _write(panel, seconds, (margin, round(26 * unit)), _FAINT_TEXT, width - 2 * margin)
  sections = (
    ("action", prediction.top_actions(_NUM_ACTIONS), _ACTION_BAR, 52),
    ("body part", prediction.top_bodies(_NUM_BODIES), _BODY_BAR, 310),
  )
  for title, best, colour, top in sections:
    _write(panel, title, (margin, round((top + 8) * unit)), colour, width - 2 * margin)
    for row, (name, probability) in enumerate(best):
      y = top + 16 + row * _ROW_HEIGHT
      bar = slice(round((y + 22) * unit), round((y + 31) * unit))
      panel[bar, margin : width - margin] = _TRACK
      panel[bar, margin : margin + round(probability * (width - 2 * margin))] = colour
      text = _FAINT_TEXT if row else _TEXT
      baseline, room = round((y + 16) * unit), width - 2 * margin - percent_width
      _write(panel, name, (margin, baseline), text, room, bold=not row)
      percent = f"{100 * probability:.0f} %"
      _write(panel, percent, (width - margin, baseline), text, percent_width, right=True)
  return panel


def _write(
  image: UInt8[np.ndarray, "h w 3"],
  text: str,
  at: tuple[int, int],
  colour: tuple[int, int, int],
  max_width: int,
  *,
  bold: bool = False,
  right: bool = False,
) -> None:
  """Writes one line with its baseline at (x, y), reduced to `max_width` if necessary.

  OpenCV 4's font has only ASCII letters; accents are dropped, other letters become `?`.
  """
  letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
  text = "".join(letters).encode("ascii", "replace").decode()
  font = cv2.FONT_HERSHEY_SIMPLEX
  unit = image.shape[0] / 480
  thickness = max(round((1.6 if bold else 1) * unit), 1)
  scale = _TEXT_SCALE * unit
  (width, _), _ = cv2.getTextSize(text, font, scale, thickness)
  if width > max_width:
    scale, width = scale * max_width / width, max_width
  place = (at[0] - (width if right else 0), at[1])
  cv2.putText(image, text, place, font, scale, colour, thickness, cv2.LINE_AA)

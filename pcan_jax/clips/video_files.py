"""Finds video files, and derives clip ids from their names."""

import functools
import os
import pathlib
import unicodedata

VIDEO_SUFFIXES = (
  ".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".wmv", ".asf", ".mpg", ".mpeg", ".ts", ".mts",
  ".m2ts", ".flv", ".gif", ".3gp", ".3g2", ".f4v", ".mpe", ".qt", ".vob",
)  # fmt: skip

_UNREAD_SUFFIXES = (
  ".dv", ".h264", ".hevc", ".m2v", ".mjpeg", ".mxf", ".ogm", ".ogv", ".rm", ".rmvb", ".y4m",
)  # fmt: skip
"""Of videos that are found, so that reading them says how to convert them."""

CONTAINERS = "MP4, MOV, MKV, WebM, AVI, WMV, MPEG, MPEG-TS, FLV and GIF"
"""Containers that are read, whatever the suffix."""

HOW_TO_CONVERT = "ffmpeg -i FILE -c:v libx264 -crf 18 CLIP.mp4"
HOW_TO_JOIN_IMAGES = (
  "ffmpeg -framerate 30 -pattern_type glob -i 'FOLDER/*.jpg' -c:v libx264 -crf 18 CLIP.mp4"
)

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def composed(name: str) -> str:
  """A name in Unicode's composed form (NFC); macOS decomposes the names of files."""
  return unicodedata.normalize("NFC", name)


def clip_id(path: pathlib.PurePath) -> str:
  """The id of the clip in a video: the name of the file without its suffix."""
  return composed(path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name)


def find_videos(path: str | os.PathLike[str]) -> list[pathlib.Path]:
  """The video at a path, or all videos in a folder and its subfolders, sorted by path.

  Files whose names start with a dot, such as macOS leaves on other systems, are none.

  Raises:
    FileNotFoundError: there is nothing at `path`, or no video in the folder.
  """
  path = pathlib.Path(path)
  if path.is_file():
    return [path]
  if not path.is_dir():
    raise FileNotFoundError(f"no video or folder at {path}")
  files = sorted(p for p in path.rglob("[!.]*") if p.is_file())
  found = [p for p in files if p.suffix.lower() in (*VIDEO_SUFFIXES, *_UNREAD_SUFFIXES)]
  if not found:
    images = [p for p in files if p.suffix.lower() in _IMAGE_SUFFIXES]
    hint = f", but images; join those of each clip: `{HOW_TO_JOIN_IMAGES}`" if images else ""
    raise FileNotFoundError(f"{path} holds no video ({' '.join(VIDEO_SUFFIXES)}){hint}")
  return found


class FilesByName:
  """Finds files by name, whether accents are composed or decomposed on disk."""

  def __init__(self) -> None:
    self._listing = functools.cache(_by_composed_name)

  def find(self, path: pathlib.Path, below: pathlib.Path) -> pathlib.Path | None:
    """The file at a path below a folder, or None."""
    if path.is_file():
      return path
    found = below
    for part in path.relative_to(below).parts:
      if not found.is_dir():
        return None
      found = self._listing(found).get(composed(part), found / part)
    return found if found.is_file() else None


def _by_composed_name(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  return {composed(path.name): path for path in folder.iterdir()}

"""Finds video files, and derives clip ids from their names."""

import os
import pathlib

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm")


def clip_id(path: pathlib.PurePath) -> str:
  """The id of the clip in a video: the name of the file without its suffix."""
  return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name


def find_videos(path: str | os.PathLike[str]) -> list[pathlib.Path]:
  """The video at a path, or all videos in a folder and its subfolders, sorted by path.

  Raises:
    FileNotFoundError: there is nothing at `path`, or no video in the folder.
  """
  path = pathlib.Path(path)
  if path.is_file():
    return [path]
  if not path.is_dir():
    raise FileNotFoundError(f"no video or folder at {path}")
  found = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
  if not found:
    raise FileNotFoundError(f"{path} holds no video ({' '.join(VIDEO_SUFFIXES)})")
  return found

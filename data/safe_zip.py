"""Unpacks zip files of people one does not know.

No member leaves the folder, none is a link, none is unpacked that is not wanted, and an archive
cannot unpack to much more than its own size. Everything is checked before the first byte is
written, but for damage, which shows only on reading. Files appear under their names once they are
complete, so that an interrupted run can be repeated and goes on where it was.
"""

import os
import pathlib
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator

import tqdm

FREE_SPACE_LEFT = 1 << 28
"""Bytes that must remain free on the disk."""

MAX_MEMBERS = 200_000
MAX_TOTAL_BYTES = 1 << 40
MAX_RATIO = 100
"""Of all files, unpacked, to the size of the archive. Videos are compressed already."""

_MAX_NAME_BYTES = 240  # most file systems allow 255, and a suffix is added while a file is written
_PART = ".part"
_CHUNK = 1 << 20

# What `zipfile` raises when it reads damaged archives.
_DAMAGE = (
  zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError,
  IndexError, KeyError, OverflowError, MemoryError,
)  # fmt: skip

Place = Callable[[str], str | None]
"""From the path of a file in an archive to its path in the folder, or None if it is not wanted."""


def unpack(
  archive: str | os.PathLike[str],
  folder: str | os.PathLike[str],
  place: Place = lambda name: name,
) -> list[str]:
  """Unpacks the files of an archive that are wanted and not there yet.

  A file that is there with the size of its member counts as unpacked.

  Args:
    archive: a zip file.
    folder: where to; it is created.
    place: says where in the folder a file goes, if at all.

  Returns:
    The members that are not wanted.

  Raises:
    FileNotFoundError: there is no such archive.
    ValueError: the archive is damaged or encrypted, holds a link or a path that leaves the folder,
      is too large, or would replace another file; the message names archive and member.
    OSError: the disk is too full, or cannot be written to.
  """
  archive, folder = pathlib.Path(archive), pathlib.Path(folder)
  if not archive.is_file():
    raise FileNotFoundError(f"no such zip file: {archive}")
  try:
    opened = zipfile.ZipFile(archive)
  except _DAMAGE as error:
    raise ValueError(f"{archive}: not a zip file, or damaged ({_reason(error)})") from error
  with opened:
    members = opened.infolist()
    _check_size(archive, members)
    for member in members:
      _check_member(archive, member)
    targets, unused = _assign_targets(archive, members, place)
    missing = {
      name: member for name, member in targets.items() if not _is_there(folder / name, member)
    }
    total = sum(member.file_size for member in missing.values())
    _check_free_space(archive, folder, total)
    with tqdm.tqdm(
      total=total, desc=archive.name, unit="B", unit_scale=True, disable=None if total else True
    ) as progress:
      for name, member in missing.items():
        _write(folder / name, _read(opened, archive, member), progress)
  return unused


def check_name(name: str, where: str) -> None:
  """Refuses names that are not plain relative paths.

  Raises:
    ValueError: the name is empty, absolute, leads upwards, is too long, or has characters that no
      file should have; the message starts with `where`.
  """
  shown = repr(name[:80])
  if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
    raise ValueError(f"{where}: {shown} has control characters in its name")
  if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name:
    raise ValueError(f"{where}: {shown} is not a relative path with forward slashes")
  parts = pathlib.PurePosixPath(name).parts
  if not parts or ".." in parts:
    raise ValueError(f"{where}: {shown} would leave the folder")
  if max(len(part.encode()) for part in parts) > _MAX_NAME_BYTES or len(name.encode()) > 2048:
    raise ValueError(f"{where}: {shown} is too long a name")


def _check_size(archive: pathlib.Path, members: list[zipfile.ZipInfo]) -> None:
  total = sum(member.file_size for member in members)
  size = archive.stat().st_size
  if len(members) > MAX_MEMBERS:
    raise ValueError(f"{archive}: {len(members):,} members, more than {MAX_MEMBERS:,}")
  if total > MAX_TOTAL_BYTES or total > MAX_RATIO * size + _CHUNK:
    raise ValueError(
      f"{archive}: its {size:,} bytes would unpack to {total:,}; no archive of videos does"
    )


def _check_member(archive: pathlib.Path, member: zipfile.ZipInfo) -> None:
  name = member.orig_filename  # `filename` ends where a zero byte was
  check_name(name, str(archive))
  mode = member.external_attr >> 16
  if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
    raise ValueError(f"{archive}: {name!r} is a link or a device, not a file")
  if member.flag_bits & 0x41:
    raise ValueError(f"{archive}: {name!r} is encrypted; unpack the archive yourself")
  # Others need gigabytes to unpack a few bytes, or are not Python's to read.
  if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(
      f"{archive}: {name!r} is compressed by method {member.compress_type}, which is not read; "
      "unpack the archive yourself"
    )


def _assign_targets(
  archive: pathlib.Path, members: list[zipfile.ZipInfo], place: Place
) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
  """The member that goes to each path, and the names of those that are not wanted."""
  targets, unused, taken = {}, [], {}
  for member in members:
    if member.is_dir():
      continue
    target = place(member.filename)
    if target is None:
      unused.append(member.filename)
      continue
    check_name(target, str(archive))
    # Some file systems take names for equal that differ in case or composition of letters.
    same = unicodedata.normalize("NFC", target).casefold()
    if same in taken:
      raise ValueError(
        f"{archive}: {taken[same]!r} and {member.filename!r} would both become {target}"
      )
    taken[same] = member.filename
    targets[target] = member
  return targets, unused


def _is_there(path: pathlib.Path, member: zipfile.ZipInfo) -> bool:
  if not path.exists():
    return False
  if not path.is_file() or path.stat().st_size != member.file_size:
    raise ValueError(f"{path} exists, but is not the file {member.filename!r}; move it away")
  return True


def _check_free_space(archive: pathlib.Path, folder: pathlib.Path, needed: int) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(folder).free
  if needed + FREE_SPACE_LEFT > free:
    raise OSError(
      f"{archive} unpacks to {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB free; "
      "make room and run the command again"
    )


def _read(
  opened: zipfile.ZipFile, archive: pathlib.Path, member: zipfile.ZipInfo
) -> Iterator[bytes]:
  """The content of a member, never more than it announces, checked against its checksum."""
  size = 0
  try:
    with opened.open(member) as file:
      while chunk := file.read(_CHUNK):
        size += len(chunk)
        yield chunk
    if size != member.file_size:
      raise EOFError(f"{size:,} of {member.file_size:,} bytes")
  except _DAMAGE as error:
    raise ValueError(
      f"{archive}: {member.filename!r} is damaged ({_reason(error)}); delete the archive and "
      "download it again"
    ) from error


def _write(path: pathlib.Path, chunks: Iterator[bytes], progress: tqdm.tqdm) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + _PART)
  try:
    with part.open("wb") as file:
      for chunk in chunks:
        file.write(chunk)
        progress.update(len(chunk))
  except BaseException:
    part.unlink(missing_ok=True)
    raise
  part.replace(path)


def _reason(error: BaseException) -> str:
  return str(error)[:200] or type(error).__name__

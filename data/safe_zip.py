"""Unpacks untrusted zip files.

No member leaves the folder or is a link, unneeded members are not unpacked, and an archive cannot
unpack to much more than its own size. Everything is checked before the first byte is written,
except for damage, which is found only on reading. Files get their final names when complete, so
that an interrupted run resumes when repeated.
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
"""Bytes that must stay free on the disk."""

MAX_MEMBERS = 200_000
MAX_TOTAL_BYTES = 1 << 40
MAX_RATIO = 100
"""Limit for unpacked size divided by archive size. Videos are already compressed."""

_MAX_NAME_BYTES = 240  # most file systems allow 255, and unfinished files have a suffix
_PART = ".part"
_CHUNK = 1 << 20

# Exceptions of `zipfile` for damaged archives.
_DAMAGE = (
  zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError,
  IndexError, KeyError, OverflowError, MemoryError,
)  # fmt: skip

Place = Callable[[str], str | None]
"""Maps the path of a file in an archive to its path in the folder, or None if it is not needed."""


def unpack(
  archive: str | os.PathLike[str],
  folder: str | os.PathLike[str],
  place: Place = lambda name: name,
) -> list[str]:
  """Unpacks the needed files of an archive that do not exist yet.

  An existing file with the size of its member counts as unpacked.

  Args:
    archive: a zip file.
    folder: target; it is created.
    place: maps the path of a member to its path in the folder, or None.

  Returns:
    The members that are not needed.

  Raises:
    FileNotFoundError: there is no such archive.
    ValueError: the archive is damaged or encrypted, holds a link or a path that leaves the folder,
      is too large, or would replace another file; the message names archive and member.
    OSError: the disk is full, or cannot be written to.
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
    ValueError: the name is empty, absolute, leads upwards, is too long, or has control characters;
      the message starts with `where`.
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
  name = member.orig_filename  # `filename` is cut at a zero byte
  check_name(name, str(archive))
  mode = member.external_attr >> 16
  if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
    raise ValueError(f"{archive}: {name!r} is a link or a device, not a file")
  if member.flag_bits & 0x41:
    raise ValueError(f"{archive}: {name!r} is encrypted; unpack the archive yourself")
  # Other methods need gigabytes to unpack a few bytes, or Python cannot read them.
  if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(
      f"{archive}: {name!r} is compressed by method {member.compress_type}, not supported; "
      "unpack the archive yourself"
    )


def _assign_targets(
  archive: pathlib.Path, members: list[zipfile.ZipInfo], place: Place
) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
  """Maps each target path to its member; also returns the names of unneeded members."""
  targets, unused, taken = {}, [], {}
  for member in members:
    if member.is_dir():
      continue
    target = place(member.filename)
    if target is None:
      unused.append(member.filename)
      continue
    check_name(target, str(archive))
    # Some file systems ignore case or Unicode composition.
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
      "free some space and run the command again"
    )


def _read(
  opened: zipfile.ZipFile, archive: pathlib.Path, member: zipfile.ZipInfo
) -> Iterator[bytes]:
  """Reads a member, at most its declared size, and verifies its checksum."""
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

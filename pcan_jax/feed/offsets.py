"""Where the records of a shard start, so that any of them can be read at once."""

import os
import pathlib
import struct

_LENGTH = struct.Struct("<Q")
_CHECKSUM_BYTES = 4  # after the length, and again after the record


def record_offsets(path: str | os.PathLike[str]) -> list[int]:
  """The byte at which each record of a TFRecord file starts, its length included.

  The format is that of TensorFlow's `RecordWriter`: length, checksum, record, checksum.

  Raises:
    ValueError: the file ends within a record.
  """
  size, offsets = pathlib.Path(path).stat().st_size, []
  with open(path, "rb") as file:
    position = 0
    while position < size:
      file.seek(position)
      offsets.append(position)
      header = file.read(_LENGTH.size)
      if len(header) < _LENGTH.size:
        raise ValueError(f"{path} ends within a record")
      position += _LENGTH.size + _LENGTH.unpack(header)[0] + 2 * _CHECKSUM_BYTES
  if position > size:
    raise ValueError(f"{path} ends within a record")
  return offsets

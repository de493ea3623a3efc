"""The labels of all clips of a split, without reading their frames.

A TFRecord file is a row of records, each a length (uint64), a checksum (uint32), so many bytes of
data and another checksum. The data is a `tf.train.Example`: messages within messages, all of them
stored as a tag, a length and so many bytes. Only tags and lengths on the way to the label are
looked at; the frames, nearly all of a record, stay on disk.
"""

import mmap
import os
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

_FIELD = b"action"
_LENGTH_BYTES = 8
_CHECKSUM_BYTES = 4
# Numbers of the fields of tf.train.Example and of the messages in it.
_FEATURES, _MAP_ENTRY, _KEY, _VALUE, _INT64_LIST, _INTEGERS = 1, 1, 1, 2, 3, 1
_LENGTH_DELIMITED = 2  # protobuf's wire type of messages, strings and packed lists


def read_actions(
  paths: Sequence[str | os.PathLike[str]], lengths: Sequence[int]
) -> Int64[np.ndarray, " n"]:
  """Reads the actions of all clips, in the order of the shards and of the records in them.

  Args:
    paths: the shards.
    lengths: number of records in each.

  Returns:
    Ids of the actions; -1 where the label is not known.

  Raises:
    FileNotFoundError: a shard is missing.
    ValueError: a shard is damaged, or not one of ours.
  """
  actions = [_actions_of_shard(path, length) for path, length in zip(paths, lengths, strict=True)]
  return np.array(sum(actions, []), np.int64)


def _actions_of_shard(path: str | os.PathLike[str], length: int) -> list[int]:
  actions = []
  try:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
      data.madvise(mmap.MADV_RANDOM)
      for start, end in _records(data):
        actions.append(_action(data, start, end))
  except (ValueError, IndexError, struct.error) as error:
    raise ValueError(
      f"{path}: the label of record {len(actions)} cannot be read ({error}); "
      "build the data set again"
    ) from error
  if len(actions) != length:
    raise ValueError(
      f"{path} holds {len(actions)} records instead of {length}; build the data set again"
    )
  return actions


def _records(data: mmap.mmap) -> Iterator[tuple[int, int]]:
  """Where the data of each record starts and ends."""
  position = 0
  while position < len(data):
    (length,) = struct.unpack_from("<Q", data, position)
    start = position + _LENGTH_BYTES + _CHECKSUM_BYTES
    position = start + length + _CHECKSUM_BYTES
    if position > len(data):
      raise ValueError("it is cut short")
    yield start, start + length


def _action(data: mmap.mmap, start: int, end: int) -> int:
  for features in _messages(data, start, end, _FEATURES):
    for entry in _messages(data, *features, _MAP_ENTRY):
      ((key_start, key_end),) = _messages(data, *entry, _KEY)
      if data[key_start:key_end] == _FIELD:
        ((list_start, list_end),) = (
          integers
          for value in _messages(data, *entry, _VALUE)
          for int64_list in _messages(data, *value, _INT64_LIST)
          for integers in _messages(data, *int64_list, _INTEGERS)
        )
        number, stop = _varint(data, list_start)
        if stop != list_end:
          raise ValueError("it is not one integer")
        return number - (1 << 64) if number >> 63 else number
  raise ValueError(f"there is no field {_FIELD.decode()!r}")


def _messages(data: mmap.mmap, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
  """Where the fields of a message that have the wanted number start and end."""
  while start < end:
    tag, start = _varint(data, start)
    length, start = _varint(data, start)
    if tag & 7 != _LENGTH_DELIMITED or start + length > end:
      raise ValueError("it is no tf.train.Example")
    if tag >> 3 == wanted:
      yield start, start + length
    start += length


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
  """A protobuf integer, and where it ends."""
  number = 0
  for shift in range(0, 70, 7):
    byte = data[position]
    position += 1
    number |= (byte & 0x7F) << shift
    if byte < 0x80:
      return number, position
  raise ValueError("a number is too long")

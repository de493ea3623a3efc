"""Reads the tensors of a safetensors file: a length, that much JSON, and raw numbers.

The library of that name has no bfloat16 for NumPy, and would be another dependency for this page.
https://huggingface.co/docs/safetensors describes the format.
"""

import json
import math
import pathlib
import struct
from typing import Any

import ml_dtypes
import numpy as np

_MAX_HEADER_BYTES = 100_000_000  # as in the format's own reader
_DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a file, by name.

  Raises:
    ValueError: the file is damaged, or has tensors of an unknown type.
  """
  content = path.read_bytes()
  if len(content) < 8:
    raise ValueError(f"it has only {len(content)} bytes")
  (size,) = struct.unpack("<Q", content[:8])
  if size > min(len(content) - 8, _MAX_HEADER_BYTES):
    raise ValueError(f"its header should have {size} bytes, more than it can")
  try:
    entries = json.loads(content[8 : 8 + size])
  except (RecursionError, ValueError) as error:
    raise ValueError(f"its header is not JSON: {error}") from error
  if not isinstance(entries, dict):
    raise ValueError("its header does not name tensors")
  numbers = memoryview(content)[8 + size :]
  return {
    name: _tensor(name, entry, numbers) for name, entry in entries.items() if name != "__metadata__"
  }


def _tensor(name: str, entry: Any, numbers: memoryview) -> np.ndarray:
  try:
    kind, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"tensor {name!r} lacks its dtype, shape or data_offsets") from error
  if not isinstance(kind, str) or kind not in _DTYPES:
    raise ValueError(f"tensor {name!r} has the unknown type {kind!r}")
  dtype = _DTYPES[kind]
  counts = [start, stop, *shape] if isinstance(shape, list) else [None]
  if not all(type(count) is int and count >= 0 for count in counts) or stop > len(numbers):
    raise ValueError(f"tensor {name!r} with the shape {shape!r} does not lie within the file")
  if stop - start != math.prod(shape) * dtype.itemsize:
    raise ValueError(
      f"tensor {name!r} of type {kind} and shape {shape} should not have {stop - start} bytes"
    )
  return np.frombuffer(numbers[start:stop], dtype).reshape(shape)

"""Reads pickles of plain data from people one does not know.

A pickle is a program. Python's own machine runs it, calls what it names, and can be made to use any
amount of memory by a few bytes. The machine here knows only the instructions that lists, dicts,
numbers, strings and NumPy arrays are made of, calls nothing but its own constructors of arrays, and
never holds much more than the size of the file.
"""

import dataclasses
import math
import os
import pathlib
import re
import struct
from typing import Any

import numpy as np

from pcan_jax.clips.pickle_machine import PickleMachine

_BYTES_PER_FILE_BYTE = 4
_MAX_DIMS = 8


class UnsafePickleError(ValueError):
  """A pickle names something else than plain data and NumPy arrays."""


def load_pickle(path: str | os.PathLike[str]) -> Any:
  """Reads lists, tuples, dicts, numbers, strings, bytes and NumPy arrays of numbers.

  Pickles of protocol 1 and higher, of Python 2 as well (its strings are read as Latin-1).

  Raises:
    FileNotFoundError: there is no such file.
    UnsafePickleError: the pickle wants to import or call something else; the message names it.
    ValueError: the file is not a pickle, is damaged, or holds another kind of object.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no such file: {path}")
  data = path.read_bytes()
  try:
    result = _Machine(budget=_BYTES_PER_FILE_BYTE * len(data) + 1024).run(data)
    if isinstance(result, _Constructor | _DType):
      raise ValueError(f"it holds {result}, not data")
    return result
  except UnsafePickleError as error:
    raise UnsafePickleError(
      f"{path}: refused: the pickle names {error}. Only numbers, strings, lists, tuples, dicts and "
      "NumPy arrays of numbers are read. Do not open this file with pickle.load"
    ) from None
  except (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError,
    struct.error,
  ) as error:  # fmt: skip
    raise ValueError(
      f"{path}: not a pickle of plain data, or damaged: {error or type(error).__name__}"
    ) from error


@dataclasses.dataclass
class _Constructor:
  """One of the few callables that the machine knows."""

  name: str


@dataclasses.dataclass
class _DType:
  """A data type while its byte order is not yet known."""

  code: str
  order: str = "="

  def finished(self) -> np.dtype:
    return np.dtype(self.code).newbyteorder(self.order)


_RECONSTRUCT = _Constructor("numpy array")
_SCALAR = _Constructor("numpy scalar")
_FROM_BUFFER = _Constructor("numpy array from a buffer")
_DTYPE = _Constructor("numpy.dtype")
_ARRAY_CLASS = _Constructor("numpy.ndarray")
_ENCODE = _Constructor("_codecs.encode")
_EMPTY_BYTES = _Constructor("bytes")

_GLOBALS = {
  ("numpy", "dtype"): _DTYPE,
  ("numpy", "ndarray"): _ARRAY_CLASS,
  # Pickles of protocol 2 that Python 3 writes hold bytes as text to be encoded.
  ("_codecs", "encode"): _ENCODE,
  ("builtins", "bytes"): _EMPTY_BYTES,
  ("__builtin__", "bytes"): _EMPTY_BYTES,
}
for _numpy_core in ("numpy.core", "numpy._core"):
  _GLOBALS[f"{_numpy_core}.multiarray", "_reconstruct"] = _RECONSTRUCT
  _GLOBALS[f"{_numpy_core}.multiarray", "scalar"] = _SCALAR
  _GLOBALS[f"{_numpy_core}.numeric", "_frombuffer"] = _FROM_BUFFER


class _Machine(PickleMachine):
  """Makes arrays of numbers besides plain data, and refuses everything else."""

  def __init__(self, budget: int) -> None:
    super().__init__()
    self._budget = budget

  def unknown(self, instruction: str) -> UnsafePickleError:
    return UnsafePickleError(f"the instruction {instruction}")

  def find(self, module: str, name: str) -> _Constructor:
    if (module, name) not in _GLOBALS:
      raise UnsafePickleError(f"{module}.{name}")
    return _GLOBALS[module, name]

  def call(self, function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Constructor):
      raise UnsafePickleError(f"a call of a {type(function).__name__}")
    if not isinstance(arguments, tuple):
      raise ValueError(f"{function.name} called without a tuple of arguments")
    if function is _RECONSTRUCT:
      return np.empty(0, np.int8)  # `set_state` fills it
    if function is _DTYPE:
      return _DType(_checked_code(arguments[0]))
    if function is _SCALAR:
      dtype, raw = arguments
      return self._array(dtype, (), raw)[()]
    if function is _FROM_BUFFER:
      raw, dtype, shape, order = arguments
      return self._array(dtype, shape, raw, order)
    if function is _ENCODE:
      text, encoding = arguments
      if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"_codecs.encode with the encoding {encoding!r}")
      return self._bytes(text)
    if function is _EMPTY_BYTES and not arguments:
      return b""
    raise UnsafePickleError(f"a call of {function.name}")

  def set_state(self, target: Any, state: Any) -> None:
    if isinstance(target, _DType):
      _, order, subtype, names, fields = state[:5]
      if order not in ("<", ">", "|", "=") or not subtype is names is fields is None:
        raise ValueError("a data type that is not a plain number or string")
      target.order = order
    elif type(target) is np.ndarray and target.size == 0:
      _, shape, dtype, fortran, raw = state
      array = self._array(dtype, shape, raw, "F" if fortran else "C")
      # In place: the memo may already refer to the target.
      raw = array.tobytes(order="F" if fortran else "C")
      target.__setstate__((1, array.shape, array.dtype, bool(fortran), raw))
    else:
      raise UnsafePickleError(f"the state of a {type(target).__name__}")

  def _array(self, dtype: Any, shape: Any, raw: Any, order: str = "C") -> np.ndarray:
    if isinstance(raw, list):
      raise UnsafePickleError("an array of Python objects")
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or order not in ("C", "F"):
      raise ValueError("an array without a shape or a data type")
    if len(shape) > _MAX_DIMS or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
      raise ValueError(f"an array of shape {str(shape)[:80]}")
    finished = dtype.finished()
    raw = self._bytes(raw)
    if len(raw) != math.prod(shape) * finished.itemsize:
      raise ValueError(f"an array {finished}{list(shape)} with {len(raw)} bytes")
    return np.frombuffer(raw, finished).reshape(shape, order=order).copy(order=order)

  def _bytes(self, raw: Any) -> bytes:
    """Copies a buffer; what is copied again and again must not outgrow the file by far."""
    if not isinstance(raw, str | bytes | bytearray):
      raise ValueError(f"a {type(raw).__name__} in place of bytes")
    self._budget -= len(raw)
    if self._budget < 0:
      raise ValueError("its arrays are much larger than the file")
    return raw.encode("latin-1") if isinstance(raw, str) else bytes(raw)


def _checked_code(code: Any) -> str:
  if isinstance(code, str) and re.fullmatch(r"\|?O\d?", code):
    raise UnsafePickleError("an array of Python objects")
  if not isinstance(code, str) or not re.fullmatch(r"[biufcSUV]\d{1,6}|\?", code) or code[0] == "V":
    raise ValueError(f"the data type {str(code)[:40]!r}")
  return code

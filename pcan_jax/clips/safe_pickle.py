"""Reads untrusted pickles with Python's own unpickler.

A pickle is a program that calls functions by name. Here a name resolves to one of a few functions
of this module, or is refused; nothing is imported. The unpickler does not protect against a few
bytes that exhaust memory or crash it; `checked_pickle` rejects those before it starts.
"""

import dataclasses
import io
import math
import mmap
import os
import pathlib
import pickle
import pickletools
import re
import reprlib
import struct
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

DAMAGED = (
  ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, MemoryError,
  RecursionError, pickle.UnpicklingError, struct.error,
)  # fmt: skip
"""Exceptions raised by reading a damaged pickle."""

_MAX_KEY_PARTS = 100
_BYTES_PER_FILE_BYTE = 4
_MAX_DIMS = 8

# Positions of the keys among the operands of an instruction.
_KEYS = {
  "SETITEM": slice(-2, None, -2),
  "SETITEMS": slice(-2, None, -2),
  "DICT": slice(-2, None, -2),
  "ADDITEMS": slice(None),
  "FROZENSET": slice(None),
}

# Instructions that create objects other than by calling a function from `find_class`.
_REFUSED_INSTRUCTIONS = frozenset((
  "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4",
))  # fmt: skip


class UnsafePickleError(ValueError):
  """A pickle names something other than plain data and NumPy arrays."""


def checked_pickle(
  file: io.BytesIO | mmap.mmap, refused: Collection[str] = frozenset()
) -> io.BytesIO:
  """Reads the pickle at the position of a file, if it is safe for `pickle.Unpickler`.

  Refused are memo entries with high numbers, for which the unpickler reserves gigabytes, and nested
  tuples as keys, whose hashing takes forever or overflows the stack.

  Args:
    file: its position afterwards is the end of the pickle.
    refused: names of refused instructions, as in `pickletools`.

  Raises:
    UnsafePickleError: the pickle has one of them.
    ValueError, IndexError, KeyError: the pickle is unsafe or damaged.
  """
  start = file.tell()
  # For every entry of the stack and the memo, the number of objects that its hash visits.
  stack: list[int] = []
  marks: list[int] = []  # stack heights
  memo: dict[int, int] = {}
  for opcode, argument, position in pickletools.genops(file):
    name, before, after = opcode.name, opcode.stack_before, opcode.stack_after
    if name in refused:
      raise UnsafePickleError(f"the instruction {name}")
    if name == "MARK":
      marks.append(len(stack))
      continue
    if name == "POP" and marks[-1:] == [len(stack)]:
      marks.pop()
      continue
    if "PUT" in name or name == "MEMOIZE":
      index = int(argument) if "PUT" in name else len(memo)
      if index > position - start:
        raise ValueError(f"entry {index} of its memo, more than its size can fill")
      memo[index] = stack[-1]
      continue
    if pickletools.markobject in before:
      bottom = marks.pop() - before.index(pickletools.markobject)
    else:
      bottom = len(stack) - len(before)
    if bottom < (marks[-1] if marks else 0):
      raise ValueError(f"nothing on the stack for {name}")
    taken = stack[bottom:]
    del stack[bottom:]
    if name in _KEYS and max(taken[_KEYS[name]], default=0) > _MAX_KEY_PARTS:
      raise ValueError("a large tuple as the key of a dict")
    parts = 1
    if "GET" in name:
      parts = memo[argument]
    elif after == [pickletools.pytuple]:
      parts = min(1 + sum(taken), _MAX_KEY_PARTS + 1)
    elif before and after and before[0] is after[0]:  # changed in place, perhaps not at all
      parts = taken[0]
    stack += [parts] * len(after)
  end = file.tell()
  file.seek(start)
  return io.BytesIO(file.read(end - start))


@dataclasses.dataclass(frozen=True)
class Function:
  """Wraps what a pickle may call; it could set the attributes of a plain function."""

  call: Callable[..., Any]

  def __call__(self, *arguments: Any) -> Any:
    return self.call(*arguments)

  def __setstate__(self, state: Any) -> None:
    raise ValueError("it sets the state of a function")


def load_pickle(path: str | os.PathLike[str]) -> Any:
  """Reads lists, tuples, dicts, numbers, strings, bytes and NumPy arrays of numbers.

  Accepts protocols 1 and higher, also of Python 2 (its strings are read as Latin-1). Arrays may be
  in lists and dicts, not in tuples.

  Raises:
    FileNotFoundError: there is no such file.
    UnsafePickleError: the pickle would import or call something else; the message names it.
    ValueError: the file is not a pickle, is damaged, or holds another kind of object.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no such file: {path}")
  try:
    return _with_arrays(_Unpickler(path.read_bytes()).load())
  except UnsafePickleError as error:
    raise UnsafePickleError(
      f"{path}: refused: the pickle names {error}. Only numbers, strings, lists, tuples, dicts and "
      "NumPy arrays of numbers are read. Do not open this file with pickle.load"
    ) from None
  except DAMAGED as error:
    raise ValueError(
      f"{path}: not a pickle of plain data, or damaged: {error or type(error).__name__}"
    ) from error


class _DType:
  """A data type; `__setstate__` sets its byte order."""

  def __init__(self, code: Any, *_: Any) -> None:
    if isinstance(code, str) and re.fullmatch(r"\|?O\d?", code):
      raise UnsafePickleError("an array of Python objects")
    if not isinstance(code, str) or not re.fullmatch(r"[biufcSU]\d{1,6}|\?", code):
      raise ValueError(f"the data type {reprlib.repr(code)}")
    self.dtype = np.dtype(code)

  def __setstate__(self, state: Any) -> None:
    _, order, subtype, names, fields = state[:5]
    if order not in ("<", ">", "|", "=") or not subtype is names is fields is None:
      raise ValueError("a data type that is not a plain number or string")
    self.dtype = self.dtype.newbyteorder(order)


class _Array:
  """Placeholder of an array, filled by `__setstate__` and resolved by `_with_arrays`."""

  def __init__(self, make: Callable[..., np.ndarray], *arguments: Any) -> None:
    self._make = make
    self.array = make(*arguments) if arguments else np.empty(0, np.int8)

  def __setstate__(self, state: Any) -> None:
    _, shape, dtype, fortran, raw = state
    array = self._make(raw, dtype, shape, "F" if fortran else "C")
    self.array = array.astype(array.dtype.newbyteorder("="), copy=False)  # as NumPy does


class _Unpickler(pickle.Unpickler):
  """Reads plain data and arrays of numbers, and refuses everything else."""

  def __init__(self, data: bytes) -> None:
    super().__init__(checked_pickle(io.BytesIO(data), _REFUSED_INSTRUCTIONS), encoding="latin1")
    self._bytes_left = _BYTES_PER_FILE_BYTE * len(data) + 1024
    make = self._make_array
    self._functions = {
      "numpy.dtype": _DType,
      "numpy.ndarray": lambda *_: _Array(make),
      "numpy.core.multiarray._reconstruct": lambda *_: _Array(make),
      "numpy.core.multiarray.scalar": lambda dtype, raw: make(raw, dtype, (), "C")[()],
      "numpy.core.numeric._frombuffer": lambda *arguments: _Array(make, *arguments),
      # Python 3 writes bytes as text to be encoded in pickles of protocol 2.
      "_codecs.encode": self._encode,
      "builtins.bytes": lambda: b"",
    }

  def find_class(self, module: str, name: str) -> Function:
    """Looks a name up among the allowed functions; imports nothing."""
    known = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
    if f"{known}.{name}" not in self._functions:
      raise UnsafePickleError(f"{module}.{name}")
    return Function(self._functions[f"{known}.{name}"])

  def _make_array(self, raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(raw, list):
      raise UnsafePickleError("an array of Python objects")
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or order not in ("C", "F"):
      raise ValueError("an array without a shape or a data type")
    if len(shape) > _MAX_DIMS or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
      raise ValueError(f"an array of shape {reprlib.repr(shape)}")
    raw = self._copied(raw)
    if len(raw) != math.prod(shape) * dtype.dtype.itemsize:
      raise ValueError(f"an array {dtype.dtype}{list(shape)} with {len(raw)} bytes")
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order).copy(order=order)

  def _encode(self, text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", "latin-1"):
      raise UnsafePickleError(f"_codecs.encode with the encoding {reprlib.repr(encoding)}")
    return self._copied(text)

  def _copied(self, raw: Any) -> bytes:
    """Copies a buffer; repeated copies must not grow far beyond the size of the file."""
    if not isinstance(raw, str | bytes | bytearray):
      raise ValueError(f"a {type(raw).__name__} in place of bytes")
    self._bytes_left -= len(raw)
    if self._bytes_left < 0:
      raise ValueError("its arrays are much larger than the file")
    return raw.encode("latin-1") if isinstance(raw, str) else bytes(raw)


def _with_arrays(content: Any) -> Any:
  """Replaces every `_Array` in what was read by its array."""
  root = [content]
  seen, waiting = set(), [root]
  while waiting:
    container = waiting.pop()
    seen.add(id(container))
    for key, item in container.items() if isinstance(container, dict) else enumerate(container):
      if isinstance(item, _Array):
        if isinstance(container, tuple):
          raise ValueError("an array within a tuple")
        container[key] = item.array
      elif isinstance(item, Function | _DType):
        raise ValueError("it holds a function or a data type, not data")
      elif isinstance(item, list | tuple | dict) and id(item) not in seen:
        waiting.append(item)
  return root[0]

"""Reads pickles of plain data from people one does not know.

A pickle is a program. Python's own machine runs it, calls what it names, and can be made to use any
amount of memory by a few bytes. The machine here knows only the instructions that lists, dicts,
numbers, strings and NumPy arrays are made of, calls nothing but its own four constructors of
arrays, and never holds much more than the size of the file.
"""

import dataclasses
import math
import os
import pathlib
import pickletools
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

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
    return _Machine(budget=_BYTES_PER_FILE_BYTE * len(data) + 1024).run(data)
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


class _Machine:
  """Runs the instructions of one pickle."""

  def __init__(self, budget: int) -> None:
    self._budget = budget
    self._stack: list[Any] = []  # what lies above the last mark
    self._below_marks: list[list[Any]] = []
    self._memo: dict[int, Any] = {}

  def run(self, data: bytes) -> Any:
    for opcode, argument, _ in pickletools.genops(data):
      name = opcode.name
      if name == "STOP":
        (result,) = self._stack
        if isinstance(result, _Constructor | _DType):
          raise ValueError(f"it holds {result}, not data")
        return result
      if name in _PUSHES_ITS_ARGUMENT:
        self._stack.append(argument)
      elif name in _HANDLERS:
        _HANDLERS[name](self, argument)
      else:
        raise UnsafePickleError(f"the instruction {name}")
    raise ValueError("it ends too early")

  def nothing(self, _: Any) -> None:
    """The instruction concerns only the layout of the file."""

  def mark(self, _: Any) -> None:
    self._below_marks.append(self._stack)
    self._stack = []

  def _since_mark(self) -> list[Any]:
    items = self._stack
    self._stack = self._below_marks.pop()
    return items

  def pop(self, _: Any) -> None:
    self._stack.pop()

  def pop_mark(self, _: Any) -> None:
    self._since_mark()

  def duplicate(self, _: Any) -> None:
    self._stack.append(self._stack[-1])

  def put(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def memoize(self, _: Any) -> None:
    self._memo[len(self._memo)] = self._stack[-1]

  def get(self, index: int) -> None:
    self._stack.append(self._memo[index])

  def append(self, _: Any) -> None:
    item = self._stack.pop()
    self._top(list).append(item)

  def appends(self, _: Any) -> None:
    items = self._since_mark()
    self._top(list).extend(items)

  def set_item(self, _: Any) -> None:
    value, key = self._stack.pop(), self._stack.pop()
    self._top(dict)[_checked_key(key)] = value

  def set_items(self, _: Any) -> None:
    items = self._since_mark()
    self._top(dict).update(_pairs(items))

  def _top(self, kind: type) -> Any:
    if not isinstance(self._stack[-1], kind):
      raise ValueError(f"expected a {kind.__name__}, found a {type(self._stack[-1]).__name__}")
    return self._stack[-1]

  def stack_global(self, _: Any) -> None:
    name, module = self._stack.pop(), self._stack.pop()
    self._push_global(module, name)

  def named_global(self, argument: str) -> None:
    self._push_global(*argument.split(" ", 1))

  def _push_global(self, module: Any, name: Any) -> None:
    if not isinstance(module, str) or not isinstance(name, str):
      raise ValueError("a global whose name is not text")
    if (module, name) not in _GLOBALS:
      raise UnsafePickleError(f"{module}.{name}")
    self._stack.append(_GLOBALS[module, name])

  def reduce(self, _: Any) -> None:
    arguments, constructor = self._stack.pop(), self._stack.pop()
    if not isinstance(constructor, _Constructor):
      raise UnsafePickleError(f"a call of a {type(constructor).__name__}")
    if not isinstance(arguments, tuple):
      raise ValueError(f"{constructor.name} called without a tuple of arguments")
    if constructor is _RECONSTRUCT:
      result = np.empty(0, np.int8)  # BUILD fills it
    elif constructor is _DTYPE:
      result = _DType(_checked_code(arguments[0]))
    elif constructor is _SCALAR:
      dtype, raw = arguments
      result = self._array(dtype, (), raw)[()]
    elif constructor is _FROM_BUFFER:
      raw, dtype, shape, order = arguments
      result = self._array(dtype, shape, raw, order)
    elif constructor is _ENCODE:
      text, encoding = arguments
      if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"_codecs.encode with the encoding {encoding!r}")
      result = self._bytes(text)
    elif constructor is _EMPTY_BYTES and not arguments:
      result = b""
    else:
      raise UnsafePickleError(f"a call of {constructor.name}")
    self._stack.append(result)

  def build(self, _: Any) -> None:
    state = self._stack.pop()
    target = self._stack[-1]
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


def _checked_key(key: Any) -> str | int | float | bytes:
  """Keys of other kinds are of no use here, and hashing a deeply nested one ends in a crash."""
  if not isinstance(key, str | int | float | bytes):
    raise ValueError(f"a {type(key).__name__} as the key of a dict")
  return key


def _pairs(items: list[Any]) -> dict[Any, Any]:
  if len(items) % 2:
    raise ValueError("a dict with a key but no value")
  return dict(zip(map(_checked_key, items[::2]), items[1::2]))


def _push(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
  return lambda machine, _: machine._stack.append(make())


def _collect(make: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
  def handler(machine: _Machine, _: Any) -> None:
    items = machine._since_mark()
    machine._stack.append(make(items))

  return handler


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
  def handler(machine: _Machine, _: Any) -> None:
    if len(machine._stack) < count:
      raise IndexError("the stack is empty")
    items = tuple(machine._stack[-count:])
    machine._stack[-count:] = [items]

  return handler


_PUSHES_ITS_ARGUMENT = frozenset(
  """
  INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE
  BINUNICODE8 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
  """.split()
)

_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
  "PROTO": _Machine.nothing,
  "FRAME": _Machine.nothing,
  "NONE": _push(lambda: None),
  "NEWTRUE": _push(lambda: True),
  "NEWFALSE": _push(lambda: False),
  "EMPTY_LIST": _push(list),
  "EMPTY_DICT": _push(dict),
  "EMPTY_TUPLE": _push(tuple),
  "LIST": _collect(list),
  "DICT": _collect(_pairs),
  "TUPLE": _collect(tuple),
  "TUPLE1": _tuple_of(1),
  "TUPLE2": _tuple_of(2),
  "TUPLE3": _tuple_of(3),
  "MARK": _Machine.mark,
  "POP": _Machine.pop,
  "POP_MARK": _Machine.pop_mark,
  "DUP": _Machine.duplicate,
  "PUT": _Machine.put,
  "BINPUT": _Machine.put,
  "LONG_BINPUT": _Machine.put,
  "MEMOIZE": _Machine.memoize,
  "GET": _Machine.get,
  "BINGET": _Machine.get,
  "LONG_BINGET": _Machine.get,
  "APPEND": _Machine.append,
  "APPENDS": _Machine.appends,
  "SETITEM": _Machine.set_item,
  "SETITEMS": _Machine.set_items,
  "GLOBAL": _Machine.named_global,
  "STACK_GLOBAL": _Machine.stack_global,
  "REDUCE": _Machine.reduce,
  "BUILD": _Machine.build,
}

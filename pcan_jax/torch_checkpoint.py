"""Reads the tensors of a PyTorch checkpoint without PyTorch, and without running what it contains.

A checkpoint is a pickle beside raw storages. The pickle is interpreted by the small machine below:
it knows the instructions that plain data are made of and PyTorch's constructors of tensors.
Anything else that the pickle names - an optimizer's enum, mmengine's message hub - becomes a
`Placeholder`: nothing is imported, nothing is called.

Both layouts of `torch.save` are read: the zip archive of PyTorch 1.6 and later, and the stream of
pickles before it, which OpenMMLab still publishes.
"""

import dataclasses
import io
import math
import mmap
import os
import pathlib
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_DIMS = 16
_BYTES_PER_FILE_BYTE = 4  # tensors may share a storage, but not without end

_STORAGE_DTYPES = {
  "DoubleStorage": np.dtype("<f8"),
  "FloatStorage": np.dtype("<f4"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}


class Placeholder:
  """Stands for an object of a class or a call that the reader does not know; holds nothing."""

  def __init__(self, name: str) -> None:
    self.name = name

  def __repr__(self) -> str:
    return f"<{self.name}>"


@dataclasses.dataclass(frozen=True)
class _Storage:
  """Raw numbers named in the pickle, kept elsewhere in the file."""

  key: str
  dtype: np.dtype
  numel: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A view of a storage; offset and strides count elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def read(self, numbers: np.ndarray) -> np.ndarray:
    """A copy of the view, after checking that it lies within the storage."""
    if math.prod(self.shape) == 0:
      return np.zeros(self.shape, numbers.dtype)
    last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
    if last >= numbers.size:
      raise ValueError(
        f"a tensor of shape {self.shape}, offset {self.offset} and strides {self.strides} reaches "
        f"beyond its storage of {numbers.size} numbers"
      )
    view = np.lib.stride_tricks.as_strided(
      numbers[self.offset :],
      self.shape,
      [s * numbers.itemsize for s in self.strides],
      writeable=False,
    )
    return view.copy()


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The tensors of a checkpoint, by name.

  A state dict may be the whole file or its entry `state_dict` or `model`, and its names may start
  with `module.`, as data-parallel training leaves them.

  Args:
    path: a file written by `torch.save`.

  Returns:
    Arrays in the file's types; bfloat16 as `ml_dtypes.bfloat16`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is no such checkpoint, is damaged, or has an entry that is not a tensor.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no such file: {path}")
  try:
    with path.open("rb") as file:
      is_zip = file.read(4) == b"PK\x03\x04"
      file.seek(0)
      content, load = _read_zip(file) if is_zip else _read_legacy(file)
      return _load_tensors(_find_state_dict(content), load, path.stat().st_size)
  except (
    ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, OSError,
    RuntimeError, struct.error, zipfile.BadZipFile,
  ) as error:  # fmt: skip
    reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
    raise ValueError(f"{path}: cannot be read as a PyTorch checkpoint: {reason}") from error


def _find_state_dict(content: Any) -> Mapping[str, Any]:
  for entry in ("state_dict", "model"):
    if isinstance(content, dict) and isinstance(content.get(entry), dict):
      content = content[entry]
      break
  if not isinstance(content, dict) or not any(isinstance(v, _Tensor) for v in content.values()):
    raise ValueError("it holds no state dict: no tensors by name, at the top or under 'state_dict'")
  return content


def _load_tensors(
  entries: Mapping[str, Any], load: Callable[[_Storage], np.ndarray], file_size: int
) -> dict[str, np.ndarray]:
  strangers = [name for name, value in entries.items() if not isinstance(value, _Tensor)]
  if strangers:
    shown = ", ".join(f"{name!r} ({entries[name]!r:.40})" for name in strangers[:5])
    raise ValueError(f"{len(strangers)} entries of the state dict are not dense tensors: {shown}")
  size = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in entries.values())
  if size > _BYTES_PER_FILE_BYTE * file_size:
    raise ValueError(f"its tensors would take {size} bytes, far more than the file has")
  storages: dict[_Storage, np.ndarray] = {}
  tensors = {}
  for name, tensor in entries.items():
    if tensor.storage not in storages:
      storages[tensor.storage] = load(tensor.storage)
    tensors[str(name).removeprefix("module.")] = tensor.read(storages[tensor.storage])
  if len(tensors) < len(entries):
    raise ValueError("two entries of the state dict have the same name but for 'module.'")
  return tensors


def _numbers(raw: bytes, storage: _Storage) -> np.ndarray:
  if len(raw) != storage.numel * storage.dtype.itemsize:
    raise ValueError(
      f"storage {storage.key} should hold {storage.numel} numbers of type {storage.dtype}, but has "
      f"{len(raw)} bytes"
    )
  return np.frombuffer(raw, storage.dtype)


def _read_zip(file: io.BufferedReader) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
  archive = zipfile.ZipFile(file)
  members = {info.filename: info for info in archive.infolist()}
  # torch.save stores without compression, so no member can be larger than the file.
  compressed = [n for n, i in members.items() if i.compress_type != zipfile.ZIP_STORED]
  if compressed:
    raise ValueError(f"its member {compressed[0]!r} is compressed; torch.save does not do that")
  pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
  if len(pickles) != 1:
    raise ValueError("the zip archive has no ARCHIVE/data.pkl; is it a TorchScript or other file?")
  root = pickles[0].removesuffix("data.pkl")
  byteorder = f"{root}byteorder"
  if byteorder in members and archive.read(byteorder) != b"little":
    raise ValueError("it was written on a big-endian machine, which is not supported")

  def load(storage: _Storage) -> np.ndarray:
    name = f"{root}data/{storage.key}"
    if name not in members:
      raise ValueError(f"the zip archive has no member {name!r}")
    return _numbers(archive.read(name), storage)

  return _Machine().run(io.BytesIO(archive.read(pickles[0]))), load


def _read_legacy(file: io.BufferedReader) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
  # A map knows where it ends, whatever length the pickle claims for a string.
  stream = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  if _Machine().run(stream) != _LEGACY_MAGIC:
    raise ValueError("it does not start as a file of torch.save does")
  protocol, system = _Machine().run(stream), _Machine().run(stream)
  if protocol != _LEGACY_PROTOCOL or system.get("little_endian") is not True:
    raise ValueError(f"legacy protocol {protocol} with {system} is not supported")
  machine = _Machine()
  content = machine.run(stream)
  starts = {}
  for key in _Machine().run(stream):
    storage = machine.storages[key]
    (numel,) = struct.unpack("<q", stream.read(8))
    starts[key] = stream.tell()
    if numel != storage.numel:
      raise ValueError(f"storage {key} has {numel} numbers, not the {storage.numel} it should have")
    stream.seek(numel * storage.dtype.itemsize, io.SEEK_CUR)

  def load(storage: _Storage) -> np.ndarray:
    start = starts[storage.key]
    return _numbers(stream[start : start + storage.numel * storage.dtype.itemsize], storage)

  return content, load


@dataclasses.dataclass(frozen=True)
class _Global:
  """What the pickle refers to as MODULE.NAME; calling it is up to the machine."""

  name: str


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
  counts = (offset, *shape, *strides)
  if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in counts):
    raise ValueError("a tensor without a storage, an offset, a shape and strides")
  if len(shape) != len(strides) or len(shape) > _MAX_DIMS:
    raise ValueError(f"a tensor of shape {str(shape)[:60]} with strides {str(strides)[:60]}")
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


# Functions of PyTorch whose calls are understood, and what stands in for them here.
_CALLS: dict[str, Callable[..., Any]] = {
  "torch._utils._rebuild_tensor_v2": _tensor,
  "torch._utils._rebuild_tensor": _tensor,
  "torch._utils._rebuild_parameter": lambda data, *_: data,
  "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
  # Tensors with attributes: the function and the arguments that rebuild the tensor itself.
  "torch._tensor._rebuild_from_type_v2": lambda call, kind, args, state: _call(call, args),
  "collections.OrderedDict": lambda pairs=(): {_key(key): value for key, value in pairs},
  "torch.Size": lambda sizes=(): tuple(sizes),
}


def _call(function: Any, args: Any) -> Any:
  if not isinstance(args, tuple):
    raise ValueError("a call without a tuple of arguments")
  if isinstance(function, _Global) and function.name in _CALLS:
    return _CALLS[function.name](*args)
  return Placeholder(getattr(function, "name", "a call"))


class _Machine:
  """Interprets one pickle; never holds much more than its size."""

  def __init__(self) -> None:
    self.storages: dict[str, _Storage] = {}
    self._stack: list[Any] = []  # what lies above the last mark
    self._below_marks: list[list[Any]] = []
    self._memo: dict[int, Any] = {}

  def run(self, file: io.BytesIO | mmap.mmap) -> Any:
    """Interprets the pickle that starts where the file stands and leaves the file behind it."""
    for opcode, argument, _ in pickletools.genops(file):
      name = opcode.name
      if name == "STOP":
        (result,) = self._stack
        return result
      if name in _PUSHES_ITS_ARGUMENT:
        self._stack.append(argument)
      elif name in _CONSTANTS:
        self._stack.append(_CONSTANTS[name]())
      elif name in _COLLECTS:
        items = self._since_mark()
        self._stack.append(_COLLECTS[name](items))
      elif name in _TUPLES:
        self._stack.append(tuple(self._take(_TUPLES[name])))
      elif name in _HANDLERS:
        _HANDLERS[name](self, argument)
      elif name not in ("PROTO", "FRAME"):
        raise ValueError(f"the pickle instruction {name} is not supported")
    raise ValueError("the pickle ends too early")

  def _take(self, count: int) -> list[Any]:
    if len(self._stack) < count:
      raise ValueError("the pickle's stack is empty")
    items = self._stack[-count:]
    del self._stack[-count:]
    return items

  def _since_mark(self) -> list[Any]:
    items, self._stack = self._stack, self._below_marks.pop()
    return items

  def mark(self, _: Any) -> None:
    self._below_marks.append(self._stack)
    self._stack = []

  def pop(self, _: Any) -> None:
    if self._stack:
      self._stack.pop()
    else:
      self._since_mark()

  def duplicate(self, _: Any) -> None:
    self._stack.append(self._stack[-1])

  def put(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def memoize(self, _: Any) -> None:
    self._memo[len(self._memo)] = self._stack[-1]

  def get(self, index: int) -> None:
    self._stack.append(self._memo[index])

  def add(self, items: list[Any]) -> None:
    """APPEND and ADDITEMS: what is added to a placeholder is lost, as the object itself is."""
    target = self._stack[-1]
    if isinstance(target, list):
      target.extend(items)
    elif not isinstance(target, Placeholder):
      raise ValueError(f"the pickle appends to a {type(target).__name__}")

  def set_items(self, items: list[Any]) -> None:
    target = self._stack[-1]
    if isinstance(target, dict):
      target.update(_pairs(items))
    elif not isinstance(target, Placeholder):
      raise ValueError(f"the pickle sets items of a {type(target).__name__}")

  def build(self, _: Any) -> None:
    """Attributes, as a state dict's `_metadata`, are of no use here."""
    self._take(1)
    if not isinstance(self._stack[-1], dict | Placeholder | _Tensor):
      raise ValueError(f"the pickle sets the state of a {type(self._stack[-1]).__name__}")

  def reduce(self, _: Any) -> None:
    function, args = self._take(2)
    self._stack.append(_call(function, args))

  def new_object(self, _: Any) -> None:
    kind, args = self._take(2)
    self._stack.append(_call(kind, args))

  def new_object_with_keywords(self, _: Any) -> None:
    kind, _, _ = self._take(3)
    self._stack.append(Placeholder(getattr(kind, "name", "an object")))

  def instance(self, name: str) -> None:
    self._since_mark()
    self._stack.append(Placeholder(name.replace(" ", ".")))

  def obj(self, _: Any) -> None:
    kind = self._since_mark()[0]
    self._stack.append(Placeholder(getattr(kind, "name", "an object")))

  def named_global(self, name: str) -> None:
    self._stack.append(_Global(name.replace(" ", ".")))

  def stack_global(self, _: Any) -> None:
    module, name = self._take(2)
    self._stack.append(_Global(f"{module}.{name}"))

  def persistent_id(self, _: Any) -> None:
    (reference,) = self._take(1)
    if not isinstance(reference, tuple) or len(reference) not in (5, 6):
      raise ValueError("a reference to something else than a storage")
    label, kind, key, _, numel, *view = reference
    name = kind.name.rpartition(".") if isinstance(kind, _Global) else ("", "", "")
    if label != "storage" or name[0] not in ("torch", "torch.storage"):
      raise ValueError(f"a reference to {str(label)[:40]!r} of {str(kind)[:60]}")
    if name[2] not in _STORAGE_DTYPES:
      raise ValueError(f"storages of type {kind.name} are not supported")
    if not isinstance(key, str) or type(numel) is not int or numel < 0 or any(view):
      raise ValueError(f"a storage with the key {str(key)[:40]!r} and {str(numel)[:40]} numbers")
    storage = _Storage(key, _STORAGE_DTYPES[name[2]], numel)
    self.storages[key] = storage
    self._stack.append(storage)


def _key(key: Any) -> Any:
  """Keys of other kinds do not occur, and hashing a deeply nested one ends in a crash."""
  if key is None or isinstance(key, str | int | float | bytes | _Global | Placeholder):
    return key
  if isinstance(key, tuple) and not any(isinstance(part, tuple) for part in key):
    return tuple(map(_key, key))
  raise ValueError(f"a {type(key).__name__} as the key of a dict")


def _pairs(items: list[Any]) -> dict[Any, Any]:
  if len(items) % 2:
    raise ValueError("a dict with a key but no value")
  return dict(zip(map(_key, items[::2]), items[1::2]))


_PUSHES_ITS_ARGUMENT = frozenset((
  "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
  "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING",
  "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip

_CONSTANTS: dict[str, Callable[[], Any]] = {
  "NONE": lambda: None,
  "NEWTRUE": lambda: True,
  "NEWFALSE": lambda: False,
  "EMPTY_LIST": list,
  "EMPTY_DICT": dict,
  "EMPTY_TUPLE": tuple,
  "EMPTY_SET": lambda: Placeholder("set"),
}

_COLLECTS: dict[str, Callable[[list[Any]], Any]] = {
  "LIST": list,
  "DICT": _pairs,
  "TUPLE": tuple,
  "FROZENSET": lambda items: Placeholder("frozenset"),
}

_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
  "MARK": _Machine.mark,
  "POP": _Machine.pop,
  "POP_MARK": lambda machine, _: machine._since_mark(),
  "DUP": _Machine.duplicate,
  "PUT": _Machine.put,
  "BINPUT": _Machine.put,
  "LONG_BINPUT": _Machine.put,
  "MEMOIZE": _Machine.memoize,
  "GET": _Machine.get,
  "BINGET": _Machine.get,
  "LONG_BINGET": _Machine.get,
  "APPEND": lambda machine, _: machine.add(machine._take(1)),
  "APPENDS": lambda machine, _: machine.add(machine._since_mark()),
  "ADDITEMS": lambda machine, _: machine.add(machine._since_mark()),
  "SETITEM": lambda machine, _: machine.set_items(machine._take(2)),
  "SETITEMS": lambda machine, _: machine.set_items(machine._since_mark()),
  "BUILD": _Machine.build,
  "REDUCE": _Machine.reduce,
  "NEWOBJ": _Machine.new_object,
  "NEWOBJ_EX": _Machine.new_object_with_keywords,
  "INST": _Machine.instance,
  "OBJ": _Machine.obj,
  "GLOBAL": _Machine.named_global,
  "STACK_GLOBAL": _Machine.stack_global,
  "BINPERSID": _Machine.persistent_id,
}

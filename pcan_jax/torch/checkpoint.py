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
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from pcan_jax.clips.pickle_machine import PickleMachine

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


def _key(key: Any) -> Any:
  """Keys of other kinds do not occur, and hashing a deeply nested one ends in a crash."""
  if key is None or isinstance(key, str | int | float | bytes | _Global | Placeholder):
    return key
  if isinstance(key, tuple) and not any(isinstance(part, tuple) for part in key):
    return tuple(map(_key, key))
  raise ValueError(f"a {type(key).__name__} as the key of a dict")


class _Machine(PickleMachine):
  """Makes storages and tensors besides plain data, and placeholders of everything else."""

  checked_key = staticmethod(_key)

  def __init__(self) -> None:
    super().__init__()
    self.storages: dict[str, _Storage] = {}

  def find(self, module: str, name: str) -> _Global:
    return _Global(f"{module}.{name}")

  def call(self, function: Any, arguments: Any) -> Any:
    return _call(function, arguments)

  def set_state(self, target: Any, state: Any) -> None:
    """Attributes, as a state dict's `_metadata`, are of no use here."""
    if not isinstance(target, dict | Placeholder | _Tensor):
      raise ValueError(f"the pickle sets the state of a {type(target).__name__}")

  def extend(self, target: Any, items: list[Any]) -> None:
    if not isinstance(target, Placeholder):  # what is added to one is lost, as the object itself is
      super().extend(target, items)

  def update(self, target: Any, items: list[Any]) -> None:
    if not isinstance(target, Placeholder):
      super().update(target, items)

  def _frozen_set(self, _: Any) -> None:
    self.take_marked()
    self.push(Placeholder("frozenset"))

  def _new_object(self, _: Any) -> None:
    self.push(_call(*self.take(2)))

  def _new_object_with_keywords(self, _: Any) -> None:
    self._push_object_of(self.take(3)[0])

  def _instance(self, name: str) -> None:
    self.take_marked()
    self.push(Placeholder(name.replace(" ", ".")))

  def _obj(self, _: Any) -> None:
    self._push_object_of(self.take_marked()[0])

  def _push_object_of(self, kind: Any) -> None:
    self.push(Placeholder(getattr(kind, "name", "an object")))

  def _persistent_id(self, _: Any) -> None:
    (reference,) = self.take(1)
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
    self.push(storage)

  handlers = PickleMachine.handlers | {
    "EMPTY_SET": lambda machine, _: machine.push(Placeholder("set")),
    "FROZENSET": _frozen_set,
    "ADDITEMS": PickleMachine.handlers["APPENDS"],
    "NEWOBJ": _new_object,
    "NEWOBJ_EX": _new_object_with_keywords,
    "INST": _instance,
    "OBJ": _obj,
    "BINPERSID": _persistent_id,
  }

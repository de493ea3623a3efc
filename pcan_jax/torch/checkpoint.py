"""Reads the tensors of a PyTorch checkpoint without PyTorch and without executing its content.

A checkpoint consists of a pickle and raw storages. Python's own unpickler reads the pickle, within
the limits of `pcan_jax.clips.safe_pickle`: names resolve to tensor constructors of this module.
Anything else, such as an optimizer's enum or mmengine's message hub, becomes a `Placeholder`;
nothing is imported or called.

Both formats of `torch.save` are read: the zip archive of PyTorch 1.6 and later, and the older
stream of pickles, which OpenMMLab still publishes.
"""

import dataclasses
import io
import math
import mmap
import os
import pathlib
import pickle
import reprlib
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from pcan_jax.clips.safe_pickle import DAMAGED, Function, checked_pickle
from pcan_jax.torch.safetensors import read_safetensors

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_DIMS = 16
_MAX_STRANGERS = 1000  # unknown names
_BYTES_PER_FILE_BYTE = 4  # tensors may share storages, but within limits

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
  """Represents an object of an unknown class or an unknown call; it is empty."""

  name = ""

  def __new__(cls, *_: Any, **__: Any) -> "Placeholder":
    return super().__new__(cls)

  def __repr__(self) -> str:
    return f"<{self.name}>"

  def _ignore(self, *_: Any) -> None:
    """Discards all content."""

  __setstate__ = __setitem__ = append = extend = add = _ignore


@dataclasses.dataclass(frozen=True)
class _Storage:
  """Reference to raw numbers stored outside the pickle."""

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
    """Copies the view, after checking that it lies within the storage."""
    if math.prod(self.shape) == 0:
      return np.zeros(self.shape, numbers.dtype)
    last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
    if last >= numbers.size:
      raise ValueError(
        f"a tensor of shape {self.shape}, offset {self.offset} and strides {self.strides} extends "
        f"beyond its storage of {numbers.size} numbers"
      )
    view = np.lib.stride_tricks.as_strided(
      numbers[self.offset :],
      self.shape,
      [s * numbers.itemsize for s in self.strides],
      writeable=False,
    )
    return view.copy()

  def __setstate__(self, state: Any) -> None:
    """Ignores the attributes of a tensor."""


class _Dict(dict):
  """An OrderedDict; its attributes, such as a state dict's `_metadata`, are ignored."""

  def __setstate__(self, state: Any) -> None:
    pass


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The tensors of a checkpoint, by name.

  A state dict may be the whole file or its entry `state_dict`, `model` or `module`, and its names
  may start with `module.`, as after data-parallel training.

  Args:
    path: a file written by `torch.save`, or one whose name ends in `.safetensors`.

  Returns:
    Arrays in the file's types; bfloat16 as `ml_dtypes.bfloat16`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not such a checkpoint, is damaged, or has an entry that is not a tensor.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no such file: {path}")
  if path.suffix == ".safetensors":
    try:
      return read_safetensors(path)
    except (OSError, ValueError) as error:
      raise ValueError(f"{path}: cannot be read as a safetensors file: {error}") from error
  try:
    with path.open("rb") as file:
      is_zip = file.read(4) == b"PK\x03\x04"
      file.seek(0)
      content, load = _read_zip(file) if is_zip else _read_legacy(file)
      return _load_tensors(_find_state_dict(content), load, path.stat().st_size)
  except (*DAMAGED, OSError, RuntimeError, zipfile.BadZipFile) as error:
    reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
    raise ValueError(f"{path}: cannot be read as a PyTorch checkpoint: {reason}") from error


def _find_state_dict(content: Any) -> Mapping[str, Any]:
  for entry in ("state_dict", "model", "module"):
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
    shown = ", ".join(f"{name!r} ({reprlib.repr(entries[name])})" for name in strangers[:5])
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
    raise ValueError("two entries of the state dict differ only in the prefix 'module.'")
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
  # torch.save does not compress, so no member can be larger than the file.
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

  return _Unpickler(io.BytesIO(archive.read(pickles[0]))).load(), load


def _read_legacy(file: io.BufferedReader) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
  # Reads from a memory map are bounded, whatever string length the pickle claims.
  stream = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  if _Unpickler(stream).load() != _LEGACY_MAGIC:
    raise ValueError("it does not start like a file of torch.save")
  protocol, system = _Unpickler(stream).load(), _Unpickler(stream).load()
  if protocol != _LEGACY_PROTOCOL or system.get("little_endian") is not True:
    raise ValueError(f"legacy protocol {reprlib.repr((protocol, system))} is not supported")
  unpickler = _Unpickler(stream)
  content = unpickler.load()
  starts = {}
  for key in _Unpickler(stream).load():
    storage = unpickler.storages[key]
    (numel,) = struct.unpack("<q", stream.read(8))
    starts[key] = stream.tell()
    if numel != storage.numel:
      raise ValueError(f"storage {key} has {numel} numbers, not the {storage.numel} it should have")
    stream.seek(numel * storage.dtype.itemsize, io.SEEK_CUR)

  def load(storage: _Storage) -> np.ndarray:
    start = starts[storage.key]
    return _numbers(stream[start : start + storage.numel * storage.dtype.itemsize], storage)

  return content, load


class _Unpickler(pickle.Unpickler):
  """Reads plain data, storages and tensors; everything else becomes placeholders.

  Args:
    file: positioned at the start of a pickle; afterwards at its end.
  """

  def __init__(self, file: io.BytesIO | mmap.mmap) -> None:
    pickle_alone = checked_pickle(file)
    super().__init__(pickle_alone, encoding="latin1")
    self.storages: dict[str, _Storage] = {}
    self._pairs_left = len(pickle_alone.getbuffer())
    self._strangers: dict[str, type[Placeholder]] = {}
    # Supported functions of PyTorch, and their replacements.
    self._functions = {
      "torch._utils._rebuild_tensor_v2": _tensor,
      "torch._utils._rebuild_tensor": _tensor,
      "torch._utils._rebuild_parameter": _parameter,
      "torch._utils._rebuild_parameter_with_state": _parameter,
      "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
      "collections.OrderedDict": self._dict,
      "torch.Size": _size,
    }

  def find_class(self, module: str, name: str) -> Function | type[Placeholder]:
    """Returns a replacement, or a class of placeholders; imports nothing."""
    name = f"{module}.{name}"
    if name in self._functions:
      return Function(self._functions[name])
    if name not in self._strangers:
      if len(self._strangers) == _MAX_STRANGERS:
        raise ValueError(f"it names more than {_MAX_STRANGERS} classes and functions")
      self._strangers[name] = type("Placeholder", (Placeholder,), {"name": name})
    return self._strangers[name]

  def persistent_load(self, reference: Any) -> _Storage:
    """Resolves a reference of `torch.save` to a storage."""
    if not isinstance(reference, tuple) or len(reference) not in (5, 6):
      raise ValueError("a reference to something other than a storage")
    label, kind, key, _, numel, *view = reference
    module, _, name = getattr(kind, "name", "").rpartition(".")
    if label != "storage" or module not in ("torch", "torch.storage"):
      raise ValueError(f"a reference to {reprlib.repr(label)} of {reprlib.repr(kind)}")
    if name not in _STORAGE_DTYPES:
      raise ValueError(f"storages of type {kind.name} are not supported")
    if not isinstance(key, str) or type(numel) is not int or numel < 0 or any(view):
      raise ValueError(f"a storage with the key {reprlib.repr((key, numel))}")
    self.storages[key] = _Storage(key, _STORAGE_DTYPES[name], numel)
    return self.storages[key]

  def _dict(self, pairs: Any = ()) -> _Dict:
    """Creates an OrderedDict; Python 2 passes its items here."""
    self._pairs_left -= len(pairs)
    if self._pairs_left < 0:
      raise ValueError("the same items in dict after dict")
    if not all(isinstance(key, str | int) for key, _ in pairs):
      raise ValueError("an OrderedDict whose keys are neither text nor numbers")
    return _Dict(pairs)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
  shape, strides = _size(shape), _size(strides)
  if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0:
    raise ValueError("a tensor without a storage, an offset, a shape and strides")
  if len(shape) != len(strides):
    raise ValueError(f"a tensor of shape {shape} with strides {strides}")
  return _Tensor(storage, offset, shape, strides)


def _size(sizes: Any = ()) -> tuple[int, ...]:
  if len(sizes) > _MAX_DIMS or not all(type(n) is int and n >= 0 for n in sizes):
    raise ValueError(f"{reprlib.repr(sizes)} in place of a shape or strides")
  return tuple(sizes)


def _parameter(tensor: Any, *_: Any) -> _Tensor | Placeholder:
  if not isinstance(tensor, _Tensor | Placeholder):
    raise ValueError("a parameter without a tensor")
  return tensor


def _tensor_with_attributes(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
  """Creates the tensor by a call of one of the functions above; ignores its attributes."""
  return _parameter(function(*arguments))

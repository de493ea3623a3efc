"""Writes files in the zip format of torch.save, well-formed or not, without PyTorch."""

import pickle
import zipfile

import numpy as np


class Storage:
  """A persistent id, as torch.save writes it, of a type of storage."""

  def __init__(self, kind, key, numel):
    self.kind, self.key, self.numel = kind, key, numel


class Named:
  """Pickled as a global of another module."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class Call:
  def __init__(self, function, *args):
    self.function, self.args = function, args


class Pickler(pickle._Pickler):
  """Writes globals and calls that this process could not look up."""

  def persistent_id(self, obj):
    if not isinstance(obj, Storage):
      return None
    return ("storage", Named("torch", obj.kind), obj.key, "cpu", obj.numel)

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, Named):
      self.write(f"c{obj.module}\n{obj.name}\n".encode())
    elif isinstance(obj, Call):
      self.save(obj.function)
      self.save(obj.args)
      self.write(pickle.REDUCE)
    else:
      super().save(obj, save_persistent_id)


def rebuild(storage, offset, shape, strides):
  return Call(
    Named("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, strides, False, None
  )


def write(path, content, storages=(), compression=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, "w", compression) as archive:
    with archive.open("archive/data.pkl", "w") as file:
      Pickler(file, 2).dump(content)
    for key, raw in storages:
      archive.writestr(f"archive/data/{key}", raw)
  return path


def save_state_dict(path, state_dict):
  """Writes arrays as torch.save would, each with a storage of its own."""
  kinds = {"float32": "FloatStorage", "int64": "LongStorage"}
  tensors, storages = {}, []
  for key, (name, array) in enumerate(state_dict.items()):
    array = np.ascontiguousarray(array).reshape(array.shape)
    storage = Storage(kinds[array.dtype.name], str(key), array.size)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    tensors[name] = rebuild(storage, 0, array.shape, strides)
    storages.append((str(key), array.tobytes()))
  return write(path, {"state_dict": tensors}, storages)

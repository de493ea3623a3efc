import collections
import pathlib
import pickle
import random
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from pcan_jax.torch.checkpoint import read_state_dict
from tests.torch_files import Call, Named, Storage, rebuild, write

REFERENCE = pathlib.Path(__file__).parent / "reference"
FILES = ("torch_training.pth", "torch_training_legacy.pth")


@pytest.mark.parametrize("name", FILES)
def test_reads_what_pytorch_wrote(name):
  tensors = read_state_dict(REFERENCE / name)
  with np.load(REFERENCE / "torch_tensors.npz") as wanted:
    assert list(tensors) == list(wanted)
    for key in wanted:
      assert tensors[key].shape == wanted[key].shape, key
      np.testing.assert_array_equal(tensors[key].astype(wanted[key].dtype), wanted[key], key)
  assert tensors["bfloat16"].dtype == ml_dtypes.bfloat16
  assert tensors["half"].dtype == np.float16
  assert tensors["scalar"].dtype == np.int64


@pytest.mark.parametrize("name", FILES)
def test_imports_nothing_that_the_file_names(name):
  before = set(sys.modules)
  read_state_dict(REFERENCE / name)
  assert not {m for m in set(sys.modules) - before if m.startswith(("torch", "mmengine"))}


FOUR = ("0", np.arange(4, dtype=np.float32).tobytes())


def weight(numel=4, offset=0, shape=(2, 2), strides=(2, 1), kind="FloatStorage"):
  return rebuild(Storage(kind, "0", numel), offset, shape, strides)


def test_plain_and_data_parallel_state_dicts(tmp_path):
  path = write(tmp_path / "a.pth", {"module.w": weight()}, [FOUR])
  np.testing.assert_array_equal(read_state_dict(path)["w"], [[0, 1], [2, 3]])


def test_calls_nothing(tmp_path):
  mark = tmp_path / "called"
  attack = Call(Named("os", "system"), f"touch {mark}")
  content = {"state_dict": {"w": weight()}, "message_hub": attack, attack: 1}
  assert list(read_state_dict(write(tmp_path / "a.pth", content, [FOUR]))) == ["w"]
  with pytest.raises(ValueError, match=r"not dense tensors: 'w' \(<os.system>\)"):
    read_state_dict(write(tmp_path / "b.pth", {"w": attack, "v": weight()}, [FOUR]))
  assert not mark.exists()


@pytest.mark.parametrize(
  ("tensor", "message"),
  [
    (weight(offset=1), "extends beyond its storage of 4 numbers"),
    (weight(shape=(2, 2), strides=(10**12, 1)), "extends beyond"),
    (weight(offset=-1), "without a storage, an offset"),
    (weight(shape=(2,)), "with strides"),
    (weight(shape=(10**9, 10**9), strides=(0, 0)), "far more than the file has"),
    (weight(numel=5), "should hold 5 numbers"),
    (weight(kind="ComplexFloatStorage"), "ComplexFloatStorage are not supported"),
    (rebuild(Storage("FloatStorage", "7", 4), 0, (4,), (1,)), "no member 'archive/data/7'"),
    (Call(Named("torch._utils", "_rebuild_sparse_tensor"), 1), "not dense tensors"),
  ],
)
def test_broken_tensors_are_refused(tmp_path, tensor, message):
  path = write(tmp_path / "a.pth", {"w": tensor, "v": weight()}, [FOUR])
  with pytest.raises(ValueError, match=message) as error:
    read_state_dict(path)
  assert str(path) in str(error.value)


@pytest.mark.parametrize(
  ("program", "message"),
  [
    (b"]r\xff\xff\xff\xff.", "entry 4294967295 of its memo"),
    (b"})" + b"\x85" * 10**5 + b"K\x01s.", "as the key of a dict"),
    (b"\x8f()" + b"\x85" * 10**5 + b"\x90.", "as the key of a dict"),
    (b"})q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01s.", "as the key of a dict"),
    (b"ctorch\nSize\n(" + b"K\x01" * 20 + b"t\x85R.", "in place of a shape"),
    # The same thousand items in dict after dict.
    (
      b"](" + b"X\x01\x00\x00\x00kK\x00\x86" * 1000 + b"eq\x000"
      b"ccollections\nOrderedDict\nq\x010](" + b"h\x01h\x00\x85R" * 20 + b"e.",
      "items in dict after dict",
    ),
    (b"]" + b"".join(b"cm\nn%d\n0" % i for i in range(1001)) + b".", "more than 1000 classes"),
    (b"ctorch\nSize\n}U\x04callK\x01sb.", "sets the state of a function"),
  ],
)
def test_small_pickles_cannot_do_large_harm(tmp_path, program, message):
  path = tmp_path / "a.pth"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", b"\x80\x02" + program)
  with pytest.raises(ValueError, match=message):
    read_state_dict(path)


def test_other_files_are_refused(tmp_path):
  path = tmp_path / "a.pth"
  with pytest.raises(FileNotFoundError, match="a.pth"):
    read_state_dict(path)
  path.write_bytes(b"")
  with pytest.raises(ValueError, match="cannot be read as a PyTorch checkpoint"):
    read_state_dict(path)
  path.write_bytes(pickle.dumps({"w": 1}))
  with pytest.raises(ValueError, match="does not start like a file of torch.save"):
    read_state_dict(path)
  with pytest.raises(ValueError, match="holds no state dict"):
    read_state_dict(write(path, {"epoch": 3}))
  with pytest.raises(ValueError, match="is compressed"):
    read_state_dict(write(path, {"w": weight()}, [FOUR], zipfile.ZIP_DEFLATED))
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("notes.txt", "")
  with pytest.raises(ValueError, match="no ARCHIVE/data.pkl"):
    read_state_dict(path)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_end_in_a_named_error_or_a_state_dict(tmp_path, name):
  original = (REFERENCE / name).read_bytes()
  randomness = random.Random(0)
  outcomes = collections.Counter()
  path = tmp_path / name
  for _ in range(200):
    damaged = bytearray(original)
    if randomness.random() < 0.2:
      del damaged[randomness.randrange(len(damaged)) :]
    else:
      for _ in range(randomness.choice((1, 2, 8))):
        damaged[randomness.randrange(len(damaged))] = randomness.randrange(256)
    path.write_bytes(damaged)
    try:
      read_state_dict(path)
      outcomes["read"] += 1
    except ValueError as error:
      assert name in str(error)
      outcomes["refused"] += 1
  assert outcomes["refused"] > 100

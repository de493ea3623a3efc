import marshal
import os
import pickle
import pickletools
import random

import numpy as np
import pytest

from pcan_jax.clips.safe_pickle import UnsafePickleError, load_pickle

ENTRY = {
  "frame_dir": "train/äß",
  "total_frames": np.int64(3),
  "label": 7,
  "img_shape": (64, 80),
  "keypoint": np.arange(24, dtype=np.float16).reshape(1, 3, 4, 2),
  "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
  "big_endian": np.arange(4, dtype=">f4"),
  "names": np.array(["a", "bc"]),
  "empty": np.zeros((0, 3)),
  "nothing": None,
  "raw": b"\x00\xff",
  "flag": True,
  "ratio": -1.5,
}


def saved(tmp_path, content: bytes):
  path = tmp_path / "pose.pkl"
  path.write_bytes(content)
  return path


def assert_same(found, expected):
  assert type(found) is type(expected)
  if isinstance(expected, np.ndarray):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
  elif isinstance(expected, dict):
    assert list(found) == list(expected)
    for key in expected:
      assert_same(found[key], expected[key])
  elif isinstance(expected, list | tuple):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
      assert_same(one, other)
  else:
    assert found == expected


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_as_pickle_reads_it(tmp_path, protocol):
  content = pickle.dumps([ENTRY, ENTRY, {"annotations": [ENTRY | {"label": 2**40}]}], protocol)
  found = load_pickle(saved(tmp_path, content))
  assert_same(found, pickle.loads(content))
  assert found[0]["keypoint"] is found[1]["keypoint"]


def test_pickles_of_python_2_are_read(tmp_path):
  # What Python 2 wrote for {"frame_dir": "a", "keypoint": np.array([[1, 2]], "<f4")}, protocol 2.
  content = (
    b"\x80\x02}q\x00(U\tframe_dirq\x01U\x01aq\x02U\x08keypointq\x03cnumpy.core.multiarray\n"
    b"_reconstruct\nq\x04cnumpy\nndarray\nq\x05K\x00\x85U\x01b\x87Rq\x06(K\x01K\x01K\x02\x86"
    b"cnumpy\ndtype\nq\x07U\x02f4K\x00K\x01\x87Rq\x08(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
    b"\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tbu."
  )
  expected = {"frame_dir": "a", "keypoint": np.array([[1, 2]], np.float32)}
  assert_same(load_pickle(saved(tmp_path, content)), expected)


class Call:
  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
  ("hostile", "named"),
  [
    (Call(os.system, "touch HARM"), "system"),
    (Call(eval, "open('HARM', 'w')"), "eval"),
    (Call(exec, "open('HARM', 'w')"), "exec"),
    (Call(marshal.loads, marshal.dumps((lambda: 0).__code__)), "marshal.loads"),
    (Call(getattr, [], "append"), "getattr"),
    (Call(np.load, "HARM"), "load"),
    (Call(np.memmap, "HARM", "u1", "w+", 0, (1,)), "memmap"),
    (np.array([Call(os.system, "touch HARM")], object), "array of Python objects"),
  ],
)
def test_nothing_but_data_is_loaded(tmp_path, monkeypatch, hostile, named, protocol):
  monkeypatch.chdir(tmp_path)
  path = saved(tmp_path, pickle.dumps([ENTRY, hostile], protocol))
  with pytest.raises(UnsafePickleError) as error:
    load_pickle(path)
  assert named in str(error.value) and str(path) in str(error.value)
  assert not (tmp_path / "HARM").exists()


def test_object_arrays_are_refused(tmp_path):
  path = saved(tmp_path, pickle.dumps(np.array([1, "a"], object)))
  with pytest.raises(UnsafePickleError, match="array of Python objects"):
    load_pickle(path)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    # A memo entry at 2^32 - 1, for which pickle.load allocates 64 GB.
    (b"\x80\x02]r\xff\xff\xff\xff.", "entry 4294967295 of its memo"),
    # A string of 2^62 bytes.
    (b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b".", "damaged"),
    # An array of 10^12 numbers without their bytes.
    (
      pickle.dumps(np.zeros(3, np.int8)).replace(b"K\x03\x85", b"J\x00\xff\xff\x7f\x85"),
      "with 3 bytes",
    ),
    # The same megabyte encoded again and again.
    (
      b"\x80\x02]c_codecs\nencode\nX\x00\x00\x10\x00" + b"x" * 2**20 + b"q\x01X\x06\x00\x00\x00"
      b"latin1q\x02\x86q\x03R0" + b"c_codecs\nencode\nh\x03R0" * 2000 + b".",
      "much larger than the file",
    ),
    # Tuples within tuples as the key of a dict: hashing them overflows the C stack.
    (b"\x80\x02})" + b"\x85" * 10**5 + b"K\x01s.", "as the key of a dict"),
    # Likewise, but a tuple that BUILD leaves as it is, and pairs of pairs, 2^60 objects to hash.
    (b"\x80\x02})" + b"\x85" * 10**5 + b"NbK\x01s.", "as the key of a dict"),
    (b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01s.", "as the key of a dict"),
    # Ten gigabytes from bytes(10^10).
    (b"\x80\x02cbuiltins\nbytes\n\x8a\x05\x00\xe4\x0b\x54\x02\x85R.", "damaged"),
    # What other files would be read with.
    (b"\x80\x02cnumpy\ndtype\n}U\x04callK\x01sb.", "sets the state of a function"),
    (pickle.dumps((np.zeros(3),)), "an array within a tuple"),
    (b"\x80\x02]K\x01b.", "state is not a dictionary"),
    (b"\x80\x02Nh\x05.", "damaged"),
    (b"\x80\x02e.", "damaged"),
    (b"\x80\x02cnumpy\ndtype\n.", "not data"),
    (b"\x80\x02ctypes\nCodeType\n)R.", "types.CodeType"),
    (b"", "damaged"),
    (b"PK\x03\x04 a zip file", "damaged"),
  ],
)
def test_small_pickles_cannot_do_large_harm(tmp_path, content, message):
  path = saved(tmp_path, content)
  with pytest.raises(ValueError, match=message) as error:
    load_pickle(path)
  assert str(path) in str(error.value)


def test_only_known_instructions_are_run(tmp_path):
  for opcode in pickletools.opcodes:
    if opcode.name in ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1"):
      content = b"\x80\x04(cnumpy\ndtype\n)" + opcode.code.encode("latin-1") + b"os\nsystem\n."
      with pytest.raises(UnsafePickleError):
        load_pickle(saved(tmp_path, content))


def test_damaged_files_end_in_an_error_or_in_data(tmp_path):
  rng = random.Random(0)
  original = pickle.dumps([ENTRY] * 2, 2)
  for _ in range(300):
    content = bytearray(original)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path = saved(tmp_path, content[: rng.choice((len(content), rng.randrange(len(content))))])
    try:
      load_pickle(path)
    except ValueError as error:
      assert str(path) in str(error)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"none\.pkl"):
    load_pickle(tmp_path / "none.pkl")

import random
import shutil
import stat
import struct
import unicodedata
import zipfile

import pytest

from data import safe_zip
from data.safe_zip import check_name, unpack

CONTENT = {"train/a.mp4": b"first" * 900, "train/ключ 鍵.mp4": b"second", "lists/train.txt": b"x 1"}


def write_zip(path, content=CONTENT, compression=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, "w", compression) as archive:
    for name, data in content.items():
      archive.writestr(name, data)
  return path


def files(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def refused(archive, folder, *words, error=ValueError):
  """What is refused is named, and nothing of it is written."""
  with pytest.raises(error) as caught:
    unpack(archive, folder)
  for word in (str(archive), *words):
    assert word in str(caught.value)
  assert not folder.exists() or not files(folder)
  assert sorted(path.name for path in archive.parent.iterdir() if path != folder) == [archive.name]


def test_files_are_unpacked_under_their_names(tmp_path):
  assert unpack(write_zip(tmp_path / "a.zip"), tmp_path / "out") == []
  assert files(tmp_path / "out") == CONTENT


def test_files_go_where_they_are_placed_and_others_stay(tmp_path):
  def place(name):
    return "video/" + name.rpartition("/")[2] if name.endswith(".mp4") else None

  unused = unpack(write_zip(tmp_path / "a.zip"), tmp_path / "out", place)
  assert sorted(files(tmp_path / "out")) == ["video/a.mp4", "video/ключ 鍵.mp4"]
  assert unused == ["lists/train.txt"]


def test_what_is_there_is_not_unpacked_again(tmp_path):
  archive = write_zip(tmp_path / "a.zip")
  unpack(archive, tmp_path / "out")
  (tmp_path / "out/lists/train.txt").unlink()
  before = (tmp_path / "out/train/a.mp4").stat()
  unpack(archive, tmp_path / "out")
  assert files(tmp_path / "out") == CONTENT
  assert (tmp_path / "out/train/a.mp4").stat().st_ino == before.st_ino


def test_an_interrupted_file_does_not_get_its_name(tmp_path, monkeypatch):
  archive = write_zip(tmp_path / "a.zip")
  monkeypatch.setattr("data.safe_zip._read", lambda *_: iter_then_interrupt())

  def iter_then_interrupt():
    yield b"fir"
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    unpack(archive, tmp_path / "out")
  assert files(tmp_path / "out") == {}
  monkeypatch.undo()
  unpack(archive, tmp_path / "out")
  assert files(tmp_path / "out") == CONTENT


def test_other_files_are_never_replaced(tmp_path):
  archive = write_zip(tmp_path / "a.zip")
  (tmp_path / "out/train").mkdir(parents=True)
  (tmp_path / "out/train/a.mp4").write_bytes(b"mine")
  with pytest.raises(ValueError, match="a.mp4 exists"):
    unpack(archive, tmp_path / "out")
  assert files(tmp_path / "out") == {"train/a.mp4": b"mine"}


@pytest.mark.parametrize(
  "name",
  [
    "../up",
    "a/../../up",
    "/root",
    "C:/up",
    "a\\..\\up",
    "line\nbreak",
    "x" * 250,
    "..",
    "a/" * 2000,
  ],
)
def test_hostile_names_are_refused(tmp_path, name):
  archive = write_zip(tmp_path / "a.zip", {"good": b"1", name: b"2"})
  refused(archive, tmp_path / "out")
  with pytest.raises(ValueError, match="here: "):
    check_name(name, "here")


def test_a_zero_byte_does_not_hide_the_end_of_a_name(tmp_path):
  archive = write_zip(tmp_path / "a.zip", {"aX/../../b": b"1"})
  archive.write_bytes(archive.read_bytes().replace(b"aX/", b"a\0/"))
  refused(archive, tmp_path / "out", "control characters")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path, kind):
  info = zipfile.ZipInfo("train/link")
  info.external_attr = (kind | 0o777) << 16
  with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
    archive.writestr(info, "/etc/passwd")
  refused(tmp_path / "a.zip", tmp_path / "out", "train/link", "link")


def test_encrypted_members_are_refused(tmp_path):
  archive = write_zip(tmp_path / "a.zip", {"secret.mp4": b"1"})
  content = bytearray(archive.read_bytes())
  content[content.index(b"PK\x01\x02") + 8] |= 1
  archive.write_bytes(content)
  refused(archive, tmp_path / "out", "secret.mp4", "encrypted")


def test_compression_that_needs_much_memory_is_refused(tmp_path):
  archive = write_zip(tmp_path / "a.zip", compression=zipfile.ZIP_LZMA)
  refused(archive, tmp_path / "out", "compressed by method 14")


def test_bombs_are_refused(tmp_path, monkeypatch):
  archive = write_zip(tmp_path / "a.zip", {"zeros.mp4": bytes(8 << 20)})
  refused(archive, tmp_path / "out", "would unpack to 8,388,608")
  monkeypatch.setattr(safe_zip, "MAX_RATIO", 1e6)
  monkeypatch.setattr(safe_zip, "MAX_TOTAL_BYTES", 1 << 20)
  refused(archive, tmp_path / "out", "would unpack")
  monkeypatch.setattr(safe_zip, "MAX_MEMBERS", 2)
  with pytest.raises(ValueError, match="3 members, more than 2"):
    unpack(write_zip(tmp_path / "b.zip"), tmp_path / "out")


def test_a_member_gives_no_more_than_it_announces(tmp_path):
  archive = write_zip(tmp_path / "a.zip", {"zeros.mp4": bytes(1 << 20)})
  content = archive.read_bytes()
  small = struct.pack("<I", 1000)
  archive.write_bytes(content.replace(struct.pack("<I", 1 << 20), small))
  refused(archive, tmp_path / "out", "zeros.mp4", "damaged")


def test_a_full_disk_is_noticed_before(tmp_path, monkeypatch):
  archive = write_zip(tmp_path / "a.zip")
  usage = shutil.disk_usage(tmp_path)._replace(free=1000)
  monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
  refused(archive, tmp_path / "out", "0.0 GB free", error=OSError)


def test_two_files_of_one_name_are_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
    archive.writestr("é.mp4", b"1")
    archive.writestr(unicodedata.normalize("NFD", "É.mp4"), b"2")
  refused(tmp_path / "a.zip", tmp_path / "out", "would both become")


def test_what_is_no_zip_file_is_named(tmp_path):
  (tmp_path / "a.zip").write_bytes(b"<html>log in</html>")
  refused(tmp_path / "a.zip", tmp_path / "out", "not a zip file")
  with pytest.raises(FileNotFoundError, match="b.zip"):
    unpack(tmp_path / "b.zip", tmp_path)


def test_damaged_archives_give_an_error_or_the_right_files(tmp_path):
  content = {name: random.Random(1).randbytes(2000) + 500 * b"a" for name in CONTENT}
  whole = write_zip(tmp_path / "a.zip", content).read_bytes()
  rng = random.Random(0)
  damaged = tmp_path / "b.zip"
  names = {path.name for path in tmp_path.iterdir()} | {"b.zip", "out"}
  errors = 0
  for _ in range(400):
    mutated = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 8))):
      # Most bytes are data; the headers are where it gets interesting.
      place = rng.choice((rng.randrange(len(mutated)), -1 - rng.randrange(250), rng.randrange(60)))
      mutated[place] ^= 1 << rng.randrange(8)
    damaged.write_bytes(mutated[: rng.choice((len(mutated), len(mutated), rng.randrange(1, 9000)))])
    try:
      unpack(damaged, tmp_path / "out")
    except ValueError as error:
      errors += 1
      assert str(damaged) in str(error) or str(tmp_path / "out") in str(error)
    found = files(tmp_path / "out") if (tmp_path / "out").exists() else {}
    assert set(found.values()) <= set(content.values())
    assert {path.name for path in tmp_path.iterdir()} <= names
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
  assert 100 < errors < 400

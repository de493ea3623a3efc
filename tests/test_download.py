import dataclasses
import io
import os
import shutil
import subprocess
import sys
import zipfile

import huggingface_hub
import pytest

from data import hub_files
from data.check import check_source
from data.download import MA52, download, find_place, main
from data.hub_files import HubError
from pcan_jax.keypoints import LAYOUTS
from tests.local_hub import TOKEN, LocalHub, serve
from tests.tiny_source import CLIPS, write_tiny_source

VIDEOS, POSES = "kunli-cs/MA-52", "kunli-cs/MA-52_openpose_28kp"
TINY = dataclasses.replace(MA52, clips=CLIPS)


def zipped(folder, inside=""):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
    for path in sorted(folder.rglob("*")):
      archive.write(path, inside + path.relative_to(folder).as_posix())
    archive.writestr("__MACOSX/._junk.mp4", b"junk")
  return buffer.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  return write_tiny_source(tmp_path_factory.mktemp("source") / "source")


@pytest.fixture
def hub(source, monkeypatch):
  """Both data sets as they may lie on the hub."""
  monkeypatch.setenv("HF_TOKEN", TOKEN)
  videos = {
    ".gitattributes": b"*.zip filter=lfs",
    "README.md": b"MA-52",
    "MA-52 Dataset Samples.zip": b"not downloaded",
    "annotations/label_name.txt": b"nodding",
  }
  for split in CLIPS:
    videos[f"{split}.zip"] = zipped(source / "raw_videos" / split, inside=f"{split}/")
    list_file = source / "annotations" / f"{split}_list_videos.txt"
    videos[f"annotations/{list_file.name}"] = list_file.read_bytes()
  poses = {path.name: path.read_bytes() for path in (source / "pose").iterdir()}
  with serve(LocalHub({VIDEOS: videos, POSES: poses})) as hub:
    yield hub


def contents(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and "download" not in path.relative_to(folder).parts
  }


def expected(source):
  return {
    name: data for name, data in contents(source).items() if name != "annotations/actions.csv"
  }


def test_a_source_directory_comes_out(hub, source, tmp_path, capsys):
  out = tmp_path / "out"
  assert download(TINY, out, endpoint=hub.endpoint) == []
  assert contents(out) == expected(source)
  printed = capsys.readouterr().out
  assert "train: 16 clips, 16 with video and pose, 16 published" in printed
  assert "MA-52 Dataset Samples.zip" in printed
  _, clips = check_source(out, LAYOUTS["openpose-28"], source / "annotations/actions.csv", jobs=1)
  assert len(clips) == sum(CLIPS.values())
  # Once more, and nothing is fetched or written.
  hub.requests.clear()
  times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
  assert download(TINY, out, endpoint=hub.endpoint) == []
  assert hub.requests == []
  assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
  # What was downloaded may go.
  shutil.rmtree(out / "download")
  assert contents(out) == expected(source)


def test_one_split(hub, source, tmp_path):
  assert download(TINY, tmp_path, ["val"], hub.endpoint) == []
  of_val = {name: data for name, data in expected(source).items() if "val" in name}
  assert contents(tmp_path) == of_val
  assert not any("train" in path or "test" in path for path, _ in hub.requests)


def test_an_interrupted_download_goes_on_within_a_file(hub, source, tmp_path, monkeypatch):
  monkeypatch.setattr("time.sleep", lambda _: None)
  monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
  hub.serve_only = 1000
  with pytest.raises(HubError, match="503"):
    download(TINY, tmp_path, endpoint=hub.endpoint)
  assert contents(tmp_path) == {}
  hub.serve_only, hub.is_down = None, False
  (first, _) = hub.requests[0]
  hub.requests.clear()
  assert download(TINY, tmp_path, endpoint=hub.endpoint) == []
  assert hub.requests[0] == (first, "bytes=1000-")
  assert contents(tmp_path) == expected(source)


def test_a_file_that_arrives_wrong_is_not_kept(hub, tmp_path):
  hub.wrong_digests.add("val.zip")
  with pytest.raises(ValueError, match="val.zip: the download differs"):
    download(TINY, tmp_path, ["val"], hub.endpoint)
  assert not list(tmp_path.rglob("val.zip*"))


def test_without_a_token_the_pages_to_visit_are_named(monkeypatch, tmp_path):
  monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
  with pytest.raises(HubError, match="https://huggingface.co/settings/tokens.*HF_TOKEN"):
    download(TINY, tmp_path)


def test_without_access_the_page_to_visit_is_named(hub, tmp_path):
  hub.granted.remove(POSES)
  with pytest.raises(HubError, match=f"no access to.*huggingface.co/datasets/{POSES}"):
    download(TINY, tmp_path, endpoint=hub.endpoint)
  assert hub.requests == []
  del hub.repos[VIDEOS]
  with pytest.raises(HubError, match=f"no data set {VIDEOS}"):
    download(TINY, tmp_path, endpoint=hub.endpoint)


def test_a_wrong_token_and_an_unreachable_hub_are_named(hub, tmp_path, monkeypatch):
  monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
  with pytest.raises(HubError, match="your token is not valid"):
    download(TINY, tmp_path, endpoint=hub.endpoint)
  with pytest.raises(HubError, match="cannot be reached"):
    download(TINY, tmp_path, endpoint="http://127.0.0.1:9")


def test_a_full_disk_is_noticed_before_downloading(hub, tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=1000)
  monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
  with pytest.raises(OSError, match="free some space"):
    download(TINY, tmp_path, endpoint=hub.endpoint)
  assert hub.requests == []


def test_missing_lists_and_poses_are_named_with_what_there_is(hub, source, tmp_path):
  listed = hub.repos[VIDEOS].pop("annotations/val_list_videos.txt")
  with pytest.raises(FileNotFoundError, match=r"no list of the val videos.*train\.zip.*Tiny_val"):
    download(TINY, tmp_path, ["val"], hub.endpoint)
  # A list from elsewhere does.
  (tmp_path / "annotations").mkdir()
  (tmp_path / "annotations/val_list_videos.txt").write_bytes(listed)
  assert download(TINY, tmp_path, ["val"], hub.endpoint) == []
  hub.repos[POSES] = {"README.md": b"soon"}
  with pytest.raises(FileNotFoundError, match=f"no pickle of poses.*{POSES} holds README.md"):
    download(TINY, tmp_path / "other", ["train"], hub.endpoint)


def test_every_difference_is_named(hub, tmp_path):
  name = "annotations/val_list_videos.txt"
  lines = hub.repos[VIDEOS][name].decode().splitlines()
  hub.repos[VIDEOS][name] = "\n".join(["new.mp4 0", "odd.mp4 99", *lines[1:]]).encode()
  first = lines[0].split(".")[0]
  differences = download(TINY, tmp_path, ["val"], hub.endpoint)
  assert differences[0] == "val: the list names 8 clips, published are 7"
  assert any(text.startswith("val/new: it has no entry in") for text in differences)
  assert any(text.startswith("val/odd: its label 99") for text in differences)
  assert differences[-1] == f"raw_videos/val/{first}.mp4: this video is in no list"
  assert len(differences) == 4


def test_a_damaged_pickle_does_not_hide_the_other_splits(hub, tmp_path):
  hub.repos[POSES]["Tiny_train.pkl"] = b"cos\nsystem\n(S'true'\ntR."
  (difference,) = download(TINY, tmp_path, ["train", "val"], hub.endpoint)
  assert difference.startswith("train: ") and "refused: the pickle names os.system" in difference


def test_another_file_in_the_place_is_kept(hub, tmp_path):
  (tmp_path / "pose").mkdir()
  (tmp_path / "pose/Tiny_val.pkl").write_bytes(b"mine")
  with pytest.raises(ValueError, match="Tiny_val.pkl exists and differs"):
    download(TINY, tmp_path, ["val"], hub.endpoint)


def test_a_hostile_archive_is_refused(hub, tmp_path):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
    archive.writestr("val/../../../up.mp4", b"1")
  hub.repos[VIDEOS]["val.zip"] = buffer.getvalue()
  with pytest.raises(ValueError, match=r"val\.zip.*would leave the folder"):
    download(TINY, tmp_path / "a" / "b", ["val"], hub.endpoint)
  assert not list(tmp_path.rglob("up.mp4"))
  hub.repos[VIDEOS] = {"../../up.pkl": b"1"}
  with pytest.raises(ValueError, match="would leave the folder"):
    hub_files.list_files(VIDEOS, TOKEN, hub.endpoint)


@pytest.mark.parametrize(
  ("path", "place"),
  [
    ("train.zip/train/0001.mp4", "raw_videos/train/0001.mp4"),
    ("train.zip/0001.mp4", "raw_videos/train/0001.mp4"),
    ("MA-52.zip/data/raw_videos/videos_val/test_1.mp4", "raw_videos/val/test_1.mp4"),
    ("all.zip/fined_videos/validation/1.avi", "raw_videos/val/1.avi"),
    ("videos.zip/0001.mp4", "raw_videos/0001.mp4"),
    ("test.zip/test/0001.mp4", None),
    ("test.zip/train/0001.mp4", "raw_videos/train/0001.mp4"),
    ("MA-52 Dataset Samples.zip/A1 shaking body/0001.mp4", None),
    ("train.zip/__MACOSX/train/._0001.mp4", None),
    ("MA52_train.pkl", "pose/MA52_train.pkl"),
    ("train/poses.pkl", "pose/poses_train.pkl"),
    ("MA52.pkl", "pose/MA52.pkl"),
    ("MA52_test.pkl", None),
    ("annotations/train_list_videos.txt", "annotations/train_list_videos.txt"),
    ("annotations.zip/MA-52_val.txt", "annotations/val_list_videos.txt"),
    ("val/labels.txt", "annotations/val_list_videos.txt"),
    ("annotations/train_list_rawframes.txt", None),
    ("annotations/train_val_list_videos.txt", None),
    ("annotations/label_name.txt", None),
    ("README.md", None),
  ],
)
def test_files_find_their_place_in_any_folder(path, place):
  assert find_place(path, ("train", "val")) == place


def test_the_licence_comes_first(capsys, tmp_path):
  with pytest.raises(SystemExit) as stopped:
    main(["ma52", "--out", str(tmp_path)])
  assert stopped.value.code == 2
  asked = capsys.readouterr().err
  for words in ("non-commercial", "--accept-license", f"https://huggingface.co/datasets/{POSES}"):
    assert words in asked
  assert list(tmp_path.iterdir()) == []


def test_the_command_reports_what_is_missing_from_ma52(hub, tmp_path):
  command = [sys.executable, "-m", "data.download", "ma52", "--accept-license"]
  done = subprocess.run(
    [*command, "--out", str(tmp_path), "--splits", "val", "test"],
    env={**os.environ, "HF_ENDPOINT": hub.endpoint, "NO_PROXY": "127.0.0.1"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1, done.stderr
  assert "val: the list names 7 clips, published are 5,586" in done.stderr
  assert "test: the list names 3 clips, published are 5,586" in done.stderr
  assert "2 differences" in done.stderr
  log = (tmp_path / "download/differences.txt").read_text()
  assert len(log.splitlines()) == 2

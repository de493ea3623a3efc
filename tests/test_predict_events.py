"""Events of videos by a checkpoint: files, rules beside it, poses that are estimated first."""

import csv
import json
import logging
import os
import pickle
import shutil

import numpy as np
import pytest

from pcan_jax.clips.safe_pickle import load_pickle
from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.formats import read_codings, write_codings
from pcan_jax.content import sha256
from pcan_jax.evaluation.calibration import Temperature
from pcan_jax.keypoints import LAYOUTS
from pcan_jax.prediction import files, pose_script
from pcan_jax.prediction import tune as tuning
from pcan_jax.prediction.event_settings import TUNED_FILE, settings_of, write_tuned
from pcan_jax.prediction.events import EventRules, WindowScores
from pcan_jax.prediction.files import predict_files
from pcan_jax.prediction.pose_script import estimate_poses
from pcan_jax.prediction.recognizer import Prediction
from pcan_jax.prediction.tune import Recording, f1, one_per_window, search, tune
from pcan_jax.saved_steps import SavedStep
from tests.test_predict import pose_entry
from tests.tiny_checkpoint import write_tiny_checkpoint
from tests.tiny_source import TREE, make_clip, write_video


@pytest.fixture(autouse=True)
def few_rules(monkeypatch):
  for name, values in (("ONSETS", (0.2, 0.6)), ("OFFSETS", (0.5,)), ("SHORTEST", (0.25,))):
    monkeypatch.setattr(tuning, name, values)


WINDOW = {"window": 0.8, "stride": 0.4}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
  """Two videos of six seconds, made of clips of one action after another, with poses."""
  folder = tmp_path_factory.mktemp("recordings")
  poses, kept = [], []
  for name, seed in (("one", 0), ("zwei, äh", 1)):
    rng = np.random.default_rng(seed)
    clips = [make_clip(rng, action) for action in (0, 3, 1, 4)]
    frames = np.concatenate([frames for frames, _ in clips])[:60]
    keypoints = np.concatenate([keypoints for _, keypoints in clips], axis=1)[:, :60]
    video = folder / "videos" / f"{name}.mp4"
    write_video(video, frames, fps=10)
    poses.append(pose_entry(name, keypoints))
    kept.append(poses[-1] | {"video_sha256": sha256(video)})
  (folder / "poses.pkl").write_bytes(pickle.dumps(poses))
  (folder / "estimated.pkl").write_bytes(pickle.dumps(kept))
  return folder


@pytest.fixture
def workdir(tiny_dataset, tmp_path):
  return write_tiny_checkpoint(tmp_path / "run", tiny_dataset, "pcan_pose")


def predict(workdir, recordings, output, **options):
  given = {"pose": recordings / "poses.pkl", "output": output} | WINDOW | options
  assert predict_files(workdir, recordings / "videos", **given) == 0
  return json.loads((output / "events.json").read_text(encoding="utf-8"))


def saved_of(workdir):
  return SavedStep(workdir / "checkpoints", 0)


LOW = {"onset": 0.2, "offset": 0.1, "shortest": 0.0, "smoothing": 0.0}


def rules_of(workdir, **values):
  return settings_of(saved_of(workdir)).changed(**WINDOW, **LOW, **values).rules


def test_events_are_written_in_all_forms(workdir, recordings, tmp_path, caplog):
  write_tuned(
    saved_of(workdir),
    rules_of(workdir),
    {"num_events": 7, "codings": "mine", "checkpoint": saved_of(workdir).digest},
  )
  with caplog.at_level(logging.INFO, "pcan_jax"):
    summary = predict(
      workdir, recordings, tmp_path / "out", formats=["eaf", "csv", "detections"], review=True
    )
  assert summary["rules"]["onset"] == 0.2 and summary["rules"]["temperature"] == 1.0
  assert "tuned on 7 events in mine" in summary["origin"] and "no temperature" in caplog.text
  assert summary["actions"] == list(TREE.actions)
  videos = {video["video"]: video["events"] for video in summary["videos"]}
  assert list(videos) == ["one.mp4", "zwei, äh.mp4"] and all(videos.values())
  with (tmp_path / "out/events.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  for name, events in videos.items():
    assert [float(row["start"]) for row in rows if row["video"] == name] == [
      event["start"] for event in events
    ]
    (document,) = read_codings(tmp_path / "out" / name.replace(".mp4", ".eaf"))
    assert document.video.endswith(name)
    assert [(event.onset, event.label, event.tier) for event in document.events] == [
      (event["start"], event["label"], event["tier"]) for event in events
    ]
    assert (tmp_path / "out" / name.replace(".mp4", ".review.html")).is_file()
  assert (tmp_path / "out/codings.csv").is_file() and (tmp_path / "out/detections.csv").is_file()
  assert len((tmp_path / "out/predictions.csv").read_text(encoding="utf-8").splitlines()) > 10


def test_a_temperature_softens_and_flags_override(workdir, recordings, tmp_path, caplog):
  digest = saved_of(workdir).digest
  Temperature(9.0, 2.0, 1.0, 0.3, 0.1, "val", 7, digest, 0).write(workdir)
  write_tuned(
    saved_of(workdir), rules_of(workdir), {"num_events": 7, "codings": "x", "checkpoint": "other"}
  )
  summary = predict(workdir, recordings, tmp_path / "out", events=True, stride=0.2, num_clips=2)
  assert (summary["rules"]["stride"], summary["rules"]["num_clips"]) == (0.2, 2)
  assert summary["rules"]["temperature"] == 9.0
  assert "temperature 9.000, fitted to split 'val'" in summary["origin"]
  assert "events.json is of another checkpoint than step 0" in caplog.text
  confidences = [event["confidence"] for video in summary["videos"] for event in video["events"]]
  assert max(confidences, default=0.0) < 0.4


def test_mistakes_are_found_before_any_work(workdir, recordings, tmp_path):
  for options, message in (
    ({"formats": ["doc"]}, "unknown format 'doc': expected one of eaf"),
    ({"events": True, "stride": 1.0}, "leave gaps"),
    ({"events": True, "num_clips": 0}, "events.num_clips"),
  ):
    with pytest.raises(ValueError, match=message):
      predict(workdir, recordings, tmp_path / "out", **options)
  (workdir / TUNED_FILE).write_text('{"events": {}}')
  with pytest.raises(ValueError, match="events.json is damaged"):
    predict(workdir, recordings, tmp_path / "out", events=True)
  assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rules_are_tuned_and_found_by_predictions(workdir, recordings, tmp_path, caplog):
  found = predict(workdir, recordings, tmp_path / "before", events=True)["videos"]
  codings = [
    Coding(
      video["video"],
      (
        Event(0.4, 2.0, "nod", "head"),
        Event(2.2, 4.0, "point", "arm"),
        Event(4.0, 5.0, "unheard of"),
      ),
    )
    for video in found
  ]
  write_codings("csv", codings, TREE, tmp_path / "coded")
  with caplog.at_level(logging.INFO, "pcan_jax"):
    rules = tune(
      workdir,
      recordings / "videos",
      [tmp_path / "coded"],
      pose=recordings / "poses.pkl",
      **WINDOW,
    )
  assert "no actions of the model: unheard of" in caplog.text
  assert "one event per window" in caplog.text
  written = json.loads((workdir / TUNED_FILE).read_text(encoding="utf-8"))
  assert EventRules.of_values(written["events"]) == rules
  on = written["tuned_on"]
  assert on["num_events"] == 4 and on["videos"] == ["one.mp4", "zwei, äh.mp4"]
  best, before = (on["measured"][name]["F1@0.5"] for name in ("best rules", "rules so far"))
  assert 0 <= before <= best <= 1
  again = predict(workdir, recordings, tmp_path / "after", events=True)
  assert (
    EventRules.of_values(
      {name: value for name, value in again["rules"].items() if name != "temperature"}
    )
    == rules
  )
  caplog.clear()
  given = {"pose": recordings / "poses.pkl", "check": True} | WINDOW
  with caplog.at_level(logging.INFO, "pcan_jax"):
    assert tune(workdir, recordings / "videos", [tmp_path / "coded"], **given) == rules
  assert "best rules" not in caplog.text and f"F1@0.5 {best:.4f}" in caplog.text
  assert json.loads((workdir / TUNED_FILE).read_text(encoding="utf-8")) == written
  write_codings("eaf", codings[:1], TREE, tmp_path / "coded")
  with pytest.raises(ValueError, match="one is coded twice"):
    tune(workdir, recordings / "videos", [tmp_path / "coded"], pose=recordings / "poses.pkl")
  (tmp_path / "none").mkdir()
  with pytest.raises(FileNotFoundError, match="no file of codings in"):
    tune(workdir, recordings / "videos", [tmp_path / "none"])


def test_the_search_finds_what_is_there():
  """Two events of four seconds each, seen by windows of two."""
  truth = (Event(4.0, 8.0, "nod", "head"), Event(12.0, 16.0, "kick", "leg"))
  starts = np.arange(0, 18.5, 0.5)
  probabilities = np.full((len(starts), 6), 1 / 6)
  distances = np.full(len(starts), 0.9)
  for event, action in zip(truth, (0, 4)):
    inside = (starts >= event.onset - 1) & (starts + 2 <= event.offset + 1)
    probabilities[inside] = 0.02
    probabilities[inside, action] = 0.9
    distances[inside] = 0.1
  one = Recording("a", 20.0, truth, WindowScores(starts, starts + 2, probabilities, distances))
  rules = EventRules(2.0, 0.5, 1, 0.0, 0.5, 0.5, 0.0, 0.0, False, "background", 2.0)
  tried = search([one], TREE, rules)
  assert tried[0][0] == 1.0 and tried[-1][0] <= tried[0][0]
  assert {chosen.max_distance for _, chosen in tried} > {2.0}
  simple = one_per_window(one.scores, TREE, "background")
  assert len(simple) == 10 and f1([(truth, simple)]) < 0.4
  assert f1([]) == 0 and f1([(truth, truth)]) == 1


SCRIPT = """#!/bin/sh
case "$1 $2 $4" in "run "*"/extract_pose.py --out") ;; *) exit 9 ;; esac
{fail}
cat '{poses}' > "$5"
"""


@pytest.fixture
def uv(recordings, tmp_path, monkeypatch):
  """Puts a stand-in for uv in the way, which hands out poses that exist."""

  def install(fail=""):
    path = tmp_path / "bin" / "uv"
    path.parent.mkdir(exist_ok=True)
    poses = str(recordings / "estimated.pkl")
    path.write_text(SCRIPT.format(poses=poses, fail=fail))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)

  return install


def test_poses_are_estimated_kept_and_used_again(uv, workdir, recordings, tmp_path, caplog):
  uv()
  with caplog.at_level(logging.INFO, "pcan_jax"):
    summary = predict(workdir, recordings, tmp_path / "out", pose=None, events=True)
  assert "no poses given; they are estimated and kept in" in caplog.text
  assert len(load_pickle(tmp_path / "out/poses.pkl")) == 2
  predicted = json.loads((tmp_path / "out/predictions.json").read_text(encoding="utf-8"))
  assert predicted["pose"].endswith("out/poses.pkl") and len(summary["videos"]) == 2
  uv(fail="exit 3")
  options = recordings / "videos", list((recordings / "videos").iterdir()), LAYOUTS["openpose-28"]
  estimate_poses(*options, tmp_path / "out/poses.pkl")  # they are there
  with pytest.raises(ValueError, match=r"exit code 3, see above.*--pose="):
    estimate_poses(*options, tmp_path / "new/poses.pkl")


def test_poses_of_another_video_of_that_name_are_not_used(uv, recordings, tmp_path):
  """Neither its date nor its size tells."""
  videos = tmp_path / "videos"
  shutil.copytree(recordings / "videos", videos)
  options = videos, sorted(videos.iterdir()), LAYOUTS["openpose-28"], tmp_path / "poses.pkl"
  shutil.copy(recordings / "estimated.pkl", tmp_path / "poses.pkl")
  uv(fail="exit 3")
  estimate_poses(*options)
  video, before = options[1][0], options[1][0].stat()
  content = bytearray(video.read_bytes())
  content[-1] ^= 1
  video.write_bytes(content)
  os.utime(video, ns=(0, before.st_mtime_ns))
  assert video.stat().st_size == before.st_size
  with pytest.raises(ValueError, match="poses could not be estimated .exit code 3"):
    estimate_poses(*options)


def test_without_uv_it_is_said_what_to_type(recordings, tmp_path, monkeypatch):
  monkeypatch.setattr(pose_script.shutil, "which", lambda name: None)
  videos = recordings / "videos"
  with pytest.raises(ValueError, match=r"uv, which is not installed.*uv run .*extract_pose.py"):
    estimate_poses(videos, [], LAYOUTS["openpose-28"], tmp_path / "poses.pkl")
  with pytest.raises(ValueError, match=r"keypoints 'coco-17', and none were given"):
    estimate_poses(videos, [], LAYOUTS["coco-17"], tmp_path / "poses.pkl")


def test_how_long_it_will_take_is_said_after_the_second_batch(monkeypatch, caplog):
  clock = iter([100.0, 140.0])
  monkeypatch.setattr(files.time, "monotonic", lambda: next(clock))
  given = [Prediction(TREE, {}) for _ in range(84)]
  with caplog.at_level(logging.INFO, "pcan_jax"):
    passed = list(files._announced(given, "talk.mp4: 50 s of video", 84, 20))
  assert passed == given
  # 2 s per window; 64 are left.
  assert "talk.mp4: 50 s of video, 84 windows: about 3 minutes from now" in caplog.text

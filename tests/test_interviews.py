"""Long synthetic recordings: what they hold, and that the events are where they are said to be."""

import pathlib
import sys

import numpy as np
import pytest

from data.synthetic import __main__ as command_line
from data.synthetic import interviews
from data.synthetic.interviews import (
  ACT,
  SCHEME,
  Interviews,
  coding_of,
  generate_interviews,
  perform_interview,
  plan,
)
from data.synthetic.take import FPS
from pcan_jax.clips.pose_files import open_poses
from pcan_jax.clips.video import decode_video
from pcan_jax.coding.formats import read_codings
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from tests.test_synthetic import checksums

SMALL = Interviews(seed=1, interviews=2, minutes=0.2, height=64)
LONG = Interviews(seed=5, interviews=1, minutes=3.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp("interviews") / "out"
  assert generate_interviews(out, SMALL)
  return out


def test_videos_have_poses_and_codings(folder):
  poses = open_poses(folder / "poses.pkl", get_layout("openpose-28"))
  assert poses.clip_ids == ["interview_01", "interview_02"]
  tree = LabelTree.read_csv(folder / "actions.csv")
  assert tree.actions == SCHEME and "head" in tree.bodies
  (table,) = [read_codings(folder / "codings.csv")]
  assert [coding.video for coding in table] == ["interview_01.mp4", "interview_02.mp4"]
  for index, coding in enumerate(table):
    name = f"interview_{index + 1:02d}"
    frames = list(decode_video(folder / "videos" / f"{name}.mp4"))
    assert len(frames) == 360 and frames[0].shape == (64, 76, 3)
    keypoints, scores = poses.read(name, 360, (64, 76))
    assert keypoints.shape == (1, 360, 28, 2) and (scores > 0).mean() > 0.9
    (document,) = read_codings(folder / "codings" / f"{name}.eaf")
    assert pathlib.Path(document.video).samefile(folder / "videos" / f"{name}.mp4")
    assert ".partial" not in (folder / "codings" / f"{name}.eaf").read_text(encoding="utf-8")
    assert document.events == coding.events and coding.events
    truth = coding_of(SMALL, index)
    for event, true in zip(coding.events, truth.events, strict=True):
      assert (event.label, event.tier) == (true.label, true.tier)
      assert event.onset == pytest.approx(true.onset, abs=1e-3)
      assert event.offset == pytest.approx(true.offset, abs=1e-3)


def test_the_seed_decides_whatever_the_number_of_processes(folder, tmp_path):
  assert not generate_interviews(folder, SMALL)
  assert generate_interviews(tmp_path / "out", SMALL, jobs=2)
  ours, theirs = (
    {name: value for name, value in checksums(out).items() if not name.endswith(".eaf")}
    for out in (folder, tmp_path / "out")
  )
  assert ours == theirs
  with pytest.raises(FileExistsError, match="other contents"):
    generate_interviews(folder, Interviews(seed=2, interviews=2, minutes=0.2, height=64))


def test_every_action_occurs_about_equally_often_with_rest_in_between():
  acts = plan(LONG, 0)
  counts = np.unique([act.action for act in acts], return_counts=True)[1]
  assert len(counts) == len(SCHEME) and np.ptp(counts) <= 1
  assert all(ACT[0] <= act.stop - act.first <= ACT[1] for act in acts)
  assert all(other.first - act.stop >= FPS for act, other in zip(acts, acts[1:]))
  assert acts[-1].stop < 3 * 60 * FPS


def test_a_figure_moves_in_its_events_and_rests_between_them():
  points = perform_interview(LONG, 0)[0].keypoints
  speed = np.linalg.norm(np.diff(points, axis=0), axis=-1).max(axis=1)
  assert np.isfinite(points).all() and speed.max() < 0.25
  acting = np.zeros(len(points), bool)
  for act in plan(LONG, 0):
    acting[act.first : act.stop] = True
    assert speed[act.first : act.stop].max() > 0.004, act
    start, end = points[act.first - 1], points[act.stop]
    assert np.abs(start - end).max() < 0.06  # it returns to where it was
  assert speed[~acting[1:] & ~acting[:-1]].max() < 0.004


def test_objects_are_held_only_while_they_are_played_with():
  settings = Interviews(seed=1, interviews=1, minutes=0.2, actions=("playing objects",))
  performance, props, _ = perform_interview(settings, 0)
  act = plan(settings, 0)[0]
  held = np.flatnonzero([prop != "" for prop in props[: act.stop]])
  assert act.first < held[0] and held[-1] < act.stop - 1 and len(performance.keypoints) == 360
  assert not any(props[: act.first])


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"height": 97}, "even number"),
    ({"interviews": 0}, "at least 1"),
    ({"minutes": 0.0}, "minutes between"),
    ({"actions": ("nodding", "flying")}, "no action flying"),
    ({"actions": ()}, "no action given"),
  ],
)
def test_wrong_settings(wrong, message):
  with pytest.raises(ValueError, match=message):
    Interviews(**wrong)


def test_flags_are_the_settings(capsys, monkeypatch):
  calls = []
  monkeypatch.setattr(
    command_line, "generate_interviews", lambda *arguments: calls.append(arguments)
  )
  flags = "--out=DIR --seed=1 --interviews=2 --minutes=4 --height=64 --actions=nodding,waving"
  monkeypatch.setattr("sys.argv", ["synthetic", *flags.split(), "--jobs=3"])
  command_line.main()
  settings = Interviews(1, 2, 4.0, 64, ("nodding", "waving"))
  assert calls == [("DIR", settings, 3)]
  assert "2 interviews of 4 minutes of this seed" in capsys.readouterr().out
  assert "--actions 'nodding,waving'" in settings.options


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ("--interviews=2 --train=3", "--train means nothing with --interviews"),
    ("--interviews=2 --preset=demo", "--preset means nothing with --interviews"),
    ("--minutes=3", "--minutes means nothing without --interviews"),
    ("--interviews=0", "interviews must be at least 1"),
  ],
)
def test_flags_of_the_other_kind_are_refused(flags, message, capsys, monkeypatch):
  monkeypatch.setattr("sys.argv", ["synthetic", "--out=DIR", *flags.split()])
  with pytest.raises(SystemExit):
    command_line.main()
  assert message in capsys.readouterr().err


def test_a_missing_package_is_told_before_anything_is_drawn(tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, "pympi.Elan", None)
  monkeypatch.setattr(interviews, "in_processes", None)
  monkeypatch.setattr("sys.argv", ["synthetic", f"--out={tmp_path / 'out'}", "--interviews=1"])
  with pytest.raises(SystemExit):
    command_line.main()
  assert "pip install 'pcan_jax[coding]'" in capsys.readouterr().err

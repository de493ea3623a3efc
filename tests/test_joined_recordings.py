"""Clips of one person joined to a recording: the events lie where the clips are."""

import sys

import numpy as np
import pytest

from benchmarks import joined_recordings
from data.synthetic.generate import Settings, generate
from pcan_jax.clips.pyskl import PysklFile
from pcan_jax.clips.source_layout import read_split, read_tree
from pcan_jax.clips.video import decode_video, measure_video
from pcan_jax.coding.formats import read_codings
from pcan_jax.keypoints import get_layout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp("joined") / "source"
  generate(folder, Settings(train=4, val=2, height=64))
  return folder


def run(monkeypatch, *arguments):
  monkeypatch.setattr(sys, "argv", ["joined_recordings", *map(str, arguments)])
  joined_recordings.main()


def test_events_lie_where_the_clips_are(source, tmp_path, monkeypatch):
  run(monkeypatch, source, tmp_path / "out", "--person", "(_0000)")
  tree, layout = read_tree(source), get_layout("openpose-28")
  clips = [clip for split in ("train", "val") for clip in read_split(source, split, tree, layout)]
  (coding,) = read_codings(tmp_path / "out/codings.csv")
  assert sorted(event.label for event in coding.events) == sorted(
    tree.actions[clip.action] for clip in clips
  )
  video = tmp_path / "out/videos/person__0000.mp4"
  images, measured = list(decode_video(video)), measure_video(video)
  pose = PysklFile(tmp_path / "out/poses.pkl").pose("person__0000")
  assert len(images) == pose.keypoints.shape[1]
  rate = measured.num_frames / measured.times[-1]
  for event in coding.events:
    first, stop = (round(rate * time) for time in (event.onset, event.offset))
    fitting = [
      clip
      for clip in clips
      if clip.num_frames == stop - first
      and np.array_equal(pose.keypoints[0, first:stop], clip.keypoints[0].astype(np.float32))
    ]
    assert [tree.actions[clip.action] for clip in fitting] == [event.label]
    original = list(decode_video(fitting[0].video))
    assert np.abs(images[first].astype(int) - original[0]).mean() < 4
    held = pose.keypoints[0, first - round(0.5 * rate) : first]
    assert (held == pose.keypoints[0, first]).all()
  gaps = np.diff([time for event in coding.events for time in (event.onset, event.offset)])[1::2]
  assert (gaps > 0.9).all() and (gaps < 8.1).all()


def test_nobody_is_guessed(source, tmp_path, monkeypatch):
  with pytest.raises(SystemExit, match="who is in clip 'synthetic_000000'"):
    run(monkeypatch, source, tmp_path / "out")
  with pytest.raises(SystemExit, match="nobody called 7; there are 0"):
    run(monkeypatch, source, tmp_path / "out", "--person", "_(0)", "--people", "7")

"""Stretches in which nothing was coded, as a class of their own."""

import re

import pytest

from data.import_annotations import main
from tests.coded_study import NOD, NODS, coded, read_record, run, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  return write_study(tmp_path_factory.mktemp("study"))


def test_background_lies_between_codings(study, tmp_path):
  run(study, tmp_path / "source", background=True)
  rows = read_record(tmp_path / "source")
  spans = [(row["video"], float(row["onset"]), float(row["offset"]), row["action"]) for row in rows]
  background = [span for span in spans if span[3] == "background"]
  assert background
  for video, onset, offset, _ in background:
    others = [s for s in spans if s[0] == video and s[3] != "background"]
    assert all(offset <= other[1] or onset >= other[2] for other in others)
    assert min(s[1] for s in others) < onset and offset < max(s[2] for s in others)


def background_note(result):
  (note,) = [note for note in result.notes if note.startswith("background: ")]
  return note


@pytest.mark.parametrize(
  ("wanted", "number", "reason"),
  [
    (True, 2, "as many as 'nod' has, the most frequent action"),
    (1, 1, "as many as --background=1 asks for"),
    (300, None, "every one; there are no more, though --background=300 asks for them"),
    ("all", None, "every one, as --background=all asks for"),
  ],
)
def test_as_much_background_as_is_asked_for(study, tmp_path, wanted, number, reason):
  rows = [*NODS, ("talk 0 é.mp4", 4, 4.5, "wave", "arm", "Ann")]
  result, record = coded(study, tmp_path, rows, background=wanted)
  taken = [row["action"] for row in record].count("background")
  note = re.fullmatch(
    r"background: (\d+) of (\d+) stretches found between codings, \d+ s in all: (.*)",
    background_note(result),
  )
  assert note[1] == str(taken) and note[3] == reason
  assert taken == (number or int(note[2])) and int(note[2]) > 2


def test_fewer_gaps_than_the_most_frequent_action_has_clips_are_all_taken(study, tmp_path):
  rows = [(NOD[0], start, start + 1, *NOD[3:]) for start in (1, 2, 3, 5)]
  result, record = coded(study, tmp_path, rows, background=True)
  assert [row["action"] for row in record].count("background") < 4
  assert "every one; 'nod', the most frequent action, has 4 clips" in background_note(result)


@pytest.mark.parametrize("value", ["-3", "0", "many", "1.5", "", "9" * 5000])
def test_no_such_amount_of_background(study, tmp_path, value):
  arguments = [str(study / "sessions"), "--videos", str(study / "videos"), "--no_poses"]
  with pytest.raises(SystemExit, match=f"error: --background={value}: give a number .* or more"):
    main([*arguments, "--out", str(tmp_path / "source"), f"--background={value}"])
  assert not list(tmp_path.iterdir())


def test_a_word_after_background_is_a_session(study, tmp_path, capsys):
  arguments = ["--videos", str(study / "videos"), "--no_poses", "--jobs=1"]
  main(["--background", str(study / "sessions"), *arguments, "--out", str(tmp_path / "alone")])
  assert "as many as 'wave' has" in capsys.readouterr().out
  with pytest.raises(SystemExit, match="2"):
    main([str(study / "sessions"), "--background", "300", *arguments, "--out", str(tmp_path / "x")])
  assert "write --background=300, with" in capsys.readouterr().err

"""BORIS: its projects and both of its exports, as it writes and as we do."""

import collections
import decimal
import json
import pathlib

import pytest

from pcan_jax.coding.events import Coding
from pcan_jax.coding.formats import read_codings, write_codings
from tests.codings import TREE, event, in_milliseconds, random_coding

REFERENCE = pathlib.Path(__file__).parent / "reference"

TABULAR = (
  "Observation id,Observation date,Description,Observation duration,Observation type,Source,"
  "Time offset (s),Media duration (s),FPS,age,Subject,Behavior,Behavioral category,Modifier #1,"
  "Behavior type,Time,Media file name,Image index,Image file path,Comment\n"
  "obs,2024-05-01 10:00:00,,30.0,Media file(s),player #1:v/a.mp4;v/b.mp4|player #2:c.mp4,10.0,"
  "20.000;10.000|30.000,25.000;25.000|25.000,7,Ann,nod,head,,START,11.5,v/a.mp4,NA,NA,\n"
  "obs,2024-05-01 10:00:00,,30.0,Media file(s),player #1:v/a.mp4;v/b.mp4|player #2:c.mp4,10.0,"
  "20.000;10.000|30.000,25.000;25.000|25.000,7,Ann,nod,head,,STOP,12.25,v/a.mp4,NA,NA,\n"
  "obs,2024-05-01 10:00:00,,30.0,Media file(s),player #1:v/a.mp4;v/b.mp4|player #2:c.mp4,10.0,"
  "20.000;10.000|30.000,25.000;25.000|25.000,7,,wave,Not defined,left,START,29,v/a.mp4,NA,NA,\n"
  "obs,2024-05-01 10:00:00,,30.0,Media file(s),player #1:v/a.mp4;v/b.mp4|player #2:c.mp4,10.0,"
  "20.000;10.000|30.000,25.000;25.000|25.000,7,,wave,Not defined,left,STOP,31,v/b.mp4,NA,NA,\n"
  "live,2024-05-01 10:00:00,,30.0,Live observation,NA,0.0,NA,NA,7,,nod,head,,POINT,3,NA,NA,NA,\n"
)
AGGREGATED = (
  "Observation id,Observation date,Media file,Total length,FPS,Subject,Behavior,"
  "Behavioral category,Modifiers,Behavior type,Start (s),Stop (s),Duration (s),Comment start\n"
  "obs,2021-12-06,T:/a b.mp4,30.0,29.97,No focal subject,nod,head,,STATE,1.5,2.25,0.75,\n"
  "obs,2021-12-06,T:/a b.mp4,30.0,29.97,Ann,blink,eyes,,POINT,4,4,NA,\n"
)
OLDER = (
  "Observation id\tobs\n\nMedia file(s)\n\nPlayer #1\ta.mp4\n"
  "Time\tMedia file path\tTotal length\tFPS\tSubject\tBehavior\tBehavioral category\tComment\t"
  "Status\n"
  "1.5\ta.mp4\t30\t25\tAnn\tnod\thead\t\tSTART\n2.25\ta.mp4\t30\t25\tAnn\tnod\thead\t\tSTOP\n"
)


def test_tables_of_boris(tmp_path):
  told = []

  def read(text, name):
    (tmp_path / name).write_text(text)
    return read_codings(tmp_path / name, point_seconds=1.0, tell=told.append)

  first, second = read(TABULAR, "tabular.csv")
  assert (first.video, first.duration, first.fps) == ("v/a.mp4", 20, 25)
  assert first.events == (event(1.5, 2.25, "nod", "head", "Ann"), event(19, 20, "wave"))
  assert (second.video, second.events) == ("v/b.mp4", (event(0, 1, "wave"),))
  assert len(told) == 4
  for expected in ("other players are not used: c.mp4", "cut at the border", "modifiers", "'live'"):
    assert any(expected in line for line in told)
  head, row, _ = AGGREGATED.splitlines(keepends=True)
  rows = row.replace("1.5,2.25", "1,3") + row.replace("1.5,2.25", "2,4")
  (coding,) = read(head + rows, "overlapping.csv")
  assert [(one.onset, one.offset) for one in coding.events] == [(1, 3), (2, 4)]
  with pytest.raises(ValueError, match="row 2: 'nod' stops at 1 s, before it starts"):
    read(head + row.replace("1.5,2.25", "3,1"), "backwards.csv")
  (coding,) = read(AGGREGATED, "aggregated.csv")
  assert coding.video == "T:/a b.mp4"
  assert coding.events == (
    event(1.5, 2.25, "nod", "head"),
    event(3.5, 4.5, "blink", "eyes", "Ann"),
  )
  (coding,) = read(OLDER, "older.tsv")
  assert (coding.video, coding.events) == ("a.mp4", (event(1.5, 2.25, "nod", "head", "Ann"),))
  with pytest.raises(ValueError, match="the length of 'v/a.mp4' is not given"):
    read(TABULAR.replace("20.000;10.000|30.000", "NA"), "tabular.csv")
  with pytest.raises(ValueError, match="row 2: 'BEGIN' is not START, STOP or POINT"):
    read(TABULAR.replace("START", "BEGIN"), "tabular.csv")


def test_a_boris_project_has_what_boris_reads(tmp_path):
  (path,) = write_codings("boris", [random_coding(5, "talk.mp4")], TREE, tmp_path)
  project = json.loads(path.read_text(encoding="utf-8"))
  assert project["project_format_version"] == "7.0" and project["time_format"] == "hh:mm:ss"
  assert project["behavioral_categories"] == list(dict.fromkeys(TREE.bodies))
  behaviours = project["behaviors_conf"].values()
  assert {entry["code"] for entry in behaviours} == set(TREE.actions)
  keys = {"type", "key", "code", "description", "color", "category", "modifiers", "excluded"}
  assert all(keys <= set(entry) and entry["type"] == "State event" for entry in behaviours)
  (observation,) = project["observations"].values()
  assert observation["file"]["1"] == ["talk.mp4"] and observation["type"] == "MEDIA"
  assert set(observation["media_info"]) >= {"length", "fps", "hasVideo", "hasAudio", "offset"}
  events = observation["events"]
  assert [row[0] for row in events] == sorted(row[0] for row in events)
  counts = collections.Counter(tuple(row[1:4]) for row in events)
  assert all(count % 2 == 0 for count in counts.values()) and {len(e) for e in events} == {6}


FOR_BORIS = Coding(
  "talk.mp4",
  (
    event(1.5, 2.25, "nod", "head", "Ann"),
    event(1.75, 3.0, "nod", "head", "Ann"),  # overlaps
    event(4.001, 4.002, 'wave, "big"', "arm, upper"),
    event(5.0, 6.123, "点头", 'leg "left"', 'Bob "B", é'),
    event(3850.182, 3852.111, "Kopf schütteln", "head"),  # ends with the recording
  ),
  duration=3852.111,
)


def test_boris_exports_what_it_was_given(tmp_path):
  """The two tables are what BORIS 8.27.4 itself exports of this project."""
  (path,) = write_codings("boris", [FOR_BORIS], TREE, tmp_path)
  project = json.loads(path.read_text(encoding="utf-8"))
  (length,) = project["observations"]["talk"]["media_info"]["length"].values()
  assert decimal.Decimal(length) >= decimal.Decimal("3852.111")  # as BORIS compares them
  for name in ("boris_tabular.tsv", "boris_aggregated.tsv"):
    (coding,) = read_codings(REFERENCE / name)
    assert in_milliseconds(coding) == in_milliseconds(FOR_BORIS)
    assert (coding.video, coding.duration) == ("talk.mp4", pytest.approx(3852.111))


def test_a_boris_project_of_others(tmp_path):
  told = []
  observation = {
    "type": "MEDIA",
    "file": {"1": ["/home/a/talk.mp4"], "2": ["side.mp4"]},
    "time offset": 1.0,
    "media_creation_date_as_offset": True,
    "media_info": {"media_creation_time": {"/home/a/talk.mp4": 10}},
    "events": [
      [12.0, "", "s", "", "", 3],
      [11.5, "", "p", "", ""],
      [14.0, "", "s", "", ""],
      [15.0, "", "s", "", ""],
      [16.0, "Ann", "gone", "", ""],
    ],
  }
  project = {
    "behaviors_conf": {
      "0": {"code": "s", "type": "State event", "category": "body"},
      "1": {"code": "p", "type": "Point event with coding map"},
    },
    "observations": {"one": observation, "two": observation | {"type": "LIVE"}},
  }
  path = tmp_path / "study.boris"
  path.write_text(json.dumps(project))
  with pytest.raises(ValueError, match="'p' at 0.5 s are point events"):
    read_codings(path)
  (coding,) = read_codings(path, point_seconds=0.5, tell=told.append)
  assert coding.events == (event(0.25, 0.75, "p"), event(1, 3, "s", "body"))
  assert len(told) == 4
  assert "'s' starts at 15 s and does not stop" in "".join(told)

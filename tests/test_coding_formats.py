import json
import random
import re
import sys

import pytest

from pcan_jax.coding import reading
from pcan_jax.coding.csv_codings import seconds
from pcan_jax.coding.events import Coding
from pcan_jax.coding.formats import WRITERS, find_codings, read_codings, write_codings
from pcan_jax.labels import LabelTree
from tests import elan_documents
from tests.codings import TREE, event, in_milliseconds, random_coding


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "detections"])
@pytest.mark.parametrize("seed", range(8))
def test_what_is_written_is_read(name, seed, tmp_path):
  coding = random_coding(seed, "folder/päper talk 100%25.mp4", confident=seed % 2)
  told = []
  read = []
  for path in write_codings(name, [coding], TREE, tmp_path):
    if path.suffix == ".xml":  # how Label Studio is to show the other file
      continue
    read += read_codings(path, tell=told.append)
  assert told == []
  assert [in_milliseconds(found) for found in read] == [in_milliseconds(coding)]
  assert read[0].video.endswith("päper talk 100%25.mp4")


def ids(codings):
  """What the challenge's file keeps of codings."""
  return [
    [(round(e.onset * 1000), round(e.offset * 1000), e.label) for e in c.events] for c in codings
  ]


def test_the_file_of_the_challenge_has_ids(tmp_path):
  codings = [random_coding(seed, f"val{seed:04}.mp4") for seed in range(2)]
  (path,) = write_codings("detections", codings, TREE, tmp_path)
  lines = path.read_text().splitlines()
  assert lines[0] == ",video_id,t_start,t_end,class,score"
  assert re.fullmatch(r"0,val0000,\d+\.\d{3},\d+\.\d{3},[0-6],[01]\.\d{6}", lines[1])
  read = read_codings(path, tree=TREE)
  assert [coding.video for coding in read] == ["val0000", "val0001"]
  assert ids(read) == ids(codings)
  first = read_codings(path)[0].events[0]
  assert TREE.actions[int(first.label)] == read[0].events[0].label
  with pytest.raises(ValueError, match="row 2: class .*, but the label tree has 1 actions"):
    read_codings(path, tree=LabelTree(("nod",), ("head",), (0,)))
  with pytest.raises(ValueError, match="val.mp4: the label 'x' is not in the label tree"):
    write_codings("detections", [Coding("val.mp4", (event(0, 1, "x"),))], TREE, tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_coded_and_labels_of_no_tree_are_written_too(name, tmp_path):
  codings = [Coding("a.mp4", ()), Coding("b.mp4", (event(1, 1.0001, "nod"),))]
  paths = write_codings(name, codings, TREE, tmp_path / "deep" / "out")
  read = [c for path in paths if path.suffix != ".xml" for c in read_codings(path)]
  assert [c.events[0].duration for c in read if c.events] == [pytest.approx(0.001)]
  if name != "detections":
    codings = [Coding("a.mp4", (event(0, 1, "new"),))]
    path, *_ = write_codings(name, codings, TREE, tmp_path / "new")
    assert [(e.label, e.tier) for c in read_codings(path) for e in c.events] == [("new", "events")]


def test_names_that_would_be_mixed_up_are_refused(tmp_path):
  for name in ("eaf", "boris", "boris_tsv", "vtt", "label_studio", "detections"):
    for other in ("b/talk.avi", "a/talk.mp4"):
      codings = [Coding("a/talk.mp4", ()), Coding(other, ())]
      with pytest.raises(ValueError, match="would both be written to .*talk"):
        write_codings(name, codings, TREE, tmp_path)
  with pytest.raises(ValueError, match="unknown format 'elan': expected one of eaf, boris"):
    write_codings("elan", [], TREE, tmp_path)
  with pytest.raises(ValueError, match="which XML does not allow"):
    write_codings("eaf", [Coding("a.mp4", (event(0, 1, "nul \0"),))], TREE, tmp_path)


def written_eaf(tmp_path, seed=3):
  (path,) = write_codings("eaf", [random_coding(seed, "a talk.mp4")], TREE, tmp_path)
  return path


def test_elan_documents_follow_the_schema(tmp_path):
  if not elan_documents.SCHEMA.is_file():
    pytest.skip(f"no {elan_documents.SCHEMA}: make build/EAFv3.0.xsd")
  for seed in range(10):
    elan_documents.check_by_schema(written_eaf(tmp_path, seed))


def test_elan_documents_are_in_order(tmp_path):
  tiers = elan_documents.check_order(written_eaf(tmp_path), "a talk.mp4")
  assert len(tiers) > 5


FOREIGN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="somebody" DATE="2006-06-13T15:09:43+01:00" FORMAT="2.7" VERSION="2.7">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/My%20Data/take 1.wav" MIME_TYPE="audio/x-wav"/>
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/My%20Data/take 1.mpg" MIME_TYPE="video/mpeg"
      TIME_ORIGIN="-500"/>
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/My%20Data/side.mpg" MIME_TYPE="video/mpeg"/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="ts2"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/><TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="4000"/>
    <TIME_SLOT TIME_SLOT_ID="ts5" TIME_VALUE="100"/><TIME_SLOT TIME_SLOT_ID="ts6" TIME_VALUE="900"/>
    <TIME_SLOT TIME_SLOT_ID="ts7" TIME_VALUE="5000"/><TIME_SLOT TIME_SLOT_ID="ts8"/>
    <TIME_SLOT TIME_SLOT_ID="ts9" TIME_VALUE="5000"/>
  </TIME_ORDER>
  <TIER TIER_ID="gesture" PARTICIPANT=" Ann " LINGUISTIC_TYPE_REF="t">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE> prep </ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts5" TIME_SLOT_REF2="ts6">
      <ANNOTATION_VALUE>early</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a6" TIME_SLOT_REF1="ts7" TIME_SLOT_REF2="ts9">
      <ANNOTATION_VALUE>point</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a4" TIME_SLOT_REF1="ts7" TIME_SLOT_REF2="ts8">
      <ANNOTATION_VALUE>open</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER TIER_ID="translation" PARENT_REF="gesture" LINGUISTIC_TYPE_REF="sym">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a5" ANNOTATION_REF="a1">
      <ANNOTATION_VALUE>x</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
</ANNOTATION_DOCUMENT>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_elan_document_of_others(encoding, tmp_path):
  path = tmp_path / "take.eaf"
  path.write_bytes(FOREIGN.replace("UTF-8", encoding).encode(encoding))
  with pytest.raises(ValueError, match="'point' at 4.5 s are point events.*--point_seconds=1"):
    read_codings(path)
  told = []
  (coding,) = read_codings(path, point_seconds=0.5, tell=told.append)
  assert coding.video == "C:/My Data/take 1.mpg"
  assert coding.events == (
    event(0.0, 0.4, "early", "gesture", "Ann"),
    event(0.5, 2.0, "prep", "gesture", "Ann"),  # the two unaligned slots are one moment
    event(2.0, 3.5, "gesture", "gesture", "Ann"),
    event(4.25, 4.75, "point", "gesture", "Ann"),
  )
  for expected in ("side.mpg", "cut at its start", "no value", "no place in time", "'translation'"):
    assert any(expected in line and line.startswith(str(path)) for line in told), expected
  assert len(told) == 5


def test_values_that_no_vocabulary_has_are_told(tmp_path):
  path = written_eaf(tmp_path)
  text = path.read_text(encoding="utf-8")
  assert text.count("<ANNOTATION_VALUE>nod<") > 0
  path.write_text(text.replace("<ANNOTATION_VALUE>nod<", "<ANNOTATION_VALUE> nodd <"), "utf-8")
  told = []
  read_codings(path, tell=told.append)
  assert told and all("'nodd' is not in the vocabulary of the tier" in line for line in told)


def test_subtitles_of_others(tmp_path):
  path = tmp_path / "talk.mp4.vtt"
  path.write_text(
    "WEBVTT\n\nNOTE by hand\n\n1\n00:01.000 --> 00:02.500 align:left\n"
    "<v Ann>nods &amp; <i>smiles</i>\n"
  )
  (coding,) = read_codings(path)
  assert (coding.video, coding.events) == (
    "talk.mp4",
    (event(1, 2.5, "nods & smiles", "", "Ann"),),
  )


def test_what_people_changed_in_label_studio(tmp_path):
  one = event(1.001, 2.002, "nod", "head", "Ann", 0.5)
  path, _ = write_codings("label_studio", [Coding("talk é.mp4", (one,), fps=30.0)], TREE, tmp_path)
  (task,) = json.loads(path.read_text(encoding="utf-8"))
  (prediction,) = task.pop("predictions")
  (region,) = prediction["result"]
  assert region["value"]["ranges"] == [{"start": 31, "end": 61}] and region["score"] == 0.5
  region["value"]["ranges"] = [{"start": 31, "end": 90}]
  task["data"]["video"] = "/data/upload/1/0123abcd-talk%20%C3%A9.mp4"
  task["annotations"] = [{"result": [region, {"type": "choices", "value": {}}]}]
  task["annotations"].append({"result": [region], "was_cancelled": True})
  path.write_text(json.dumps([task]))
  (coding,) = read_codings(path)
  assert coding.video == "talk é.mp4"
  assert coding.events == (event(1.0, 3.0, "nod", "head", "Ann"),)


def test_tables_as_people_write_them(tmp_path):
  path = tmp_path / "codings.csv"
  path.write_text(
    "Video;Start;End;Label;Note\r\na.mp4;1:02,5;01:00:00;nod;\r\n\r\nb.mp4;1;;nod;x\r\n"
  )
  told = []
  first, second = read_codings(path, point_seconds=1.0, tell=told.append)
  assert first.events == (event(62.5, 3600, "nod"),)
  assert second.events == (event(0.5, 1.5, "nod"),)
  assert told == [f"{path}: unused columns: Note"]


BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;">]>
<ANNOTATION_DOCUMENT><HEADER/>&c;</ANNOTATION_DOCUMENT>"""


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.eaf", BOMB, "declares a document type"),
    ("a.eaf", BOMB.decode().encode("utf-16"), "declares a document type|not XML"),
    ("a.eaf", b"<ANNOTATION_DOCUMENT" + b"><TIER" * 100, "nested more than 64 deep"),
    ("a.eaf", b"<ANNOTATION_DOCUMENT><HEADER>", "not XML, or damaged"),
    ("a.eaf", b"<html></html>", "its first element is 'html'"),
    ("a.eaf", FOREIGN.replace('"1000"', '"soon"').encode(), "'soon' is not a time"),
    ("a.eaf", FOREIGN.replace('"milliseconds"', '"days"').encode(), "TIME_UNITS 'days'"),
    ("a.boris", b"{", "not JSON, or damaged"),
    ("a.boris", b"[" * 100_000, "not JSON, or damaged"),
    ("a.boris", b'{"behaviors_conf": []}', "'behaviors_conf' is missing or wrong"),
    ("a.boris", b'{"behaviors_conf": {}, "observations": {"a": NaN}}', "the number NaN"),
    ("a.vtt", b"WEBVT", "not WebVTT"),
    (
      "a.vtt",
      b"WEBVTT\n\n00:03 --> 00:04\nnod\n",
      "line 3: '00:03 --> 00:04' are no times of a cue",
    ),
    ("a.vtt", b"WEBVTT\n\n00:03,000 -> 00:04,000\nnod\n", "line 3: .* are no times of a cue"),
    ("a.json", b'[{"annotations": [], "data": 3}]', "task 0: not a task of Label Studio"),
    ("a.csv", b"video,start,end,label\na.mp4,1,x,nod\n", "row 2: 'x' is not a time"),
    ("a.csv", b"video,start,end,label\na.mp4,1,2,nod,5\n", "row 2: 5 cells in 4 columns"),
    ("a.csv", b"video,start,end,label\n,1,2,nod\n", "row 2: no video"),
    ("a.csv", b'video,start,end,label\na,"1,2,nod\n', "not a table"),
    ("a.csv", b"video,start,end,label\n\xff,1,2,nod\n", "not text in UTF-8"),
    ("a.csv", b"video,start,end,label,confidence\na,1,2,nod,7\n", "row 2: .*confidence 7"),
    ("a.csv", b"video,start,end,label,confidence\na,1,2,nod,9%\n", "row 2: confidence '9%' is not"),
    ("a.csv", b"video,start,end,label,label\na,1,2,nod,hop\n", "there are two columns label"),
    ("a.csv", b"video,label\na,b\n", "not a file of codings that is read: ELAN"),
    ("a.csv", b"", "not a file of codings that is read: ELAN"),
    ("a.mp4", b"\0\0", "not a file of codings that is read: ELAN"),
  ],
)
def test_damaged_and_hostile_files_are_refused(name, content, message, tmp_path):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as raised:
    read_codings(path, point_seconds=1.0)
  assert str(path) in str(raised.value)


def test_bytes_that_change_never_end_in_another_error(tmp_path):
  """Every format, damaged at random: it is read, or refused by a ValueError that names the file."""
  rng = random.Random(0)
  for name in WRITERS:
    for path in write_codings(name, [random_coding(1, "talk.mp4")], TREE, tmp_path / name):
      original = path.read_bytes()
      for _ in range(40):
        content = bytearray(original)
        for _ in range(rng.randrange(1, 4)):
          start = rng.randrange(len(content))
          content[start : start + rng.randrange(4)] = rng.randbytes(rng.randrange(3))
        path.write_bytes(bytes(content[: rng.choice((None, len(content) // 2))]))
        try:
          read_codings(path, point_seconds=1.0)
        except ValueError as error:
          assert str(path) in str(error)


def test_large_files_and_missing_packages_are_told(tmp_path, monkeypatch):
  path = tmp_path / "a.csv"
  path.write_text("video,start,end,label\na.mp4,1,2,nod\n")
  monkeypatch.setattr(reading, "MAX_BYTES", 10)
  with pytest.raises(ValueError, match="larger than 0 MiB"):
    read_codings(path)
  with pytest.raises(FileNotFoundError, match="no file of codings at"):
    read_codings(tmp_path / "b.csv")
  monkeypatch.setitem(sys.modules, "pympi.Elan", None)
  with pytest.raises(ImportError, match=r"pip install 'pcan_jax\[coding\]'"):
    write_codings("eaf", [Coding("a.mp4", ())], TREE, tmp_path)


def test_a_folder_of_predictions_has_codings_and_a_table_that_is_none(tmp_path):
  (tmp_path / ".ipynb_checkpoints").mkdir()
  hidden = ("._talk.eaf", ".ipynb_checkpoints/old.csv")
  for name in ("predictions.csv", "talk.eaf", "codings.csv", *hidden):
    (tmp_path / name).touch()
  assert [path.name for path in find_codings(tmp_path)] == ["codings.csv", "talk.eaf"]


@pytest.mark.parametrize(
  ("text", "found"), [("12,5", 12.5), ("1:02.5", 62.5), ("-1:30", -90), ("-00:01:30", -90)]
)
def test_times_have_one_sign(text, found):
  assert seconds(text, "here") == found
  with pytest.raises(ValueError, match="here: .* is not a time"):
    seconds(f"1:-{text}", "here")


def test_semicolons_go_with_decimal_commas(tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("video;start;end;label;confidence\nv.mp4;1,5;2,5;nod;0,87\n")
  ((found,),) = (coding.events for coding in read_codings(path))
  assert (found.onset, found.offset, found.confidence) == (1.5, 2.5, 0.87)


def test_what_lies_before_the_video_is_an_error(tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("video,start,end,label\nv.mp4,-5,,nod\n")
  with pytest.raises(ValueError, match="row 2: .*'nod' at -5 s lies before the video"):
    read_codings(path, point_seconds=1.0)

import csv
import json
import pickle
import re
import shutil

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.build import build
from data.check import check_source
from data.coded_labels import understand
from data.import_annotations import import_annotations, main
from pcan_jax.clips import source_layout
from pcan_jax.clips.video import decode_video
from pcan_jax.coding.events import Event
from pcan_jax.keypoints import LAYOUTS
from pcan_jax.labels import LabelTree
from tests.tiny_source import write_video

LAYOUT = LAYOUTS["openpose-28"]
FPS = 25
SIZE = (48, 64)
FRAMES = 250

EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-05-01T10:00:00+01:00" FORMAT="3.0" VERSION="3.0">
<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
<MEDIA_DESCRIPTOR MEDIA_URL="file:///D:/study one/{video}" MIME_TYPE="video/mp4"
 TIME_ORIGIN="{origin}"/></HEADER>
<TIME_ORDER>{slots}</TIME_ORDER>
{tiers}
<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>"""


def eaf(video, tiers, origin=0):
  """An ELAN document; `tiers` maps (tier, participant) to (start ms, end ms, value)."""
  slots, texts = [], []
  for (name, participant), annotations in tiers.items():
    inner = ""
    for start, end, value in annotations:
      first = len(slots)
      slots += [start, end]
      inner += (
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{first}" TIME_SLOT_REF1="ts{first}" '
        f'TIME_SLOT_REF2="ts{first + 1}"><ANNOTATION_VALUE>{value}</ANNOTATION_VALUE>'
        "</ALIGNABLE_ANNOTATION></ANNOTATION>"
      )
    who = f' PARTICIPANT="{participant}"' if participant else ""
    texts.append(f'<TIER TIER_ID="{name}" LINGUISTIC_TYPE_REF="default-lt"{who}>{inner}</TIER>')
  listed = "".join(
    f'<TIME_SLOT TIME_SLOT_ID="ts{index}" TIME_VALUE="{time}"/>' for index, time in enumerate(slots)
  )
  return EAF.format(video=video, origin=origin, slots=listed, tiers="".join(texts))


def numbered_frames(seed):
  """Frames that say which one it is by bright and dark squares, above a texture that moves."""
  frames = np.zeros((FRAMES, *SIZE, 3), np.uint8)
  texture = cv2.resize(
    np.random.default_rng(seed).integers(0, 255, (4, 40, 3), np.uint8), (640, 32)
  )
  for index, frame in enumerate(frames):
    frame[16:] = texture[:, index : index + 64]
    for bit in range(8):
      frame[:16, bit * 8 : bit * 8 + 8] = 220 if index >> bit & 1 else 30
  return frames


def number_of(frame):
  squares = frame[:16].mean(axis=(0, 2)).reshape(8, 8).mean(axis=1)
  return sum(1 << bit for bit in range(8) if squares[bit] > 125)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  """Recordings of three people of ten seconds each, their poses, and their ELAN documents."""
  folder = tmp_path_factory.mktemp("study")
  rng = np.random.default_rng(0)
  entries = []
  (folder / "sessions").mkdir()
  for index, person in enumerate(("Ann", "Bob", "Cy")):
    video = f"talk {index} é.mp4"
    write_video(folder / "videos" / video, numbered_frames(index), FPS)
    keypoints = rng.uniform(5, 40, (1, FRAMES, 28, 2)).astype(np.float32)
    entries.append(
      {
        "frame_dir": video.removesuffix(".mp4"),
        "keypoint": keypoints,
        "keypoint_score": np.full((1, FRAMES, 28), 0.5, np.float32),
      }
    )
    tiers = {
      (f"head@{person}", person): [(1000, 2000, "nod"), (3040, 3320, "shake")],
      (f"arm@{person}", person): [(4000, 5000, "wave"), (7000, 8000, "wave")],
    }
    document = eaf(video, tiers, origin=40 * index)
    (folder / "sessions" / f"{person}.eaf").write_text(document, encoding="utf-8")
  (folder / "poses.pkl").write_bytes(pickle.dumps(entries))
  return folder


def run(study, out, sessions="sessions", **options):
  options = {"poses": study / "poses.pkl", "jobs": 1} | options
  return import_annotations([study / sessions], study / "videos", out, **options)


def read_record(source):
  with (source / "annotations/codings.csv").open(newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def clips_of(source):
  tree = source_layout.read_tree(source)
  return tree, {
    clip.id: clip
    for split in source_layout.find_splits(source)
    for clip in source_layout.read_split(source, split, tree, LAYOUT)
  }


@pytest.fixture(scope="module")
def imported(study, tmp_path_factory):
  source = tmp_path_factory.mktemp("imported") / "source"
  return source, run(study, source, background=True)


def test_from_hand_made_codings_to_a_data_set(imported, tmp_path):
  source, result = imported
  assert not result.errors
  report, _ = check_source(source, LAYOUT, jobs=1)
  assert not report.errors
  tree, clips = clips_of(source)
  assert tree.actions == ("wave", "background", "nod", "shake")
  assert tree.bodies == ("arm", "background", "head")
  rows = read_record(source)
  assert {row["id"] for row in rows} == set(clips)
  assert {row["action"] for row in rows} == set(tree.actions)
  people = {
    split: {row["person"] for row in rows if row["split"] == split} for split in ("train", "val")
  }
  assert not people["train"] & people["val"] and all(people.values())
  dataset = build(source, tmp_path / "out", side=32, jobs=1)
  records = list(tfds.builder_from_directory(dataset).as_dataset(split="train").as_numpy_iterator())
  assert len(records) == sum(row["split"] == "train" for row in rows)
  assert any("head / nod" in line for line in result.notes)


def test_people_in_the_names_of_tiers_do_not_count():
  events = [
    Event(0.0, 1.0, "nod", tier, "Ann")
    for tier in ("Ann_head", "head - Ann", "Ann", "Annex", "Ann 2")
  ]
  events += [Event(0.0, 1.0, "nod", "Ann x", who) for who in ("Ann", "Bob")]
  meanings = understand(events, [], None, []).meanings
  bodies = {tier: body for (tier, _), (body, _) in meanings.items()}
  assert bodies == {
    "Ann_head": "head",
    "head - Ann": "head",
    "Ann": "Ann",
    "Annex": "Annex",
    "Ann 2": "2",
    "Ann x": "Ann x",
  }


def test_frames_and_poses_are_those_that_were_coded(imported, study):
  source, _ = imported
  _, clips = clips_of(source)
  poses = {e["frame_dir"]: e["keypoint"] for e in pickle.loads((study / "poses.pkl").read_bytes())}
  for row in read_record(source):
    clip = clips[row["id"]]
    first, stop = int(row["first"]), int(row["stop"])
    frames = decode_video(clip.video)
    images = list(frames)
    assert [number_of(image) for image in images] == list(range(first, stop))
    original = list(decode_video(study / "videos" / row["video"]))[first:stop]
    error = np.square(np.mean(images, axis=-1) - np.mean(original, axis=-1)).mean()
    assert 10 * np.log10(255**2 / error) > 42  # no difference to be seen
    np.testing.assert_allclose(np.diff(frames.times), 1 / FPS, atol=1e-6)
    assert frames.damage == []
    video = row["video"].removesuffix(".mp4")
    np.testing.assert_array_equal(clip.keypoints, poses[video][:, first:stop])
    if row["action"] == "nod":  # 1 s in the document, and the time origin of the medium
      assert first == 25 + int(video[5]) and stop - first == 25


def test_background_lies_between_codings(imported, study):
  rows = read_record(imported[0])
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


def coded(study, tmp_path, rows, **options):
  """Imports a table of codings; returns the result and the record."""
  table = tmp_path / "codings.csv"
  with table.open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([("video", "start", "end", "label", "tier", "subject"), *rows])
  options = {"poses": None, "jobs": 1, "split_by": "clip"} | options
  result = import_annotations([table], study / "videos", tmp_path / "source", **options)
  return result, [] if result.errors else read_record(tmp_path / "source")


def kinds(result):
  return [finding.kind for finding in result.findings]


NOD = ("talk 0 é.mp4", 1, 2, "nod", "head", "Ann")
NODS = [NOD, ("talk 0 é.mp4", 8, 9, "nod", "head", "Ann")]


def test_what_is_odd_has_an_outcome(study, tmp_path):
  rows = [
    *NODS,
    ("talk 0 é.mp4", 1.02, 2.01, "nod", "head", "Ann"),  # the same again
    ("talk 0 é.mp4", 1.2, 1.8, "wave", "arm", "Ann"),  # during the nod
    ("talk 0 é.mp4", 1.2, 1.8, "wave", "arm", "Bob"),  # of another person
    ("talk 0 é.mp4", 4, 4.1, "wave", "arm", "Ann"),  # short
    ("talk 0 é.mp4", 9.5, 11, "wave", "arm", "Ann"),  # over the end
    ("talk 0 é.mp4", 12, 13, "wave", "arm", "Ann"),  # beyond the end
    ("TALK 1 é.mp4", 1, 9, "sit", "body", "Ann"),  # long, in another case
    ("talk 2 é.avi", 3, 3, "blink", "head", "Ann"),  # a point, in another container
  ]
  result, record = coded(study, tmp_path, rows, point_seconds=0.4, max_seconds=4.0, min_seconds=0.2)
  found = {kind: kinds(result).count(kind) for kind in kinds(result)}
  assert found == {
    "renamed video": 2,
    "coded twice": 1,
    "overlapping codings": 1,
    "short coding": 5,
    "beyond the video": 2,
    "long coding": 1,
  }
  spans = {
    (r["video"][5], r["action"], r["person"], int(r["first"]), int(r["stop"])) for r in record
  }
  assert spans == {
    ("0", "nod", "Ann", 25, 50),
    ("0", "nod", "Ann", 200, 225),
    ("0", "wave", "Ann", 30, 45),
    ("0", "wave", "Bob", 30, 45),
    ("0", "wave", "Ann", 99, 104),
    ("0", "wave", "Ann", 237, 250),
    ("1", "sit", "Ann", 25, 125),
    ("1", "sit", "Ann", 125, 225),
    ("2", "blink", "Ann", 70, 80),
  }


def test_overlapping_codings_are_dropped_on_request(study, tmp_path):
  rows = [
    *NODS,
    ("talk 0 é.mp4", 1.2, 2.2, "wave", "arm", "Ann"),
    ("talk 0 é.mp4", 5, 6, "wave", "arm", "Ann"),
    ("talk 0 é.mp4", 6, 7, "wave", "arm", "Ann"),
  ]
  result, record = coded(study, tmp_path, rows, overlaps="drop")
  assert sorted(row["onset"] for row in record) == ["5.000", "6.000", "8.000"]
  assert all("left out" in f.detail for f in result.findings if f.kind == "overlapping codings")


@pytest.mark.parametrize(
  ("row", "kind", "detail"),
  [
    (("gone.mp4", 1, 2, "nod", "head", "Ann"), "no video", "no video is named 'gone.mp4'"),
    (("talk 0 é.mp4", 1, 1, "blink", "head", "Ann"), "unreadable", "--point_seconds=1"),
    (("talk 1 é.mp4", 20, 21, "nod", "head", "Ann"), "wrong video", "is it the right video"),
    (("talk 0 é.mp4", 2, 1, "nod", "head", "Ann"), "unreadable", "row 4: event 'nod'"),
  ],
)
def test_errors_are_findings_and_nothing_is_written(study, tmp_path, row, kind, detail):
  result, _ = coded(study, tmp_path, [*NODS, row])
  assert [finding.kind for finding in result.errors] == [kind]
  assert detail in result.errors[0].detail
  assert [path.name for path in tmp_path.iterdir()] == ["codings.csv"]


def test_a_video_that_could_be_two_is_an_error(study, tmp_path):
  shutil.copytree(study / "videos", tmp_path / "videos")
  shutil.copytree(study / "videos", tmp_path / "videos" / "copy")
  (tmp_path / "codings.csv").write_text("video,start,end,label\ntalk 0 é.mp4,1,2,nod\n")
  result = import_annotations(
    [tmp_path / "codings.csv"], tmp_path / "videos", tmp_path / "source", poses=None, jobs=1
  )
  (error,) = result.errors
  assert error.kind == "several videos" and "copy/talk 0" in error.detail
  (tmp_path / "codings.csv").write_text(
    "video,start,end,label\nD:\\x\\copy\\talk 0 é.mp4,1,2,nod\nD:\\x\\copy\\talk 0 é.mp4,3,4,nod\n"
  )
  result = import_annotations(
    [tmp_path / "codings.csv"], tmp_path / "videos", tmp_path / "source", poses=None, jobs=1
  )
  assert not result.findings


TREE = LabelTree(("Nodding", "Waving", "Pointing"), ("head", "arm"), (0, 1, 1))


def test_labels_are_mapped_to_a_tree(study, tmp_path):
  TREE.write_csv(tmp_path / "tree.csv")
  (tmp_path / "mapping.csv").write_text(
    "\ufeffTier;label;body;action\nHEAD;nod;;Nodding\nnotes;;;-\n;wink;;Waving\n", encoding="utf-8"
  )
  rows = [
    *NODS,
    ("talk 0 é.mp4", 4, 5, "waving ", "hand", "Ann"),
    ("talk 0 é.mp4", 6, 7, "point", "hand", "Ann"),
    ("talk 0 é.mp4", 6, 7, "phone\nrings", "notes", ""),
  ]
  options = {"tree": tmp_path / "tree.csv", "mapping": tmp_path / "mapping.csv"}
  result, _ = coded(study, tmp_path, rows, **options)
  assert kinds(result) == ["unused row of the mapping", "label not in the tree"]
  assert "close to 'Pointing'" in result.errors[0].detail
  text = (tmp_path / "mapping.csv").read_text() + "hand;point;;Pointing\n"
  (tmp_path / "mapping.csv").write_text(text)
  result, record = coded(study, tmp_path, rows, background=True, **options)
  assert not result.errors
  assert {row["action"] for row in record} == {"Nodding", "Waving", "Pointing", "background"}
  tree = source_layout.read_tree(tmp_path / "source")
  assert tree.actions == (*TREE.actions, "background") and tree.bodies == (
    "head",
    "arm",
    "background",
  )
  assert any(
    line.split() == ["notes", "/", "phone", "rings", "left", "out", "1"] for line in result.notes
  )


def test_without_a_tree_names_are_made_unique(study, tmp_path):
  rows = [
    *NODS,
    ("talk 0 é.mp4", 4, 5, "touch", "left", "A"),
    ("talk 0 é.mp4", 6, 7, "touch", "right", "A"),
  ]
  rows += [("talk 0 é.mp4", 2, 3, "7", "code", "A"), ("talk 0 é.mp4", 3, 4, "still", "", "A")]
  _, record = coded(study, tmp_path, rows)
  assert {(row["body"], row["action"]) for row in record} == {
    ("head", "nod"),
    ("left", "touch (left)"),
    ("right", "touch (right)"),
    ("code", "code 7"),
    ("all", "still"),
  }


def test_a_boris_project_of_several_videos(study, tmp_path):
  project = {
    "project_format_version": "7.0",
    "behaviors_conf": {"0": {"code": "nod", "type": "State event", "category": "head"}},
    "observations": {
      "first": {
        "type": "MEDIA",
        "file": {"1": ["C:\\study\\talk 0 é.mp4", "C:\\study\\talk 1 é.mp4"], "2": []},
        "time offset": 100.0,
        "media_info": {"length": {"C:\\study\\talk 0 é.mp4": 10.0}},
        "events": [[t, "Ann", "nod", "", "", 0] for t in (101, 102, 111, 112)],
      }
    },
  }
  (tmp_path / "study.boris").write_text(json.dumps(project), encoding="utf-8")
  result = import_annotations([tmp_path], study / "videos", tmp_path / "source", poses=None, jobs=1)
  record = read_record(tmp_path / "source")
  assert [(r["video"], r["onset"], r["offset"]) for r in record] == [
    ("talk 0 é.mp4", "1.000", "2.000"),
    ("talk 1 é.mp4", "1.000", "2.000"),
  ]
  assert "by session" in "".join(result.notes)


def test_the_command_prints_what_it_understood(study, tmp_path, capsys):
  arguments = [str(study / "sessions"), "--videos", str(study / "videos"), "--jobs", "1"]
  arguments += ["--out", str(tmp_path / "source")]
  with pytest.raises(SystemExit, match="2"):
    main(arguments)
  assert "uv run data/extract_pose.py" in capsys.readouterr().err
  with pytest.raises(SystemExit, match="no file of codings at"):
    main(["nowhere", *arguments[1:], "--no_poses"])
  main([*arguments, "--no_poses", "--split_by=session", "--show=1"])
  printed = capsys.readouterr().out
  assert "head / nod    head / nod          3" in printed
  assert "3 warnings\n  short coding (3)\n    talk 0 é, 'shake' from 3.040 s to 3.320 s" in printed
  assert f"next: pcan check {tmp_path / 'source'} --html" in printed
  with pytest.raises(SystemExit, match="error: .*source exists"):
    main([*arguments, "--no_poses"])


def test_tiers_of_people_and_tables_that_are_no_mapping(study, tmp_path):
  path = tmp_path / "mapping.csv"
  path.write_text("tier,label,body,action,person\nAnn_head,,head,,Ann\nBob_head,,head,,Bob\n")
  rows = [
    (f"talk {i} é.mp4", t, t + 1, "nod", f"{name}_head")
    for i, name in enumerate(["Ann", "Bob"])
    for t in (1, 3)
  ]
  result, record = coded(study, tmp_path, rows, mapping=path, split_by=None)
  assert {(row["person"], row["body"]) for row in record} == {("Ann", "head"), ("Bob", "head")}
  assert any(note.startswith("split drawn with seed 0 by person") for note in result.notes)
  shutil.rmtree(tmp_path / "source")
  for text, message in (
    ("tier,label\na,b\n", "the first line must be"),
    ("tier,label,body,action\n", "rows below it"),
    ("tier,label,body,action\na,b,c,d,e\n", "row 2: 5 cells"),
  ):
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
      coded(study, tmp_path, rows, mapping=path)


def test_missing_poses_are_found_before_anything_is_cut(study, tmp_path):
  entries = pickle.loads((study / "poses.pkl").read_bytes())[1:]
  (tmp_path / "poses.pkl").write_bytes(pickle.dumps(entries))
  result = run(study, tmp_path / "source", poses=tmp_path / "poses.pkl")
  (error,) = result.errors
  assert (error.kind, error.clip) == ("no pose", "talk 0 é")
  with pytest.raises(ValueError, match="--max_seconds must be a length"):
    run(study, tmp_path / "source", max_seconds=0.0)
  with pytest.raises(ValueError, match="--min_seconds=3.0 is more than --max_seconds=2.0"):
    run(study, tmp_path / "source", min_seconds=3.0, max_seconds=2.0)

"""From codings of long recordings to a source directory of clips."""

import json
import pickle
import shutil

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
from pcan_jax.labels import LabelTree
from tests.coded_study import (
  FPS,
  LAYOUT,
  NODS,
  clips_of,
  coded,
  number_of,
  read_record,
  run,
  write_study,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  return write_study(tmp_path_factory.mktemp("study"))


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


def kinds(result):
  return [finding.kind for finding in result.findings]


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
    ("0", "wave", "Ann", 238, 250),
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
  assert "pcan extract_pose" in capsys.readouterr().err
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

"""A study to import: recordings of three people, their poses, and what was coded in them."""

import csv
import pickle

import cv2
import numpy as np

from data.import_annotations import import_annotations
from pcan_jax.clips import source_layout
from pcan_jax.keypoints import LAYOUTS
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


def write_study(folder):
  """Recordings of three people of ten seconds each, their poses, and their ELAN documents."""
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


def coded(study, tmp_path, rows, **options):
  """Imports a table of codings; returns the result and the record."""
  table = tmp_path / "codings.csv"
  with table.open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([("video", "start", "end", "label", "tier", "subject"), *rows])
  options = {"poses": None, "jobs": 1, "split_by": "clip"} | options
  result = import_annotations([table], study / "videos", tmp_path / "source", **options)
  return result, [] if result.errors else read_record(tmp_path / "source")


NOD = ("talk 0 é.mp4", 1, 2, "nod", "head", "Ann")
NODS = [NOD, ("talk 0 é.mp4", 8, 9, "nod", "head", "Ann")]

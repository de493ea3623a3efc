"""Throws damaged files at everything that reads files from outside.

python -m tests.hostile_inputs --full

Each mutation must end in an error that names the file, or in a record. How often which of them
happened is printed; anything else, a crash, a hang or a wrong label, stops the run.
"""

import argparse
import collections
import dataclasses
import faulthandler
import json
import os
import pathlib
import pickle
import random
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np

from data.clip_table import label_rows, read_rows
from pcan_jax.clips.encode_clip import encode_clip
from pcan_jax.clips.pose_files import open_poses
from pcan_jax.clips.source_layout import ClipSource, scan_split
from pcan_jax.clips.stored_frames import Encoding
from pcan_jax.console import quiet_libraries
from pcan_jax.keypoints import LAYOUTS, KeypointLayout
from tests.pose_writers import (
  NUM_FRAMES,
  SIZE,
  coco,
  mmpose,
  points,
  write_npz,
  write_openpose,
  write_pickle,
)
from tests.tiny_source import HEIGHT, TREE, WIDTH, make_clip, write_tiny_source, write_video

LAYOUT = LAYOUTS["openpose-28"]
# The first is of this process: on a busy machine the clock goes on while others have the cores.
CPU_SECONDS_PER_FILE = 20
SECONDS_PER_FILE = 300


@dataclasses.dataclass(frozen=True)
class Target:
  """A file to damage, and what reads it.

  Attributes:
    path: of the file.
    content: what it held.
    read: reads it and returns how that ended; raises `ValueError` with the name of a file.
  """

  path: pathlib.Path
  content: bytes
  read: Callable[[], str]


def mutate(content: bytes, rng: random.Random) -> tuple[str, bytes]:
  """What was done to the content, and the result."""
  mutated = bytearray(content)
  kind = rng.choice(("cut", "flip", "flips", "header", "zeros", "shuffle"))
  if kind == "cut":
    del mutated[rng.randrange(len(mutated)) :]
  elif kind == "flip":
    mutated[rng.randrange(len(mutated))] ^= 1 << rng.randrange(8)
  elif kind == "flips":
    for _ in range(20):
      mutated[rng.randrange(len(mutated))] = rng.randrange(256)
  elif kind == "header":
    mutated[rng.randrange(min(300, len(mutated)))] = rng.randrange(256)
  elif kind == "zeros":
    start = rng.randrange(len(mutated))
    mutated[start : start + 100] = bytes(len(mutated[start : start + 100]))
  else:
    start, other = rng.randrange(len(mutated)), rng.randrange(len(mutated))
    mutated[start : start + 40] = mutated[other : other + 40]
  return kind, bytes(mutated)


def pickles(folder: pathlib.Path) -> Iterator[Target]:
  """Pose pickles of several protocols, read with the rest of their source directory."""
  source = write_tiny_source(folder / "source", {"train": 4})
  path = source / "pose" / "Tiny_train.pkl"
  poses = pickle.loads(path.read_bytes())
  labels = {f"train_{index:03}": index for index in range(4)}

  def read() -> str:
    clips, problems = scan_split(source, "train", TREE, LAYOUT)
    for clip in clips:
      assert clip.action == labels[clip.id], "a wrong label"
      assert clip.keypoints.shape[2:] == (28, 2) and np.isfinite(clip.keypoints).all()
    return "some clips refused" if problems else "record"

  for protocol in (2, 4, 5):
    content = pickle.dumps([pose | {"label": int(pose["label"])} for pose in poses], protocol)
    yield Target(path, content, read)


def videos(folder: pathlib.Path) -> Iterator[Target]:
  """Videos in several containers, read with their poses."""
  frames, keypoints = make_clip(np.random.default_rng(0), 1)
  for suffix in (".mp4", ".mkv", ".avi", ".ts", ".flv"):
    path = folder / f"clip{suffix}"
    write_video(path, frames)
    scores = np.ones(keypoints.shape[:3], np.float32)
    clip = ClipSource("clip", "train", path, 1, keypoints, scores, (HEIGHT, WIDTH))

    def read(clip: ClipSource = clip) -> str:
      record = encode_clip(clip, Encoding(32))
      assert record["action"] == 1, "a wrong label"
      assert len(record["frames"]) == record["keypoints"].shape[1] == record["num_frames"]
      assert abs(record["num_frames"] - len(frames)) <= 1, "frames lost in silence"
      return "record"

    yield Target(path, path.read_bytes(), read)


def shards(folder: pathlib.Path) -> Iterator[Target]:
  """A shard, and JPEG images within an otherwise intact shard."""
  import tensorflow as tf

  from data.build import build
  from data.check_shards import check_dataset

  source = write_tiny_source(folder / "shards" / "source", {"train": 2})
  dataset = build(source, folder / "shards" / "out", side=32, jobs=1)
  (path,) = dataset.glob("*.tfrecord-*")
  content = path.read_bytes()

  def read() -> str:
    report, _, _ = check_dataset(dataset, 0)
    if report.errors:
      raise ValueError(f"{report.errors[0].clip}: {report.errors[0].detail}")
    assert [clip.action for clip in report.clips["train"]] == labels, "a wrong label"
    return "record"

  examples = [tf.train.Example.FromString(e.numpy()) for e in tf.data.TFRecordDataset(str(path))]
  labels = [example.features.feature["action"].int64_list.value[0] for example in examples]

  def read_jpeg() -> str:
    jpeg = path.read_bytes()
    examples[0].features.feature["frames"].bytes_list.value[0] = jpeg
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
      for example in examples:
        writer.write(example.SerializeToString())
    return read()

  yield Target(path, content, read)
  yield Target(path, examples[0].features.feature["frames"].bytes_list.value[0], read_jpeg)


def pose_files(folder: pathlib.Path) -> Iterator[Target]:
  """Poses as they are accepted besides the pickles of source directories."""
  body, hands, joints = points(25), points(42, 1), points(17)
  folder = folder / "poses"
  write_openpose(folder / "openpose" / "clip", "clip", body, hands)
  (folder / "coco.json").write_text(json.dumps(coco("clip", joints, LAYOUTS["coco-17"].joints)))
  results = [
    annotation | {"image_id": "clip/0.jpg"} for annotation in coco("clip", joints)["annotations"]
  ]
  (folder / "results.json").write_text(json.dumps(results[:20]))
  (folder / "clip.json").write_text(json.dumps(mmpose(joints)))
  write_npz(folder / "poses.npz", "clip", points(28))
  write_pickle(folder / "poses.pkl", "clip", points(28))
  for path, opened, layout in (
    (
      folder / "openpose" / "clip" / "clip_000000000003_keypoints.json",
      folder / "openpose",
      LAYOUT,
    ),
    (folder / "coco.json", folder / "coco.json", LAYOUTS["coco-17"]),
    (folder / "results.json", folder / "results.json", LAYOUTS["coco-17"]),
    (folder / "clip.json", folder / "clip.json", LAYOUTS["coco-17"]),
    (folder / "poses.npz", folder / "poses.npz", LAYOUT),
    (folder / "poses.pkl", folder / "poses.pkl", LAYOUT),
  ):

    def read(opened: pathlib.Path = opened, layout: KeypointLayout = layout) -> str:
      keypoints, scores = open_poses(opened, layout).read("clip", NUM_FRAMES, SIZE)
      assert keypoints.shape[1:] == (NUM_FRAMES, layout.num_keypoints, 2)
      assert scores.shape == keypoints.shape[:3]
      assert np.isfinite(keypoints).all() and np.isfinite(scores).all()
      return "record"

    yield Target(path, path.read_bytes(), read)


def tables(folder: pathlib.Path) -> Iterator[Target]:
  """The table of own clips."""
  path = folder / "clips.csv"
  names = [f"video {index} é.mp4" for index in range(20)]
  lines = [f'"{name}",{TREE.actions[i % 6]},train,"p{i}"\n' for i, name in enumerate(names)]

  def read() -> str:
    rows, _ = read_rows(path)
    _, actions = label_rows(rows, TREE)
    for row, action in zip(rows, actions, strict=True):
      assert ".." not in row.video.split("/") and not row.video.startswith("/")
      assert action == -1 or row.label in (TREE.actions[action], str(action)), "a wrong label"
    return "record"

  yield Target(path, "".join(["video,label,split,person\n", *lines]).encode(), read)


KINDS = {
  "pickle": pickles,
  "video": videos,
  "pose file": pose_files,
  "table": tables,
  "shard and JPEG": shards,
}
SHARES = {"pickle": 0.4, "video": 0.35, "pose file": 0.15, "table": 0.05, "shard and JPEG": 0.05}
FULL = 20_000


def attack(
  kind: str, mutations: int, seed: int, folder: pathlib.Path
) -> "collections.Counter[str]":
  """Reads damaged files of one kind and counts how it ended."""
  rng = random.Random(f"{seed} {kind}")
  targets = list(KINDS[kind](folder))
  outcomes: collections.Counter[str] = collections.Counter()
  for number in range(mutations):
    target = targets[number % len(targets)]
    damage, content = mutate(target.content, rng)
    target.path.write_bytes(content)
    where = f"{kind}, mutation {number} ({damage}) of {target.path.name}, seed {seed}"
    start = time.process_time()
    # What waits for ever takes no time of the processor, and does not come back to be asked.
    faulthandler.dump_traceback_later(SECONDS_PER_FILE, exit=True)
    try:
      outcome = target.read()
    except (ValueError, FileNotFoundError) as error:
      assert str(error).strip(), f"{where}: an error without words"
      outcome = "error"
    except Exception as error:
      raise AssertionError(f"{where}: {error!r}") from error
    finally:
      faulthandler.cancel_dump_traceback_later()
    cpu_seconds = time.process_time() - start
    assert cpu_seconds < CPU_SECONDS_PER_FILE, f"{where}: it took {cpu_seconds:.0f} s of CPU time"
    outcomes[outcome] += 1
    target.path.write_bytes(target.content)
  return outcomes


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--full", action="store_true", help=f"{FULL:,} mutations instead of 2,000")
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args()
  quiet_libraries()
  with tempfile.TemporaryDirectory() as folder:
    for kind, share in SHARES.items():
      mutations = round(share * (FULL if arguments.full else FULL // 10))
      start = time.monotonic()
      outcomes = attack(kind, mutations, arguments.seed, pathlib.Path(folder))
      seconds = time.monotonic() - start
      print(f"{kind}: {mutations} in {seconds:.0f} s: {dict(outcomes)}", flush=True)


if __name__ == "__main__":
  main()

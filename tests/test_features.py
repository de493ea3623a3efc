"""Features of another network: stored with clips, sampled, and learned from."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from configs import features
from data.import_features import main
from pcan_jax.checkpoints import locate
from pcan_jax.clips import sampling as frames_of_clips
from pcan_jax.clips.sampling import FrameSampling
from pcan_jax.evaluation.protocol import evaluate_checkpoint
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.feed.pipeline import evaluation_batches, training_batches
from pcan_jax.feed.stored_features import add_features
from pcan_jax.network.pcan import rgb_path
from pcan_jax.prediction.files import predict_files
from pcan_jax.prediction.recognizer import Recognizer
from pcan_jax.saved_steps import SavedStep
from pcan_jax.training import loop
from tests.tiny_checkpoint import write_tiny_checkpoint
from tests.tiny_config import shrink

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "VIDEOMAE.md"
SIZE = 6
CLIPS = FrameSampling(rgb_frames=0, pose_frames=8, num_clips=2, max_persons=1, features=4)


@pytest.fixture(scope="module")
def vectors(tiny_dataset):
  """Of each clip another number of them; the first says what action it is, the last where it is."""
  rng, found = np.random.default_rng(0), {}
  for split in ("train", "val", "test"):
    for name, action in zip(tiny_dataset.clip_ids(split), tiny_dataset.actions(split)):
      count = int(rng.integers(1, 12))
      found[name] = rng.standard_normal((count, SIZE), np.float32)
      found[name][:, 0] = 10 * action
      found[name][:, -1] = np.arange(count)
  return found


@pytest.fixture(scope="module")
def stored(tiny_dataset, vectors, tmp_path_factory):
  folder = tmp_path_factory.mktemp("features")
  np.savez(folder / "features.npz", **vectors, other=np.zeros(SIZE))
  arguments = ["--data", str(tiny_dataset.path), "--out", str(folder / "dataset")]
  main([str(folder / "features.npz"), *arguments])
  return open_dataset(folder / "dataset")


def toy_config(path):
  config = shrink(features.get_config("ma52"))
  config.data.path = str(path)
  config.input.rgb_frames = 4
  config.model.rgb.size = SIZE
  return config


def test_records_have_a_field_more(stored, tiny_dataset, vectors):
  assert stored.feature_size == SIZE
  assert stored.fingerprint != tiny_dataset.fingerprint
  for split in ("train", "val"):
    assert stored.clip_ids(split) == tiny_dataset.clip_ids(split)
    names = stored.clip_ids(split)
    assert stored.max_features(split) == max(len(vectors[name]) for name in names)


def test_test_clips_are_those_of_as_many_frames(stored, vectors, tiny_dataset):
  with_features, plain = (
    next(evaluation_batches(dataset, "val", sampling, batch_size=7))
    for dataset, sampling in (
      (stored, CLIPS),
      (tiny_dataset, FrameSampling(0, 8, num_clips=2, max_persons=1)),
    )
  )
  for name, found, keypoints, wanted in zip(
    stored.clip_ids("val"),
    with_features["features"],
    with_features["keypoints"],
    plain["keypoints"],
  ):
    clips = frames_of_clips.test_clips(len(vectors[name]), 4, 2)
    np.testing.assert_array_equal(found, vectors[name][clips])
    np.testing.assert_array_equal(keypoints, wanted)


def test_training_clips_are_in_the_order_of_time(stored, vectors):
  sampling = FrameSampling(0, 0, num_clips=None, max_persons=1, features=4)
  batch = next(training_batches(stored, "train", sampling, batch_size=16, seed=0))
  assert batch["features"].shape == (16, 4, SIZE)
  longest = max(len(x) for x in vectors.values())
  for clip in batch["features"][..., -1]:
    assert ((np.diff(clip) % longest) > 0).all() or len(set(clip)) < 4


def test_a_run_learns_from_them(stored, tmp_path):
  config = toy_config(stored.path)
  config.optimizer.epochs = 1.0
  loop.train(config, tmp_path / "run")
  results = evaluate_checkpoint(tmp_path / "run", tmp_path / "run", num_clips=1)
  assert len(results.ids) == 7
  spec = SavedStep(*locate(tmp_path / "run")).spec
  assert spec.reads_features
  with pytest.raises(ValueError, match="stored features of another network, not videos"):
    Recognizer(spec, {}, 0)


@pytest.mark.slow
def test_the_example_of_the_page(tiny_dataset, tmp_path, monkeypatch):
  source = tiny_dataset.path.parents[3] / "source"
  checkpoint = write_tiny_checkpoint(tmp_path / "run", tiny_dataset, "pcan_rgb")
  for split in tiny_dataset.splits:
    predict_files(
      checkpoint,
      source / "raw_videos" / split,
      output=tmp_path / "found" / split,
      pose=source / "pose" / f"Tiny_{split}.pkl",
      window=0.3,
      num_clips=1,
      features=True,
    )
  (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
  monkeypatch.chdir(tmp_path)
  exec(code, {})
  main(["features.npz", "--data", str(tiny_dataset.path), "--out", "dataset"])
  stored = open_dataset(tmp_path / "dataset")
  assert stored.feature_size == 16
  with np.load("features.npz") as arrays, np.load("found/val/features.npz") as found:
    windows = np.char.startswith(found["ids"], stored.clip_ids("val")[0])
    assert windows.sum() > 1
    wanted = found["rgb/action/embedding"][windows]
    np.testing.assert_array_equal(arrays[stored.clip_ids("val")[0]], wanted)


def test_what_does_not_fit_is_named(stored, tiny_dataset, vectors, tmp_path):
  first, second = stored.clip_ids("train")[:2]
  for bad, message in (
    ({}, "no features of the clips .* and 21 more .*7 of 7 in 'val'"),
    ({name: vectors[name] for name in stored.clip_ids("train")}, "0 of 16 in 'train'.*every split"),
    (vectors | {first: np.zeros((2, 3, 4))}, rf"features of '{first}' should be numbers \[T, D\]"),
    (vectors | {first: np.array(["a"])}, "should be numbers"),
    (vectors | {first: np.full(SIZE, np.nan)}, "not finite"),
    (vectors | {second: np.zeros(5)}, f"differ in their numbers per vector: .*5 of '{second}'"),
  ):
    with pytest.raises(ValueError, match=message):
      add_features(tiny_dataset, bad, tmp_path / "out")
  with pytest.raises(FileExistsError, match="delete it or choose another directory"):
    add_features(tiny_dataset, vectors, stored.path.parents[2])
  with pytest.raises(ValueError, match="has no stored features, which model.rgb.kind='features'"):
    next(evaluation_batches(tiny_dataset, "val", CLIPS, batch_size=7))
  config = toy_config(stored.path)
  config.model.rgb.size = 5
  with pytest.raises(ValueError, match=r"have 6 numbers; set model\.rgb\.size to that"):
    rgb_path(config.model.rgb).parts(jnp.zeros((1, 4, 6)))


def test_the_command_names_the_file(tmp_path, tiny_dataset, capsys):
  (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04nothing")
  for file in ("bad.npz", "none.npz"):
    with pytest.raises(SystemExit, match=f"error: .*{file}"):
      main([str(tmp_path / file), "--data", str(tiny_dataset.path), "--out", str(tmp_path / "o")])

import json
import shutil

import pytest

from pcan_jax.clips.sampling import FrameSampling
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.feed.epochs import ClassSampling
from pcan_jax.feed.pipeline import training_batches


def copy_with(path, copy, change):
  """A copy of a data set with other metadata."""
  shutil.copytree(path, copy)
  (path,) = copy.rglob("metadata.json")
  metadata = json.loads(path.read_text())
  change(metadata)
  path.write_text(json.dumps(metadata))
  return copy


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_metadata_holds_the_actions_and_sizes_of_the_records(tiny_dataset, split):
  records = list(tiny_dataset.builder.as_dataset(split=split).as_numpy_iterator())
  assert tiny_dataset.actions(split).tolist() == [int(record["action"]) for record in records]
  assert tiny_dataset.num_clips(split) == len(records)
  assert tiny_dataset.max_frames(split) == max(int(record["num_frames"]) for record in records)
  assert tiny_dataset.clip_ids(split) == [record["id"].decode() for record in records]
  assert tiny_dataset.num_skipped(split) == 0


def test_without_actions_in_the_metadata_sampling_can_only_be_uniform(tiny_dataset_path, tmp_path):
  def as_earlier_versions(metadata):
    for counts in metadata["splits"].values():
      del counts["actions"]

  dataset = open_dataset(copy_with(tiny_dataset_path, tmp_path / "earlier", as_earlier_versions))
  order = dataset.epoch_order("train", ClassSampling("uniform"))
  wanted = FrameSampling(rgb_frames=0, pose_frames=2, num_clips=None, max_persons=1)
  size = dataset.num_clips("train")
  batch = next(training_batches(dataset, "train", wanted, batch_size=size, seed=0, order=order))
  assert (batch["action"] >= 0).all()
  for name in ("class_balanced", "repeat"):
    with pytest.raises(ValueError, match="earlier version.*build the data set again"):
      dataset.epoch_order("train", ClassSampling(name))


def test_actions_that_do_not_fit_the_records_are_refused(tiny_dataset_path, tmp_path):
  def drop_one(metadata):
    metadata["splits"]["val"]["actions"].pop()

  dataset = open_dataset(copy_with(tiny_dataset_path, tmp_path / "copy", drop_one))
  with pytest.raises(ValueError, match="6 labels for the 7 clips of 'val'"):
    dataset.actions("val")


def test_an_unlabelled_split_cannot_be_balanced(tiny_dataset):
  assert tiny_dataset.epoch_order("test", ClassSampling()).num_clips == 3
  with pytest.raises(ValueError, match="3 of 3 clips have no label"):
    tiny_dataset.epoch_order("test", ClassSampling("class_balanced"))


def test_several_data_sets_are_named(tiny_dataset_path, tmp_path):
  for name in ("a", "b"):
    shutil.copytree(tiny_dataset_path, tmp_path / name)
  with pytest.raises(ValueError, match=r"several data sets; choose one of: .*a, .*b"):
    open_dataset(tmp_path)


def test_missing_data_says_how_to_get_it(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no data set at .*ask for access"):
    open_dataset(tmp_path, "First ask for access.")


def test_unknown_split_is_named(tiny_dataset):
  with pytest.raises(ValueError, match="no split 'holdout'; it has"):
    tiny_dataset.num_clips("holdout")


def test_another_schema_is_named(tiny_dataset_path, tmp_path):
  copy = copy_with(tiny_dataset_path, tmp_path / "old", lambda m: m.update(schema_version=0))
  with pytest.raises(ValueError, match="schema version 0"):
    open_dataset(copy)

import json
import re
import shutil

import numpy as np
import pytest

from pcan_jax.clips.sampling import FrameSampling
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.feed.epochs import SAMPLINGS, ClassSampling
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


def as_earlier_versions(metadata):
  del metadata["fingerprint"]
  for counts in metadata["splits"].values():
    del counts["actions"], counts["ids"]


def test_what_earlier_versions_did_not_store_is_read_from_the_records(
  tiny_dataset, tiny_dataset_path, tmp_path
):
  dataset = open_dataset(copy_with(tiny_dataset_path, tmp_path / "earlier", as_earlier_versions))
  for split in dataset.splits:
    np.testing.assert_array_equal(dataset.actions(split), tiny_dataset.actions(split))
    assert dataset.clip_ids(split) == tiny_dataset.clip_ids(split)
  order = dataset.epoch_order("train", ClassSampling("class_balanced"))
  assert order.num_clips == dataset.num_clips("train")


def test_data_sets_of_earlier_versions_have_a_fingerprint_too(
  tiny_dataset, tiny_dataset_path, tmp_path
):
  def with_one_more_pixel(metadata):
    as_earlier_versions(metadata)
    metadata["side"] += 1

  found = [
    open_dataset(copy_with(tiny_dataset_path, tmp_path / name, change)).fingerprint
    for name, change in (
      ("a", as_earlier_versions),
      ("b", as_earlier_versions),
      ("c", with_one_more_pixel),
    )
  ]
  assert found[0] == found[1]
  assert len({*found, tiny_dataset.fingerprint}) == 3
  assert all(re.fullmatch("[0-9a-f]{32}", fingerprint) for fingerprint in found)


@pytest.mark.parametrize(
  ("split", "change", "message"),
  [
    ("val", lambda actions: actions.pop(), "6 labels for the 7 clips of 'val'"),
    ("train", lambda actions: actions.insert(0, actions.pop() + 99), "'train' have the label 1.."),
    ("val", lambda actions: actions.insert(0, actions.pop() - 9), "'val' have the label -.*0..5"),
    ("train", lambda actions: actions.__setitem__(3, -1), "1 of the 16 clips of 'train' have no"),
  ],
)
def test_wrong_labels_are_refused_at_opening(tiny_dataset_path, tmp_path, split, change, message):
  def with_wrong_labels(metadata):
    change(metadata["splits"][split]["actions"])

  copy = copy_with(tiny_dataset_path, tmp_path / "copy", with_wrong_labels)
  with pytest.raises(ValueError, match=message):
    open_dataset(copy)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_nothing_is_learned_from_an_unlabelled_split(tiny_dataset, sampling):
  with pytest.raises(ValueError, match="the 3 clips of 'test' have no label.*data.train_split"):
    tiny_dataset.epoch_order("test", ClassSampling(sampling))


def test_a_record_that_contradicts_the_metadata_is_refused(tiny_dataset):
  """Also in the order of an unlabelled split, which no config can choose."""
  wanted = FrameSampling(rgb_frames=0, pose_frames=2, num_clips=None, max_persons=1)
  with pytest.raises(ValueError, match="has the label -1, but the label tree has 0..5"):
    next(training_batches(tiny_dataset, "test", wanted, batch_size=2, seed=0))


def test_several_data_sets_are_named(tiny_dataset_path, tmp_path):
  for name in ("a", "b"):
    shutil.copytree(tiny_dataset_path, tmp_path / name)
  with pytest.raises(ValueError, match=r"several data sets; choose one of: .*a, .*b"):
    open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
def test_a_damaged_description_is_named(tiny_dataset_path, tmp_path, name):
  copy = shutil.copytree(tiny_dataset_path, tmp_path / "copy")
  (found,) = copy.rglob(name)
  for content in (b"", found.read_bytes()[:40]):
    found.write_bytes(content)
    with pytest.raises(ValueError, match=rf"copy.*{name}.* is missing or damaged .*build"):
      open_dataset(copy)


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

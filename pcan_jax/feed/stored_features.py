"""Adds features of another network to a data set: the same records, each with one more field."""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from pcan_jax.feed import records, sources
from pcan_jax.feed.dataset import Dataset
from pcan_jax.feed.offsets import record_offsets

_SHOWN = 5


def add_features(dataset: Dataset, features: Mapping[str, np.ndarray], out: pathlib.Path) -> int:
  """Writes a data set with the clips of another one and a field `features`.

  Args:
    dataset: which has the clips.
    features: by the clip's id, float [T, D] or [D]; T may differ from clip to clip.
    out: folder of data sets; the new one is as deep in it as the old one in its own.

  Returns:
    D.

  Raises:
    FileExistsError: there is a data set already.
    ValueError: clips lack features, or these do not fit each other.
  """
  folder = out.joinpath(*dataset.path.parts[-3:])
  if folder.exists():
    raise FileExistsError(f"{folder} exists; delete it or choose another directory")
  ids = {split: dataset.clip_ids(split) for split in dataset.splits}
  _require_all(features, ids)
  arrays, size = _checked(features, [name for of_split in ids.values() for name in of_split])
  field = tfds.features.FeaturesDict({records.FEATURES: records.features_field(size)})
  serializer = tfds.core.example_serializer.ExampleSerializer(field.get_serialized_info())
  partial = folder.with_name(f"{folder.name}.partial")
  if partial.exists():
    shutil.rmtree(partial)
  partial.mkdir(parents=True)
  info = dataset.builder.info
  metadata = json.loads(json.dumps(dict(info.metadata)))
  digest = hashlib.sha256()
  for split, names in ids.items():
    remaining = iter(names)
    for path in map(pathlib.Path, info.splits[split].filepaths):
      with tf.io.TFRecordWriter(os.fspath(partial / path.name)) as writer:
        for record in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
          array = arrays[next(remaining)]
          digest.update(array.tobytes())
          example = tf.train.Example.FromString(record)
          added = serializer.serialize_example(field.encode_example({records.FEATURES: array}))
          example.MergeFromString(added)
          writer.write(example.SerializeToString(deterministic=True))  # ty: ignore
    paths = [partial / pathlib.Path(path).name for path in info.splits[split].filepaths]
    metadata["splits"][split] |= {
      "max_features": max(len(arrays[name]) for name in names),
      "offsets": [offset for path in paths for offset in record_offsets(path)],
    }
  made_of = [dataset.fingerprint, size, digest.hexdigest()]
  metadata |= {
    "feature_size": size,
    "fingerprint": sources.digest(json.dumps(made_of).encode()),
  }
  for name in ("dataset_info.json", "LICENSE"):
    if (dataset.path / name).is_file():
      shutil.copyfile(dataset.path / name, partial / name)
  (partial / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
  every_field = records.features(
    dataset.layout.num_keypoints, videos=dataset.videos, feature_size=size
  )
  every_field.save_config(os.fspath(partial))
  partial.replace(folder)
  return size


def _require_all(features: Mapping[str, np.ndarray], ids: Mapping[str, list[str]]) -> None:
  """Raises an error that says which clips of which splits lack features."""
  missing = {split: [name for name in ids[split] if name not in features] for split in ids}
  names = [name for of_split in missing.values() for name in of_split]
  if names:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    counts = [f"{len(missing[split])} of {len(ids[split])} in {split!r}" for split in ids]
    raise ValueError(
      f"no features of the clips {', '.join(names[:_SHOWN])}{more} ({', '.join(counts)}); every "
      "clip of every split needs an array with its id as the name"
    )


def _checked(
  features: Mapping[str, np.ndarray], ids: list[str]
) -> tuple[dict[str, np.ndarray], int]:
  """The features of the clips as float32 [T, D], and D."""
  arrays = {}
  for name in ids:
    array = np.asarray(features[name])
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
      raise ValueError(
        f"the features of {name!r} should be numbers [T, D], not {array.dtype} {array.shape}"
      )
    arrays[name] = array.astype("<f4")
    if not np.isfinite(arrays[name]).all():
      raise ValueError(f"the features of {name!r} hold numbers that are not finite")
  sizes = {array.shape[1]: name for name, array in arrays.items()}
  if len(sizes) > 1:
    shown = ", ".join(f"{size} of {name!r}" for size, name in list(sizes.items())[:_SHOWN])
    raise ValueError(f"the features differ in their numbers per vector: {shown}")
  return arrays, next(iter(sizes))

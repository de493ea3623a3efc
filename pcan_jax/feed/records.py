"""The fields of a stored clip: written by `pcan_dataset_builder`, read by `pipeline`.

Coordinates. A keypoint is (x, y) in pixels, x to the right, y down; x = 0, y = 0 is the centre of
the first pixel. A clip is cropped to its box and resized, and its keypoints are transformed as the
released PCAN models expect:

  x_stored = (x_source - x0) * side / (x1 - x0)        and y likewise.

Resizing an image by s moves the pixel centre x to s * x + (s - 1) / 2, so stored keypoints are off
by up to half a pixel. The released models were trained this way, and the heatmaps use the same
convention.

A keypoint that was not detected has the score 0 and the coordinates (0, 0).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SCHEMA_VERSION = 1
"""Increases when readers of older records cannot read new ones."""


FEATURES = "features"
"""The field that `pcan import_features` adds."""


def features_field(size: int) -> tfds.features.Tensor:
  """Vectors [T', D] of another network, D being `size`."""
  return tfds.features.Tensor(shape=(None, size), dtype=np.float32, encoding="bytes")


def features(
  num_keypoints: int, *, videos: bool = True, feature_size: int = 0
) -> tfds.features.FeaturesDict:
  """The features of one clip of T frames with M persons of V keypoints.

  Args:
    num_keypoints: V.
    videos: whether there are frames; a data set of skeletons has none.
    feature_size: D of the field `FEATURES`; 0 for records without.

  Returns:
    `id`: name of the video without its suffix.
    `action`: id of the action; -1 if the label is unknown.
    `num_frames`: T.
    `fps`: average frames per second of the video.
    `original_size`: (h, w) of the video in pixels.
    `box`: (x0, y0, x1, y1) of the crop in pixels of the video, end exclusive.
    `frames`: T JPEG images, RGB, square, all of the side that the metadata names; not without
      `videos`.
    `keypoints`: [M, T, V, 2] in pixels of the stored frames.
    `keypoint_scores`: [M, T, V], 0 where a keypoint was not detected.
  """
  frames = tfds.features.Sequence(
    tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
  )
  return tfds.features.FeaturesDict(
    {
      "id": tfds.features.Text(),
      "action": tfds.features.Scalar(dtype=np.int64),
      "num_frames": tfds.features.Scalar(dtype=np.int64),
      "fps": tfds.features.Scalar(dtype=np.float32),
      "original_size": tfds.features.Tensor(shape=(2,), dtype=np.int64),
      "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
      **({"frames": frames} if videos else {}),
      "keypoints": tfds.features.Tensor(
        shape=(None, None, num_keypoints, 2), dtype=np.float32, encoding="bytes"
      ),
      "keypoint_scores": tfds.features.Tensor(
        shape=(None, None, num_keypoints), dtype=np.float32, encoding="bytes"
      ),
    }
    | ({FEATURES: features_field(feature_size)} if feature_size else {})
  )


METADATA_FIELDS = ("schema_version", "side", "jpeg_quality", "layout", "tree", "splits", "skipped")
"""Fields in `metadata.json` of a built data set.

`schema_version`; `side` of the stored frames in pixels and their `jpeg_quality`; `layout`
(`KeypointLayout.to_dict`); `tree` (`LabelTree.to_dict`); `splits`: per split, counts, the
`max_frames` of its longest clip, and the `ids` and `actions` of its records in stored order;
`skipped`: the number of clips of the source that were left out because they could not be read.
Also, but not in data sets of earlier versions, the `fingerprint` of `sources.Sources`; `videos`,
false in data sets of skeletons; and per split the `offsets` of the records in their shards, in
bytes and in stored order, and the `persons` of its records, if they are known. With features of
another network also their `feature_size` and, per split, the largest number of a clip's,
`max_features`.
"""


def check_metadata(metadata: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
  """Checks that this version of the project can read the records of a data set.

  Args:
    metadata: `builder.info.metadata` of the data set.
    where: name of the data set in error messages.

  Returns:
    The metadata with all of `METADATA_FIELDS`.

  Raises:
    ValueError: the data set was built by another program or with another schema version.
  """
  metadata = dict(metadata or {})
  if "schema_version" not in metadata:
    raise ValueError(
      f"{where} was not built by this project: its metadata.json has no 'schema_version'. "
      "Build a data set with `pcan build SOURCE OUT`"
    )
  if metadata["schema_version"] != SCHEMA_VERSION:
    raise ValueError(
      f"{where} has records of schema version {metadata['schema_version']}, but this version of "
      f"the project reads {SCHEMA_VERSION}. Build it again with `pcan build SOURCE OUT`"
    )
  missing = [field for field in METADATA_FIELDS if field not in metadata]
  if missing:
    raise ValueError(f"{where}: metadata.json lacks {missing}; build the data set again")
  return metadata

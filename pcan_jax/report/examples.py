"""Which ambiguous clips a report shows, and their frames."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from jaxtyping import Bool, UInt8

from pcan_jax.feed.input_pipeline import Dataset
from pcan_jax.report.run import Run

_PER_KIND = 2
_FRAMES = 6


@dataclasses.dataclass(frozen=True)
class Example:
  """A clip worth a look.

  Attributes:
    row: of the clip in the results.
    kind: why it was chosen.
  """

  row: int
  kind: str


def choose_examples(run: Run, baseline: Run | None) -> list[Example]:
  """The most ambiguous clips of every kind, each of another action where possible.

  Most ambiguous are those whose two likeliest actions differ least in probability. Kinds are the
  false negatives A1, A2, A3 of PCAN section 3.2 and, with a baseline, what was won and lost to it,
  without one clips that were barely right.
  """
  action_right = run.predicted("action") == run.actions
  body_right = run.predicted("body") == run.bodies
  kinds = {
    "Body part right, action wrong (A1)": ~action_right & body_right,
    "Body part and action wrong (A2)": ~action_right & ~body_right,
    "Body part wrong, action right (A3)": action_right & ~body_right,
  }
  if baseline is None:
    kinds = {"Barely right": action_right & body_right} | kinds
  else:
    baseline_right = baseline.predicted("action") == baseline.actions
    kinds = {
      "Right here, wrong in the baseline": action_right & ~baseline_right,
      "Wrong here, right in the baseline": ~action_right & baseline_right,
    } | kinds
  top = np.sort(run.results.probabilities["fused"]["action"], axis=1)
  margin = top[:, -1] - top[:, -2] if top.shape[1] > 1 else top[:, -1]
  ranking = np.argsort(margin, kind="stable")
  chosen: list[Example] = []
  for kind, members in kinds.items():
    chosen += _most_ambiguous(run, ranking, members, kind, {example.row for example in chosen})
  return chosen


def _most_ambiguous(
  run: Run,
  ranking: np.ndarray,
  members: Bool[np.ndarray, " n"],
  kind: str,
  taken: set[int],
) -> list[Example]:
  candidates = [int(row) for row in ranking if members[row] and int(row) not in taken]
  first_of_action = {int(run.actions[row]): row for row in reversed(candidates)}
  # Clips of actions not yet shown come first, in the order of the ranking.
  candidates.sort(key=lambda row: first_of_action[int(run.actions[row])] != row)
  return [Example(row, kind) for row in candidates[:_PER_KIND]]


def read_frames(
  dataset: Dataset, split: str, ids: Sequence[str]
) -> dict[str, UInt8[np.ndarray, "f s s 3"]]:
  """Reads evenly spaced frames of some clips; those that the split lacks are left out.

  Args:
    dataset: the data set.
    split: in which the clips are.
    ids: of the clips.
  """
  dataset.num_clips(split)
  stored = dataset.builder.as_dataset(
    split=split,
    shuffle_files=False,
    read_config=tfds.ReadConfig(try_autocache=False),
    decoders=tfds.decode.PartialDecoding(
      {"id": True, "frames": True}, decoders={"frames": tfds.decode.SkipDecoding()}
    ),
  )
  wanted = tf.constant(list(ids))
  stored = stored.filter(lambda clip: tf.reduce_any(clip["id"] == wanted)).take(len(ids))
  frames = {}
  for clip in stored.as_numpy_iterator():
    encoded = clip["frames"]
    chosen = np.linspace(0, len(encoded) - 1, min(_FRAMES, len(encoded))).round().astype(int)
    frames[clip["id"].decode()] = np.stack(
      [tf.io.decode_jpeg(encoded[index], channels=3).numpy() for index in chosen]
    )
  return frames

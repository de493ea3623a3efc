"""Which clips an epoch consists of, and in which order.

The order is a function of the seed. The clip at any position of the stream is computed directly, so
there is no buffer to fill and nothing to read again when a run is resumed.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from jaxtyping import Int64

SAMPLINGS = ("uniform", "class_balanced", "repeat")


@dataclasses.dataclass(frozen=True)
class ClassSampling:
  """How often clips of rare and of frequent actions are used.

  Attributes:
    name: one of
      "uniform": every clip once per epoch.
      "class_balanced": every action of the split equally often. An epoch is as long as with
        "uniform", so it omits some clips of frequent actions; later epochs include them.
      "repeat": repeat factors (Gupta, Dollar and Girshick, LVIS, CVPR 2019). Clips of an action
        with share f of all clips are used max(1, sqrt(repeat_threshold / f)) times per epoch, on
        average; an epoch is longer by the repeated clips.
    repeat_threshold: share of the clips below which an action is repeated.

  Raises:
    ValueError: there is no such sampling, or the threshold is not between 0 and 1.
  """

  name: str = "uniform"
  repeat_threshold: float = 0.01

  def __post_init__(self) -> None:
    if self.name not in SAMPLINGS:
      raise ValueError(f"data.sampling must be one of {', '.join(SAMPLINGS)}, not {self.name!r}")
    if not 0 <= self.repeat_threshold <= 1:
      raise ValueError(f"data.repeat_threshold must be 0 to 1, not {self.repeat_threshold}")


@dataclasses.dataclass(frozen=True)
class EpochOrder:
  """An endless order of clips drawn from groups, each with a fixed number of draws per epoch.

  All clips of a group are drawn before any is drawn again, also across epochs.

  Attributes:
    clips: indices of the clips in their split, sorted by group.
    group_sizes: number of clips of each group.
    draws: number of clips drawn from each group per epoch, including repetitions.
  """

  clips: Int64[np.ndarray, " n"]
  group_sizes: Int64[np.ndarray, " g"]
  draws: Int64[np.ndarray, " g"]

  def over(self, clips: Int64[np.ndarray, " n"], length: int) -> "EpochOrder":
    """The order of as many other clips, repeated so that an epoch has about this length."""
    repeats = max(round(length / self.num_clips), 1)
    return EpochOrder(clips[self.clips], self.group_sizes, repeats * self.draws)

  @property
  def num_clips(self) -> int:
    """Length of an epoch, in clips."""
    return int(self.draws.sum())

  def clip_at(self, position: tf.Tensor, seed: int) -> tf.Tensor:
    """The clip at a position of the stream.

    Args:
      position: int64, from 0; counts on across epochs.
      seed: of the order.

    Returns:
      Its index in the split, int64.
    """
    sizes, draws = tf.constant(self.group_sizes), tf.constant(self.draws)
    epoch, rest = position // self.num_clips, position % self.num_clips
    draw = _shuffled(rest, tf.constant(self.num_clips, tf.int64), (seed, 0), epoch)
    ends = tf.cumsum(draws)
    group = tf.searchsorted(ends, draw[None], side="right", out_type=tf.int64)[0]
    earlier_draws = epoch * draws[group] + draw - (ends - draws)[group]
    turn, rest = earlier_draws // sizes[group], earlier_draws % sizes[group]
    member = _shuffled(rest, sizes[group], (seed, 1 + group), turn)
    return tf.constant(self.clips)[tf.cumsum(sizes, exclusive=True)[group] + member]

  def clips_between(self, start: int, stop: int, seed: int) -> Int64[np.ndarray, " n"]:
    """The clips at positions `start` to `stop` (exclusive), on the host."""
    positions = tf.range(start, stop, dtype=tf.int64)
    return np.array([self.clip_at(position, seed).numpy() for position in positions], np.int64)


def uniform_order(num_clips: int) -> EpochOrder:
  """Every clip once per epoch."""
  size = np.array([num_clips], np.int64)
  return EpochOrder(clips=np.arange(num_clips, dtype=np.int64), group_sizes=size, draws=size)


def labelled_share(actions: Int64[np.ndarray, " n"], share: float) -> Int64[np.ndarray, " m"]:
  """Which clips are used with the labels of only a share of each action's clips, at least one.

  They are the first ones as stored, where clips lie in the order of a hash of their names.

  Raises:
    ValueError: the share is not above 0 and at most 1.
  """
  if not 0 < share <= 1:
    raise ValueError(f"data.label_share must be above 0 and at most 1, not {share}")
  of_actions = [np.flatnonzero(actions == action) for action in np.unique(actions)]
  return np.sort(
    np.concatenate([clips[: max(round(share * len(clips)), 1)] for clips in of_actions])
  )


def order_by_action(actions: Int64[np.ndarray, " n"], sampling: ClassSampling) -> EpochOrder:
  """The order for clips with the given actions.

  Args:
    actions: of the clips, in stored order; all of them known.
    sampling: "class_balanced" or "repeat".
  """
  _, sizes = np.unique(actions, return_counts=True)
  if sampling.name == "class_balanced":
    share, remainder = divmod(len(actions), len(sizes))
    draws = share + (np.arange(len(sizes)) < remainder)
  else:
    frequency = sizes / len(actions)
    factors = np.maximum(1, np.sqrt(sampling.repeat_threshold / frequency))
    draws = np.rint(factors * sizes)
  return EpochOrder(
    clips=np.argsort(actions, kind="stable").astype(np.int64),
    group_sizes=sizes.astype(np.int64),
    draws=draws.astype(np.int64),
  )


def _shuffled(
  index: tf.Tensor, size: tf.Tensor, seed: tuple[int, int | tf.Tensor], turn: tf.Tensor
) -> tf.Tensor:
  """Maps an index by a random permutation of 0..size-1, a different one for every turn."""
  seed = tf.random.experimental.stateless_fold_in(
    tf.stack([tf.cast(s, tf.int64) for s in seed]), turn
  )
  return tf.random.experimental.index_shuffle(index, seed, size - 1)

"""Which clips make an epoch, and in which order.

The order is a function of the seed that can be computed at any position of the stream without the
positions before it: no buffer to fill, and nothing to read again when a run is resumed.
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
      "class_balanced": every action that the split has equally often. An epoch is as long as with
        "uniform", so that it leaves out some clips of frequent actions; later ones bring them.
      "repeat": repeat factors (Gupta, Dollar and Girshick, LVIS, CVPR 2019). Clips of an action
        that is the share f of all clips are used max(1, sqrt(repeat_threshold / f)) times per
        epoch, on average; an epoch is longer by the repeated clips.
    repeat_threshold: share of the clips below which an action is repeated.

  Raises:
    ValueError: there is no such sampling, or the threshold is no share.
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
  """An endless order of clips, drawn from groups of which each gets a fixed part of every epoch.

  All clips of a group are drawn before one is drawn again, within epochs and across them.

  Attributes:
    clips: numbers of the clips in their split, group after group.
    group_sizes: number of clips of each group.
    draws: how many clips of each group an epoch holds, repeated ones included.
  """

  clips: Int64[np.ndarray, " n"]
  group_sizes: Int64[np.ndarray, " g"]
  draws: Int64[np.ndarray, " g"]

  @property
  def num_clips(self) -> int:
    """Length of an epoch, in clips."""
    return int(self.draws.sum())

  def clip_at(self, position: tf.Tensor, seed: int) -> tf.Tensor:
    """The clip at a position of the stream.

    Args:
      position: int64, 0 and up; epochs follow each other.
      seed: of the order.

    Returns:
      Its number in the split, int64.
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


def uniform_order(num_clips: int) -> EpochOrder:
  """Every clip once per epoch."""
  size = np.array([num_clips], np.int64)
  return EpochOrder(clips=np.arange(num_clips, dtype=np.int64), group_sizes=size, draws=size)


def order_by_action(actions: Int64[np.ndarray, " n"], sampling: ClassSampling) -> EpochOrder:
  """The order of clips that have the given actions.

  Args:
    actions: of the clips, in the order in which they are stored; all of them known.
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
  """Where a permutation of 0..size-1 takes an index; every turn has another permutation."""
  seed = tf.random.experimental.stateless_fold_in(
    tf.stack([tf.cast(s, tf.int64) for s in seed]), turn
  )
  return tf.random.experimental.index_shuffle(index, seed, size - 1)

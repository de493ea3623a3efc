"""Trains and evaluates the classifier: a support vector machine, chosen by cross-validation."""

import collections
import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.svm import SVC

from pcan_jax.clips.source_layout import UNLABELLED
from pcan_jax.evaluation.metrics import Predictions, measure
from pcan_jax.feed.dataset import Dataset
from pcan_jax.feed.epochs import labelled_share
from pcan_jax.feed.person_folds import person_folds
from pcan_jax.feed.pipeline import read_keypoints
from pcan_jax.labels import LabelTree
from pcan_jax.yardstick.features import KINDS, joint_features

COSTS = (1.0, 10.0, 100.0)
KERNELS = ("rbf", "linear")

_FOLDS = 4


@dataclasses.dataclass(frozen=True)
class Yardstick:
  """What the classifier gets.

  Attributes:
    classifier: what was chosen, in words.
    train_clips: clips that it was trained on.
    eval_clips: clips that it was evaluated on.
    metrics: of `evaluation.metrics.measure`.
  """

  classifier: str
  train_clips: int
  eval_clips: int
  metrics: Mapping[str, float]

  def __str__(self) -> str:
    shown = {
      "action top-1": "action_top1",
      "F1 action macro": "f1_action_macro",
      "F1 mean": "f1_mean",
    }
    figures = ", ".join(f"{name} {100 * self.metrics[key]:.2f}" for name, key in shown.items())
    return f"{figures} ({self.classifier}, {self.train_clips:,} training clips)"


def measure_yardstick(
  dataset: Dataset, train_split: str, eval_split: str, label_share: float = 1.0
) -> Yardstick:
  """Trains on the joints of one split and evaluates on another.

  Kernel, cost and the way of centring are chosen on the training clips alone, by cross-validation
  that keeps the clips of a person together where persons are known.

  Args:
    dataset: the data set.
    train_split, eval_split: its splits, both labelled.
    label_share: as of `Dataset.epoch_order`, of the training clips.

  Raises:
    ValueError: there is no such split, it has no labels or no poses, or training clips are of one
      action only.
  """
  actions = {split: dataset.actions(split) for split in (train_split, eval_split)}
  for split, of_split in actions.items():
    if (of_split == UNLABELLED).any():
      raise ValueError(f"the clips of {split!r} have no label, so there is nothing to measure")
  used = labelled_share(actions[train_split], label_share)
  labels = actions[train_split][used]
  if len(np.unique(labels)) < 2:
    raise ValueError(f"all clips of {train_split!r} are of one action; a classifier needs two")
  train, test = (_features(dataset, split) for split in actions)
  train = {kind: vectors[used] for kind, vectors in train.items()}
  if not any(values.any() for values in train.values()):
    raise ValueError(f"{dataset.path} has no poses, which the yardstick classifies")
  persons = dataset.persons(train_split) if dataset.knows_persons else []
  folds = _folds([persons[clip] for clip in used] if persons else [], labels)
  similar = {kind: _kernels(train[kind], train[kind]) for kind in KINDS}
  rights = {
    (kind, kernel, cost): sum(
      int((_fit_predict(similar[kind][kernel], labels, cost, part) == labels[part]).sum())
      for part in (np.flatnonzero(folds == fold) for fold in np.unique(folds))
    )
    for kind, kernel, cost in itertools.product(KINDS, KERNELS, COSTS)
  }
  kind, kernel, cost = max(rights, key=lambda choice: rights[choice])
  classifier = _fit(similar[kind][kernel], labels, cost)
  decided = _all_scores(
    classifier, _kernels(test[kind], train[kind])[kernel], dataset.tree.num_actions
  )
  truth = actions[eval_split]
  found = Predictions.of_scores(decided, _body_scores(decided, dataset.tree), truth, dataset.tree)
  name = "RBF" if kernel == "rbf" else "linear"
  return Yardstick(
    f"{name} SVM on joints, C = {cost:g}, {kind}",
    len(labels),
    len(truth),
    measure(found, truth, dataset.tree),
  )


def _features(dataset: Dataset, split: str) -> dict[str, Float[np.ndarray, "n d"]]:
  vectors: dict[str, list[np.ndarray]] = collections.defaultdict(list)
  for keypoints, scores in read_keypoints(dataset, split):
    for kind in KINDS:
      vectors[kind].append(joint_features(keypoints, scores, kind))
  return {kind: np.stack(rows) for kind, rows in vectors.items()}


def _kernels(
  rows: Float[np.ndarray, "n d"], columns: Float[np.ndarray, "m d"]
) -> dict[str, Float[np.ndarray, "n m"]]:
  """Similarities, by the name of the kernel; computed once for all costs and folds."""
  products = rows @ columns.T
  squares = (rows**2).sum(axis=1)[:, None] + (columns**2).sum(axis=1) - 2 * products
  spread = rows.shape[1] * max(float(columns.var()), 1e-12)  # scikit-learn's gamma="scale"
  return {"rbf": np.exp(-squares / spread), "linear": products / spread}


def _folds(persons: Sequence[str], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
  """The fold of every clip: by person, if there are several, or so that each has every action."""
  if len(set(persons)) > 1:
    fold_of = {
      person: number for number, fold in enumerate(person_folds(persons, _FOLDS)) for person in fold
    }
    return np.array([fold_of[person] for person in persons])
  folds = np.empty(len(labels), np.int64)
  folds[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % min(_FOLDS, len(labels))
  return folds


def _fit_predict(
  similar: Float[np.ndarray, "n n"],
  labels: Int[np.ndarray, " n"],
  cost: float,
  part: Int[np.ndarray, " k"],
) -> Int[np.ndarray, " k"]:
  """Predicts the clips of one part by those of the others."""
  others = np.setdiff1d(np.arange(len(labels)), part)
  known = np.unique(labels[others])
  if len(known) < 2:
    return np.repeat(known[:1], len(part))
  classifier = _fit(similar[np.ix_(others, others)], labels[others], cost)
  return classifier.predict(similar[np.ix_(part, others)])


def _fit(similar: Float[np.ndarray, "n n"], labels: Int[np.ndarray, " n"], cost: float) -> SVC:
  with warnings.catch_warnings():
    # Of most actions there may be a clip or two, and nothing can be done about it.
    warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
    return SVC(C=cost, kernel="precomputed").fit(similar, labels)


def _all_scores(
  classifier: SVC, similar: Float[np.ndarray, "n m"], num_actions: int
) -> Float[np.ndarray, "n a"]:
  """Scores of every action; those without a training clip come last."""
  decided = np.asarray(classifier.decision_function(similar), np.float64)
  if decided.ndim == 1:
    decided = np.stack([-decided, decided], axis=1)
  scores = np.full((len(decided), num_actions), decided.min() - 1)
  scores[:, classifier.classes_] = decided
  return scores


def _body_scores(scores: Float[np.ndarray, "n a"], tree: LabelTree) -> Float[np.ndarray, "n b"]:
  """That of a body part is that of its best action."""
  return np.stack(list(_best_of_bodies(scores, tree)), axis=1)


def _best_of_bodies(
  scores: Float[np.ndarray, "n a"], tree: LabelTree
) -> Iterator[Float[np.ndarray, " n"]]:
  for body in range(tree.num_bodies):
    yield scores[:, np.asarray(tree.parents) == body].max(axis=1)

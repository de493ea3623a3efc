"""What results are of: a checkpoint on a data set, or an ensemble of several."""

import dataclasses
import hashlib
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class Origin:
  """What was evaluated on what.

  Attributes:
    step: of the checkpoint.
    checkpoint: its digest, `SavedStep.digest`.
    dataset: fingerprint of the data set.
    rectified: whether the prototypes corrected the predictions, where there are any; None in
      results of earlier versions, which do not say.
    mirrored: whether every clip was averaged with its mirror image.
  """

  step: int
  checkpoint: str
  dataset: str
  rectified: bool | None = True
  mirrored: bool = False

  def follows(self, flip: bool) -> bool:
    """Whether it was computed as a config with this `eval.flip` says, as far as it is known."""
    return self.rectified is not False and self.mirrored == flip

  def summary(self) -> dict[str, Any]:
    """What the metrics say of it; plain values."""
    return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Member:
  """A checkpoint in an ensemble.

  Attributes:
    path: of the checkpoint, as it was given.
    data_path: of its data set.
    branch: whose probabilities are averaged: `fused`, or a stream.
    weight: of these; those of all members add up to 1.
    origin: of its own results.
    metrics: of that branch alone; empty if the split has no labels.
    description: its `ModelSpec` as plain values.
  """

  path: str
  data_path: str
  branch: str
  weight: float
  origin: Origin
  metrics: dict[str, float]
  description: dict[str, Any]

  @property
  def name(self) -> str:
    """The checkpoint, with the branch unless that is `fused`."""
    return self.path if self.branch == "fused" else f"{self.path}, {self.branch}"


@dataclasses.dataclass(frozen=True)
class Fit:
  """On what the weights of an ensemble were chosen.

  Attributes:
    split: of the data sets; not the evaluated one.
    num_videos: in it.
    nll_before, nll_after: mean negative log likelihood of the true actions and body parts with
      equal weights, and with the chosen ones.
  """

  split: str
  num_videos: int
  nll_before: float
  nll_after: float


@dataclasses.dataclass(frozen=True)
class Ensemble:
  """Several checkpoints whose probabilities were averaged.

  Attributes:
    members: in the order in which they were given.
    split: that was evaluated.
    fit: on what the weights were chosen; None if they were equal or given.
  """

  members: tuple[Member, ...]
  split: str
  fit: Fit | None

  @property
  def checkpoint(self) -> str:
    """Identifies what was averaged how: 32 hexadecimal digits, as a checkpoint has."""
    facts = [[m.origin.summary(), m.branch, m.weight] for m in self.members]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

  @property
  def dataset(self) -> str:
    """The fingerprint of the first member's data set."""
    return self.members[0].origin.dataset

  @property
  def step(self) -> None:
    """There is none: every member has its own."""

  def weights_from(self) -> str:
    """Where the weights come from, in words."""
    if self.fit is not None:
      return (
        f"chosen on the {self.fit.num_videos:,} videos of split {self.fit.split!r}, where the NLL "
        f"of actions and body parts is {self.fit.nll_before:.4f} with equal weights and "
        f"{self.fit.nll_after:.4f} with these"
      )
    return "equal" if len({member.weight for member in self.members}) == 1 else "given"

  def summary(self) -> dict[str, Any]:
    """What the metrics say of it; plain values, without the descriptions of the models."""
    found = self.to_json() | {"checkpoint": self.checkpoint, "weights": self.weights_from()}
    for member in found["members"]:
      del member["description"]
    return {"ensemble": found}

  def to_json(self) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, found: dict[str, Any]) -> "Ensemble":
    """Inverse of `to_json`."""
    members = (
      Member(**(member | {"origin": Origin(**member["origin"])})) for member in found["members"]
    )
    return cls(tuple(members), found["split"], found["fit"] and Fit(**found["fit"]))

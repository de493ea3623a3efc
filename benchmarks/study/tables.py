"""The studies: what is compared with what.

A row is a variant of a config with some values changed. It is compared with the row that `against`
names, its baseline. A row may start from the weights of other rows, as the paper's third step does
from the first two.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

STREAMS = ("pose", "rgb")


@dataclasses.dataclass(frozen=True)
class Row:
  """One method of a study.

  Attributes:
    variant: of the config, what is written behind its colon.
    values: fields of the config, with dots, and what they are to be.
    against: the row to compare with; none for a baseline.
    origins: per stream the row whose weights the streams of this row start from.
    config: whose variant the config of the study's data set is, such as pretrain; if empty, that
      config itself has the variant.
  """

  variant: str
  values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  against: str = ""
  origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
  config: str = ""


@dataclasses.dataclass(frozen=True)
class Study:
  """A question and the rows that answer it.

  Attributes:
    title: of its section.
    question: what is asked, a sentence or two.
    rows: by name, in the order of the table.
    sources: by name, rows that are trained only for others to start from.
    log_gradients: every so many steps, the gradients of the terms of the loss are logged; 0 is
      never. They are recorded of runs that are trained for this study.

  Raises:
    ValueError: a row names one that does not exist.
  """

  title: str
  question: str
  rows: Mapping[str, Row]
  sources: Mapping[str, Row] = dataclasses.field(default_factory=dict)
  log_gradients: int = 0

  def __post_init__(self) -> None:
    for name, row in self.rows.items():
      unknown = ({row.against} - {"", *self.rows}) | (
        {*row.origins.values()} - {*self.rows, *self.sources}
      )
      if unknown:
        raise ValueError(f"row {name!r} names {sorted(unknown)}, which its study does not have")


def _headline() -> Study:
  rows = {}
  for method, against in (("posec3d", ""), ("pcan", "posec3d")):
    for stream in STREAMS:
      rows[f"{method}_{stream}"] = Row(
        f"{method}_{stream}", against=against and f"posec3d_{stream}"
      )
    rows[method] = Row(
      method, against=against, origins={stream: f"{method}_{stream}" for stream in STREAMS}
    )
    rows[f"{method}_scratch"] = Row(method, against=against and "posec3d_scratch")
  return Study(
    "PCAN and its baseline",
    "Table 1 of the paper: do prototypes and calibration lift the baseline? Rows with both streams "
    "start from the two rows of single streams, as in the paper; `_scratch` rows start from random "
    "weights.",
    rows,
  )


_FIRST = {"first": Row("posec3d_pose")}


def _continued(rows: Mapping[str, Row]) -> dict[str, Row]:
  """Rows that all start from one baseline of their seed, but for those that name another.

  Which siblings a run from random weights comes to tell apart is chance, and larger than what
  methods change. The paper's prototypes start from trained streams, too.
  """
  return {
    name: dataclasses.replace(row, origins=row.origins or {"pose": "first"})
    for name, row in rows.items()
  }


_CONTINUED = (
  "Every row, the baseline too, goes on from the same baseline of its seed, which was trained for "
  "as many epochs."
)
_NO_PCC = {"loss.pcc_weight": 0.0}
_NO_PDA = {"loss.pda_weight": 0.0}
_NO_HP = {"loss.hp_weight": 0.0}
_NO_RECTIFICATION = {"eval.gamma.pose": 0.0}


def _parts() -> Study:
  rows = {
    "posec3d": Row("posec3d_pose"),
    "pcan": Row("pcan_pose", against="posec3d"),
    # Each off.
    "without HP": Row("pcan_pose", _NO_HP, "pcan"),
    "without PCC": Row("pcan_pose", _NO_PCC, "pcan"),
    "without PDA": Row("pcan_pose", _NO_PDA, "pcan"),
    "without rectification": Row("pcan_pose", _NO_RECTIFICATION, "pcan"),
    "without A1": Row("pcan_pose", {"loss.pcc_alpha": (0.0, 0.5, 0.1)}, "pcan"),
    "without A2": Row("pcan_pose", {"loss.pcc_alpha": (1.0, 0.0, 0.1)}, "pcan"),
    "without A3": Row("pcan_pose", {"loss.pcc_alpha": (1.0, 0.5, 0.0)}, "pcan"),
    "without A1, A2, A3": Row("pcan_pose", {"loss.pcc_alpha": (0.0, 0.0, 0.0)}, "pcan"),
    "without FP": Row("pcan_pose", {"loss.pcc_fp_weight": 0.0}, "pcan"),
    "without PCC of bodies": Row("pcan_pose", {"loss.pcc_body_weight": 0.0}, "pcan"),
    # Each alone.
    "HP alone": Row("posec3d_pose", {"loss.hp_weight": 1.0}, "posec3d"),
    "PCC alone": Row("pcan_pose", _NO_HP | _NO_PDA | _NO_RECTIFICATION, "posec3d"),
    "PDA alone": Row("pcan_pose", _NO_HP | _NO_PCC | _NO_RECTIFICATION, "posec3d"),
    "rectification alone": Row("pcan_pose", _NO_HP | _NO_PCC | _NO_PDA, "posec3d"),
    "PCC and rectification": Row("pcan_pose", _NO_HP | _NO_PDA, "posec3d"),
    "PCC and PDA": Row("pcan_pose", _NO_HP | _NO_RECTIFICATION, "posec3d"),
    "HP and PCC": Row("pcan_pose", _NO_PDA | _NO_RECTIFICATION, "posec3d"),
    "HP and PDA": Row("pcan_pose", _NO_PCC | _NO_RECTIFICATION, "posec3d"),
  }
  return Study(
    "What each part of PCAN does",
    "The pose stream with each part off (against `pcan`), and with one or two parts only (against "
    f"`posec3d`). {_CONTINUED}",
    _continued(rows),
    _FIRST,
  )


def _values() -> Study:
  alphas = (
    (1.0, 1.0, 1.0),
    (1.0, 0.1, 0.1),
    (0.1, 1.0, 0.5),
    (1.0, 0.5, 1.0),
    (1.0, 0.1, 0.5),
  )
  fields = {
    "lambda": ("loss.hp_lambda", (0.0, 0.1, 10.0)),
    "alpha": ("loss.pcc_alpha", alphas),
    "beta": ("loss.pda_weight", (0.2, 1.0, 25.0)),
    "PCC": ("loss.pcc_weight", (0.1, 0.3)),
    "tau": ("loss.pcc_temperature", (0.0625, 0.25, 1.0)),
    "gamma": ("eval.gamma.pose", (1.0, 10.0, 20.0)),
    "momentum": ("loss.prototype_momentum", (0.5, 0.99)),
    "embedding": ("model.action_embedding", (64, 1024)),
  }
  values = {
    f"{name} {str(value).strip('()')}": {field: value}
    for name, (field, choices) in fields.items()
    for value in choices
  }
  values |= {
    "max pooling": {"model.pool_embedding": "max"},
    "PDA without gradient": {"loss.pda_gradient": False},
    "PCC on the whole batch": {"loss.pcc_covers": "batch"},
    "release losses": {
      "loss.pcc_covers": "batch",
      "loss.pcc_alpha_scales": "logits",
      "loss.pcc_weight": 0.2,
      "loss.pda_weight": 0.2,
      "loss.pda_gradient": False,
    },
  }
  rows = {"pcan": Row("pcan_pose")}
  rows |= {name: Row("pcan_pose", changed, "pcan") for name, changed in values.items()}
  return Study(
    "The values of PCAN's settings",
    "Tables 2 and 3 of the paper and other settings, each changed alone, on the pose stream. "
    + _CONTINUED,
    _continued(rows),
    _FIRST,
  )


def _fusion() -> Study:
  rows = {"lateral": Row("pcan")}
  for kind in ("lateral_attention", "late"):
    rows[kind] = Row("pcan", {"model.fusion": kind}, "lateral")
  rows["release"] = Row("release", against="lateral")
  return Study(
    "How the streams exchange features, and the release",
    "Both streams from random weights: the paper's lateral connections, the attention of the "
    "authors' code, averaged predictions only, and all settings of the authors' code.",
    rows,
  )


_SIBLINGS = {"loss.pda_between": "siblings"}
_CENTRED = {"loss.pda_centred": True}


def _variants() -> Study:
  variants = {
    "PDA between siblings": _SIBLINGS,
    "PDA centred": _CENTRED,
    "PDA of means": {"loss.pda_of": "means"},
    "PDA of means, siblings, centred": {"loss.pda_of": "means"} | _SIBLINGS | _CENTRED,
    "PDA of embeddings": {"loss.pda_of": "embeddings"},
    "PDA of embeddings, siblings, centred": {"loss.pda_of": "embeddings"} | _SIBLINGS | _CENTRED,
    "PCC rises for 300 steps": {"loss.pcc_ramp_steps": 300},
    "prototypes from zero": {"loss.prototype_start": "zero"},
    "prototypes of all clips": {"loss.prototype_samples": "all"},
    "prototypes on the sphere": {"loss.prototype_on_sphere": True},
  }
  bare = _NO_PDA | _NO_RECTIFICATION
  combined = {
    "HP and PCC 0.1": bare | {"loss.pcc_weight": 0.1},
    "HP and PCC that rises": bare | {"loss.pcc_ramp_steps": 300},
  }
  rows = {"posec3d": Row("posec3d_pose"), "pcan": Row("pcan_pose", against="posec3d")}
  rows |= {name: Row("pcan_pose", values, "pcan") for name, values in variants.items()}
  rows |= {name: Row("pcan_pose", values, "posec3d") for name, values in combined.items()}
  return Study(
    "Variants of the diversity loss and of the prototypes",
    "The diversity loss on other things than the updated prototypes, whose gradient is a tenth of "
    "a mean over true positives; prototypes that start, move or are scaled otherwise (against "
    "`pcan`); and the hierarchical loss with a calibrating loss that is small or starts late, "
    "without diversity and rectification (against `posec3d`). On the pose stream. " + _CONTINUED,
    _continued(rows),
    _FIRST,
  )


def _small() -> Study:
  little = {
    "augmentation.crop_area": (0.9, 1.0),
    "augmentation.rotation": 0.0,
    "augmentation.scale_jitter": 0.0,
    "augmentation.keypoint_noise": 0.0,
  }
  changed = {
    "without a start": {"init_from.pose": ""},
    "little augmentation": little,
    "little dropout": {"model.dropout": 0.1},
    "repeated clips": {"data.sampling": "repeat", "data.repeat_threshold": 0.1},
    "five times as long": {"optimizer.epochs": 300.0, "optimizer.least_steps": 8000},
    "joints and limbs": {"input.heatmaps": "both"},
    "fine heatmaps": {"input.heatmap_scale": 2},
    "32 poses": {"input.pose_frames": 32},
    "not mirrored": {"augmentation.flip": 0.0, "eval.flip": False},
  }
  rows = {"posec3d": Row("posec3d_pose"), "pcan": Row("pcan_pose", against="posec3d")}
  rows |= {name: Row("pcan_pose", values, "pcan") for name, values in changed.items()}
  return Study(
    "A few hundred clips",
    "What helps with few people or few clips of each action, on the pose stream; for the config "
    "`small` and a data set of one's own. `pcan yardstick` says what a simple classifier gets.",
    rows,
  )


_FEW = {"30 %": 0.3, "10 %": 0.1}


def _vit() -> Study:
  rows = {"all labels": Row("vit_pcan")}
  rows |= {
    f"{name} of labels": Row("vit_pcan", {"data.label_share": x}) for name, x in _FEW.items()
  }
  pretrained = {"rgb": "masked"}
  for name, row in list(rows.items()):
    rows[f"{name}, pretrained"] = dataclasses.replace(row, against=name, origins=pretrained)
  rows["with pose"] = Row("vit_pcan_pose")
  rows["with pose, pretrained"] = Row("vit_pcan_pose", {}, "with pose", pretrained)
  values = {
    "temperature 0.0625": {"loss.pcc_temperature": 0.0625},
    "temperature 0.5": {"loss.pcc_temperature": 0.5},
    "momentum 0.99": {"loss.prototype_momentum": 0.99},
    "prototypes on the sphere": {"loss.prototype_on_sphere": True},
    "mixup": {"augmentation.mixup": 0.8},
  }
  rows["without prototypes, pretrained"] = Row("vit", {}, "all labels, pretrained", pretrained)
  rows |= {
    f"{name}, pretrained": Row("vit_pcan", changed, "all labels, pretrained", pretrained)
    for name, changed in values.items()
  }
  return Study(
    "A video transformer, and pretraining on what one has",
    "A narrow video transformer as the RGB stream, from random weights and from masked video "
    "modelling on the clips of the training split without their labels; then fine-tuned with the "
    "labels of all of them or of a part.",
    rows,
    {"masked": Row("", config="pretrain")},
  )


_FLIP = {"augmentation.flip": 0.5, "eval.flip": True}


def _ingredients() -> Study:
  """Each beside the plain rows; those of classes with clips drawn as often as they come."""
  uniform = {"data.sampling": "uniform"}
  losses = {
    "logit adjustment": uniform | {"loss.logit_adjustment": 1.0},
    "logit adjustment, half": uniform | {"loss.logit_adjustment": 0.5},
    "class-balanced loss": uniform | {"loss.class_balance": 0.999},
    "class-balanced sampling": {"data.sampling": "class_balanced"},
    "soft F1": {"loss.soft_f1_weight": 1.0},
    "frames": {"loss.frame_weight": 0.5},
    "cosines with a margin": {"model.cosine_scale": 16.0, "loss.margin": 2.0},
    "label smoothing": {"loss.label_smoothing": 0.1},
  }
  recipe = {
    "mixup": {"augmentation.mixup": 0.8},
    "moving average": {"optimizer.ema": 0.99},
    "AdamW 0.001": {
      "optimizer.name": "adamw",
      "optimizer.learning_rate": 1e-3,
      "optimizer.weight_decay": 0.05,
      "optimizer.schedule": "cosine",
      "optimizer.warmup_epochs": 0.5,
    },
    "SGD 0.1": {
      "optimizer.name": "sgd",
      "optimizer.learning_rate": 0.1,
      "optimizer.weight_decay": 1e-4,
    },
    "joints and limbs": {"input.heatmaps": "both"},
    "5 clips": {"eval.num_clips": 5},
    "flips in tests": _FLIP,
    "train and val": {"data.train_split": "train+val"},
  }
  losses |= {
    f"{first}, soft F1, frames": losses[first] | losses["soft F1"] | losses["frames"]
    for first in ("logit adjustment", "label smoothing")
  }
  cosines = "cosines with a margin"
  origins = {cosines: {"pose": "first, by cosines"}}  # cannot go on from linear classifiers
  rows = {}
  for base in ("posec3d", "pcan"):
    rows[base] = Row(f"{base}_pose", against="posec3d" if base == "pcan" else "")
    of_base = losses if base == "posec3d" else losses | recipe
    rows |= {
      f"{base}, {name}": Row(f"{base}_pose", values, base, origins.get(name, {}))
      for name, values in of_base.items()
    }
  return Study(
    "Ingredients of methods that won challenges",
    "What is not of PCAN and may help the rare actions, by which F1 mean is decided, on the pose "
    "stream: against the baseline and against PCAN. `train and val` is of use only where another "
    "split is evaluated; on `val` it shows how well clips are learned that were trained on. "
    + _CONTINUED
    + " Classifiers by cosine go on from such a baseline that has them, too.",
    _continued(rows),
    _FIRST | {"first, by cosines": Row("posec3d_pose", losses[cosines])},
    log_gradients=100,
  )


STUDIES = {
  "headline": _headline(),
  "parts": _parts(),
  "values": _values(),
  "fusion": _fusion(),
  "variants": _variants(),
  "small": _small(),
  "vit": _vit(),
  "ingredients": _ingredients(),
}

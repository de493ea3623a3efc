"""The model card: `README.md` with a YAML header, filled from a run."""

import dataclasses
import json
import pathlib
from typing import Any

from pcan_jax.evaluation.metrics import Predictions
from pcan_jax.evaluation.protocol import open_evaluated
from pcan_jax.evaluation.results import TABLE_COLUMNS, Results, results_folder
from pcan_jax.evaluation.runs import which_checkpoint
from pcan_jax.feed.dataset import Dataset
from pcan_jax.labels import LEVELS
from pcan_jax.report import statistics
from pcan_jax.saved_steps import SavedStep
from pcan_jax.spec import ModelSpec
from pcan_jax.yardstick.beside import read_kept

_HEADLINE = ("action_top1", "body_top1", "f1_mean")

_CITATION = """```bibtex
@inproceedings{li2025pcan,
  title     = {Prototypical Calibrating Ambiguous Samples for Micro-Action Recognition},
  author    = {Li, Kun and Guo, Dan and Chen, Guoliang and Fan, Chunxiao and Xu, Jingyuan and
               Wu, Zhiliang and Fan, Hehe and Wang, Meng},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year      = {2025},
  note      = {arXiv 2412.14719}
}
```"""


@dataclasses.dataclass(frozen=True)
class SharedRun:
  """What a card is filled from.

  Attributes:
    saved: the checkpoint.
    spec: of its model.
    dataset: that it was trained on; None if it is not here any more.
    results: of its evaluation; None if it was not evaluated, or another checkpoint was.
    yardstick: what a simple classifier gets on the same clips, as it was kept; None if unknown.
  """

  saved: SavedStep
  spec: ModelSpec
  dataset: Dataset | None
  results: Results | None
  yardstick: dict[str, Any] | None

  @classmethod
  def read(cls, saved: SavedStep, path: pathlib.Path) -> "SharedRun":
    """Reads what belongs to a checkpoint of a run.

    Args:
      saved: the checkpoint.
      path: by which it was found.
    """
    spec, workdir = saved.spec, saved.folder
    config = spec.config
    try:
      dataset = open_evaluated(config.data)
    except (FileNotFoundError, ValueError):
      dataset = None
    if dataset is not None and saved.trained_on not in (None, dataset.fingerprint):
      dataset = None
    split = config.data.eval_split
    try:
      results = Results.read(results_folder(workdir, split, of=which_checkpoint(saved, path)))
    except (FileNotFoundError, ValueError):
      results = None
    if results is None or not _is_usual(results, saved, spec):
      return cls(saved, spec, dataset, None, None)
    kept = read_kept(workdir, split, results.origin.dataset, config.data)
    return cls(saved, spec, dataset, results, kept)


def _is_usual(results: Results, saved: SavedStep, spec: ModelSpec) -> bool:
  """Whether results are of the checkpoint, on its data set, computed as its config says."""
  origin = results.origin
  return (
    origin is not None
    and origin.checkpoint == saved.digest
    and saved.trained_on in (None, origin.dataset)
    and origin.follows(spec.config.eval.flip)
  )


def model_card(run: SharedRun, name: str, license_id: str | None) -> str:
  """The text of the card.

  Args:
    run: what is shared.
    name: of the model, user/model.
    license_id: of the weights, as the hub abbreviates it; None says that it was not stated.
  """
  header = "\n".join(_header(run, name, license_id))
  parts = {
    f"# {name.rpartition('/')[2]}": _about(run),
    "## Use": _use(run, name),
    "## Classes": _classes(run),
    "## Data": _data(run),
    "## Results": _results(run),
    "## Intended use and limits": _limits(run),
    "## Citation": _CITATION,
  }
  body = "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items())
  return f"---\n{header}\n---\n\n{body}\n"


def _header(run: SharedRun, name: str, license_id: str | None) -> list[str]:
  lines = [
    "library_name: pcan_jax",
    "pipeline_tag: video-classification",
    "tags:",
    *(f"- {tag}" for tag in ("micro-action-recognition", "jax", *_streams(run))),
  ]
  if license_id:
    lines.insert(0, f"license: {json.dumps(license_id)}")
  if run.results is None or not run.results.metrics:
    return lines
  metrics = run.results.metrics["fused"]
  lines += [
    "model-index:",
    f"- name: {json.dumps(name)}",
    "  results:",
    "  - task:",
    "      type: video-classification",
    "    dataset:",
    f"      name: {json.dumps(_dataset_name(run))}",
    f"      type: {json.dumps(_dataset_name(run).lower())}",
    f"      split: {json.dumps(run.spec.config.data.eval_split)}",
    "    metrics:",
  ]
  for metric in _HEADLINE:
    kind = "f1" if metric.startswith("f1") else "accuracy"
    lines += [
      f"    - type: {kind}",
      f"      name: {json.dumps(TABLE_COLUMNS[metric])}",
      f"      value: {100 * metrics[metric]:.2f}",
    ]
  return lines


def _about(run: SharedRun) -> str:
  return (
    f"{run.spec.method}, which recognises {run.spec.tree.num_actions} actions of "
    f"{run.spec.tree.num_bodies} body parts in short clips, from "
    f"{' and '.join(_streams(run))}. Trained with pcan_jax, step {run.saved.step:,}, checkpoint "
    f"`{run.saved.digest}`."
  )


def _use(run: SharedRun, name: str) -> str:
  if run.spec.reads_features:
    return (
      "It reads stored features of another network, not videos: import those of your clips with "
      "`pcan import_features` and evaluate with `pcan --mode=eval --data=DIR`."
    )
  call = (
    "recognizer.predict(keypoints=keypoints, scores=scores)"
    if "rgb" not in run.spec.model.streams
    else 'recognizer.predict_video("clip.mp4", pose="poses.pkl")'
  )
  layout = run.spec.layout
  return (
    "```python\nfrom pcan_jax import Recognizer\n\n"
    f'recognizer = Recognizer.from_pretrained("{name}")\n'
    f"print({call}.top_actions())\n```\n\n"
    f"Keypoints have the layout `{layout.name}`: {', '.join(layout.joints)}."
  )


def _classes(run: SharedRun) -> str:
  tree = run.spec.tree
  return "\n".join(
    f"- **{_plain(body)}**: "
    + ", ".join(_plain(tree.actions[a]) for a, p in enumerate(tree.parents) if p == number)
    for number, body in enumerate(tree.bodies)
  )


def _data(run: SharedRun) -> str:
  fingerprint = run.saved.trained_on
  if fingerprint is None and run.results and run.results.origin:  # a converted checkpoint
    fingerprint = run.results.origin.dataset
  lines = [f"Data set `{_dataset_name(run)}`, fingerprint `{fingerprint or 'not recorded'}`."]
  config, dataset = run.spec.config.data, run.dataset
  if dataset is None or dataset.fingerprint != fingerprint:
    return lines[0] + " It was not at hand when this card was written."
  for title, split in (("Training", config.train_split), ("Evaluation", config.eval_split)):
    if dataset.has_split(split):
      people = f" of {len(set(dataset.persons(split)))} people" if dataset.knows_persons else ""
      of_labels = (
        f", of which {100 * config.label_share:g} % were used with their labels"
        if split == config.train_split and config.label_share < 1
        else ""
      )
      lines.append(f"{title}: {dataset.num_clips(split):,} clips{people}{of_labels}.")
  both = (config.train_split, config.eval_split)
  shared = dataset.shared_clips(*both) if all(map(dataset.has_split, both)) else 0
  if shared:
    lines.append(f"{shared:,} clips of the evaluation were trained on; its figures are too good.")
  lines.append("Videos are not part of it." if not dataset.videos else "")
  return " ".join(filter(None, lines))


def _results(run: SharedRun) -> str:
  results, tree = run.results, run.spec.tree
  if results is None or not results.metrics:
    return "This checkpoint was not evaluated on labelled clips before it was shared."
  rows = ["| in % | " + " | ".join(TABLE_COLUMNS.values()) + " |", "|---" * 9 + "|"]
  branches = {b: v for b, v in results.metrics.items() if b != "fused" or len(_streams(run)) > 1}
  for branch, values in branches.items():
    scores = (results.outputs[branch][level]["probabilities"] for level in LEVELS)
    predictions = Predictions.of_scores(*scores, results.actions, tree)
    (drawn,) = statistics.bootstrap([predictions], results.actions, tree)
    cells = []
    for metric in TABLE_COLUMNS:
      low, high = statistics.interval(drawn[metric])
      cells.append(f"{100 * values[metric]:.1f} ({100 * low:.1f} to {100 * high:.1f})")
    rows.append(f"| {branch} | " + " | ".join(cells) + " |")
  text = (
    f"{len(results.ids):,} clips of the split `{run.spec.config.data.eval_split}`, "
    f"{_times(results.num_clips)}. In brackets: 95 % bootstrap intervals over clips; the "
    "real uncertainty is larger, because clips of one person are alike.\n\n" + "\n".join(rows)
  )
  if run.yardstick is not None:
    metrics = run.yardstick["metrics"]
    text += (
      f"\n\nYardstick, {run.yardstick['classifier']}: action top-1 "
      f"{100 * metrics['action_top1']:.1f}, F1 mean {100 * metrics['f1_mean']:.1f}."
    )
  return text


def _limits(run: SharedRun) -> str:
  lines = [
    "For research on recorded behaviour: a first coding that a person reviews. Not for decisions "
    "about single people, such as in hiring, policing or diagnosis; an action says little about "
    "what somebody feels or intends.",
    "It gives every clip one of its classes, also where nothing or something else happens. Other "
    "cameras, views, settings or people than those of its data lower the figures above; measure "
    "them on coded clips of your own.",
  ]
  if run.spec.config.augmentation.flip == 0:
    lines.append("Left and right are different to it; do not mirror recordings.")
  return "\n\n".join(lines)


def _streams(run: SharedRun) -> list[str]:
  return list(run.spec.model.streams)


def _dataset_name(run: SharedRun) -> str:
  return pathlib.PurePath(run.spec.config.data.path).name or "data"


def _plain(text: str) -> str:
  """A label without what Markdown or HTML would take for their own."""
  for char in "\\`*_[]<>|#":
    text = text.replace(char, f"\\{char}")
  return text


def _times(samples: int) -> str:
  return "sampled once each" if samples == 1 else f"scores averaged over {samples} samples each"

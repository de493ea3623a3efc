"""Initial weights from other runs: one run with all streams, or one run per stream.

PCAN is trained in three steps: RGB and pose alone, then both from these two. Initially, each stream
of the merged network computes what it did alone: weights on features of the other are zero.
"""

import dataclasses
import logging
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from pcan_jax.checkpoints import load_model
from pcan_jax.network.backbone import exchange_places
from pcan_jax.network.masked_autoencoder import MaskedAutoencoder
from pcan_jax.network.pathway import EXPANSION
from pcan_jax.network.pcan import PCAN
from pcan_jax.shipped import find_start
from pcan_jax.spec import ModelSpec

PyTree = Any
Path = tuple[str, ...]
Arrays = dict[Path, Any]

_log = logging.getLogger(__name__)
_SHOWN_PROBLEMS = 8


class _Part(NamedTuple):
  """A part of the network that is copied as a whole or not at all.

  Attributes:
    kind: what it is, such as "pathway".
    stream: of the part; empty for fusion.
  """

  kind: str
  stream: str = ""

  def __str__(self) -> str:
    return f"{self.stream} {self.kind}".strip()


_LATERALS = _Part("lateral projections")
_ATTENTION = _Part("attention")
# Parts that are meaningless after separate training of the streams.
_KINDS_OF_BOTH_STREAMS = (
  _LATERALS.kind,
  _ATTENTION.kind,
  "fusion_weight",
  "embeddings",
  "prototypes",
)
# Parts that are of use only with the same labels.
_OF_LABELS = ("classifiers", "classifier of time steps", "prototypes")


def _part(path: Path) -> _Part:
  """The part that an array of the variables belongs to."""
  collection, module, *inner = path
  if collection == "prototypes":
    return _Part("prototypes", module)
  if module.startswith("head_"):
    if inner[0] == "frames":
      kind = "classifier of time steps"
    else:
      kind = "embeddings" if inner[0].endswith("_embedding") else "classifiers"
    return _Part(kind, module.removeprefix("head_"))
  if module != "backbone":
    return _Part(module)
  if inner[0].endswith("_path"):
    # The input channels of the pose stem depend on the keypoint layout.
    kind = "stem" if inner[:2] == ["pose_path", "conv1"] else "pathway"
    return _Part(kind, inner[0].removesuffix("_path"))
  return _ATTENTION if inner[0].startswith("gate") else _LATERALS


@dataclasses.dataclass(frozen=True)
class _Source:
  """A checkpoint to copy parts from.

  Attributes:
    option: of `config.init_from`, that names it.
    path: value of the option.
    step: of the checkpoint.
    spec: of its model.
    arrays: its variables.
  """

  option: str
  path: str
  step: int
  spec: ModelSpec
  arrays: Arrays

  @classmethod
  def load(cls, option: str, path: str) -> "_Source":
    try:
      spec, variables, step = load_model(find_start(path))
    except FileNotFoundError as error:
      raise FileNotFoundError(f"init_from.{option}: {error}") from error
    except ValueError as error:
      raise ValueError(f"init_from.{option}: {error}") from error
    return cls(option, path, step, spec, traverse_util.flatten_dict(variables))

  @property
  def parts(self) -> set[_Part]:
    return {_part(path) for path in self.arrays}

  def __str__(self) -> str:
    return f"{self.path}, step {self.step}"


def initialize(fresh: PyTree, spec: ModelSpec) -> PyTree:
  """Replaces fresh variables by those of the checkpoints that `config.init_from` names.

  From `checkpoint`, every part is copied that the network has, too; classifiers and prototypes only
  if the labels are the same, of the pose stem what reads heatmaps of the same names. From `rgb` and
  `pose`, pathways with their BatchNorm statistics are copied and, if the labels are the same,
  classifiers. Weights on outputs of fresh lateral projections are zero, and the gates of fresh
  attention are closed. The origin of every part is logged. A start that is shipped is named as for
  `find_start`.

  Args:
    fresh: the collections `params`, `batch_stats` and `prototypes`.
    spec: the run's config, labels and keypoints.

  Returns:
    Variables with the structure, shapes and shardings of `fresh`; `fresh` itself if `init_from` is
    empty.

  Raises:
    FileNotFoundError: there is no checkpoint at the path of an option.
    ValueError: options contradict each other, a checkpoint lacks a stream, or arrays of a part to
      copy do not fit; the message names them.
  """
  options = {option: path for option, path in spec.config.init_from.items() if path}
  if not options:
    return fresh
  _require_consistent(options, spec.model)
  sources = {option: _Source.load(option, path) for option, path in options.items()}
  for option, source in sources.items():
    _require_streams(source, spec.model.streams if option == "checkpoint" else (option,))

  arrays = traverse_util.flatten_dict(fresh)
  parts = list(dict.fromkeys(map(_part, arrays)))
  origins = {part: _origin(part, sources, spec) for part in parts}
  started = dict(arrays)
  problems, cut = [], {}
  for part, source in origins.items():
    wanted = {path: array for path, array in arrays.items() if _part(path) == part}
    if isinstance(source, _Source):
      keep_laterals = origins.get(_LATERALS) is source
      taken, cut[part], part_problems = _take(part, wanted, source, spec, keep_laterals)
      started |= taken
      problems += part_problems
    elif part == _ATTENTION:
      started |= _closed_gates(wanted)
  if problems:
    more = len(problems) - _SHOWN_PROBLEMS
    raise ValueError(
      "the checkpoint of init_from does not fit the network; give both the same config.model, or "
      "start from nothing, with empty values in init_from:\n  "
      + "\n  ".join(problems[:_SHOWN_PROBLEMS])
      + (f"\n  and {more} more" if more > 0 else "")
    )
  _report(origins, cut, list(sources.values()), spec)
  placed = {
    path: array if array is arrays[path] else jax.device_put(array, arrays[path].sharding)
    for path, array in started.items()
  }
  return {name: {} for name in fresh} | traverse_util.unflatten_dict(placed)


def _require_consistent(options: dict[str, str], model: PCAN | MaskedAutoencoder) -> None:
  if "checkpoint" in options and len(options) > 1:
    raise ValueError(
      "init_from.checkpoint provides all streams, init_from.rgb and init_from.pose one each; "
      "set the first or the others"
    )
  for stream in options.keys() - {"checkpoint", *model.streams}:
    raise ValueError(
      f"init_from.{stream} is set, but the network has no such stream: "
      f"model.streams={model.streams}"
    )


def _require_streams(source: _Source, streams: tuple[str, ...]) -> None:
  for stream in streams:
    if stream not in source.spec.model.streams:
      raise ValueError(
        f"init_from.{source.option}: the network in {source} has no {stream} stream, only "
        f"{', '.join(source.spec.model.streams)}; merge runs of one stream each with init_from.rgb "
        "and init_from.pose"
      )


def _origin(part: _Part, sources: dict[str, _Source], spec: ModelSpec) -> _Source | str:
  """The source of a part, or why it starts fresh."""
  if "checkpoint" in sources:
    source = sources["checkpoint"]
  elif part.kind in _KINDS_OF_BOTH_STREAMS:
    return "fresh"
  elif part.stream in sources:
    source = sources[part.stream]
  else:
    return f"fresh, init_from.{part.stream} is empty"
  if part not in source.parts:
    return f"fresh, not in {source}"
  if part.kind in _OF_LABELS and source.spec.tree != spec.tree:
    return f"fresh, {source} has other labels"
  if part.kind == "stem" and not set(_heatmaps(spec)) & set(_heatmaps(source.spec)):
    return f"fresh, {source} has other heatmaps"
  return source


def _heatmaps(spec: ModelSpec) -> tuple[str, ...]:
  return spec.test_preprocessing.heatmap_channels


def _take(
  part: _Part,
  wanted: Arrays,
  source: _Source,
  spec: ModelSpec,
  keep_laterals: bool,
) -> tuple[Arrays, bool, list[str]]:
  """A part's arrays from a source.

  Returns:
    The arrays; whether weights on features of the other stream were set to zero or left out; and
    what does not fit.
  """
  given = {path: array for path, array in source.arrays.items() if _part(path) == part}
  if part.kind == "stem":
    given = _by_heatmap(given, wanted, _heatmaps(source.spec), _heatmaps(spec))
  ours, theirs = _own_channels(spec.model), _own_channels(source.spec.model)
  taken, cut, problems = {}, False, []
  # Kernels first: their shapes explain the others.
  for path in sorted(wanted.keys() | given.keys(), key=lambda path: (path[-1] != "kernel", path)):
    shapes = [tuple(x[path].shape) if path in x else "lacks it" for x in (given, wanted)]
    problem = f"{'/'.join(path)}: {source} {shapes[0]}, network {shapes[1]}"
    if "lacks it" in shapes:
      problems.append(problem)
      continue
    array = np.asarray(given[path])
    if not keep_laterals and (path in ours or path in theirs):
      own = theirs.get(path, shapes[0][-2])
      if own != ours.get(path, shapes[1][-2]):
        problems.append(problem)
        continue
      array = array[..., :own, :]
      array = np.pad(array, [(0, 0)] * 3 + [(0, shapes[1][-2] - own), (0, 0)])
      cut = True
    if array.shape != shapes[1]:
      problems.append(problem)
      continue
    taken[path] = array
  return taken, cut, problems


def _by_heatmap(
  given: Arrays, wanted: Arrays, theirs: tuple[str, ...], ours: tuple[str, ...]
) -> Arrays:
  """The stem for other heatmaps: kernels on those of the same name, and fresh ones on the others.

  Args:
    given, wanted: the stem's arrays in the source and in the network.
    theirs, ours: names of the heatmaps that they read.
  """
  shared = [name for name in ours if name in theirs]
  to, of = ([names.index(name) for name in shared] for names in (ours, theirs))
  arranged = dict(given)
  for path, array in given.items():
    if path[-1] == "kernel" and path in wanted:
      kernel = np.array(wanted[path])
      if np.delete(kernel.shape, -2).tolist() == np.delete(array.shape, -2).tolist():
        kernel[..., to, :] = np.asarray(array)[..., of, :]
        arranged[path] = kernel
  return arranged


def _own_channels(model: PCAN | MaskedAutoencoder) -> dict[Path, int]:
  """Kernels that read a concatenation, and the number of channels of their own stream in it.

  Those come first, then the lateral projection of the other stream.
  """
  if len(model.streams) < 2 or model.fusion == "late":
    return {}
  channels = {}
  for places in exchange_places(model.rgb.num_stages, model.pose.num_stages):
    for stream, stage in zip(("rgb", "pose"), places):
      block = ("params", "backbone", f"{stream}_path", f"layer{stage + 1}", "block0")
      for conv in ("conv1", "downsample"):
        own = EXPANSION * getattr(model, stream).widths[stage - 1]
        channels[*block, conv, "conv", "kernel"] = own
  return channels


def _closed_gates(attention: Arrays) -> Arrays:
  """Sets gates to zero, which leaves features unchanged."""
  return {
    path: np.zeros(array.shape, array.dtype)
    for path, array in attention.items()
    if path[-2] in ("rgb_out", "pose_out")
  }


def _report(
  origins: dict[_Part, _Source | str],
  cut: dict[_Part, bool],
  sources: list[_Source],
  spec: ModelSpec,
) -> None:
  width = max(len(str(part)) for part in origins)
  lines = []
  for part, origin in origins.items():
    text = origin
    if isinstance(origin, _Source):
      text = f"from {origin}"
      if part.kind == "stem":
        shared = len(set(_heatmaps(spec)) & set(_heatmaps(origin.spec)))
        if shared < len(_heatmaps(spec)):
          text += f"; {shared} of {len(_heatmaps(spec))} heatmaps, the others fresh"
    if cut.get(part):
      text += "; other stream at zero" if _LATERALS in origins else "; without the other stream"
    elif part == _ATTENTION and not isinstance(origin, _Source):
      text += "; gates closed"
    lines.append(f"{part!s:{width}}  {text}")
  for source in sources:
    unused = sorted(map(str, source.parts - origins.keys()))
    if unused:
      lines.append(f"not used from {source}: {', '.join(unused)}")
  _log.info("initial weights\n  %s", "\n  ".join(lines))

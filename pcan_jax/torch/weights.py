"""Converts the network's arrays between this project's and PyTorch's names and axes.

Supports the state dict released by PCAN's authors, those of MMAction2's RGBPoseConv3D and its
initial weights, and MMAction2's single-stream SlowOnly. Every tensor is used, reported as left out,
or an error; likewise every array of the network.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from pcan_jax.network.pcan import STREAMS

PyTree = Any
StateDict = Mapping[str, np.ndarray]
Path = tuple[str, ...]

_SHOWN_NAMES = 10

# Axes that transpose PyTorch's weight to ours; transposed convolutions keep their input axis first.
_CONV_AXES = (2, 3, 4, 1, 0)
_TRANSPOSED_CONV_AXES = (2, 3, 4, 0, 1)

_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}
_GATE_PARTS = {
  "rgb_in": "conv1",
  "pose_in": "conv2",
  "rgb_out": "conv4",
  "pose_out": "conv5",
  "rgb_attention": "rgb_cross_attn",
  "pose_attention": "skt_cross_attn",
  "query": "q_proj",
  "key": "k_proj",
  "value": "v_proj",
  "out": "fc",
}


@dataclasses.dataclass(frozen=True)
class Conversion:
  """The result of a conversion.

  Attributes:
    variables: the network's collections `params`, `batch_stats` and `prototypes`.
    notes: what was left out of the file, and what was initialised because the file lacks it.
  """

  variables: PyTree
  notes: tuple[str, ...]


def torch_name(path: Path) -> str:
  """PyTorch's name for an array of the network.

  Args:
    path: its place in the variables, such as ("params", "head_rgb", "body", "kernel").
  """
  collection, *parts = path
  if collection == "prototypes":
    stream, level = parts
    return f"cls_head.{_recogniser(level, stream)}.avg_f"
  if parts[0].startswith("head_"):
    layer, leaf = parts[1:]
    stream = parts[0].removeprefix("head_")
    module = {
      "action": f"fc_{stream}",
      "body": f"fc_{stream}_coarse",
      "action_embedding": f"{_recogniser('action', stream)}.cl_fc",
      "body_embedding": f"{_recogniser('body', stream)}.cl_fc",
      "frames": f"fc_{stream}_frames",
    }[layer]
    return f"cls_head.{module}.{_LEAVES[leaf]}"
  _, place, *inner, leaf = parts
  number = place[-1]
  if place.startswith("pose_to_rgb"):
    module = [f"rgb_path.layer{number}_lateral.conv"]
  elif place.startswith("rgb_to_pose"):
    module = [f"pose_path.layer{number}_lateral", *inner]
  elif place.startswith("gate"):
    module = [f"featuredifference{number}", *(_GATE_PARTS[part] for part in inner)]
  else:
    module = [place, *(part.removeprefix("block") for part in inner)]
  return ".".join(["backbone", *module, _LEAVES[leaf]])


def _recogniser(level: str, stream: str) -> str:
  """The release's module with an embedding and its prototypes."""
  return {"action": f"fr_{stream}", "body": f"fr_coarse_{stream}"}[level] + ".spatio_cl_net"


def _axes(path: Path) -> tuple[int, ...] | None:
  """How to transpose PyTorch's tensor to ours; None if unchanged."""
  if path[0] == "prototypes":
    return (1, 0)
  if path[-1] != "kernel":
    return None
  if path[1] != "backbone" or "attention" in path[-3]:
    return (1, 0)
  if path[-2] == "pose_out" or path[2].startswith("rgb_to_pose"):
    return _TRANSPOSED_CONV_AXES
  return _CONV_AXES


@dataclasses.dataclass(frozen=True)
class _Slot:
  """An array of the network and its tensor.

  Attributes:
    path: position in the variables.
    name: PyTorch's name of the tensor.
    axes: see `_axes`.
    shape: of the tensor.
    group: part of the network, which a file has completely or not at all.
  """

  path: Path
  name: str
  axes: tuple[int, ...] | None
  shape: tuple[int, ...]
  group: str

  @classmethod
  def of(cls, path: Path, array: Any) -> "_Slot":
    axes = _axes(path)
    shape = tuple(array.shape)
    if axes is not None:
      shape = tuple(shape[i] for i in np.argsort(axes))
    return cls(path, torch_name(path), axes, shape, _group(path))

  def from_torch(self, tensor: np.ndarray) -> np.ndarray:
    tensor = tensor.astype(np.float32)
    return tensor if self.axes is None else tensor.transpose(self.axes)

  def to_torch(self, array: np.ndarray) -> np.ndarray:
    return array if self.axes is None else array.transpose(np.argsort(self.axes))


def _group(path: Path) -> str:
  if path[0] == "prototypes":
    return f"{path[2]} prototypes of {path[1]}"
  if path[1].startswith("head_"):
    kind = "" if path[2].endswith("embedding") else " classifier"
    return f"{path[2].replace('_', ' ')}{kind} of {path[1].removeprefix('head_')}"
  if re.match("pose_to_rgb|rgb_to_pose|gate", path[2]):
    return f"lateral connection {path[2]}"
  return "pose stem" if path[2:] == ("pose_path", "conv1", "conv", "kernel") else path[2]


def _slots(variables: PyTree) -> list[_Slot]:
  return [_Slot.of(path, array) for path, array in traverse_util.flatten_dict(variables).items()]


def _counter(name: str) -> str:
  """PyTorch's batch counter of a running mean, which is not needed here."""
  return name.replace("running_mean", "num_batches_tracked")


def to_state_dict(variables: PyTree) -> dict[str, np.ndarray]:
  """Converts the network to the release's names and PyTorch's axes.

  The release does not store body prototypes; here they are stored under `fr_coarse_*`.
  """
  arrays = traverse_util.flatten_dict(variables)
  state_dict = {}
  for slot in _slots(variables):
    state_dict[slot.name] = slot.to_torch(np.asarray(arrays[slot.path]))
    if slot.path[-1] == "mean":
      state_dict[_counter(slot.name)] = np.zeros((), np.int64)
  return state_dict


def from_state_dict(
  state_dict: StateDict, initial: PyTree, *, reinit_stem: bool = False
) -> Conversion:
  """Converts a PyTorch state dict to the network's variables.

  Args:
    state_dict: tensors under the names of the release, of RGBPoseConv3D or of SlowOnly.
    initial: freshly initialised variables of the network, for their shapes and for arrays that the
      file may lack: the release lacks body prototypes; the others may lack heads and lateral
      connections, and have classifiers for other classes, which are left out.
    reinit_stem: whether a pose stem for another number of keypoints is left out as well.

  Raises:
    ValueError: tensors are missing, unused, of the wrong shape or not finite; the message names
      them.
  """
  arrays = traverse_util.flatten_dict(initial)
  slots = _slots(initial)
  from_release = any(name.startswith("cls_head.fr_") for name in state_dict)
  names_in_file = _release_names(state_dict, slots)
  given = {name: state_dict[in_file] for name, in_file in names_in_file.items()}

  notes, converted = [], {}
  for group in dict.fromkeys(slot.group for slot in slots):
    members = [slot for slot in slots if slot.group == group]
    reason = _reason_to_start_fresh(group, members, given, from_release, reinit_stem)
    if reason:
      notes.append(f"{group}: {reason}; starts fresh")
      for slot in members:
        given.pop(slot.name, None)
        converted[slot.path] = np.asarray(arrays[slot.path])

  problems = {kind: [] for kind in ("missing", "unused", "of the wrong shape", "not finite")}
  for slot in slots:
    if slot.path[-1] == "mean":
      given.pop(_counter(slot.name), None)
    if slot.path in converted:
      continue
    tensor = given.pop(slot.name, None)
    if tensor is None:
      problems["missing"].append(slot.name)
    elif tensor.shape != slot.shape:
      hint = "; reinit_stem starts it fresh" if slot.group == "pose stem" else ""
      problems["of the wrong shape"].append(
        f"{names_in_file[slot.name]} (file {tensor.shape}, network {slot.shape}{hint})"
      )
    elif not np.isfinite(tensor.astype(np.float32)).all():
      problems["not finite"].append(names_in_file[slot.name])
    else:
      converted[slot.path] = slot.from_torch(tensor)
  problems["unused"] = [names_in_file[name] for name in given]
  refuse_misfits(problems)
  return Conversion(traverse_util.unflatten_dict(converted), tuple(notes))


def refuse_misfits(problems: Mapping[str, list[str]]) -> None:
  """Raises ValueError if there are names of tensors under any kind of problem."""
  if any(problems.values()):
    lines = [_listing(kind, names) for kind, names in problems.items() if names]
    raise ValueError("the weights do not fit the network:\n  " + "\n  ".join(lines))


def _listing(kind: str, names: list[str]) -> str:
  more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
  return f"{len(names)} tensors {kind}: {', '.join(names[:_SHOWN_NAMES])}{more}"


def _release_names(state_dict: StateDict, slots: list[_Slot]) -> dict[str, str]:
  """Maps the release's name of every tensor to its name in the file."""
  if not any(name.startswith("backbone.conv1.") for name in state_dict):
    return {name: name for name in state_dict}
  streams = [s for s in STREAMS if any(slot.path[2] == f"{s}_path" for slot in slots)]
  if len(streams) > 1:
    raise ValueError(
      "the file holds one SlowOnly pathway, the network has two streams; convert it for a config "
      "with one stream, such as --config=ma52:pcan_rgb"
    )
  renamed = {}
  for name in state_dict:
    new = name.replace("backbone.", f"backbone.{streams[0]}_path.", 1)
    renamed[new.replace("cls_head.fc_cls", f"cls_head.fc_{streams[0]}")] = name
  return renamed


def _reason_to_start_fresh(
  group: str, slots: list[_Slot], given: StateDict, from_release: bool, reinit_stem: bool
) -> str | None:
  """Why a part of the network may be missing from the file; None if it must not be."""
  present = [slot for slot in slots if slot.name in given]
  may_be_absent = (
    group.startswith(("body prototypes", "frames"))
    if from_release
    else not group.endswith(("_path", "stem"))
  )
  if not present and may_be_absent:
    return "not in the file"
  for slot in present:
    found = given[slot.name].shape
    if "classifier" in group and not from_release and found[0] != slot.shape[0]:
      return f"{found[0]} classes in the file, {slot.shape[0]} here"
    if group == "pose stem" and reinit_stem and found[1] != slot.shape[1]:
      return f"{found[1]} keypoints in the file, {slot.shape[1]} here"
  return None

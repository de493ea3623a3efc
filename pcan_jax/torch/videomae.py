"""Converts the weights of VideoMAE to those of `network.video_transformer`.

Supports what `transformers` writes, for pretraining and for classification, and the checkpoints of
the original repositories of VideoMAE and VideoMAE V2, pretrained or fine-tuned. Only the encoder is
taken; every other tensor is reported as left out, or an error.
"""

import re
from collections.abc import Iterable

import numpy as np
from flax import traverse_util

from pcan_jax.network.video_transformer import VideoTransformerConfig, sine_positions
from pcan_jax.torch.weights import Conversion, PyTree, StateDict, refuse_misfits

Path = tuple[str, ...]

_ENCODER = ("params", "backbone", "rgb_path")

# Beginnings of the encoder's names: in models of several parts, and in those of the hub.
_PREFIXES = ("videomae.", "encoder.", "backbone.", "model.")
# What `transformers` calls the parts of the original.
_HUGGING_FACE = (
  (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
  (r"embeddings\.position_embeddings", "pos_embed"),
  (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.weight", r"blocks.\1.\2"),
  (r"encoder\.layer\.(\d+)\.attention\.attention\.query\.bias", r"blocks.\1.attn.q_bias"),
  (r"encoder\.layer\.(\d+)\.attention\.attention\.value\.bias", r"blocks.\1.attn.v_bias"),
  (r"encoder\.layer\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
  (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
  (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
  (r"encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
  (r"encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
  (r"encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
  (r"layernorm\.", "norm."),
  (r"classifier\.", "head."),
)
_MODULES = {
  "attn.qkv": ("attention", "qkv"),
  "attn.proj": ("attention", "out"),
  "mlp.fc1": ("mlp1",),
  "mlp.fc2": ("mlp2",),
  "norm1": ("norm1",),
  "norm2": ("norm2",),
}
_LEFT_OUT = {
  "head": "the classifier",
  "norm": "the LayerNorm of every token",
  "decoder": "the decoder",
  "encoder_to_decoder": "the decoder",
  "mask_token": "the decoder",
}


def from_videomae(
  state_dict: StateDict, initial: PyTree, config: VideoTransformerConfig
) -> Conversion:
  """Converts the encoder in a PyTorch state dict to the RGB stream of the network.

  Args:
    state_dict: tensors by name.
    initial: freshly initialised variables of the network; all but the encoder stay.
    config: of the RGB stream.

  Raises:
    ValueError: tensors are missing, unknown, of the wrong shape or not finite; the message names
      them.
  """
  names = {_original_name(name): name for name in state_dict}
  if len(names) < len(state_dict):
    raise ValueError("it holds two encoders, of which it is not clear which one is meant")
  given = {name: state_dict[in_file] for name, in_file in names.items()}
  notes = _leave_out(given, config)
  _join_projections(given, names)
  arrays = traverse_util.flatten_dict(initial)
  converted = {path: np.asarray(array) for path, array in arrays.items()}
  problems = {kind: [] for kind in ("missing", "unused", "of the wrong shape", "not finite")}
  for path in sorted(path for path in arrays if path[:3] == _ENCODER):
    name = _name(path)
    tensor = given.pop(name, None)
    if tensor is None:
      if path[3] == "norm":
        notes.append(f"{name}: not in the file; starts fresh")
      else:
        problems["missing"].append(name)
      continue
    array = _to_ours(path, tensor)
    wanted = arrays[path].shape
    if array.shape != wanted:
      problems["of the wrong shape"].append(
        f"{names[name]} (file {tensor.shape}, here {array.shape}, network {wanted})"
      )
    elif not np.isfinite(array).all():
      problems["not finite"].append(names[name])
    else:
      converted[path] = array
  problems["unused"] = [names[name] for name in given]
  refuse_misfits(problems)
  fresh = sorted({path[1] for path in arrays if path[:3] != _ENCODER and path[0] == "params"})
  notes.append(f"{', '.join(fresh)}: not of VideoMAE; starts fresh")
  return Conversion(
    {name: {} for name in initial} | traverse_util.unflatten_dict(converted), tuple(notes)
  )


def is_videomae(names: Iterable[str]) -> bool:
  """Whether these are the names of tensors of VideoMAE."""
  return any(_original_name(name) == "patch_embed.proj.weight" for name in names)


def _original_name(name: str) -> str:
  """The original repository's name of a tensor of the encoder, in a model that is nothing else."""
  if name.startswith("encoder.layer."):  # of an encoder alone, as `transformers` writes it
    prefixes = ()
  else:
    prefixes = _PREFIXES
  for prefix in prefixes:
    if name.startswith(prefix):
      name = name.removeprefix(prefix)
      break
  for pattern, replacement in _HUGGING_FACE:
    renamed, count = re.subn(f"^{pattern}", replacement, name)
    if count:
      return renamed
  return name


def _leave_out(given: dict[str, np.ndarray], config: VideoTransformerConfig) -> list[str]:
  """Removes what the network has no place for, and says what that was."""
  notes = []
  for module, what in _LEFT_OUT.items():
    names = [name for name in given if name.split(".")[0] == module]
    if names:
      shape = given[f"{module}.weight"].shape if module == "head" and len(names) == 2 else ()
      classes = f" of {shape[0]} classes" if shape else ""
      notes.append(f"{module}: {what}{classes}; not used ({len(names)} tensors)")
    for name in names:
      del given[name]
  positions = given.pop("pos_embed", None)
  if positions is not None:
    grid = config.position_grid
    wanted = sine_positions(grid, config.width, grid).reshape(1, -1, config.width)
    if positions.shape != wanted.shape or not np.allclose(positions, wanted, atol=1e-3):
      raise ValueError(
        f"pos_embed, of shape {positions.shape}, are not the fixed positions of model.rgb: learned "
        "positions are not supported"
      )
  return notes


def _join_projections(given: dict[str, np.ndarray], names: dict[str, str]) -> None:
  """Makes one matrix of the query's, key's and value's, which `transformers` has apart."""
  for name in [name for name in given if name.endswith(".query")]:
    block = name.removesuffix(".query")
    parts = [given.pop(f"{block}.{part}", None) for part in ("query", "key", "value")]
    if any(part is None or part.ndim != 2 for part in parts):
      raise ValueError(f"{names[name]}: the projections of its block are not three matrices")
    given[f"{block}.attn.qkv.weight"] = np.concatenate(parts)
    names[f"{block}.attn.qkv.weight"] = names[name]


def _name(path: Path) -> str:
  """The original repository's name for an array of the network."""
  *modules, leaf = path[3:]
  leaf = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
  if modules[0] == "patches":
    return f"patch_embed.proj.{leaf}"
  if modules[0] == "norm":
    return f"fc_norm.{leaf}"
  block = f"blocks.{int(modules[0].removeprefix('block')) - 1}"
  if leaf in ("q_bias", "v_bias"):
    return f"{block}.attn.{leaf}"
  theirs = {ours: name for name, ours in _MODULES.items()}
  return f"{block}.{theirs[tuple(modules[1:])]}.{leaf}"


def _to_ours(path: Path, tensor: np.ndarray) -> np.ndarray:
  """A tensor with our axes."""
  tensor = tensor.astype(np.float32)
  if path[-1] != "kernel":
    return tensor
  if path[3] == "patches" and tensor.ndim == 5:
    return tensor.transpose(2, 3, 4, 1, 0).reshape(-1, tensor.shape[0])
  return tensor.T

"""Checkpoints of VideoMAE in each of their forms become the same network."""

import dataclasses
import json
import struct

import jax
import ml_dtypes
import numpy as np
import pytest

from pcan_jax.checkpoints import load_model
from pcan_jax.config import load_config
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import get_tree
from pcan_jax.spec import ModelSpec
from pcan_jax.torch.checkpoint import read_state_dict
from pcan_jax.torch.convert import convert
from pcan_jax.torch.videomae import from_videomae
from tests.tiny_config import shrink
from tests.torch_files import save_state_dict


@pytest.fixture(scope="module")
def spec():
  config = shrink(load_config("ma52:vit_pcan"))
  return ModelSpec(config, get_tree("ma52"), get_layout("openpose-28"), stored_size=32)


@pytest.fixture(scope="module")
def initial(spec):
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(spec.init))


@pytest.fixture(scope="module")
def original(spec):
  """What the original repository would write after fine-tuning for 710 classes."""
  config, randomness = spec.model.rgb, np.random.default_rng(0)
  width, hidden = config.width, config.mlp_width
  shapes = {
    "patch_embed.proj.weight": (width, 3, config.tubelet, config.patch, config.patch),
    "patch_embed.proj.bias": (width,),
    "fc_norm.weight": (width,),
    "fc_norm.bias": (width,),
    "head.weight": (710, width),
    "head.bias": (710,),
  }
  for number in range(config.depth):
    shapes |= {
      f"blocks.{number}.{name}": shape
      for name, shape in {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.q_bias": (width,),
        "attn.v_bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc2.bias": (width,),
      }.items()
    }
  return {name: randomness.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def pretrained(original):
  """As before fine-tuning: an encoder and a decoder, no classifier."""
  kept = {f"encoder.{n}": x for n, x in original.items() if not n.startswith(("head", "fc_norm"))}
  vector = np.zeros(3, np.float32)
  return kept | {
    "encoder.norm.weight": vector,
    "encoder.norm.bias": vector,
    "encoder_to_decoder.weight": vector,
    "mask_token": vector,
    "decoder.blocks.0.norm1.weight": vector,
  }


def hugging_face(original, prefix="videomae.", biases=("q_bias", "v_bias")):
  """The names of `transformers`."""
  renamed = {}
  for name, x in original.items():
    if name.startswith("head."):
      renamed[name.replace("head", "classifier")] = x
    elif name.startswith("fc_norm."):
      renamed[name] = x
    elif name.startswith("patch_embed."):
      renamed[f"{prefix}embeddings.patch_embeddings.projection.{name.rpartition('.')[2]}"] = x
    else:
      _, number, inner = name.split(".", 2)
      block = f"{prefix}encoder.layer.{number}."
      if inner == "attn.qkv.weight":
        for part, matrix in zip(("query", "key", "value"), np.split(x, 3)):
          renamed[f"{block}attention.attention.{part}.weight"] = matrix
        continue
      for theirs, ours in (
        ("attention.output.dense.", "attn.proj."),
        (f"attention.attention.{biases[0]}", "attn.q_bias"),
        (f"attention.attention.{biases[1]}", "attn.v_bias"),
        ("intermediate.dense.", "mlp.fc1."),
        ("output.dense.", "mlp.fc2."),
        ("layernorm_before.", "norm1."),
        ("layernorm_after.", "norm2."),
      ):
        if inner.startswith(ours):
          renamed[block + inner.replace(ours, theirs)] = x
  return renamed


def write_safetensors(path, tensors):
  header, raw = {"__metadata__": {"format": "pt"}}, b""
  kinds = {"float32": "F32", "bfloat16": "BF16", "int64": "I64"}
  for name, x in tensors.items():
    offsets = [len(raw), len(raw) + x.nbytes]
    header[name] = {"dtype": kinds[x.dtype.name], "shape": x.shape, "data_offsets": offsets}
    raw += x.tobytes()
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + raw)
  return path


def encoder(conversion):
  return conversion.variables["params"]["backbone"]["rgb_path"]


FORMS = {
  "original": lambda weights: weights,
  "on the hub": lambda weights: {f"model.{name}": x for name, x in weights.items()},
  "transformers": hugging_face,
  "its encoder": lambda weights: hugging_face(weights, prefix=""),
  "its fifth version": lambda weights: hugging_face(weights, biases=("query.bias", "value.bias")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_network(form, original, initial, spec):
  wanted = from_videomae(original, initial, spec.model.rgb)
  found = from_videomae(FORMS[form](original), initial, spec.model.rgb)
  jax.tree.map(np.testing.assert_array_equal, found.variables, wanted.variables)
  assert found.notes == (
    "head: the classifier of 710 classes; not used (2 tensors)",
    "head_rgb: not of VideoMAE; starts fresh",
  )
  block = encoder(found)["block2"]
  np.testing.assert_array_equal(
    block["attention"]["qkv"]["kernel"], original["blocks.1.attn.qkv.weight"].T
  )
  np.testing.assert_array_equal(block["mlp2"]["bias"], original["blocks.1.mlp.fc2.bias"])
  pixel = encoder(found)["patches"]["kernel"].reshape(2, 8, 8, 3, -1)[1, 2, 3, 0]
  np.testing.assert_array_equal(pixel, original["patch_embed.proj.weight"][:, 0, 1, 2, 3])


def test_pretrained_weights_lack_only_the_last_norm(original, initial, spec):
  found = from_videomae(pretrained(original), initial, spec.model.rgb)
  assert "fc_norm.bias: not in the file; starts fresh" in found.notes
  assert "norm: the LayerNorm of every token; not used (2 tensors)" in found.notes
  assert "decoder: the decoder; not used (1 tensors)" in found.notes
  np.testing.assert_array_equal(encoder(found)["norm"]["scale"], 0)
  np.testing.assert_array_equal(
    encoder(found)["block1"]["attention"]["q_bias"], original["blocks.0.attn.q_bias"]
  )


def test_misfits_are_named(original, initial, spec):
  config = spec.model.rgb
  bad = dict(original) | {"blocks.0.attn.extra": np.zeros(1, np.float32)}
  del bad["blocks.1.norm1.bias"]
  bad["blocks.0.mlp.fc1.bias"] = np.zeros(5, np.float32)
  bad["fc_norm.bias"] = np.full(config.width, np.nan, np.float32)
  with pytest.raises(ValueError) as raised:
    from_videomae(bad, initial, config)
  for part in (
    "missing: blocks.1.norm1.bias",
    "unused: blocks.0.attn.extra",
    "of the wrong shape: blocks.0.mlp.fc1.bias (file (5,)",
    "not finite: fc_norm.bias",
  ):
    assert part in str(raised.value)
  with pytest.raises(ValueError, match="learned positions are not supported"):
    positions = np.ones((1, 8, config.width), np.float32)
    from_videomae(original | {"pos_embed": positions}, initial, config)
  with pytest.raises(ValueError, match="two encoders"):
    from_videomae(original | pretrained(original), initial, config)
  half = hugging_face(original)
  del half["videomae.encoder.layer.0.attention.attention.key.weight"]
  with pytest.raises(ValueError, match="not three matrices"):
    from_videomae(half, initial, config)


def test_files_of_every_kind_become_checkpoints(tmp_path, original, spec):
  averaged = spec.config.copy_and_resolve_references()
  averaged.optimizer.ema = 0.9
  spec = dataclasses.replace(spec, config=averaged)
  sources = (
    write_safetensors(tmp_path / "model.safetensors", hugging_face(original)),
    save_state_dict(tmp_path / "model.pth", original),
  )
  loaded = []
  for source in sources:
    notes = convert(source, tmp_path / source.suffix[1:], spec).notes
    assert "head: the classifier of 710 classes; not used (2 tensors)" in notes
    loaded.append(load_model(tmp_path / source.suffix[1:])[1])
  jax.tree.map(np.testing.assert_array_equal, *loaded)
  found = loaded[0]["params"]["backbone"]["rgb_path"]["norm"]["scale"]
  np.testing.assert_array_equal(found, original["fc_norm.weight"])


def test_videomae_in_place_of_another_network_is_recognised(tmp_path, original):
  source = save_state_dict(tmp_path / "model.pth", original)
  config = shrink(load_config("ma52:pcan_rgb"))
  spec = ModelSpec(config, get_tree("ma52"), get_layout("openpose-28"), stored_size=32)
  with pytest.raises(ValueError, match="model.pth holds VideoMAE; convert it for .* ma52:vit"):
    convert(source, tmp_path / "run", spec)


def test_safetensors_are_read_as_they_were_written(tmp_path):
  tensors = {
    "half": np.array([[1.5, -2]], ml_dtypes.bfloat16),
    "count": np.array(3),
    "none": np.zeros((0, 2), np.float32),
  }
  found = read_state_dict(write_safetensors(tmp_path / "a.safetensors", tensors))
  assert found.keys() == tensors.keys()
  for name, x in tensors.items():
    assert found[name].dtype == x.dtype
    np.testing.assert_array_equal(found[name], x)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
  "header, message",
  [
    (b"{", "its header is not JSON"),
    (b"[" * 100_000, "its header is not JSON"),
    (b"[]", "does not name tensors"),
    ({"w": {"dtype": "F32"}}, "lacks its dtype, shape or data_offsets"),
    ({"w": 3}, "lacks its dtype, shape or data_offsets"),
    ({"w": ENTRY | {"dtype": "F4"}}, "unknown type 'F4'"),
    ({"w": ENTRY | {"dtype": ["F32"]}}, "unknown type"),
    ({"w": ENTRY | {"data_offsets": [8, 16]}}, "does not lie within the file"),
    ({"w": ENTRY | {"data_offsets": [-8, 0]}}, "does not lie within the file"),
    ({"w": ENTRY | {"shape": [True, 2]}}, "does not lie within the file"),
    ({"w": ENTRY | {"shape": "2"}}, "does not lie within the file"),
    ({"w": ENTRY | {"shape": [3]}}, "should not have 8 bytes"),
    ({"w": ENTRY | {"shape": [2**40, 2**40]}}, "should not have 8 bytes"),
  ],
)
def test_damaged_safetensors_are_refused(tmp_path, header, message):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path = tmp_path / "a.safetensors"
  path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
  with pytest.raises(ValueError, match=f"a.safetensors: cannot be read .*{message}"):
    read_state_dict(path)
  for content, short in ((b"abc", "only 3 bytes"), (b"\xff" * 16, "more than it can")):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=short):
      read_state_dict(path)

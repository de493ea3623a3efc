import dataclasses
import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax.network.backbone import FUSIONS, Backbone, exchange_places
from tests.paper import POSE_PATHWAY, RGB_PATHWAY
from tests.toy_pathways import POSE, RGB

LISTENERS = {"late": (), "lateral": ("rgb", "pose"), "lateral_attention": ("rgb", "pose")}
"""The streams that read the other one's features."""

REFERENCE = pathlib.Path(__file__).parent / "reference"


def joined(rgb=RGB, pose=POSE, fusion="lateral", lateral_stride=4):
  return Backbone(rgb, pose, fusion, lateral_stride, dtype=jnp.float32, remat="none")


def inputs(frames=2, size=32, heatmap_frames=None, heatmap_size=None, batch=2):
  rgb, pose = jax.random.split(jax.random.key(0))
  heatmap_frames, heatmap_size = heatmap_frames or 4 * frames, heatmap_size or size // 4
  return (
    jax.random.normal(rgb, (batch, frames, size, size, 3)),
    jax.random.uniform(pose, (batch, heatmap_frames, heatmap_size, heatmap_size, 28)),
  )


def initialised(backbone, *arrays):
  """Random variables; those of `init` would make every block the identity."""
  shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), *arrays, train=False))
  randomness = np.random.default_rng(0)

  def fill(path, x):
    if path[-1].key == "kernel":
      return randomness.standard_normal(x.shape, np.float32) / np.sqrt(np.prod(x.shape[:-1]))
    return np.full(x.shape, path[-1].key not in ("bias", "mean"), np.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


@functools.partial(jax.jit, static_argnums=(0, 4))
def run(backbone, variables, arrays, seed=0, train=False):
  return backbone.apply(
    variables, *arrays, train, mutable="batch_stats", rngs={"dropout": jax.random.key(seed)}
  )


def listed_parameters(file, listing=None):
  """Sizes of the parameters of a backbone that others published, by name."""
  tensors = json.loads((REFERENCE / file).read_text())
  return {
    name: math.prod(shape)
    for name, shape in (tensors[listing] if listing else tensors).items()
    if name.startswith("backbone.") and name.endswith(("weight", "bias"))
  }


@pytest.mark.parametrize("fusion", FUSIONS)
def test_output_shapes_and_parameters_at_full_size(fusion):
  backbone = joined(RGB_PATHWAY, POSE_PATHWAY, fusion)
  shapes = ((1, 8, 224, 224, 3), (1, 32, 56, 56, 28))
  out, variables = jax.eval_shape(
    lambda: backbone.init_with_output(jax.random.key(0), *map(jnp.zeros, shapes), train=False)
  )
  assert out["rgb"].shape == (1, 8, 7, 7, 2048)
  assert out["pose"].shape == (1, 32, 7, 7, 512)
  if fusion == "late":  # two SlowOnly networks, with 28 instead of 17 keypoints
    separate = (
      listed_parameters("slowonly_state_dicts.json", name) for name in ("rgb_only", "pose_only")
    )
    wanted = sum(sum(sizes.values()) for sizes in separate) + 11 * 49 * 32
  else:
    wanted = sum(
      size
      for name, size in listed_parameters("release_state_dict.json").items()
      if fusion == "lateral_attention" or "featuredifference" not in name
    )
  assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == wanted


@pytest.mark.parametrize("stream", ["rgb", "pose"])
def test_one_stream_leaves_the_other_out(stream):
  backbone = joined(**{stream: None})
  arrays = [None if name == stream else x for name, x in zip(("rgb", "pose"), inputs())]
  out, variables = jax.eval_shape(
    lambda: backbone.init_with_output(jax.random.key(0), *arrays, train=False)
  )
  assert set(out) == {"rgb", "pose"} - {stream}
  assert len(variables["params"]) == 1


@pytest.mark.parametrize("fusion", FUSIONS)
def test_streams_hear_each_other_as_the_fusion_says(fusion):
  backbone = joined(fusion=fusion)
  rgb, heatmaps = inputs()
  variables = initialised(backbone, rgb, heatmaps)

  base, _ = run(backbone, variables, (rgb, heatmaps))
  other_rgb, _ = run(backbone, variables, (-rgb, heatmaps))
  other_pose, _ = run(backbone, variables, (rgb, heatmaps[::-1]))
  assert (base["rgb"] != other_rgb["rgb"]).any()
  assert (base["pose"] != other_pose["pose"]).any()
  assert bool((base["pose"] != other_rgb["pose"]).any()) == ("pose" in LISTENERS[fusion])
  assert bool((base["rgb"] != other_pose["rgb"]).any()) == ("rgb" in LISTENERS[fusion])


def test_bfloat16_keeps_float32_state():
  rgb, heatmaps = inputs()
  backbone = joined(fusion="lateral_attention")
  variables = initialised(backbone, rgb, heatmaps)
  exact, _ = run(backbone, variables, (rgb, heatmaps))
  rough, _ = run(backbone.clone(dtype=jnp.bfloat16), variables, (rgb, heatmaps))
  _, updated = run(backbone.clone(dtype=jnp.bfloat16), variables, (rgb, heatmaps), train=True)
  assert {x.dtype for x in rough.values()} == {jnp.dtype(jnp.bfloat16)}
  assert {x.dtype for x in jax.tree.leaves(updated)} == {jnp.dtype(jnp.float32)}
  for stream, wanted in exact.items():
    error = jnp.abs(rough[stream].astype(jnp.float32) - wanted).max() / jnp.abs(wanted).max()
    assert 0 < error < 0.05, stream


def test_attention_drops_weights_in_training_only():
  rgb, heatmaps = inputs()
  backbone = joined(fusion="lateral_attention")
  variables = initialised(backbone, rgb, heatmaps)

  def features(seed, train):
    out, _ = run(backbone, variables, (rgb, heatmaps), seed, train)
    return np.asarray(out["rgb"])

  assert (features(0, train=True) != features(1, train=True)).any()
  np.testing.assert_array_equal(features(0, train=False), features(1, train=False))


@pytest.mark.parametrize(
  ("stages", "places"),
  [((4, 3), ((2, 1), (3, 2))), ((3, 3), ((1, 1), (2, 2))), ((2, 4), ((1, 3),)), ((4, 1), ())],
)
def test_exchange_counts_from_the_end(stages, places):
  assert exchange_places(*stages) == places


def test_pathways_of_other_depths_exchange():
  rgb = dataclasses.replace(RGB_PATHWAY, blocks=(1,) * 4, widths=(4,) * 4)
  pose = dataclasses.replace(POSE, spatial_strides=(4, 2))
  backbone = joined(rgb, pose, lateral_stride=2)
  out, variables = jax.eval_shape(
    lambda: backbone.init_with_output(
      jax.random.key(0), *inputs(frames=3, heatmap_frames=6), train=False
    )
  )
  assert {"pose_to_rgb3", "rgb_to_pose1"} < set(variables["params"])
  assert out["pose"].shape[:2] == (2, 6)


@pytest.mark.parametrize(
  ("backbone", "sizes", "message"),
  [
    (joined(None, None), {}, "needs a stream"),
    (joined(fusion="early"), {}, "fusion 'early' is not one of"),
    (joined(), {"heatmap_frames": 6}, "lateral_stride=4 .* there are 6 and 2"),
    (joined(), {"heatmap_size": 16}, r"RGB \(4, 4\), pose \(8, 8\); change"),
    (
      joined(
        RGB,
        dataclasses.replace(
          POSE, blocks=(1,), widths=(4,), spatial_strides=(8,), temporal_kernels=(1,)
        ),
      ),
      {},
      r"needs at least two stages .*pose.blocks=\(1,\)",
    ),
    (
      joined(RGB, dataclasses.replace(POSE, widths=(3, 8)), "lateral_attention"),
      {},
      "attention over 12 channels cannot have 8 heads",
    ),
  ],
)
def test_what_cannot_be_joined_is_refused(backbone, sizes, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda: backbone.init(jax.random.key(0), *inputs(**sizes), train=False))

"""The released network's intermediate means, scores and fused probabilities.

Weights and inputs are drawn as those of `release_forward.npz` were: a tensor from a generator
seeded with the checksum of its name, all inputs from one generator. The weights pass through the
converter, as those of a checkpoint do.
"""

import argparse
import functools
import json
import pathlib
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pcan_jax.config import load_config
from pcan_jax.labels import get_tree
from pcan_jax.method.rectification import rectify
from pcan_jax.network.pcan import PCAN, build_model
from pcan_jax.torch.weights import from_state_dict

HERE = pathlib.Path(__file__).parent
TREE = get_tree("ma52")
GAMMA = {"rgb": 5.0, "pose": 1.0}  # the release's; the paper has them the other way round

Arrays = dict[str, np.ndarray]
Inputs = dict[str, jax.Array]

# The release's modules and where the means of their outputs are found in our intermediates.
TAPS = {
  "rgb_path.maxpool": ("rgb_path", "pool"),
  "rgb_path.layer1": ("rgb_path", "stage1"),
  "rgb_path.layer2": ("rgb_path", "stage2"),
  "rgb_path.layer3": ("rgb_path", "stage3"),
  "rgb_path.layer4": ("rgb_path", "stage4"),
  "pose_path.conv1": ("pose_path", "stem"),
  "pose_path.layer1": ("pose_path", "stage1"),
  "pose_path.layer2": ("pose_path", "stage2"),
  "pose_path.layer3": ("pose_path", "stage3"),
  "featuredifference2.rgb": ("gated_rgb2",),
  "featuredifference2.pose": ("gated_pose1",),
  "featuredifference3.rgb": ("gated_rgb3",),
  "featuredifference3.pose": ("gated_pose2",),
  "rgb_path.layer2_lateral": ("lateral_rgb2",),
  "rgb_path.layer3_lateral": ("lateral_rgb3",),
  "pose_path.layer1_lateral": ("lateral_pose1",),
  "pose_path.layer2_lateral": ("lateral_pose2",),
}


def draw_tensor(name: str, shape: Sequence[int]) -> np.ndarray:
  """A weight of plausible size, the same wherever it is drawn."""
  generator = np.random.default_rng(zlib.crc32(name.encode()))
  if name.endswith("num_batches_tracked"):
    return np.zeros(shape, np.int64)
  if name.endswith("running_mean"):
    tensor = 0.1 * generator.standard_normal(shape)
  elif name.endswith("running_var"):
    tensor = generator.uniform(0.5, 1.5, shape)
  elif name.endswith("avg_f"):
    tensor = generator.standard_normal(shape)
  elif name.endswith(".bn.weight"):
    tensor = generator.uniform(0.3, 0.6, shape)
  elif name.endswith("bias"):
    tensor = 0.05 * generator.standard_normal(shape)
  else:
    tensor = generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
  return tensor.astype(np.float32)


def draw_state_dict(file: str, listing: str | None = None) -> Arrays:
  """A state dict with the names and shapes that a file of `tests/reference` lists."""
  shapes = json.loads((HERE / "reference" / file).read_text())
  shapes = shapes if listing is None else shapes[listing]
  return {name: draw_tensor(name, shape) for name, shape in shapes.items()}


def draw_inputs(seed: int, batch: int, size: int, keypoints: int = 28) -> Inputs:
  """Normalised frames and heatmaps."""
  generator = np.random.default_rng(seed)
  rgb = generator.standard_normal((batch, 8, size, size, 3))
  heatmaps = generator.random((batch, 32, size // 4, size // 4, keypoints)) ** 8
  return {"rgb": jnp.asarray(rgb, jnp.float32), "heatmaps": jnp.asarray(heatmaps, jnp.float32)}


def release_model(dtype: str = "float32") -> PCAN:
  """The network of the released checkpoint."""
  config = load_config("ma52:release").model
  config.dtype = dtype
  return build_model(config, TREE)


def abstract_variables(model: PCAN, inputs: Inputs) -> dict:
  """The shapes of a network's variables."""
  return jax.eval_shape(lambda: dict(model.init(jax.random.key(0), inputs, train=False)))


def zeros(shapes: dict) -> dict:
  """Stands in for fresh variables where the file brings all that matters."""
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


# The tests compile quickly; at full size it is computing that takes long.
@functools.partial(
  jax.jit, static_argnames="model", compiler_options={"xla_backend_optimization_level": 3}
)
def forward(variables: dict, inputs: Inputs, model: PCAN) -> dict[str, jax.Array]:
  """Everything that `release_forward.npz` holds."""
  outputs, state = model.apply(variables, inputs, train=False, mutable="intermediates")
  found, probabilities = {}, {"action": [], "body": []}
  for tap, path in TAPS.items():
    value = functools.reduce(lambda tree, key: tree[key], path, state["intermediates"]["backbone"])
    found[f"tap/{tap}"] = value[0].astype(jnp.float32).mean(axis=(1, 2, 3))
  for stream, output in outputs.items():
    scores = {
      "action": rectify(
        output["action"]["logits"],
        output["action"]["embedding"],
        variables["prototypes"][stream]["action"],
        GAMMA[stream],
      ),
      "body": output["body"]["logits"],
    }
    found[f"score/{stream}"] = scores["action"]
    found[f"score/{stream}_coarse"] = scores["body"]
    for level, values in scores.items():
      probabilities[level].append(jax.nn.softmax(values))
  return found | {f"fused/{level}": sum(p) / len(p) for level, p in probabilities.items()}


def compute(seed: int, batch: int, size: int, dtype: str = "float32") -> Arrays:
  """The arrays of `release_forward.npz` for other inputs."""
  model, inputs = release_model(dtype), draw_inputs(seed, batch, size)
  initial = zeros(abstract_variables(model, inputs))
  variables = from_state_dict(draw_state_dict("release_state_dict.json"), initial).variables
  return {name: np.asarray(x) for name, x in forward(variables, inputs, model).items()}


def main(argv: Sequence[str]) -> None:
  """Writes the file that the arguments name."""
  parser = argparse.ArgumentParser(
    prog="python -m tests.parity forward",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--seed", type=int, default=7, help="of the inputs")
  parser.add_argument("--batch", type=int, default=2, help="clips")
  parser.add_argument("--size", type=int, default=224, help="side of the frames, a multiple of 4")
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument("output", type=pathlib.Path, help="file to write (.npz)")
  args = parser.parse_args(argv)
  if args.size < 4 or args.size % 4:
    parser.error(f"--size must be a multiple of 4, the pixels per heatmap pixel, not {args.size}")
  if args.batch < 1:
    parser.error(f"--batch must be at least 1, not {args.batch}")
  np.savez(args.output, **compute(args.seed, args.batch, args.size, args.dtype))

"""What configs/ma52.py costs: parameters, output shapes, operations. Nothing is computed."""

import functools
import math

import jax
import pytest
from jax.extend.core import jaxprs_in_params

from configs import ma52
from pcan_jax import spec as inference
from pcan_jax.checkpoints import Description
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.network.pcan import build_model

TREE = LabelTree.read_csv("data/trees/ma52.csv")

# Variant: parameters of the backbone, of the heads, values of the prototypes, and 10^9 operations
# of one 224 px clip forward as XLA counts them. The table of configs/ma52.py rounds these.
COSTS = {
  "pcan": (36_011_456, 1_134_966, 28_416, 116.69),
  "pcan_rgb": (31_634_496, 907_707, 14_208, 81.64),
  "pcan_pose": (2_011_328, 227_259, 14_208, 25.28),
  "posec3d": (36_011_456, 151_158, 0, 116.69),
  "posec3d_rgb": (31_634_496, 120_891, 0, 81.64),
  "posec3d_pose": (2_011_328, 30_267, 0, 25.28),
  "release": (37_983_296, 1_134_966, 28_416, 120.02),
}


@functools.cache
def built(variant, size=224):
  """The network's forward function, and the shapes of its variables and inputs."""
  config = ma52.get_config(variant)
  config.input.test_size = size
  description = Description(config, TREE, get_layout("openpose-28"), stored_size=256)
  model = build_model(config.model, TREE)
  preprocessing = inference.preprocessing(description)
  example = functools.partial(inference.example_inputs, model, config.input, preprocessing)
  variables = jax.eval_shape(
    lambda: model.init(jax.random.key(0), example(), train=False),
  )
  return functools.partial(model.apply, train=False), variables, jax.eval_shape(example)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_every_variant_is_listed_and_documented():
  assert COSTS.keys() == set(ma52.VARIANTS)
  rows = {cells[0]: cells[-2:] for cells in map(str.split, ma52.__doc__.splitlines()) if cells}
  for variant, (backbone, heads, _, operations) in COSTS.items():
    documented = [f"{(backbone + heads) / 1e6:.2f}", f"{operations:.1f}"]
    assert rows[variant] == documented, f"correct the table in configs/ma52.py: {variant}"


@pytest.mark.parametrize("variant", COSTS)
def test_parameters(variant):
  _, variables, _ = built(variant)
  params = variables["params"]
  heads = {name: value for name, value in params.items() if name != "backbone"}
  found = count(params["backbone"]), count(heads), count(variables.get("prototypes", {}))
  assert found == COSTS[variant][:3]


def test_parameters_of_the_release_as_published():
  """38.0 M and 1.16 M; the latter with the action prototypes, which are parameters there."""
  _, variables, _ = built("release")
  heads = count(variables["params"]) - count(variables["params"]["backbone"])
  prototypes = count([stream["action"] for stream in variables["prototypes"].values()])
  assert f"{count(variables['params']['backbone']) / 1e6:.1f}" == "38.0"
  assert f"{(heads + prototypes) / 1e6:.2f}" == "1.16"


def outputs_of(variant):
  expected = {"action_logits": (1, 52), "body_logits": (1, 7)}
  if COSTS[variant][2]:
    expected |= {"action_embedding": (1, 256), "body_embedding": (1, 128)}
  return dict.fromkeys(ma52.get_config(variant).model.streams, expected)


@pytest.mark.parametrize("size", [224, 256])
def test_feature_shapes(size):
  apply, variables, inputs = built("release", size)
  backbone = functools.partial(
    apply, method=lambda model, x, train: model.backbone(x["rgb"], x["heatmaps"], train)
  )
  features = jax.eval_shape(backbone, variables, inputs)
  side = size // 32
  assert features["rgb"].shape == (1, 8, side, side, 2048)
  assert features["pose"].shape == (1, 32, side, side, 512)
  assert inputs["heatmaps"].shape == (1, 32, size // 4, size // 4, 28)


@pytest.mark.parametrize("variant", COSTS)
def test_operations_and_outputs(variant):
  apply, variables, inputs = built(variant)
  # Not compiled: the count is that of the program, not of what a backend makes of it.
  lowered = jax.jit(apply).lower(variables, inputs)
  assert lowered.cost_analysis()["flops"] / 1e9 == pytest.approx(COSTS[variant][3], rel=2e-3)
  assert jax.tree.map(lambda x: x.shape, lowered.out_info) == outputs_of(variant)


@pytest.mark.parametrize("variant", ["pcan", "release"])
def test_outputs_at_the_size_of_the_tests(variant):
  found = jax.eval_shape(*built(variant, ma52.get_config(variant).input.test_size))
  assert jax.tree.map(lambda x: x.shape, found) == outputs_of(variant)


def multiplications(jaxpr):
  """Of convolutions and matrix products, on padding as well."""
  total = 0
  for equation in jaxpr.eqns:
    operands = [variable.aval.shape for variable in equation.invars]
    result = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "conv_general_dilated":
      out_axis = equation.params["dimension_numbers"].rhs_spec[0]
      total += result * math.prod(operands[1]) // operands[1][out_axis]
    elif equation.primitive.name == "dot_general":
      contracted = equation.params["dimension_numbers"][0][0]
      total += result * math.prod(operands[0][axis] for axis in contracted)
    total += sum(map(multiplications, jaxprs_in_params(equation.params)))
  return total


def test_operations_of_the_release_as_published():
  apply, variables, inputs = built("release")
  found = 2 * multiplications(jax.make_jaxpr(apply)(variables, inputs).jaxpr)
  assert f"{found / 1e9:.1f}" == "122.8"

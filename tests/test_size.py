"""Full-size configs and steps: that they are what they were, and what they cost. Nothing runs."""

import functools
import math

import jax
import pytest
from jax.extend.core import jaxprs_in_params

from benchmarks.workload import LAYOUT, TREE
from configs import ma52
from pcan_jax.config import load_config
from pcan_jax.inputs import preprocess
from pcan_jax.spec import ModelSpec
from tests import golden
from tests.golden import configs, steps

VARIANTS = pytest.mark.parametrize(
  "variant",
  [
    pytest.param(variant, marks=() if variant == "pcan" else pytest.mark.long)
    for variant in ma52.VARIANTS
  ],
)
traced_steps = functools.cache(steps.trace)


def traced(variant, kind):
  return traced_steps(variant)[kind].traced


def shapes(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def variables(variant):
  return shapes(traced(variant, "evaluation").in_avals[0][0])


@functools.cache
def network(variant):
  """A network, and its inputs of one clip at the size of training, 224 px."""
  config = load_config(f"ma52:{variant}")
  config.input.test_size = config.input.train_size
  spec = ModelSpec(config, TREE, LAYOUT, stored_size=256)
  to_inputs = functools.partial(preprocess, config=spec.test_preprocessing)
  return spec.model, jax.eval_shape(to_inputs, spec.batch_shapes(1))


@functools.cache
def forward_pass(variant):
  model, inputs = network(variant)
  return jax.jit(functools.partial(model.apply, train=False)).trace(variables(variant), inputs)


@pytest.mark.parametrize("name", configs.NAMES)
def test_configs_resolve_to_what_they_did(name):
  file = f"{name}.txt"
  golden.require_same(file, configs.resolved(name), golden.load(file))


def test_differences_from_golden_files_are_shown():
  with pytest.raises(AssertionError) as raised:
    golden.require_same("steps.json", {"arrays": 2}, {"arrays": 1})
  for part in ("-1", "+2", "tests/golden/steps.json", "python -m tests.golden"):
    assert part in str(raised.value).replace(' "arrays": ', "")


@VARIANTS
def test_steps_have_the_arrays_and_operations_that_they_had(variant):
  wanted = golden.load("steps.json")[variant]
  golden.require_same("steps.json", steps.digest(traced_steps(variant)), wanted)


@VARIANTS
def test_a_step_returns_a_state_like_the_one_it_takes(variant):
  step = traced(variant, "training")
  assert shapes(step.out_info[0]) == shapes(step.in_avals[0][0])


@VARIANTS
def test_outputs_of_two_videos(variant):
  expected = {"fused": {}}
  for level, classes, size in (("action", 52, 256), ("body", 7, 128)):
    expected["fused"][level] = {"probabilities": (2, classes)}
    of_stream = {"logits": (2, classes), "probabilities": (2, classes)}
    if load_config(f"ma52:{variant}").model.prototypes:
      of_stream["embedding"] = (2, size)
    for stream in load_config(f"ma52:{variant}").model.streams:
      expected.setdefault(stream, {})[level] = of_stream
  outputs = traced(variant, "evaluation").out_info
  assert jax.tree.map(lambda x: x.shape, outputs) == expected


@VARIANTS
def test_costs_are_those_of_the_table(variant):
  """A baseline is PCAN without two small matrix products: its operations are not counted again."""
  rows = {cells[0]: cells[-2:] for cells in map(str.split, ma52.__doc__.splitlines()) if cells}
  parameters = traced_steps(variant)["evaluation"].num_parameters
  # Not compiled: the count is that of the program, not of what a backend makes of it.
  lowered = forward_pass(variant.replace("posec3d", "pcan")).lower()
  found = [f"{parameters / 1e6:.2f}", f"{lowered.cost_analysis()['flops'] / 1e9:.1f}"]
  assert found == rows[variant], f"correct the table in configs/ma52.py: {variant}"


@pytest.mark.slow
def test_feature_shapes_of_the_release():
  model, inputs = network("release")
  backbone = functools.partial(
    model.apply,
    train=False,
    method=lambda model, x, train: model.backbone(x["rgb"], x["heatmaps"], train),
  )
  features = jax.eval_shape(backbone, variables("release"), inputs)
  assert features["rgb"].shape == (1, 8, 7, 7, 2048)
  assert features["pose"].shape == (1, 32, 7, 7, 512)
  assert inputs["heatmaps"].shape == (1, 32, 56, 56, 28)


@pytest.mark.slow
def test_parameters_of_the_release_as_published():
  """38.0 M and 1.16 M; the latter with the action prototypes, which are parameters there."""

  def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))

  params = dict(variables("release")["params"])
  backbone = count(params.pop("backbone"))
  prototypes = count([stream["action"] for stream in variables("release")["prototypes"].values()])
  assert f"{backbone / 1e6:.1f}" == "38.0"
  assert f"{(count(params) + prototypes) / 1e6:.2f}" == "1.16"


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


@pytest.mark.slow
def test_operations_of_the_release_as_published():
  found = 2 * multiplications(forward_pass("release").jaxpr.jaxpr)
  assert f"{found / 1e9:.1f}" == "122.8"

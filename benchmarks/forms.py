"""Each form of an operation against its alternatives, at the shapes of the full network.

  python -m benchmarks.forms
  python -m benchmarks.forms --cases 'rgb pool' 'rgb block 1' --batch 64

Forms are chosen in `pcan_jax.network.forms`; this shows on the device at hand whether they are the
right ones. A call is a layer's forward and backward pass on made-up features.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from benchmarks import timing
from pcan_jax.mesh import compiler_options
from pcan_jax.network import conv
from pcan_jax.network.forms import Forms
from pcan_jax.network.pathway import Bottleneck
from pcan_jax.network.pool import max_pool_spatial

Shape = tuple[int, ...]


class Pool(nn.Module):
  """The stems' pool as a layer."""

  stride: int
  forms: Forms = Forms()

  def __call__(self, x: jax.Array) -> jax.Array:
    return max_pool_spatial(x, self.stride, self.forms)


@dataclasses.dataclass(frozen=True)
class Case:
  """A layer and the forms to compare.

  Attributes:
    make: the layer, of a dtype and forms.
    shape: of its input, after the axis of the clips.
    forms: by name.
    to_input: whether the gradient of the input is computed.
    lateral: how many further channels come from the other stream.
  """

  make: Callable[[DTypeLike, Forms], nn.Module]
  shape: Shape
  forms: dict[str, Forms]
  to_input: bool = True
  lateral: int = 0


TEMPORAL = {"products": Forms(products=512), "convolution": Forms(products=0)}
POOL = {form: Forms(pool=form) for form in ("index", "window")}
MOMENTS = {"of the output": Forms(moments=0), "of the input": Forms(moments=512)}
LATERAL = {form: Forms(lateral=form) for form in ("joined", "added")}
SUBSAMPLING = {form: Forms(subsampling=form) for form in ("kept", "repeated")}
STEM = {
  "plain": Forms(),
  "padded": Forms(channel_multiple=8),
  "folded": Forms(fold=True),
  "folded, padded": Forms(fold=True, channel_multiple=8),
}


def _conv(features: int, kernel: Shape, strides: Shape = (1, 1, 1)) -> Callable:
  return lambda dtype, forms: conv.ConvNorm(features, kernel, strides, dtype=dtype, forms=forms)


def _bottleneck(width: int, taps: int = 1, stride: int = 1) -> Callable:
  """The block as a whole, as the sum and ReLU at its end may be merged with the product before."""
  return lambda dtype, forms: Bottleneck(width, taps, stride, dtype, forms)


CASES = {
  "rgb stem": Case(_conv(64, (1, 7, 7), (1, 2, 2)), (8, 224, 224, 3), STEM, to_input=False),
  "pose stem": Case(
    _conv(32, (1, 7, 7)),
    (32, 56, 56, 28),
    STEM,
    to_input=False,
  ),
  "rgb pool": Case(lambda _, forms: Pool(2, forms), (8, 112, 112, 64), POOL),
  "pose pool": Case(lambda _, forms: Pool(1, forms), (32, 56, 56, 32), POOL),
  "rgb block 1": Case(_bottleneck(64), (8, 56, 56, 256), MOMENTS),
  "rgb block 3": Case(_bottleneck(256), (8, 14, 14, 1024), MOMENTS),
  "pose block 1": Case(_bottleneck(32), (32, 28, 28, 128), MOMENTS),
  "pose block 2": Case(_bottleneck(64, 3), (32, 14, 14, 256), MOMENTS),
  "rgb temporal 3": Case(_conv(256, (3, 1, 1)), (8, 14, 14, 1024), TEMPORAL),
  "rgb temporal 4": Case(_conv(512, (3, 1, 1)), (8, 7, 7, 2048), TEMPORAL),
  "pose temporal 2": Case(_conv(64, (3, 1, 1)), (32, 14, 14, 256), TEMPORAL),
  "lateral": Case(_conv(128, (7, 1, 1), (4, 1, 1)), (32, 28, 28, 128), TEMPORAL),
  "rgb exchange 3": Case(_bottleneck(256, 3, 2), (8, 28, 28, 512), LATERAL, lateral=128),
  "pose exchange 2": Case(_bottleneck(64, 3, 2), (32, 28, 28, 128), LATERAL, lateral=32),
  "rgb shortcut 2": Case(_bottleneck(128, 1, 2), (8, 56, 56, 256), SUBSAMPLING),
}


def measure(case: Case, forms: Forms, batch: int, dtype: str, repeats: int) -> float:
  """Milliseconds of a call: forward, and backward to the parameters and perhaps the input."""
  layer = case.make(jnp.dtype(dtype), forms)
  shapes = {"x": case.shape} | (
    {"lateral": (*case.shape[:-1], case.lateral)} if case.lateral else {}
  )
  inputs = {
    name: jax.random.normal(jax.random.key(0), (batch, *shape)).astype(dtype)
    for name, shape in shapes.items()
  }
  apply = {} if isinstance(layer, Pool) else {"train": True}
  variables = jax.jit(lambda inputs: layer.init(jax.random.key(1), **inputs, **apply))(inputs)
  params = variables.pop("params", {})

  def run_layer(params: Any, inputs: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
    now = {"params": params, **variables}
    return layer.apply(now, **inputs, **apply, mutable=list(variables))

  def loss(params: Any, inputs: Any, towards: jax.Array) -> tuple[jax.Array, Any]:
    y, updated = run_layer(params, inputs)
    return jnp.sum((y * towards).astype(jnp.float32)), updated

  shape = jax.eval_shape(run_layer, params, inputs)[0].shape
  towards = jax.random.normal(jax.random.key(2), shape).astype(dtype)
  gradient = jax.grad(loss, (0, 1) if case.to_input else 0, has_aux=True)
  run = jax.jit(gradient, compiler_options=compiler_options(jax.devices()[0]))
  calls = 1 if jax.default_backend() == "cpu" else 10

  def several() -> None:
    jax.block_until_ready([run(params, inputs, towards) for _ in range(calls)])

  return 1e3 * timing.measure(several, repeats=repeats, warmup=2).median / calls


def rows(names: Sequence[str], batch: int, dtype: str, repeats: int) -> Iterator[dict[str, Any]]:
  """Case, form and milliseconds, one after the other."""
  for name in names:
    case = CASES[name]
    for form, forms in case.forms.items():
      yield {"case": name, "form": form, "ms": measure(case, forms, batch, dtype, repeats)}


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.forms",
    description="Compares the forms of operations on the device at hand.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
  parser.add_argument("--batch", type=int, default=2, help="clips")
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
  parser.add_argument("--repeats", type=int, default=5, help="of which the median is taken")
  arguments = parser.parse_args(argv)
  found = []
  for row in rows(arguments.cases, arguments.batch, arguments.dtype, arguments.repeats):
    print(*row.values(), file=sys.stderr, flush=True)
    found.append(row)
  timing.print_table(list(found[0]), [list(row.values()) for row in found])
  timing.print_json(
    {"benchmark": "forms", "environment": timing.environment(), "batch": arguments.batch}
    | {"dtype": arguments.dtype, "forms": found}
  )


if __name__ == "__main__":
  main()

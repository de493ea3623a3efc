"""What the kernels of a compiled program read, write and compute, and how long that takes at least.

A kernel is an instruction of the entry computation that runs on its own: a fusion, a call of a
library, a copy. It reads its operands from the device's memory and writes its results to it; what
happens within a fusion stays in registers. So bytes follow from the types in the text, and so do
operations, of which only those of products and convolutions are counted: the others are hidden
behind the bytes.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator

import numpy as np

from benchmarks import collectives
from benchmarks.hlo import Array, Computation, Instruction, Module
from benchmarks.target import Target

KINDS = ("convolution", "product", "sum", "copy", "elementwise", "collective", "other")
BANDWIDTH_SHARE, PEAK_SHARE = 0.8, 0.55  # what good kernels reach of a device's figures

_FREE = {
  "parameter",
  "constant",
  "get-tuple-element",
  "tuple",
  "bitcast",
  "after-all",
  "opt-barrier",
  "optimization-barrier",
  "partition-id",
  "replica-id",
  "add-dependency",
}
_MOVES = {"copy", "transpose", "bitcast", "reshape", "convert", "parameter", "constant", "tuple"}
_SLICES = {"slice", "dynamic-slice", "gather"}
_VIEWS = {"bitcast", "reshape", "copy", "convert"}
# What changes an array in place, and which operand has the new values.
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}
# Calls that only give parts of memory another name.
_NAMING = {"ConcatBitcast", "AllocateBuffer", "Sharding"}


@dataclasses.dataclass
class Kernel:
  """One kernel of a program.

  Attributes:
    name: of its instruction.
    kind: one of `KINDS`.
    times: how often a call of the program runs it.
    num_bytes: read and written, each time, with what pads tiles.
    useful_bytes: the same without padding.
    operations: floating point operations of products and convolutions, each time, by precision.
    callee: the function of a library that it calls, if it does.
    source: the operation of the model that it computes.
    result: the type of its largest result.
  """

  name: str
  kind: str
  times: int
  num_bytes: int
  useful_bytes: int
  operations: dict[str, int]
  callee: str
  source: str
  result: str

  def seconds(self, target: Target) -> float:
    """The least time of all its runs, by the bandwidth or by the peak of a device."""
    return self.times * max(self._bounds(target))

  def cautious(self, target: Target) -> float:
    """The time with the shares of both that good kernels reach, and with starting it."""
    moving, computing = self._bounds(target)
    return self.times * (max(moving / BANDWIDTH_SHARE, computing / PEAK_SHARE) + target.launch)

  def _bounds(self, target: Target) -> tuple[float, float]:
    computing = sum(number / target.peak[kind] for kind, number in self.operations.items())
    return self.num_bytes / target.bandwidth, computing


@dataclasses.dataclass
class Totals:
  """Sums over kernels, per call of the program."""

  kernels: int = 0
  num_bytes: int = 0
  useful_bytes: int = 0
  operations: int = 0

  @classmethod
  def of(cls, kernels: Iterable[Kernel]) -> "Totals":
    total = cls()
    for one in kernels:
      total.kernels += one.times
      total.num_bytes += one.times * one.num_bytes
      total.useful_bytes += one.times * one.useful_bytes
      total.operations += one.times * sum(one.operations.values())
    return total

  @property
  def padding(self) -> float:
    """How many times the useful bytes are moved."""
    return self.num_bytes / max(self.useful_bytes, 1)


def by_kind(kernels: Iterable[Kernel]) -> dict[str, list[Kernel]]:
  """The kernels of each kind that occurs, in the order of `KINDS`."""
  found = collections.defaultdict(list)
  for one in kernels:
    found[one.kind].append(one)
  return {kind: found[kind] for kind in KINDS if kind in found}


def find(module: Module) -> list[Kernel]:
  """The kernels that a call of a program runs, in their order."""
  return list(_kernels(module, module.entry, 1))


def _kernels(module: Module, computation: Computation, times: int) -> Iterator[Kernel]:
  for one in computation:
    if one.opcode in _FREE or one.target in _NAMING or one.opcode.endswith(("-done", "-update")):
      continue
    if one.opcode == "while":
      # Without a known number of turns, one is counted.
      turns = int(one.attribute(r'"known_trip_count":\{"n":"(\d+)"', "1"))
      body = one.attribute(r"body=%?([\w.\-]+)")
      yield from _kernels(module, module.computations[body], times * turns)
    elif one.opcode == "conditional":
      branches = [list(_kernels(module, module.computations[n], times)) for n in one.called]
      yield from max(branches, key=lambda kernels: Totals.of(kernels).num_bytes)
    elif one.opcode in ("call", "async-start"):
      for name in one.called:
        yield from _kernels(module, module.computations[name], times)
    else:
      yield _kernel(module, computation, one, times)


def _kernel(module: Module, computation: Computation, one: Instruction, times: int) -> Kernel:
  opcodes = _opcodes(module, one)
  traffic = [*_read(module, computation, one), *_written(module, computation, one)]
  traffic = [array for array in traffic if array.space == 0]
  operations = collections.Counter()
  for precision, number in _operations(module, computation, one):
    operations[precision] += number
  results = _without_workspace(one, True)
  largest = max(results, key=lambda array: array.num_bytes, default=None)
  return Kernel(
    one.name,
    _kind(one, opcodes),
    times,
    sum(array.stored_bytes for array in traffic),
    sum(array.num_bytes for array in traffic),
    dict(operations),
    next((code.removeprefix("library ") for code in opcodes if code.startswith("library ")), ""),
    one.source,
    f"{largest.dtype}{list(largest.dims)}" if largest else "",
  )


def _opcodes(module: Module, one: Instruction) -> set[str]:
  """Of all that a kernel is made of; of calls of libraries, their functions instead."""
  if one.opcode == "custom-call":
    return {f"library {one.target}"}
  if one.opcode != "fusion":
    return {f"{one.opcode} of matrices" if _is_product(one) else one.opcode}
  parts = (part for name in one.called for part in module.computations[name])
  return set().union(*(_opcodes(module, part) for part in parts))


def _is_product(one: Instruction) -> bool:
  """Whether a convolution has no window: TPUs write products so."""
  return one.opcode == "convolution" and not re.search(r"window=\{[^}]*size=", one.attributes)


def _kind(one: Instruction, opcodes: set[str]) -> str:
  base = _base(one)
  if base in collectives.KINDS:
    return "collective"
  libraries = " ".join(code.lower() for code in opcodes if code.startswith("library "))
  if "convolution" in opcodes or "conv" in libraries:
    return "convolution"
  if opcodes & {"dot", "convolution of matrices"} or re.search("gemm|matmul|dot", libraries):
    return "product"
  if opcodes & {"reduce", "reduce-window"}:
    return "sum"
  if opcodes <= _MOVES or base != one.opcode:
    return "copy"
  return "elementwise" if one.opcode == "fusion" or not libraries else "other"


def _read(module: Module, computation: Computation, one: Instruction) -> Iterator[Array]:
  """The arrays, or the parts of them, that a kernel reads."""
  operands = computation.arrays(one.operands)
  if _base(one) in _SLICES:
    # What starts on its own lists what it reads from before its result.
    part = one.results[1 if one.opcode.endswith("-start") else 0]
    yield dataclasses.replace(part, space=operands[0].space)
  elif one.opcode in _UPDATES:
    yield _changed(computation, one)
  elif one.opcode == "fusion":
    inner = module.computations[one.called[0]]
    for number, operand in enumerate(one.operands):
      whole = computation.by_name[operand].results
      parts = _slices(inner, inner.parameter(number))
      if parts is None or _sum(parts) >= _sum(whole):
        yield from whole
      else:
        yield from (dataclasses.replace(part, space=whole[0].space) for part in parts)
  else:
    yield from computation.arrays(tuple(dict.fromkeys(one.operands)))


def _base(one: Instruction) -> str:
  """The opcode of an instruction that may only be started, to be done later."""
  return one.opcode.removesuffix("-start")


def _sum(arrays: Iterable[Array]) -> int:
  return sum(array.num_bytes for array in arrays)


def _slices(inner: Computation, value: Instruction) -> list[Array] | None:
  """What is read of a value within a fusion if only slices of it are used, else nothing."""
  found = []
  for user in inner.users[value.name]:
    first = user.operands[0] == value.name
    if user.opcode in _SLICES and first:
      found += user.results
    elif user.opcode in _UPDATES and first:
      continue  # changed in place
    elif user.opcode in _VIEWS:
      further = _slices(inner, user)
      if further is None or user.is_root:
        return None
      found += further
    else:
      return None
  return None if value.is_root else found


def _written(module: Module, computation: Computation, one: Instruction) -> Iterator[Array]:
  """The arrays that a kernel writes; of those that it changes in place, the part that changes."""
  base = _base(one)
  if base != one.opcode and base != "all-reduce":
    # Listed with what it reads and with what tells that it is done.
    yield one.results[0 if base == "copy" else 1]
  elif one.opcode == "fusion":
    inner = module.computations[one.called[0]]
    root = inner.root
    outputs = root.operands if root.opcode == "tuple" else (root.name,)
    results = _without_workspace(one, any(part.opcode == "custom-call" for part in inner))
    for name, result in zip(outputs, results):
      output = inner.by_name[name]
      while output.opcode == "bitcast":
        output = inner.by_name[output.operands[0]]
      yield _changed(inner, output) if output.opcode in _UPDATES else result
  elif one.opcode in _UPDATES:
    yield _changed(computation, one)
  else:
    yield from _without_workspace(one, one.opcode == "custom-call")


def _changed(computation: Computation, update: Instruction) -> Array:
  return computation.arrays(update.operands)[_UPDATES[update.opcode]]


def _without_workspace(one: Instruction, calls_library: bool) -> list[Array]:
  """Results, without the bytes that a library is given to work with."""
  return [
    array
    for place, array in enumerate(one.results)
    if not (calls_library and place and array.dtype in ("s8", "u8") and len(array.dims) == 1)
  ]


def _operations(
  module: Module, computation: Computation, one: Instruction
) -> Iterator[tuple[str, int]]:
  """Precision and floating point operations of the products in a kernel."""
  if one.opcode == "fusion":
    for name in one.called:
      inner = module.computations[name]
      for part in inner:
        yield from _operations(module, inner, part)
    return
  target = one.target.lower() if one.opcode == "custom-call" else ""
  if not (one.opcode in ("dot", "convolution") or re.search("conv|matmul|gemm|dot", target)):
    return
  operands = computation.arrays(one.operands)
  if one.opcode == "convolution" or "conv" in target:
    number = _convolution(one, operands, target)
  else:
    number = _product(one, operands[0])
  yield _precision(one, operands[0]), number


def _precision(one: Instruction, operand: Array) -> str:
  if operand.dtype in ("bf16", "f16"):
    return "bfloat16"
  precise = re.search(r'operand_precision"?[:=][\[{]"?(high)', one.attributes, re.IGNORECASE)
  return "highest" if precise else "float32"


def _product(one: Instruction, left: Array) -> int:
  contracted = one.attribute(r'lhs_contracting_dim(?:ension)?s"?[:=][\[{]([^\]}]*)[\]}]')
  inner = 1
  for axis in re.findall(r"\d+", contracted):
    inner *= left.dims[int(axis)]
  return 2 * one.results[0].size * inner


def _convolution(one: Instruction, operands: list[Array], target: str) -> int:
  """Operations of a convolution or one of its gradients, without those on what pads its input."""
  labels = re.search(r"dim_labels=(\w+?)_(\w+)->(\w+)", one.attributes)
  if labels is None:
    raise ValueError(f"the convolution {one.name} does not say what its dimensions are")
  image, kernel, output = operands[0], operands[1], one.results[0]
  # Of gradients, libraries describe the convolution that they belong to.
  if "backwardinput" in target:
    image, output = output, image
  elif "backwardfilter" in target:
    kernel, output = output, kernel
  products = output.dims[labels[3].index("b")] * output.dims[labels[3].index("f")]
  products *= kernel.dims[labels[2].index("i")]
  products //= int(one.attribute(r"batch_group_count=(\d+)", "1"))
  for axis, window in enumerate(_window(one)):
    extent = image.dims[labels[1].index(str(axis))]
    products *= _taps(extent, output.dims[labels[3].index(str(axis))], **window)
  return 2 * products


def _window(one: Instruction) -> Iterator[dict[str, int]]:
  """Of each axis of a convolution's window, what differs from a single tap."""
  fields = dict(re.findall(r"(\w+)=([\dx_\-]+)", one.attribute(r"window=\{([^}]*)\}")))
  if "size" not in fields:
    return
  columns = {name: fields[name].split("x") for name in fields}
  for axis, size in enumerate(columns["size"]):
    found = {"size": int(size)}
    for name in ("stride", "lhs_dilate", "rhs_dilate"):
      if name in columns:
        found[name] = int(columns[name][axis])
    if "pad" in columns:
      found["before"] = int(columns["pad"][axis].split("_")[0])
    yield found


def _taps(
  extent: int,
  outputs: int,
  size: int,
  stride: int = 1,
  before: int = 0,
  lhs_dilate: int = 1,
  rhs_dilate: int = 1,
) -> int:
  """How many pairs of an output and a tap of the window meet an input along one axis."""
  places = stride * np.arange(outputs)[:, None] + rhs_dilate * np.arange(size) - before
  inside = (places >= 0) & (places <= lhs_dilate * (extent - 1)) & (places % lhs_dilate == 0)
  return int(inside.sum())

"""Reads the text of a compiled program (XLA's optimised HLO) into computations and instructions."""

import dataclasses
import math
import re
from collections.abc import Iterator

# Bits of an element; whole bytes but for types that are packed.
BITS = {"token": 0, "opaque": 0, "pred": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2}
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(
  r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TILE = re.compile(r"\(([\d,*]+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
  """A typed array as the program stores it.

  Attributes:
    dtype: as HLO names it, such as "bf16".
    dims: its extents.
    order: dimensions from the innermost to the outermost; empty where the text gives no layout.
    tiles: extents of the tiles of the innermost dimensions, the first of them in elements, each
      further one within the one before. Only TPUs have them.
    space: 0 for the device's main memory.
  """

  dtype: str
  dims: tuple[int, ...]
  order: tuple[int, ...] = ()
  tiles: tuple[tuple[int, ...], ...] = ()
  space: int = 0

  @property
  def size(self) -> int:
    return math.prod(self.dims)

  @property
  def num_bytes(self) -> int:
    """Bytes of its values."""
    return _bytes(self.dtype, self.size)

  @property
  def stored_bytes(self) -> int:
    """Bytes that it takes up: the dimensions that are tiled end with whole tiles."""
    if not self.tiles:
      return self.num_bytes
    extents = [self.dims[axis] for axis in reversed(self.order)]
    tile = self.tiles[0]
    extents = [1] * (len(tile) - len(extents)) + extents
    outer, inner = extents[: len(extents) - len(tile)], extents[len(extents) - len(tile) :]
    whole = [-(-extent // side) * side for extent, side in zip(inner, tile)]
    return _bytes(self.dtype, math.prod(outer) * math.prod(whole))


@dataclasses.dataclass(frozen=True)
class Instruction:
  """A line of a computation.

  Attributes:
    name: unique in the program.
    results: the arrays that it returns, those of nested tuples in order.
    opcode: what it does, such as "fusion".
    operands: names of instructions of the same computation.
    inside: the text between its parentheses, a parameter's number for instance.
    attributes: the text behind them.
    is_root: whether its results are those of the computation.
  """

  name: str
  results: tuple[Array, ...]
  opcode: str
  operands: tuple[str, ...]
  inside: str
  attributes: str
  is_root: bool

  @property
  def called(self) -> tuple[str, ...]:
    """Names of the computations that it is made of."""
    branches = _BRANCHES.search(self.attributes)
    names = re.findall(r"[\w.\-]+", branches.group(1)) if branches else []
    return tuple(_CALLED.findall(self.attributes) + names)

  @property
  def target(self) -> str:
    """The library function of a custom call."""
    return self.attribute(r'custom_call_target="([^"]+)"')

  @property
  def source(self) -> str:
    """The operation of the model that it computes."""
    return self.attribute(r'op_name="([^"]*)"')

  def attribute(self, pattern: str, default: str = "") -> str:
    """The group of a pattern in the attributes."""
    found = re.search(pattern, self.attributes)
    return found.group(1) if found else default


class Computation:
  """Instructions in the order of the text; a name leads to its instruction and its users."""

  def __init__(self, instructions: list[Instruction]) -> None:
    self.instructions = instructions
    self.by_name = {one.name: one for one in instructions}
    self.users: dict[str, list[Instruction]] = {one.name: [] for one in instructions}
    for one in instructions:
      for operand in dict.fromkeys(one.operands):
        self.users[operand].append(one)

  def __iter__(self) -> Iterator[Instruction]:
    return iter(self.instructions)

  @property
  def root(self) -> Instruction:
    return next(one for one in self.instructions if one.is_root)

  def parameter(self, number: int) -> Instruction:
    """The one that takes an operand of whoever calls."""
    return next(
      one for one in self.instructions if one.opcode == "parameter" and one.inside == str(number)
    )

  def arrays(self, names: tuple[str, ...]) -> list[Array]:
    """What the named instructions return, one array after the other."""
    return [array for name in names for array in self.by_name[name].results]


@dataclasses.dataclass
class Module:
  """A program.

  Attributes:
    header: the line with its name and what holds for all of it.
    computations: by name.
    entry: the computation that a call starts with.
  """

  header: str
  computations: dict[str, Computation]
  entry: Computation

  @property
  def donated(self) -> int:
    """How many of the arguments' arrays are also results, in the same memory."""
    return len(re.findall(r"(?:may|must)-alias", self.header))


def parse(text: str) -> Module:
  """Reads what `jax.stages.Compiled.as_text` returns.

  Raises:
    ValueError: the text has no entry computation, or an instruction cannot be read.
  """
  header, computations, entry = "", {}, None
  current: list[Instruction] | None = None
  name, is_entry = "", False
  for line in text.splitlines():
    if line.startswith("HloModule"):
      header = line
    elif current is None:
      if head := _HEAD.match(line):
        is_entry, name, current = bool(head.group(1)), head.group(2), []
    elif line.startswith("}"):
      computations[name] = Computation(current)
      entry = name if is_entry else entry
      current = None
    elif match := _INSTRUCTION.match(line):
      current.append(_instruction(match.group(2), match.group(3), bool(match.group(1))))
  if entry is None:
    raise ValueError("this is no HLO text: there is no line that starts with ENTRY")
  return Module(header, computations, computations[entry])


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
  end = _closing(text, 0) + 1 if text.startswith("(") else text.find(" ")
  results, rest = text[:end], text[end:].lstrip()
  opening = rest.find("(")
  if end <= 0 or opening < 0:
    raise ValueError(f"the HLO instruction {name} cannot be read: {text[:100]}")
  closing = _closing(rest, opening)
  inside = rest[opening + 1 : closing]
  opcode = rest[:opening]
  # Constants and parameters have no operands, and the names in a text constant are none.
  operands = () if opcode in ("constant", "parameter") else re.findall(r"%([\w.\-]+)", inside)
  return Instruction(
    name, arrays(results), opcode, tuple(operands), inside, rest[closing + 1 :], is_root
  )


def arrays(text: str) -> tuple[Array, ...]:
  """The arrays of a type, as "(f32[4]{0}, s32[])"."""
  found = []
  for dtype, dims, layout in _ARRAY.findall(text):
    order, _, properties = layout.partition(":")
    tiling = re.search(r"T((?:\([\d,*]+\))+)", properties)
    space = re.search(r"S\((\d+)\)", properties)
    found.append(
      Array(
        dtype,
        _numbers(dims.replace("<=", "")),
        _numbers(order),
        tuple(map(_numbers, _TILE.findall(tiling.group(1)))) if tiling else (),
        int(space.group(1)) if space else 0,
      )
    )
  return tuple(found)


def _numbers(text: str) -> tuple[int, ...]:
  return tuple(int(number) for number in text.split(",") if number.isdigit())


def _closing(text: str, opening: int) -> int:
  """Where the parenthesis that opens at a place is closed."""
  depth = 0
  for place in range(opening, len(text)):
    depth += {"(": 1, ")": -1}.get(text[place], 0)
    if depth == 0:
      return place
  raise ValueError(f"a parenthesis is never closed: {text[:100]}")


def _bytes(dtype: str, size: int) -> int:
  digits = re.search(r"\d+", dtype)
  bits = BITS.get(dtype) if dtype in BITS else int(digits.group()) if digits else 8
  return -(-size * bits // 8)

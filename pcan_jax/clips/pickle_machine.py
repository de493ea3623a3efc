"""Runs pickles without Python's own machine, which calls whatever a pickle names.

A pickle is a program. The instructions that lists, dicts, tuples, numbers and strings are made of
are carried out here. What a name stands for, what a call of it gives, and whose state may be set is
up to each kind of file: `pcan_jax.clips.safe_pickle`, `pcan_jax.torch.checkpoint`.
"""

import abc
import io
import mmap
import pickletools
from collections.abc import Callable
from typing import Any, ClassVar


class PickleMachine(abc.ABC):
  """Interprets pickles of plain data; never holds much more than their size.

  A subclass says what is more than plain data: `find`, `call` and `set_state`, and further entries
  of `handlers`. A damaged pickle ends in a ValueError, TypeError, KeyError or IndexError.
  """

  def __init__(self) -> None:
    self._stack: list[Any] = []  # what lies above the last mark
    self._below_marks: list[list[Any]] = []
    self._memo: dict[int, Any] = {}

  def run(self, pickle: bytes | io.BytesIO | mmap.mmap) -> Any:
    """What a pickle holds.

    Args:
      pickle: its bytes, or a file that stands where it starts and is left behind it.
    """
    for opcode, argument, _ in pickletools.genops(pickle):
      name = opcode.name
      if name == "STOP":
        (result,) = self._stack
        return result
      if name in _PUSHES_ITS_ARGUMENT:
        self.push(argument)
      elif name in self.handlers:
        self.handlers[name](self, argument)
      else:
        raise self.unknown(name)
    raise ValueError("the pickle ends too early")

  def unknown(self, instruction: str) -> ValueError:
    """The error for an instruction that is not among `handlers`."""
    return ValueError(f"the pickle instruction {instruction} is not supported")

  @abc.abstractmethod
  def find(self, module: str, name: str) -> Any:
    """What to push for MODULE.NAME; nothing is imported."""

  @abc.abstractmethod
  def call(self, function: Any, arguments: Any) -> Any:
    """What to push for a call of something that `find` returned."""

  @abc.abstractmethod
  def set_state(self, target: Any, state: Any) -> None:
    """Sets the state of what a call gave."""

  def checked_key(self, key: Any) -> Any:
    """A key for a dict. To hash a deeply nested one would end in a crash."""
    if not isinstance(key, str | int | float | bytes):
      raise ValueError(f"a {type(key).__name__} as the key of a dict")
    return key

  def extend(self, target: Any, items: list[Any]) -> None:
    """Adds items to a list."""
    if not isinstance(target, list):
      raise ValueError(f"expected a list, found a {type(target).__name__}")
    target.extend(items)

  def update(self, target: Any, items: list[Any]) -> None:
    """Adds items to a dict: keys and values in turn."""
    if not isinstance(target, dict):
      raise ValueError(f"expected a dict, found a {type(target).__name__}")
    target.update(self._pairs(items))

  def push(self, item: Any) -> None:
    """Puts an item on top of the stack."""
    self._stack.append(item)

  def take(self, count: int) -> list[Any]:
    """Takes items from the top of the stack, in the order in which they were put there."""
    if len(self._stack) < count:
      raise ValueError("the pickle's stack is empty")
    items = self._stack[len(self._stack) - count :]
    del self._stack[len(self._stack) - count :]
    return items

  def take_marked(self) -> list[Any]:
    """Takes everything above the last mark, and the mark."""
    items, self._stack = self._stack, self._below_marks.pop()
    return items

  def _pairs(self, items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
      raise ValueError("a dict with a key but no value")
    return dict(zip(map(self.checked_key, items[::2]), items[1::2]))

  def _mark(self, _: Any) -> None:
    self._below_marks.append(self._stack)
    self._stack = []

  def _pop(self, _: Any) -> None:
    if self._stack:
      self._stack.pop()
    else:
      self.take_marked()

  def _put(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def _memoize(self, _: Any) -> None:
    self._memo[len(self._memo)] = self._stack[-1]

  def _get(self, index: int) -> None:
    self.push(self._memo[index])

  def _append(self, _: Any) -> None:
    items = self.take(1)
    self.extend(self._stack[-1], items)

  def _appends(self, _: Any) -> None:
    items = self.take_marked()
    self.extend(self._stack[-1], items)

  def _set_item(self, _: Any) -> None:
    items = self.take(2)
    self.update(self._stack[-1], items)

  def _set_items(self, _: Any) -> None:
    items = self.take_marked()
    self.update(self._stack[-1], items)

  def _global(self, argument: str) -> None:
    self.push(self.find(*argument.split(" ", 1)))

  def _stack_global(self, _: Any) -> None:
    module, name = self.take(2)
    if not isinstance(module, str) or not isinstance(name, str):
      raise ValueError("a global whose name is not text")
    self.push(self.find(module, name))

  def _reduce(self, _: Any) -> None:
    self.push(self.call(*self.take(2)))

  def _build(self, _: Any) -> None:
    (state,) = self.take(1)
    self.set_state(self._stack[-1], state)

  handlers: ClassVar[dict[str, Callable[[Any, Any], None]]] = {
    # These two concern the layout of the file only.
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "LIST": lambda machine, _: machine.push(machine.take_marked()),
    "DICT": lambda machine, _: machine.push(machine._pairs(machine.take_marked())),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.take_marked())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.take_marked(),
    "DUP": lambda machine, _: machine.push(machine._stack[-1]),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
  }


_PUSHES_ITS_ARGUMENT = frozenset((
  "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
  "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING",
  "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip

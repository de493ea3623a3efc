"""Ends a run at a step's end when it is asked to: SIGTERM of a scheduler, SIGINT of Ctrl-C."""

import contextlib
import logging
import os
import signal
import threading
import types
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _StopNowError(Exception):
  """Leaves what `StopRequest.interruptible` encloses."""


class StopRequest(contextlib.AbstractContextManager):
  """Notes the first of these signals instead of dying of it; a second one is not held back.

  On several hosts, all of them stop after the same step, whichever got the signal: JAX, which
  listens to SIGTERM itself, tells the others and chooses the step.
  """

  def __init__(self) -> None:
    self._signal: signal.Signals | None = None
    self._interruptible = False
    self._handlers: dict[signal.Signals, Any] = {}

  def __enter__(self) -> "StopRequest":
    if threading.current_thread() is threading.main_thread():  # others may not listen to signals
      listened = _SIGNALS if jax.process_count() == 1 else (signal.SIGINT,)
      self._handlers = {number: signal.signal(number, self._note) for number in listened}
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)

  def _note(self, number: int, _: types.FrameType | None) -> None:
    self._signal = signal.Signals(number)
    self.__exit__()
    _log.info("%s: stopping after this step; once more to stop at once", self._signal.name)
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)
    elif self._interruptible:
      raise _StopNowError

  def reached(self, step: int) -> bool:
    """Whether this step is to be the last; to be asked after every step, on all hosts."""
    if jax.process_count() == 1:
      return self._signal is not None
    return multihost_utils.reached_preemption_sync_point(step)

  @contextlib.contextmanager
  def interruptible(self) -> Iterator[None]:
    """Encloses what takes long and may be left unfinished; on several hosts it is finished."""
    self._interruptible = True
    try:
      yield
    except _StopNowError:
      pass
    finally:
      self._interruptible = False

  def leave(self) -> NoReturn:
    """Ends the program as the signal would have, or the notebook's cell.

    Raises:
      KeyboardInterrupt: after SIGINT, on a single host.
      SystemExit: with 128 + the signal, which is 143 for SIGTERM.
    """
    if self._signal == signal.SIGINT and jax.process_count() == 1:
      raise KeyboardInterrupt
    raise SystemExit(128 + (self._signal or signal.SIGTERM))

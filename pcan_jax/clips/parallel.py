"""Processes clips in worker processes, in order, and survives crashing workers."""

import collections
import concurrent.futures
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar, runtime_checkable

import cv2

from pcan_jax.clips.problems import Problem

_CLIPS_AHEAD_PER_JOB = 4


@runtime_checkable
class Clip(Protocol):
  """What must be known of a clip to say that it is bad, see `ClipSource`."""

  @property
  def id(self) -> str: ...

  @property
  def split(self) -> str: ...

  @property
  def where(self) -> str: ...


AnyClip = TypeVar("AnyClip", bound=Clip)
Result = TypeVar("Result")


def map_clips(
  function: Callable[[AnyClip], Result], clips: Iterable[AnyClip], jobs: int
) -> Iterator[Result | Problem]:
  """Calls a function for every clip, `jobs` at a time.

  Args:
    function: called with a clip; must be picklable if `jobs` is not 1. A `ValueError` or
      `FileNotFoundError` means that the clip is bad.
    clips: the clips.
    jobs: number of processes; 0 is one per core, 1 runs in this process.

  Yields:
    For every clip, in the given order, what the function returns or what is wrong with the clip.
  """
  jobs = jobs or available_cores()
  if jobs == 1:
    for clip in clips:
      yield call_or_explain(function, clip)
    return
  clips = iter(clips)
  pending: collections.deque[tuple[AnyClip, concurrent.futures.Future]] = collections.deque()
  pool = _pool(jobs)
  try:
    while True:
      for clip in itertools.islice(clips, _CLIPS_AHEAD_PER_JOB * jobs - len(pending)):
        pending.append((clip, _submit(pool, function, clip)))
      if not pending:
        return
      clip, future = pending[0]
      try:
        result = future.result()
      except BrokenProcessPool:
        # Run the clips in flight one by one to find the one that crashes.
        suspects = [clip for clip, _ in pending]
        pending.clear()
        for clip in suspects:
          yield _call_alone(function, clip)
        pool.shutdown(wait=False)
        pool = _pool(jobs)
        continue
      pending.popleft()
      yield result
  except KeyboardInterrupt:
    for worker in multiprocessing.active_children():  # what they do may take hours
      worker.kill()
    raise
  finally:
    pool.shutdown(cancel_futures=True)


def _submit(
  pool: concurrent.futures.Executor, function: Callable[[AnyClip], Result], clip: AnyClip
) -> concurrent.futures.Future:
  """Like `pool.submit`, of which a pool that has broken meanwhile raises the error at once."""
  try:
    return pool.submit(call_or_explain, function, clip)
  except BrokenProcessPool as error:
    failed = concurrent.futures.Future()
    failed.set_exception(error)
    return failed


def call_or_explain(function: Callable[[AnyClip], Result], clip: AnyClip) -> Result | Problem:
  """Returns what the function returns, or what is wrong with the clip."""
  try:
    return function(clip)
  except (ValueError, FileNotFoundError) as error:
    return Problem(clip.id, clip.split, str(error))
  except Exception as error:
    error.add_note(f"while working on {clip.where}")
    raise


def _call_alone(function: Callable[[AnyClip], Result], clip: AnyClip) -> Result | Problem:
  with _pool(1) as pool:
    try:
      return pool.submit(call_or_explain, function, clip).result()
    except BrokenProcessPool:
      reason = f"{clip.where}: the decoder crashed or ran out of memory; convert the video again"
      return Problem(clip.id, clip.split, reason)


def available_cores() -> int:
  """The number of cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _pool(jobs: int) -> concurrent.futures.ProcessPoolExecutor:
  # Forking a process with TensorFlow's threads may deadlock.
  return concurrent.futures.ProcessPoolExecutor(
    jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
  )


def _start_worker() -> None:
  cv2.setNumThreads(1)
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
  threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
  """Otherwise the workers of a killed build would wait for clips forever."""
  multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
  os._exit(1)

"""Encodes many clips in worker processes, in order, and survives a worker that crashes."""

import collections
import concurrent.futures
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2

from data.encode_clip import Encoding, encode_clip
from data.ma52_layout import ClipSource, Problem

Encoded = dict[str, Any] | Problem

_CLIPS_AHEAD_PER_JOB = 4


def encode_clips(clips: Iterable[ClipSource], encoding: Encoding, jobs: int) -> Iterator[Encoded]:
  """Encodes clips, `jobs` at a time.

  Args:
    clips: what to encode.
    encoding: how to encode it.
    jobs: number of processes; with 1 the work is done in this process.

  Yields:
    For every clip, in the given order, its record or what is wrong with it.
  """
  if jobs == 1:
    for clip in clips:
      yield encode_or_explain(clip, encoding)
    return
  clips = iter(clips)
  pending: collections.deque[tuple[ClipSource, concurrent.futures.Future]] = collections.deque()
  pool = _pool(jobs)
  try:
    while True:
      for clip in itertools.islice(clips, _CLIPS_AHEAD_PER_JOB * jobs - len(pending)):
        pending.append((clip, pool.submit(encode_or_explain, clip, encoding)))
      if not pending:
        return
      clip, future = pending[0]
      try:
        encoded = future.result()
      except BrokenProcessPool:
        # Which of the clips in flight brought a worker down shows when each is tried alone.
        suspects = [clip for clip, _ in pending]
        pending.clear()
        for clip in suspects:
          yield _encode_alone(clip, encoding)
        pool = _pool(jobs)
        continue
      pending.popleft()
      yield encoded
  finally:
    pool.shutdown(cancel_futures=True)


def encode_or_explain(clip: ClipSource, encoding: Encoding) -> Encoded:
  """The record of a clip, or what is wrong with it."""
  try:
    return encode_clip(clip, encoding)
  except (ValueError, FileNotFoundError) as error:
    return Problem(clip.id, clip.split, str(error))
  except Exception as error:
    error.add_note(f"while encoding {clip.video}")
    raise


def _encode_alone(clip: ClipSource, encoding: Encoding) -> Encoded:
  with _pool(1) as pool:
    try:
      return pool.submit(encode_or_explain, clip, encoding).result()
    except BrokenProcessPool:
      reason = f"{clip.video}: the decoder crashed or ran out of memory; convert the video again"
      return Problem(clip.id, clip.split, reason)


def _pool(jobs: int) -> concurrent.futures.ProcessPoolExecutor:
  # Forking a process in which TensorFlow's threads run may deadlock.
  return concurrent.futures.ProcessPoolExecutor(
    jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
  )


def _start_worker() -> None:
  cv2.setNumThreads(1)
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
  threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
  """Without this the workers of a killed build would wait for clips forever."""
  multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
  os._exit(1)

"""The working directory of a run: it belongs to one process at a time, and has room."""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import shutil
import socket
import sys
from collections.abc import Iterator

import jax

from pcan_jax.writing import require_writable

_LOCK = "lock"


@contextlib.contextmanager
def claimed(workdir: pathlib.Path) -> Iterator[None]:
  """Makes a working directory and keeps other runs out of it; of several hosts, the first does.

  The system releases the lock when the process ends, however it ends.

  Raises:
    OSError: it cannot be written to.
    ValueError: another process trains there; the message names it.
  """
  if jax.process_index():
    yield
    return
  require_writable(workdir)
  with (workdir / _LOCK).open("a+", encoding="utf-8") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(
        f"{workdir} is in use by {_holder(workdir)}; wait for it, stop it, or choose another "
        "--workdir"
      ) from None
    lock.truncate(0)
    holder = {
      "process": os.getpid(),
      "host": socket.gethostname(),
      "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
      "command": " ".join(sys.argv),
    }
    json.dump(holder, lock)
    lock.flush()
    yield


def _holder(workdir: pathlib.Path) -> str:
  try:
    holder = json.loads((workdir / _LOCK).read_text(encoding="utf-8"))
    return "process {process} on {host} since {since} ({command})".format(**holder)
  except (ValueError, KeyError):  # it has the lock but has not written its name yet
    return "another process"


def require_room(workdir: pathlib.Path, num_bytes: int) -> None:
  """Makes sure that a checkpoint fits on the disk.

  Raises:
    OSError: it does not.
  """
  free = shutil.disk_usage(workdir).free
  if free < num_bytes:
    raise OSError(
      f"{workdir} has {free / 1e6:.1f} MB free, and a checkpoint takes {num_bytes / 1e6:.1f} MB; "
      "make room or choose another --workdir"
    )

"""One process per host: they come together, and end together with one clear line.

JAX watches the hosts. If one is lost, it aborts the others, and says so in pages of log. Therefore
standard error goes through a second process here, which says it in a sentence.
"""

import atexit
import contextlib
import logging
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping

HEARTBEAT_SECONDS = 45
"""A host that has not been heard of for so long is lost."""

DEFAULT_WAIT = 300
"""Seconds for which hosts that start late are waited for."""

_log = logging.getLogger(__name__)

_ENVIRONMENT = {
  "coordinator": "JAX_COORDINATOR_ADDRESS",
  "num_hosts": "JAX_NUM_PROCESSES",
  "host": "JAX_PROCESS_ID",
}
# How XLA's log begins when it ends the process, and what the coordinator says of lost hosts.
_END_OF_LOG = re.compile(r"[EF]\d{4} .*(coordination_service|client\.h:)")
_LOST_HOSTS = re.compile(r"unhealthy \(stopped sending heartbeats\):\n((?:\d+\n?)+)")


def described(
  environment: Mapping[str, str], coordinator: str | None, num_hosts: int | None, host: int | None
) -> tuple[str | None, int | None, int | None]:
  """What flags say of the hosts, else the environment; None is left for JAX to find.

  Args:
    environment: `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` are read.
    coordinator: HOST:PORT of the first host.
    num_hosts: how many there are.
    host: which one this is, from 0.

  Raises:
    ValueError: a value is no such thing.
  """
  found = {"coordinator": coordinator, "num_hosts": num_hosts, "host": host}
  for name, variable in _ENVIRONMENT.items():
    if found[name] is None and environment.get(variable):
      found[name] = environment[variable]
  coordinator = found["coordinator"]
  if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
    raise ValueError(f"--coordinator must be HOST:PORT of the first host, not {coordinator!r}")
  try:
    numbers = [None if found[name] is None else int(found[name]) for name in ("num_hosts", "host")]
  except ValueError as error:
    raise ValueError(f"JAX_NUM_PROCESSES and JAX_PROCESS_ID must be numbers: {error}") from None
  num_hosts, host = numbers
  if num_hosts is not None and host is not None and not 0 <= host < num_hosts:
    raise ValueError(f"--host must be 0 to {num_hosts - 1} for --num_hosts={num_hosts}, not {host}")
  return coordinator, num_hosts, host


@contextlib.contextmanager
def joined(
  coordinator: str | None = None,
  num_hosts: int | None = None,
  host: int | None = None,
  wait: int = DEFAULT_WAIT,
) -> Iterator[None]:
  """Joins this process to those of the other hosts, for as long as the context lasts.

  It must be entered before JAX has looked for devices. If a host is lost, at any time, all others
  end within a minute. A host that fails ends at once, without waiting for the others.

  Args:
    coordinator, num_hosts, host: as for `described`; None is what JAX detects (Slurm, TPUs, MPI,
      Kubernetes).
    wait: seconds for which other hosts are waited for.

  Raises:
    ValueError: the hosts are not described completely, or cannot be joined.
  """
  coordinator, num_hosts, host = described(os.environ, coordinator, num_hosts, host)
  _log.info("waiting up to %d s for %s hosts", wait, num_hosts or "all")
  _filter_errors(lambda log: _explanation(log, num_hosts, coordinator, wait))
  # JAX ends processes by abort(): no gigabytes of memory on disk for that.
  resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
  import jax  # takes seconds, and fork() wants a process without threads
  from jax.experimental import multihost_utils

  try:
    jax.distributed.initialize(
      coordinator,
      num_hosts,
      host,
      initialization_timeout=wait,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
  except ValueError as error:
    raise ValueError(
      f"JAX finds no cluster here ({error}); give --coordinator=HOST:PORT, --num_hosts=N and "
      "--host=I, or the variables " + ", ".join(_ENVIRONMENT.values())
    ) from error
  except RuntimeError as error:
    raise ValueError(f"the hosts cannot be joined: {str(error).splitlines()[0]}") from error
  try:
    # On CPUs the connections are made by the first sum over all devices, for which hosts may be no
    # more than 30 s apart: make it now, not after they have compiled something.
    multihost_utils.sync_global_devices("joined")
    yield
  except BaseException as error:
    if not isinstance(error, SystemExit) or isinstance(error.code, str):
      _end_after(error)
      raise
    jax.distributed.shutdown()  # stopped on purpose, and so are the others
    raise
  else:
    jax.distributed.shutdown()


def _end_after(error: BaseException) -> None:
  """Ends the process after it has said why, but without JAX, which would wait for the others."""
  import jax

  if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
    # The other end of a connection is gone. JAX knows more, as soon as it is sure.
    time.sleep(HEARTBEAT_SECONDS + 10)
    sys.stderr.write(f"error: {_LOST} ({str(error).splitlines()[0][:200]})\n")
    _exit(1)
  interrupted = isinstance(error, KeyboardInterrupt)
  atexit.register(_exit, 128 + signal.SIGINT if interrupted else 1)


def _exit(code: int) -> None:
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
    sys.stderr.flush()
  os._exit(code)


_LOST = (
  "another host was lost, so this one ends too; its own output says why. Start the run again, with "
  "fewer hosts if need be: it goes on from its last checkpoint"
)


def _explanation(log: str, num_hosts: int | None, coordinator: str | None, wait: int) -> str:
  """What XLA's log says, in a sentence."""
  if "RegisterTask" in log:
    where = f" at {coordinator}" if coordinator else ""
    return (
      f"{num_hosts or 'all'} hosts did not come together{where} within {wait} s; start all of them "
      "with the same coordinator and number of hosts, or wait longer (--wait)"
    )
  lost = _LOST_HOSTS.search(log)
  if lost:
    return _LOST.replace("another host", f"host {', '.join(lost[1].split())}")
  return _LOST


def _filter_errors(explain: Callable[[str], str]) -> None:
  """Sends standard error through a process that replaces XLA's last words by `explain` of them."""
  sys.stderr.flush()
  source, sink = os.pipe()
  if os.fork():
    os.dup2(sink, sys.stderr.fileno())
    os.close(source)
    os.close(sink)
    return
  try:
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the other process
      signal.signal(number, signal.SIG_IGN)
    os.close(sink)
    _pass_on(source, explain)
  finally:
    os._exit(0)


def _pass_on(source: int, explain: Callable[[str], str]) -> None:
  last_words = ""
  with open(source, errors="replace") as lines, open(2, "w", closefd=False) as output:
    for line in lines:
      if last_words or _END_OF_LOG.match(line):
        last_words += line
      else:
        output.write(line)
        output.flush()
    if re.search(r"^F\d{4} ", last_words, re.MULTILINE):
      last_words = f"error: {explain(last_words)}\n"
    output.write(last_words)

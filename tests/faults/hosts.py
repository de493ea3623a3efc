"""Hosts that come late, do not come, or die."""

import signal
import socket
import time
from collections.abc import Iterator

from tests.faults.trials import Ground, Program, Trial, saved_steps

_DEATH_IS_NOTICED = 60
"""Seconds within which the others have to end."""


def trials(ground: Ground, count: int) -> Iterator[Trial]:
  """So many pairs of hosts of which one dies; one pair of which one does not come."""
  for _ in range(count):
    yield _late_and_lost(ground)
  yield _missing(ground)


def _late_and_lost(ground: Ground) -> Trial:
  workdir, port = ground.new_folder(), _free_port()
  late = ground.random.uniform(2, 8)
  first = _host(ground, workdir, port, 0)
  time.sleep(late)
  second = _host(ground, workdir, port, 1)
  first.wait_until(lambda: bool(saved_steps(workdir)))
  dying, other = ground.random.sample([first, second], 2)
  dying.send(signal.SIGKILL)
  killed = time.monotonic()
  other.finish()
  noticed = time.monotonic() - killed
  told = "Traceback" not in other.errors and other.process.returncode != 0
  told = told and other.errors.count("was lost") == 1
  before = saved_steps(workdir)[0]
  alone = ground.train(workdir)
  seconds = alone.seconds_to_first_step()
  went_on = alone.last_step() > before and alone.finish() == 0
  which = "first" if dying is first else "second"
  return Trial(
    f"of two hosts, one comes late and the {which} one is killed",
    told and went_on and noticed < _DEATH_IS_NOTICED,
    f"the other ended {noticed:.0f} s later; one host went on alone from step {before}",
    seconds,
  )


def _missing(ground: Ground) -> Trial:
  workdir = ground.new_folder()
  program = _host(ground, workdir, _free_port(), 1, "--wait=3")
  program.finish()
  words = program.last_words()
  return Trial("a host does not come", program.ended_in_words("did not come together"), words)


def _host(ground: Ground, workdir, port: int, index: int, *flags: str) -> Program:
  together = ("--multi_host", "--num_hosts=2", f"--coordinator=localhost:{port}")
  return ground.train(workdir, *together, f"--host={index}", *flags)


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return probe.getsockname()[1]

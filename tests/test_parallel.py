"""Worker processes: what interruptions and crashes do. Crashes in a build are in test_build.py."""

import dataclasses
import os
import pathlib
import signal
import threading
import time

import pytest

from pcan_jax.clips.parallel import map_clips
from pcan_jax.clips.problems import Problem


@dataclasses.dataclass(frozen=True)
class Clip:
  id: str
  where: str
  split: str = ""


def work_for_long(clip):
  pathlib.Path(clip.where).touch()
  time.sleep(120)


@pytest.fixture
def interrupted_by_ctrl_c():
  """As in a terminal: a process that a script starts in the background ignores it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupted_by_ctrl_c")
def test_an_interruption_does_not_wait_for_the_workers(tmp_path):
  clips = [Clip(name, str(tmp_path / name)) for name in ("a", "b")]

  def press_ctrl_c():
    while len(list(tmp_path.iterdir())) < len(clips):
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)

  threading.Thread(target=press_ctrl_c, daemon=True).start()
  with pytest.raises(KeyboardInterrupt):
    list(map_clips(work_for_long, clips, jobs=len(clips)))


def crash_at_the_second(clip):
  if clip.id == "1":
    os._exit(1)
  return clip.id


def test_a_crash_while_nobody_waits_costs_one_clip():
  found = []
  for result in map_clips(crash_at_the_second, [Clip(str(n), "") for n in range(20)], jobs=2):
    found.append(result)
    if len(found) == 1:
      time.sleep(1)  # long enough for the pool to break
  assert isinstance(found[1], Problem) and "crashed" in str(found[1])
  assert found[:1] + found[2:] == [str(n) for n in range(20) if n != 1]

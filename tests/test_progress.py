import logging
import re
import time

import jax.numpy as jnp
import pytest
from clu import metric_writers

from pcan_jax.training.progress import Progress

BATCH, SECONDS = 8, 0.5
TERMS = {"pose/ce_action": jnp.float32(1.25), "pose/action_top1": jnp.float32(0.5)}


@pytest.fixture
def lines(monkeypatch, caplog):
  """What is logged of a run whose first step takes a minute, to be compiled, the others SECONDS."""

  def run(steps, log_every, start_step=0, waited=0.0):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO, logger="pcan_jax")
    writer = metric_writers.MultiWriter([])
    progress = Progress(start_step, start_step + steps, BATCH, 10.0, writer, lambda step: 0.1)
    for step in range(start_step + 1, start_step + steps + 1):
      with progress.waiting_for_data():
        clock[0] += waited
      clock[0] += SECONDS - waited if step > start_step + 1 else 60
      progress.add({"loss": jnp.float32(step)} | TERMS)
      if step % log_every == 0:
        progress.report(step)
    progress.close()
    return [record.getMessage() for record in caplog.records]

  return run


def rates(lines):
  return [float(found) for line in lines for found in re.findall(r"([\d.]+) clips/s", line)]


def test_no_rate_is_given_before_a_step_was_timed(lines):
  compiled, first, second, third = lines(3, log_every=1)
  assert compiled == "the first step took 60 s"
  assert first.endswith("speed not known yet")
  assert rates([second, third]) == [BATCH / SECONDS] * 2
  assert second.endswith("ETA 0:00:00") and "step 2/3" in second


@pytest.mark.parametrize("start_step", [0, 40])
def test_the_first_rate_leaves_out_the_step_that_is_compiled(lines, start_step):
  found = rates(lines(40, log_every=20, start_step=start_step))
  # Here time passes before a step is added, so that the newest counts as well.
  assert found == pytest.approx([BATCH / SECONDS] * 2, rel=0.06)


def test_lines_show_what_is_learned_and_not_the_total(lines):
  _, line = lines(1, log_every=1)
  assert "epoch 0.1  pose cross-entropy 1.250 top-1 50.0 %  speed" in line
  assert "rgb" not in line


@pytest.mark.parametrize(
  ("waited", "told"), [(0.01, ""), (0.2, "  waiting for data 40 % of the time")]
)
def test_a_run_that_waits_for_its_input_says_so(lines, waited, told):
  *_, line = lines(40, log_every=20, waited=waited)
  assert line.endswith(f"ETA 0:00:00{told}")

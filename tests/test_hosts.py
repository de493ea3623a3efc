"""What processes compute together is what one computes alone; how they find together and end."""

import contextlib
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from pcan_jax import hosts
from tests.hosts import compute


def together(out, data, count, devices=1, order="plain"):
  """The results of so many processes, each with so many devices."""
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    coordinator = f"localhost:{probe.getsockname()[1]}"
  flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
  # Hosts that kept and read each other's smallest programs have waited for each other.
  cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
  variables = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags} | cache
  words = [sys.executable, "-m", "tests.hosts", str(out), str(data), coordinator, str(count)]
  logs = [out.with_suffix(f".{index}.log") for index in range(count)]
  with contextlib.ExitStack() as stack:
    processes = []
    for index, log in enumerate(logs):
      file = stack.enter_context(log.open("w"))
      command = [*words, str(index), order]
      host = subprocess.Popen(command, env=variables, stdout=file, stderr=subprocess.STDOUT)
      processes.append(stack.enter_context(host))
      stack.callback(host.kill)
    for host, log in zip(processes, logs):
      assert host.wait(timeout=500) == 0, log.read_text()
  with np.load(out) as arrays:
    return dict(arrays)


@pytest.fixture(scope="module")
def alone(tiny_dataset_path, tmp_path_factory):
  out = tmp_path_factory.mktemp("alone") / "out.npz"
  compute(str(out), str(tiny_dataset_path))
  with np.load(out) as arrays:
    return dict(arrays)


@pytest.mark.parametrize(
  ("count", "devices", "order"),
  [
    pytest.param(2, 2, "mixed", marks=pytest.mark.slow),
    pytest.param(4, 1, "plain", marks=pytest.mark.long),
  ],
)
def test_hosts_compute_what_one_does(
  alone, tiny_dataset, tiny_dataset_path, tmp_path, count, devices, order
):
  """Rows, augmentation and loss of a step; clips, labels and scores of an evaluation.

  The split `test` has three clips, so that with four hosts two have none.
  """
  found = together(tmp_path / "out.npz", tiny_dataset_path, count, devices, order)
  assert found.keys() == alone.keys()
  for name, values in alone.items():
    if values.dtype.kind == "f":
      np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4, err_msg=name)
    else:
      np.testing.assert_array_equal(found[name], values, err_msg=name)
  for split in ("val", "test"):
    assert found[f"{split}/ids"].tolist() == tiny_dataset.clip_ids(split)
    np.testing.assert_array_equal(found[f"{split}/actions"], tiny_dataset.actions(split))


def test_hosts_are_described_by_flags_or_the_environment():
  variables = {
    "JAX_COORDINATOR_ADDRESS": "first:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
  }
  assert hosts.described({}, None, None, None) == (None, None, None)
  assert hosts.described(variables, None, None, None) == ("first:1234", 4, 3)
  assert hosts.described(variables, "other:1", 2, 0) == ("other:1", 2, 0)


@pytest.mark.parametrize(
  ("variables", "flags", "message"),
  [
    ({}, ("first", 2, 0), "--coordinator must be HOST:PORT of the first host, not 'first'"),
    ({}, ("first:1", 2, 2), "--host must be 0 to 1 for --num_hosts=2, not 2"),
    ({"JAX_NUM_PROCESSES": "two"}, ("first:1", None, 0), "must be numbers: .*'two'"),
  ],
)
def test_wrong_descriptions_of_hosts_are_refused(variables, flags, message):
  with pytest.raises(ValueError, match=message):
    hosts.described(variables, *flags)


LOST = """E1126 11:43:05.522525   29042 coordination_service.cc:1549] [161] Use error polling to propagate
the following error to all tasks: UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):
1
3
The tasks have crashed. Check the task logs for an earlier error.
F1126 11:43:05.523039   29058 client.h:80] Terminating process because of fatal errors.
*** Check failure stack trace: ***
    @     0x7f88bc840634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
"""  # noqa: E501


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("plain\n", "plain\n"),
    (f"before\n{LOST}", "before\nerror: LOST 1 3\n"),
    # Nobody was ended: all of it may be of interest.
    ("E1126 1:2.3 4 coordination_service.cc:1] odd\nmore\n",) * 2,
    ("E1126 1:2.3 4 other.cc:1] odd\n",) * 2,
  ],
)
def test_the_last_words_of_xla_become_a_sentence(tmp_path, text, expected, capfd):
  def explain(log):
    return "LOST " + " ".join(hosts._LOST_HOSTS.search(log)[1].split())

  (tmp_path / "log").write_text(text)
  hosts._pass_on(os.open(tmp_path / "log", os.O_RDONLY), explain)
  assert capfd.readouterr().err == expected


def test_what_is_lost_is_named():
  assert hosts._explanation(LOST, 4, None, 9).startswith("host 1, 3 was lost, so this one ends too")
  other = "F1126 11:43:05.523039   29058 client.h:80] Socket closed"
  assert hosts._explanation(other, 4, None, 9).startswith("another host was lost")
  late = "F1126 client.h:80] DEADLINE_EXCEEDED\n\nRPC: /xla.coordination.X/RegisterTask"
  assert "4 hosts did not come together at first:1 within 9 s" in hosts._explanation(
    late, 4, "first:1", 9
  )

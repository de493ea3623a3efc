"""What several processes compute together is what one computes alone."""

import contextlib
import os
import socket
import subprocess
import sys

import numpy as np
import pytest


def together(out, data, count, devices=1, order="plain"):
  """The results of so many processes, each with so many devices."""
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    coordinator = f"localhost:{probe.getsockname()[1]}"
  flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
  variables = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
  words = [sys.executable, "-m", "tests.hosts", str(out), str(data), coordinator, str(count)]
  logs = [out.with_suffix(f".{index}.log") for index in range(count)]
  with contextlib.ExitStack() as stack:
    hosts = []
    for index, log in enumerate(logs):
      file = stack.enter_context(log.open("w"))
      command = [*words, str(index), order]
      host = subprocess.Popen(command, env=variables, stdout=file, stderr=subprocess.STDOUT)
      hosts.append(stack.enter_context(host))
      stack.callback(host.kill)
    for host, log in zip(hosts, logs):
      assert host.wait(timeout=500) == 0, log.read_text()
  with np.load(out) as arrays:
    return dict(arrays)


@pytest.fixture(scope="module")
def alone(tiny_dataset_path, tmp_path_factory):
  return together(tmp_path_factory.mktemp("alone") / "out.npz", tiny_dataset_path, 1)


@pytest.mark.parametrize(
  ("count", "devices", "order"), [(2, 1, "plain"), (2, 2, "mixed"), (4, 1, "plain")]
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

import pathlib

import numpy as np
import pytest

from tests import parity, parity_forward

FILE = pathlib.Path(__file__).parent / "reference" / "release_forward.npz"
with np.load(FILE) as arrays:
  WANTED = dict(arrays)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """What the command writes for the reference's inputs, by compute type; each is computed once."""
  found = {}

  def run(dtype):
    if dtype not in found:
      path = tmp_path_factory.mktemp(dtype) / "out.npz"
      inputs = ["--seed", "7", "--batch", "2", "--size", "224"]
      parity.main(["forward", *inputs, "--dtype", dtype, str(path)])
      with np.load(path) as arrays:
        found[dtype] = dict(arrays)
    return found[dtype]

  return run


@pytest.mark.parametrize("name", sorted(WANTED))
def test_full_size_network_matches_release(written, name):
  np.testing.assert_allclose(written("float32")[name], WANTED[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_command_writes_nothing_but_reference_names(written, dtype):
  found = written(dtype)
  assert {name: x.shape for name, x in found.items()} == {
    name: x.shape for name, x in WANTED.items()
  }
  assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}


@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "bound"),
  # Found: 0.005 in scores of up to 1.1, 0.0001 in probabilities, 0.013 in taps of up to 2.9.
  [("score/", 0.01), ("fused/", 0.0005), ("tap/", 0.03)],
)
def test_bfloat16_moves_results_little(written, kind, bound):
  names = [name for name in WANTED if name.startswith(kind)]
  moved = max(np.abs(written("bfloat16")[name] - WANTED[name]).max() for name in names)
  assert 1e-5 < moved < bound


def test_inputs_follow_seed_batch_and_size():
  inputs = parity_forward.draw_inputs(seed=3, batch=1, size=32)
  assert {name: x.shape for name, x in inputs.items()} == {
    "rgb": (1, 8, 32, 32, 3),
    "heatmaps": (1, 32, 8, 8, 28),
  }
  other = parity_forward.draw_inputs(seed=4, batch=1, size=32)
  assert all((other[name] != x).any() for name, x in inputs.items())


@pytest.mark.parametrize("arguments", [["--size", "54"], ["--batch", "0"]])
def test_command_refuses_inputs_that_cannot_be(arguments, tmp_path, capsys):
  with pytest.raises(SystemExit):
    parity.main(["forward", *arguments, str(tmp_path / "out.npz")])
  assert arguments[0] in capsys.readouterr().err

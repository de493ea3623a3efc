import pathlib

import numpy as np
import pytest

from tests import parity, parity_data, parity_losses

REFERENCE = pathlib.Path(__file__).parent / "reference"


def load(name):
  with np.load(REFERENCE / name) as arrays:
    return dict(arrays)


@pytest.fixture(scope="module")
def losses_found():
  return parity_losses.compute_file(load("losses.npz"))


@pytest.fixture(scope="module")
def data_found():
  return parity_data.compute_file(load("release_data.npz"))


def assert_close(found, wanted, name):
  assert found.shape == wanted.shape, name
  # Relative to the largest value of an array: in float32, and for sums that cancel, its smallest
  # ones are rounding noise. So is all of a float32 gradient that is zero but for rounding.
  scale = np.max(np.abs(wanted), initial=0)
  noise = 1e-8 if wanted.dtype == np.float32 else 1e-12
  error = np.max(np.abs(found - wanted), initial=0)
  assert error <= 1e-5 * scale + noise, f"{name}: off by {error:.1e}, values up to {scale:.1e}"


LOSSES = sorted(name for name in load("losses.npz") if "/out/" in name)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_match_reference(losses_found, name):
  wanted = load("losses.npz")[name]
  if "/set_" in name:
    np.testing.assert_array_equal(losses_found[name], wanted)
  else:
    assert_close(losses_found[name], wanted, name)


def test_losses_have_the_reference_precision(losses_found):
  for name, found in losses_found.items():
    if "/set_" not in name:
      assert found.dtype == (np.float64 if "/paper_" in name else np.float32), name


def test_losses_write_nothing_but_reference_names(losses_found):
  assert sorted(losses_found) == LOSSES


DATA = sorted(
  name
  for name in load("release_data.npz")
  if name.endswith(("/heatmap", "/box_xyxy")) or name.startswith("sample/")
)


@pytest.mark.parametrize("name", DATA)
def test_data_matches_release(data_found, name):
  wanted = load("release_data.npz")[name]
  if name.endswith("/heatmap"):
    np.testing.assert_allclose(data_found[name], wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(data_found[name] > 0, wanted > 0)
  else:
    np.testing.assert_array_equal(data_found[name], wanted)


@pytest.mark.parametrize("command, name", [("losses", "losses.npz"), ("data", "release_data.npz")])
def test_commands_write_what_was_computed(command, name, tmp_path, losses_found, data_found):
  parity.main([command, str(REFERENCE / name), str(tmp_path / "out.npz")])
  computed = losses_found if command == "losses" else data_found
  with np.load(tmp_path / "out.npz") as written:
    assert sorted(written) == sorted(computed)
    for key in computed:
      np.testing.assert_array_equal(written[key], computed[key])


@pytest.mark.parametrize("command", ["losses", "data"])
def test_commands_refuse_files_without_inputs(command, tmp_path, capsys):
  np.savez(tmp_path / "in.npz", other=np.zeros(3))
  with pytest.raises(SystemExit):
    parity.main([command, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")])
  assert "in.npz" in capsys.readouterr().err
  assert not (tmp_path / "out.npz").exists()

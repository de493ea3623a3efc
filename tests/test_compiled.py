"""Compiled programs are read for what their kernels move and compute, on devices near and far."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import compiled, compiled_budget, hlo, kernels, target
from benchmarks.hlo import Array
from benchmarks.kernels import Totals
from tests.test_benchmarks import TOY_CONFIG

ROOT = pathlib.Path(__file__).parents[1]


def read(name):
  return hlo.parse((ROOT / "tests" / "reference" / name).read_text())


@pytest.fixture(scope="module")
def found():
  """Kernels of a program for GPUs by name."""
  return {kernel.name: kernel for kernel in kernels.find(read("kernels_gpu.hlo"))}


@pytest.fixture(scope="module")
def of_tpu():
  """Kernels of a program for TPUs by name."""
  return {kernel.name: kernel for kernel in kernels.find(read("kernels_tpu.hlo"))}


STATE = 4 * 8 * 16
IMAGE, KERNEL, OUTPUT = (2 * n for n in (2 * 8 * 8 * 4, 6 * 3 * 3 * 4, 2 * 4 * 4 * 6))


@pytest.mark.parametrize(
  "name, kind, num_bytes",
  [
    ("fusion.row", "elementwise", 64 + 4 + 64),  # one of eight rows, its number
    ("conv", "convolution", IMAGE + KERNEL + OUTPUT),  # no workspace
    ("conv.gradient", "convolution", IMAGE + KERNEL + OUTPUT),
    ("conv.kernel", "convolution", IMAGE + KERNEL + OUTPUT),
    ("product", "product", 2 * (8 * 32 + 32 * 16 + 8 * 16)),
    ("precise", "product", STATE + 4 * 8 * 8),  # both factors are the same
    ("sums", "sum", 2 * 8 * 16 + 2 * 4 * 16),
    ("transposed", "copy", 2 * 2 * 8 * 16),
    ("updated", "elementwise", 64 + 4 + 64),  # in place
    ("negated", "elementwise", 2 * STATE),
    ("exchanged", "collective", 2 * STATE),
  ],
)
def test_kernels_and_their_bytes(found, name, kind, num_bytes):
  assert (found[name].kind, found[name].num_bytes) == (kind, num_bytes)
  assert found[name].useful_bytes == num_bytes


def test_nothing_else_is_a_kernel(found):
  assert len(found) == 11
  assert {name: kernel.times for name, kernel in found.items() if kernel.times > 1} == {
    "negated": 5
  }
  assert Totals.of(found.values()).kernels == 15


def test_operations(found):
  # Of three taps, one meets the padding before the first of four outputs.
  convolution = 2 * 2 * 6 * 4 * 11 * 11
  for name in ("conv", "conv.gradient", "conv.kernel"):
    assert found[name].operations == {"bfloat16": convolution}
  assert found["product"].operations == {"bfloat16": 2 * 8 * 32 * 16}
  assert found["precise"].operations == {"highest": 2 * 8 * 16 * 8}
  assert found["sums"].operations == {}


def test_sources_and_libraries(found):
  assert found["conv"].source == "jit(step)/conv1/conv_general_dilated"
  assert found["conv"].callee == "__cudnn$convForward"
  assert found["sums"].callee == ""
  assert found["conv"].result == "bf16[2, 4, 4, 6]"


def test_convolutions_within_kernels(of_tpu):
  """As TPUs write them: the gradient of a strided one, and a product without a window."""
  gradient, product = of_tpu["gradient"], of_tpu["product"]
  assert (gradient.kind, product.kind) == ("convolution", "product")
  assert gradient.operations == {"bfloat16": 2 * 2 * 6 * 4 * 11 * 11}
  assert product.operations == {"bfloat16": 2 * 8 * 32 * 16}


def test_tiles_are_filled_up():
  (array,) = hlo.arrays("bf16[2,5,3,28]{3,1,2,0:T(8,128)(2,1)}")
  assert array == Array("bf16", (2, 5, 3, 28), (3, 1, 2, 0), ((8, 128), (2, 1)))
  assert array.num_bytes == 2 * 2 * 5 * 3 * 28
  assert array.stored_bytes == 2 * 2 * 3 * 8 * 128
  assert hlo.arrays("f32[3]{0:T(128)S(1)}")[0].stored_bytes == 4 * 128
  assert hlo.arrays("f32[3]{0:T(128)S(1)}")[0].space == 1
  assert hlo.arrays("f32[]{:T(128)}")[0].stored_bytes == 4 * 128


def test_what_is_fetched_ahead_is_read_once(of_tpu):
  """TPUs copy into a memory of their own while they compute."""
  names = ("copy-start", "slice-start", "negate")
  assert [of_tpu[name].num_bytes for name in names] == [8192, 4096, 8192]
  assert [of_tpu[name].kind for name in names] == ["copy", "copy", "elementwise"]


def test_padding_is_moved_but_of_no_use(of_tpu):
  assert of_tpu["negate.1"].num_bytes == 2 * 16 * 128 * 4
  assert of_tpu["negate.1"].useful_bytes == 2 * 16 * 28 * 4
  assert Totals.of([of_tpu["negate.1"]]).padding == pytest.approx(128 / 28)


def test_donated_arrays_are_counted():
  assert read("kernels_gpu.hlo").donated == 1


def test_other_texts_are_refused():
  with pytest.raises(ValueError, match="no HLO text"):
    hlo.parse("module @jit_step {}")


def test_time_is_bounded_by_bytes_or_by_operations(found):
  h200 = target.load("h200")
  assert found["sums"].seconds(h200) == pytest.approx(384 / 4.8e12)
  assert found["negated"].cautious(h200) == pytest.approx(5 * (1024 / (0.8 * 4.8e12) + 2.5e-6))
  assert found["precise"].seconds(h200) == pytest.approx(max(768 / 4.8e12, 2048 / 67e12))


@pytest.mark.parametrize("name", target.names())
def test_targets_are_described(name):
  described = target.load(name)
  assert all(described.source)
  assert 1e11 < described.bandwidth < 1e13
  assert described.peak["highest"] <= described.peak["float32"] <= described.peak["bfloat16"]
  assert "1" in described.topologies
  if described.platform == "cuda":
    # What it reports is a few per cent less or, in powers of two, more than what is printed on it.
    assert described.description["device_memory_size"] == pytest.approx(
      described.memory * 1e9, rel=0.08
    )
    assert described.description["memory_bandwidth"] == described.bandwidth


def test_gpus_are_described_in_xlas_format():
  text = target.load("h200").text()
  assert "  cuda_compute_capability {\n    major: 9\n" in text
  assert "    feature_extension: ACCELERATED_FEATURES\n" in text
  assert 'device_vendor: "NVIDIA Corporation"' in text


def test_unknown_targets_and_topologies_are_named():
  with pytest.raises(ValueError, match=r"no target called 'h900'; there are a100, .*v5e"):
    target.load("h900")
  with pytest.raises(ValueError, match="described for 1, 8 devices only"):
    target.load("h200").devices(3)


def test_a_missing_compiler_is_named():
  with pytest.raises(target.MissingCompilerError, match="no compiler for NVIDIA T4.*pip install"):
    target.Target(**vars(target.load("t4")) | {"platform": "nothing"}).devices()


def test_memory_is_a_line_through_two_plans():
  need = compiled.Need.through({8: 1_800_000_000, 16: 2_600_000_000})
  assert (need.fixed, need.per_clip) == (1e9, 1e8)
  assert need.largest_batch(16) == 134
  assert need.largest_batch(1) == 0


def test_remat_is_of_no_consequence_in_evaluation():
  arguments = compiled.parse(["--remat", "none", "blocks", "--batches", "4"])
  assert [(case.kind, case.remat) for case in compiled.cases(arguments)] == [
    ("training", "none"),
    ("training", "blocks"),
    ("evaluation", "none"),
  ]


def test_missing_configs_are_named():
  with pytest.raises(SystemExit, match=r"error: no config called 'nowhere'"):
    compiled.main(["--config", "nowhere:pcan"])


def test_the_budget_is_an_upper_bound():
  budget = {"a": {"MB per clip": 100.0, "temporaries MB": 10.0}}
  assert compiled_budget.over({"a": {"MB per clip": 102.9, "temporaries MB": 1.0}}, budget) == []
  (wrong,) = compiled_budget.over({"a": {"MB per clip": 100.0, "temporaries MB": 10.4}}, budget)
  assert wrong == "a: 10.4 temporaries MB, 10.0 in the budget"
  assert compiled_budget.over({"b": {}}, budget) == ["b is not in the budget"]


def test_the_budget_covers_its_programs():
  programs = json.loads(compiled_budget.FILE.read_text())["programs"]
  assert list(programs) == [compiled_budget.key(case) for case in compiled_budget.CASES]


def has_plugin(package):
  """Whether a compiler is installed that fits this JAX."""
  try:
    version = importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return False
  return package == "libtpu" or version == importlib.metadata.version("jax")


# What compiles for a device that is not there, and by which package.
AWAY = pytest.mark.parametrize("name, package", [("h200", "jax-cuda13-pjrt"), ("v5e", "libtpu")])


def run(package, folder, *command):
  """The lines that a command on the toy config in a process of its own prints."""
  if not has_plugin(package):
    pytest.skip(f"{package} is not installed; CONTRIBUTING.md says how")
  (folder / "toy.py").write_text(TOY_CONFIG)
  environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
  output = subprocess.run(
    [sys.executable, *command, folder / "toy.py"],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert output.returncode == 0, output.stderr
  return output.stdout.splitlines()


@AWAY
def test_steps_compile_for_devices_that_are_not_there(tmp_path, name, package):
  command = ["-m", "benchmarks.compiled", "--target", name, "--batches", "2", "4", "--config"]
  results = json.loads(run(package, tmp_path, *command)[-1])
  rows = results["programs"]
  assert [(row["step"], row["batch"]) for row in rows] == [
    ("training", 2),
    ("training", 4),
    ("evaluation", 2),
    ("evaluation", 4),
  ]
  for row in rows:
    assert row["GFLOP/clip"] > 0
    assert row["roofline clips/s"] > row["cautious clips/s"] > 0
  assert rows[0]["donated"] > 50
  if name == "h200":
    assert rows[0]["libraries"]["__cudnn$convForward"] > 1
    assert rows[0]["libraries"]["__cublas$lt$matmul"] > 1
  assert [row["step"] for row in results["batches"]] == ["training", "evaluation"]
  assert all(row["batch that fits"] > 1000 for row in results["batches"])


OPERATIONS = """
import sys
from benchmarks import target, workload
from pcan_jax.config import load_config
from pcan_jax.mesh import data_mesh
config = load_config(sys.argv[2])
for devices in target.load(sys.argv[1]).devices(), None:
  print(workload.trace(config, "training", 2, data_mesh(devices)).operations)
"""


@AWAY
def test_operations_are_counted_without_the_device(tmp_path, name, package):
  away, here = run(package, tmp_path, "-c", OPERATIONS, name)
  assert float(away) == float(here) > 0

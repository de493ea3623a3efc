"""Shapes in signatures are checked whenever a function is called."""

import contextlib
import gc
import os
import sys
import warnings

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Most of the time goes into compilation: keep it short, and its results for the next run.
FAST_TO_COMPILE = "--xla_backend_optimization_level=0"
if FAST_TO_COMPILE not in os.environ.get(
  "XLA_FLAGS", ""
):  # twice would be another key in the cache
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_TO_COMPILE}".strip()
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(ROOT, "build", "test_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# The tests run from a checkout, as launch.py does.
sys.path.insert(0, ROOT)

import pytest  # noqa: E402


def pytest_configure(config):
  """Imports what tests need, but not into a process that only hands them out to others."""
  if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
    return
  # What is imported stays; looking through it for garbage takes a tenth of the time.
  gc.set_threshold(50_000, 20, 50)
  # Where PyTorch's compiler for GPUs is installed, loading it after TensorFlow is a crash.
  with contextlib.suppress(ImportError):
    import triton  # noqa: F401
  import jaxtyping

  with warnings.catch_warnings():
    # Other people's imports may warn; ours may not.
    warnings.simplefilter("ignore")
    import clu.metrics  # noqa: F401
    import orbax.checkpoint  # noqa: F401

    # What is imported while the hook is at work is compiled again from its source, so first:
    import tensorflow  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    jaxtyping.install_import_hook("pcan_jax", "beartype.beartype")
  gc.freeze()


def pytest_ignore_collect(collection_path):
  """What needs several devices runs in a process of its own, see test_eight_devices.py."""
  import jax

  return True if collection_path.name == "eight_devices" and jax.device_count() != 8 else None


# Files that take longest come first, so that at the end no worker waits for another one: those of
# slow tests, then those of everyday ones.
LONGEST = """
hosts launch study benchmarks accelerator install eight_devices configs report train pipeline size
check predict earlier evaluate import_annotations warm_start stopping video_transformer forms
background cli build review torch_weights pretraining backbone preflight failure hostile_inputs
""".split()


def pytest_collection_modifyitems(items):
  ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
  items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
  """The next file needs others, and gigabytes of old ones make every garbage collection slow."""
  import jax

  yield
  jax.clear_caches()


@pytest.fixture(scope="session")
def tiny_dataset_path(tmp_path_factory):
  """A data set built from a few real videos and pickles."""
  from data.build import build
  from tests.tiny_source import write_tiny_source

  directory = tmp_path_factory.mktemp("tiny")
  write_tiny_source(directory / "source")
  return build(directory / "source", directory / "dataset", side=48, jobs=1)


@pytest.fixture(scope="session")
def tiny_dataset(tiny_dataset_path):
  from pcan_jax.feed.dataset import open_dataset

  return open_dataset(tiny_dataset_path)

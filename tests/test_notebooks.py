"""The notebooks run from start to end, at toy size, and carry no outputs."""

import os
import pathlib
import re

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"
# What replaces the cell tagged `parameters`; the training notebook also gets a toy config.
TOY_CLIPS = """
import pathlib
WORK = pathlib.Path({work!r})
TRAIN_CLIPS, VAL_CLIPS = 24, 24
EPOCHS = 1
"""
TOY_CONFIG = f"""
import sys
sys.path.insert(0, {str(NOTEBOOKS.parent)!r})
import pcan_jax.config
from tests.tiny_config import shrink
full_size = pcan_jax.config.load_config
one_stream = {{"demo": "demo:pcan_pose", "demo:posec3d": "demo:posec3d_pose"}}
pcan_jax.config.load_config = lambda name: shrink(full_size(one_stream.get(name, name)))
from pcan_jax.report import examples, statistics, style
style._PIXELS_PER_INCH, statistics.RESAMPLES, examples._PER_KIND = 40, 50, 1
"""
CHECKPOINT = """
CHECKPOINT = {work!r} + "/pcan"
PTH, DATA, SPLIT, NUM_CLIPS = "", None, None, 1
"""


def execute(name, parameters, folder):
  notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
  cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
  assert len(cells) == 1
  cells[0].source = parameters
  client = nbclient.NotebookClient(
    notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
  )
  client.execute()
  outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
  text = "".join(output.get("text", "") for output in outputs)
  images = sum("image/png" in output.get("data", {}) for output in outputs)
  return text, images


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_carry_no_outputs(path):
  for cell in nbformat.read(path, as_version=4).cells:
    assert not cell.get("outputs") and not cell.get("execution_count")


@pytest.mark.long
def test_training_then_evaluation_run_from_start_to_end(tmp_path, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
  monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
  assert os.environ["JAX_PLATFORMS"] == "cpu"
  work = str(tmp_path / "work")
  text, images = execute("train_pcan.ipynb", TOY_CLIPS.format(work=work) + TOY_CONFIG, NOTEBOOKS)
  # Of each of three runs, while it trains and in the end; two tables are shown side by side.
  assert len(re.findall("F1 mean", text)) == 8
  assert "error of hidden pixels" in text
  assert images >= 3
  assert pathlib.Path(work, "pcan/report/index.html").is_file()

  text, images = execute("evaluate_checkpoint.ipynb", CHECKPOINT.format(work=work), NOTEBOOKS)
  assert "F1 mean" in text and images >= 2


TOY_INTERVIEWS = """
WORK = pathlib.Path({work!r})
MINUTES, HEIGHT = 1.4, 64
ACTIONS = "nodding,waving"
STEPS = 6
"""


@pytest.mark.long
def test_interviews_are_coded_trained_on_predicted_and_compared(tmp_path, monkeypatch):
  pytest.importorskip("pympi")
  monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
  monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
  work = tmp_path / "work"
  parameters = TOY_INTERVIEWS.format(work=str(work)) + TOY_CONFIG
  text, images = execute("code_interviews.ipynb", parameters, NOTEBOOKS)
  assert images == 2 and "temperature" in text
  assert (work / "predicted/interview_02.review.html").is_file()
  assert "F1@0.5" in (work / "agreement/agreement.md").read_text(encoding="utf-8")

"""A run with a video transformer and the pose stream goes through everything that a run can."""

import jax.export
import numpy as np
import pytest

from configs import ma52
from pcan_jax.evaluation.protocol import evaluate_checkpoint
from pcan_jax.prediction.export import export_checkpoint
from pcan_jax.prediction.recognizer import Recognizer
from pcan_jax.report import write_report
from pcan_jax.training import loop
from tests.tiny_config import shrink

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def workdir(tiny_dataset_path, tmp_path_factory):
  """Two epochs, the second of which goes on from a checkpoint, and an evaluation."""
  config = shrink(ma52.get_config("vit_pcan_pose"))
  config.data.path = str(tiny_dataset_path)
  config.eval.every_epochs = 0.0
  config.eval.num_clips = 1
  config.optimizer.warmup_epochs = 0.0
  config.optimizer.schedule = "step"
  config.optimizer.epochs = 1.0
  workdir = tmp_path_factory.mktemp("run")
  first = loop.train(config, workdir)
  config.optimizer.epochs = 1.5
  second = loop.train(config, workdir)
  assert (int(first.step), int(second.step)) == (2, 3)
  moved = np.abs(second.averaged["fusion_weight"] - second.params["fusion_weight"])
  assert moved.max() > 0  # the average was restored beside the parameters
  evaluate_checkpoint(workdir, workdir)
  return workdir


# Three steps give figures hardly anything to show.
@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
def test_its_report_is_written(workdir):
  page = write_report(workdir)
  assert "rgb" in page.read_text()


def test_it_predicts_arrays_and_as_an_exported_function(workdir, tiny_dataset, tmp_path):
  recognizer = Recognizer.load(workdir)
  assert recognizer.streams == ("rgb", "pose")
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (20, 48, 48, 3), np.uint8)
  keypoints = rng.uniform(0, 48, (1, 20, 28, 2)).astype(np.float32)
  found = recognizer.predict(frames, keypoints, np.ones((1, 20, 28), np.float32))
  probabilities = found.outputs["fused"]["action"]["probabilities"]
  np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-5)

  folder = export_checkpoint(workdir, tmp_path)
  exported = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
  shapes = recognizer.spec.batch_shapes(1, 1)
  batch = {
    name: rng.integers(0, 48, shape.shape).astype(shape.dtype) for name, shape in shapes.items()
  }
  wanted = recognizer._predict_batch(recognizer._variables, batch)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), exported.call(batch), wanted
  )

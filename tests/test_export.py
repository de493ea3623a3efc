import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from pcan_jax.checkpoints import load_model
from pcan_jax.clips import pose, sampling
from pcan_jax.feed.pipeline import evaluation_batches
from pcan_jax.prediction import run_exported
from pcan_jax.prediction.export import export_checkpoint
from pcan_jax.prediction.run_exported import ExportedModel
from tests.tiny_checkpoint import write_tiny_checkpoint

# What would be missing where only JAX is installed, set to None, cannot be imported.
ALONE = """
import runpy, sys
for name in ("flax", "tensorflow", "tensorflow_datasets", "orbax", "cv2", "av", "pcan_jax", "data"):
  sys.modules[name] = None
sys.argv = ["run_exported.py", *sys.argv[1:]]
runpy.run_path("run_exported.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def workdir(tiny_dataset, tmp_path_factory):
  return write_tiny_checkpoint(tmp_path_factory.mktemp("run"), tiny_dataset)


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
  return export_checkpoint(workdir, tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def inputs(workdir, tiny_dataset):
  """The test clips of five videos."""
  spec, _, _ = load_model(workdir)
  frames = spec.frame_sampling(spec.config.eval.num_clips)
  batch = next(evaluation_batches(tiny_dataset, "val", frames, batch_size=5))
  return {name: batch[name] for name in ("rgb", "keypoints", "keypoint_scores")}


@pytest.fixture(scope="module")
def expected(workdir, inputs):
  spec, variables, _ = load_model(workdir)
  variables = jax.device_put(variables, jax.local_devices()[0])
  return jax.device_get(jax.jit(spec.predict)(variables, inputs))


def test_the_function_says_what_the_model_says(exported, inputs, expected):
  found = ExportedModel(exported)(**inputs)
  assert found.keys() == expected.keys() == {"fused", "rgb", "pose"}
  assert np.ptp(expected["fused"]["action"]["probabilities"], axis=0).max() > 0.01
  jax.tree.map(
    lambda array, values: np.testing.assert_allclose(array, values, rtol=1e-4, atol=2e-5),
    found,
    expected,
  )


def test_the_script_runs_where_only_jax_is_installed(exported, inputs, expected, tmp_path):
  count = 2  # another number of videos than above
  np.savez(tmp_path / "clips.npz", **{name: values[:count] for name, values in inputs.items()})
  result = subprocess.run(
    [sys.executable, "-c", ALONE, ".", tmp_path / "clips.npz", tmp_path / "out.npz"],
    cwd=exported,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": ""},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr
  probabilities = expected["fused"]["action"]["probabilities"][:count]
  with np.load(tmp_path / "out.npz") as found:
    np.testing.assert_allclose(
      found["fused/action/probabilities"], probabilities, rtol=1e-4, atol=2e-5
    )
  actions = json.loads((exported / "model.json").read_text())["actions"]
  lines = result.stdout.splitlines()
  assert len(lines) == count
  for line, best in zip(lines, probabilities.argmax(axis=1)):
    assert f": {actions[best]} " in line


def test_the_description_says_what_goes_in(exported, inputs):
  description = ExportedModel(exported).description
  assert description["num_clips"] == 2 and description["frames_per_clip"] == {"rgb": 2, "pose": 8}
  assert {name: about["shape"][1:] for name, about in description["inputs"].items()} == {
    name: list(values.shape[1:]) for name, values in inputs.items()
  }
  assert len(description["parents"]) == len(description["actions"]) == 6
  assert description["layout"]["name"] == "openpose-28"
  assert description["platforms"] == ["cpu", "cuda", "tpu"]


def test_the_largest_score_is_that_of_files():
  assert run_exported.MAX_SCORE == pose.MAX_SCORE


def test_wrong_inputs_are_named(exported, inputs):
  model = ExportedModel(exported)
  for changed, message in (
    ({"rgb": inputs["rgb"]}, "the inputs are"),
    (inputs | {"rgb": inputs["rgb"][:, :1]}, "rgb must be uint8"),
    (inputs | {"rgb": inputs["rgb"].astype(np.float32)}, "not float32"),
    (inputs | {"keypoints": inputs["keypoints"][..., :5, :]}, "keypoints must be float32"),
    (inputs | {"keypoints": inputs["keypoints"] / 48}, "video 0: its keypoints lie between -1 and"),
    (inputs | {"keypoint_scores": inputs["keypoint_scores"] * np.inf}, "keypoint_scores must be 0"),
    (inputs | {"keypoint_scores": inputs["keypoint_scores"] * np.nan}, "keypoint_scores must be 0"),
  ):
    with pytest.raises(ValueError, match=message):
      model(**changed)


@pytest.mark.parametrize("num_frames", [1, 3, 8, 13, 16, 17, 75])
@pytest.mark.parametrize("num_clips", [1, 2, 10])
def test_frames_are_sampled_as_in_evaluation(num_frames, num_clips):
  np.testing.assert_array_equal(
    run_exported.sample_frames(num_frames, 8, num_clips),
    sampling.test_clips(num_frames, 8, num_clips),
  )


@pytest.mark.parametrize("file", ["model.stablehlo", "model.json"])
def test_a_damaged_export_is_refused(exported, tmp_path, file):
  copy = shutil.copytree(exported, tmp_path / "copy")
  content = bytearray((copy / file).read_bytes())
  content[content.index(b"nod" if file == "model.json" else content[len(content) // 2 :])] ^= 1
  (copy / file).write_bytes(bytes(content))
  with pytest.raises(ValueError, match=f"{file} is damaged"):
    ExportedModel(copy)

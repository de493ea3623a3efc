import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="measuring against PyTorch needs pcan_jax[bench]")

from benchmarks import torch_peer, workload  # noqa: E402
from benchmarks.torch_pcan import (  # noqa: E402
  losses,
  network,
  preprocess,
  steps,
)
from benchmarks.torch_pcan import peer as timed_peer  # noqa: E402
from benchmarks.torch_pcan.steps import Form  # noqa: E402
from pcan_jax import cpu, heatmaps  # noqa: E402
from pcan_jax import inputs as our_preprocess  # noqa: E402
from pcan_jax.config import load_config  # noqa: E402
from pcan_jax.inputs import Preprocessing  # noqa: E402
from pcan_jax.network.pcan import build_model  # noqa: E402
from pcan_jax.spec import ModelSpec  # noqa: E402
from pcan_jax.torch.weights import to_state_dict  # noqa: E402
from pcan_jax.training.optimizer import build_optimizer  # noqa: E402
from pcan_jax.training.step import TrainState, train_step  # noqa: E402
from tests import parity_forward  # noqa: E402
from tests.paper import AUGMENTATION, LOSSES, POSE_PATHWAY, RGB_PATHWAY  # noqa: E402

# Tests run beside each other, and PyTorch's threads wait for one another by spinning.
torch.set_num_threads(1)

ROOT = pathlib.Path(__file__).parents[1]
REFERENCE = ROOT / "tests" / "reference"
CPU = torch.device("cpu")
BATCH = 3
SIZES = Preprocessing(
  stored_size=40,
  rgb_size=32,
  heatmap_size=8,
  layout=workload.LAYOUT,
  sigma=0.7,
  heatmaps="joints",
  augmentation=None,
)
FORMS = pytest.mark.parametrize(
  "form",
  [
    Form(),
    Form(layout="channels-last volumes"),
    Form(layout="frames"),
    Form(layout="frames", products=True, channels=8),
  ],
  ids=["volumes", "channels_last", "frames", "products"],
)
FAST_COMPILATION = {"xla_backend_optimization_level": 0}

TOY_CONFIG = """
from pcan_jax.config import load_config
from tests.tiny_config import shrink

def get_config(variant="pcan"):
  config = shrink(load_config(f"ma52:{variant}"))
  config.optimizer.learning_rate_batch_size = 3
  config.model.rgb.update(
    blocks=(1, 1, 1), widths=(8, 8, 8), spatial_strides=(1, 2, 2), temporal_kernels=(1, 1, 3)
  )
  config.model.pose.update(
    blocks=(2, 1), widths=(8, 8), spatial_strides=(2, 2), temporal_kernels=(1, 3)
  )
  config.model.dropout = 0.0
  config.augmentation.update(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0)
  return config
"""


def draw_batch(num_clips, side, persons):
  random = np.random.default_rng(0)
  joints = (num_clips, 8, persons, 28)
  return {
    "rgb": random.integers(0, 256, (num_clips, 2, side, side, 3), np.uint8),
    "keypoints": random.uniform(0, side, (*joints, 2)).astype(np.float32),
    "keypoint_scores": random.uniform(0, 1, joints).astype(np.float32),
    "action": random.integers(0, 52, num_clips, np.int32),
  }


def draw_variables(spec):
  """Random values in all variables, none of them at rest."""
  random = np.random.default_rng(0)

  def draw(path, shape):
    if path[-1].key in ("scale", "var"):
      return random.uniform(0.5, 1.5, shape.shape).astype(np.float32)
    width = np.sqrt(2 / np.prod(shape.shape[:-1])) if path[-1].key == "kernel" else 0.1
    return width * random.standard_normal(shape.shape, np.float32)

  return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(spec.init))


def load(name):
  with np.load(REFERENCE / name) as arrays:
    return dict(arrays)


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory):
  """A config that leaves nothing to chance, so that both sides must do the same."""
  path = tmp_path_factory.mktemp("configs") / "toy.py"
  path.write_text(TOY_CONFIG)
  return path


@pytest.fixture(scope="module")
def toy(toy_file):
  return load_config(str(toy_file))


@pytest.fixture(scope="module")
def peer(toy):
  spec = ModelSpec(toy, workload.TREE, workload.LAYOUT, SIZES.stored_size)
  return timed_peer.Peer(spec, CPU)


@pytest.fixture(scope="module")
def trained(toy, peer):
  """Our variables before a step, those after it with its terms, and its batch."""
  batch = draw_batch(num_clips=BATCH, side=SIZES.stored_size, persons=1)
  before = draw_variables(peer.spec)
  optimizer = build_optimizer(toy.optimizer, optax.constant_schedule(toy.optimizer.learning_rate))

  def step(variables, batch):
    opt_state = optimizer.init(variables["params"])
    state, terms = train_step(
      TrainState(jax.numpy.int32(0), jax.numpy.uint32(0), opt_state=opt_state, **variables),
      batch,
      spec=peer.spec,
      optimizer=optimizer,
    )
    return state.model(), terms

  positions = {"position": np.arange(BATCH, dtype=np.uint32)}
  after, terms = jax.jit(step, compiler_options=FAST_COMPILATION)(before, batch | positions)
  return before, jax.device_get(after), terms, batch


def assert_close(found, wanted, name, tolerance):
  found, wanted = np.asarray(found), np.asarray(wanted)
  assert found.shape == wanted.shape, name
  error = np.abs(found - wanted).max()
  assert error <= tolerance * np.abs(wanted).max() + 1e-12, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("case", sorted({name.split("/")[0] for name in load("losses.npz")}))
def test_losses_match_reference(case):
  arrays = load("losses.npz")
  given = {
    name.split("/in/")[1]: torch.from_numpy(x)
    for name, x in arrays.items()
    if name.startswith(f"{case}/in/")
  }
  given = {name: x.double() if x.is_floating_point() else x for name, x in given.items()}
  leaves = {
    name: given[name].requires_grad_() for name in ("feature", "logits_action", "logits_body")
  }
  outputs = {
    level: {
      "logits": given[f"logits_{level}"],
      "embedding": given["feature"] @ given[f"{name}_w"] + given[f"{name}_b"],
    }
    for level, name in (("action", "fine"), ("body", "coarse"))
  }
  total, terms, new = losses.stream_loss(
    outputs,
    {"action": given["fine_proto"], "body": given["coarse_proto"]},
    given["action"],
    torch.tensor(workload.TREE.parents),
    LOSSES,
  )
  found = {f"paper_{name}": x for name, x in (terms | {"total": total}).items()}
  found |= {"paper_fine_proto_new": new["action"], "paper_coarse_proto_new": new["body"]}
  gradients = torch.autograd.grad(total, leaves.values())
  found |= {f"paper_total_grad_{name}": x for name, x in zip(leaves, gradients)}
  for name, x in found.items():
    assert_close(x.detach(), arrays[f"{case}/out/{name}"], name, 1e-5)


@pytest.mark.parametrize("group", ["heatmap0", "heatmap1", "heatmap2"])
def test_heatmaps_match_release(group):
  arrays = {
    name.split("/")[1]: x for name, x in load("release_data.npz").items() if name.startswith(group)
  }
  found = preprocess.render_joints(
    torch.from_numpy(arrays["keypoint"] * arrays["scaling"]).movedim(0, 1)[None],
    torch.from_numpy(arrays["score"]).movedim(0, 1)[None],
    arrays["heatmap"].shape[-1],
    float(arrays["sigma"]),
  )
  wanted = np.moveaxis(arrays["heatmap"], 1, -1)
  np.testing.assert_allclose(found[0], wanted, rtol=0, atol=1e-5)
  np.testing.assert_array_equal(found[0] > 0, wanted > 0)


@pytest.mark.parametrize("stream, config", [("rgb", RGB_PATHWAY), ("pose", POSE_PATHWAY)])
def test_pathways_match_reference(stream, config):
  pathway = network.Pathway(config, {"rgb": 3, "pose": 17}[stream], {}).eval()
  tensors = parity_forward.draw_state_dict("slowonly_state_dicts.json", f"{stream}_only")
  pathway.load_state_dict(
    {
      name.removeprefix("backbone."): torch.from_numpy(x)
      for name, x in tensors.items()
      if name.startswith("backbone.")
    }
  )
  inputs = parity_forward.draw_inputs(7, 2, 224, keypoints=17)
  inputs = np.array(inputs[{"rgb": "rgb", "pose": "heatmaps"}[stream]])
  with torch.inference_mode():
    features = pathway(torch.from_numpy(inputs).permute(0, 4, 1, 2, 3), 2).mean((2, 3, 4))
  wanted = load("slowonly_forward.npz")[f"{stream}_only"]
  np.testing.assert_allclose(features, wanted, rtol=0, atol=1e-4)


@functools.partial(jax.jit, compiler_options=FAST_COMPILATION)
def our_inputs(batch, pixels, flipped):
  """What we make of crops, in pixels of the frame, that are all mirrored or not."""
  frames = our_preprocess.crop_and_resize(batch["rgb"], pixels, SIZES.rgb_size)
  frames = jax.numpy.where(flipped, frames[:, :, :, ::-1], frames)
  mean, std = map(np.array, (our_preprocess.IMAGENET_MEAN, our_preprocess.IMAGENET_STD))
  keypoints, scores = our_preprocess.flip_keypoints(
    our_preprocess.crop_keypoints(batch["keypoints"], pixels, SIZES.heatmap_size),
    batch["keypoint_scores"],
    jax.numpy.full(len(pixels), flipped),
    SIZES.heatmap_size,
    SIZES.layout.flip_permutation(),
  )
  size = (SIZES.heatmap_size, SIZES.heatmap_size)
  return (frames - mean) / std, heatmaps.render_joints(keypoints, scores, size, SIZES.sigma)


@pytest.mark.parametrize("flipped", [False, True])
def test_preprocessing_is_ours(flipped):
  batch = draw_batch(num_clips=2, side=SIZES.stored_size, persons=2)
  # The first crop is enlarged along x and shrunk along y, the second enlarged.
  box = np.array([[0.1, 0, 0.7, 1], [0.25, 0.5, 0.75, 1]], np.float32)
  found = preprocess.Preprocess(SIZES)(
    {name: torch.from_numpy(x) for name, x in batch.items()},
    torch.from_numpy(box),
    torch.full((2,), flipped),
  )
  wanted = our_inputs(batch, box * SIZES.stored_size, flipped)
  for theirs, ours in zip(found, wanted):
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)


def test_crops_and_flips_are_drawn_as_configured():
  torch.manual_seed(0)
  augmentation = dataclasses.replace(
    AUGMENTATION, crop_area=(0.3, 0.6), crop_aspect=(0.5, 2.0), flip=0.25
  )
  box, flipped = preprocess.draw(2000, augmentation, CPU)
  assert box.min() >= 0 and box.max() <= 1
  width, height = (box[:, 2:] - box[:, :2]).unbind(1)
  area, aspect = width * height, width / height
  assert 0.299 < area.min() < 0.31 and 0.59 < area.max() < 0.601
  assert 0.499 < aspect.min() < 0.55 and 1.8 < aspect.max() < 2.001
  assert 0.2 < flipped.float().mean() < 0.3


@FORMS
def test_a_step_is_ours(form, peer, trained, toy):
  before, after, terms, batch = trained
  net = peer.torch_network(before)
  step = steps.train_step(
    net,
    steps.sgd(net, toy.optimizer, BATCH),
    peer.parents,
    peer.loss_config,
    peer.spec.train_preprocessing,
    form,
    toy.optimizer.clip_norm,
  )
  loss, found_terms = step(peer.batch(batch))
  assert_close(loss, terms["loss"], "loss", 1e-5)
  for name, value in found_terms.items():
    assert_close(value, terms[name], name, 1e-4)
  wanted, start, found = to_state_dict(after), to_state_dict(before), net.state_dict()
  assert wanted.keys() == found.keys()
  for name, values in wanted.items():
    # PyTorch divides running variances by N - 1, Flax by N; Flax counts no batches.
    if name.endswith(("running_var", "num_batches_tracked")):
      continue
    # Rounding decides what passes a ReLU next to zero, and in a small network that counts.
    assert_close(found[name].numpy() - start[name], values - start[name], name, 0.1)


@FORMS
def test_predictions_are_ours(form, peer, trained):
  variables, _, _, batch = trained
  videos = {name: x[:, None] for name, x in batch.items() if name != "action"}
  predict = jax.jit(peer.spec.predict, compiler_options=FAST_COMPILATION)
  wanted = predict(variables, videos)
  found = peer.evaluation(variables, videos, form)()
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  assert torch_peer.difference(wanted, found) < 1e-4
  body = found["pose"]["body"]
  body["logits"] = body["logits"] + 0.1
  assert torch_peer.difference(wanted, found) > 1e-3


def test_predictions_are_averaged_over_clips(peer, trained):
  variables, _, _, batch = trained
  clips = {name: x[None] for name, x in batch.items() if name != "action"}
  apart = {name: x[:, None] for name, x in batch.items() if name != "action"}
  together = peer.evaluation(variables, clips, Form())()
  alone = peer.evaluation(variables, apart, Form())()
  for branch, levels in together.items():
    for level, output in levels.items():
      for name, values in output.items():
        wanted = alone[branch][level][name].mean(0, keepdim=True)
        assert_close(values, wanted, f"{branch} {level} {name}", 1e-4)


def test_what_has_no_counterpart_is_refused(toy_file):
  for variant, message in (("posec3d", "prototypes"), ("release", "fusion"), ("pcan_rgb", "rgb")):
    config = load_config(f"{toy_file}:{variant}")
    with pytest.raises(ValueError, match=message):
      network.PCANNet(build_model(config.model, workload.TREE), 28)
  with pytest.raises(ValueError, match="loss.pcc_covers='sets' only, the config has 'batch'"):
    losses.check(dataclasses.replace(LOSSES, pcc_covers="batch"))
  with pytest.raises(ValueError, match="limbs"):
    preprocess.check(dataclasses.replace(SIZES, heatmaps="limbs"))
  rotating = dataclasses.replace(AUGMENTATION, rotation=3.0)
  with pytest.raises(ValueError, match="augmentation.rotation"):
    preprocess.check(dataclasses.replace(SIZES, augmentation=rotating))


def test_command_prints_figures(toy_file):
  arguments = ["--config", str(toy_file), "--batch", str(BATCH), "--repeats", "1"]
  environment = os.environ | {
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "OMP_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
  }
  process = subprocess.run(
    [sys.executable, "-m", "benchmarks.torch_peer", *arguments],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
  *table, last = process.stdout.splitlines()
  assert len(table) == 2 + 2 * 4
  found = json.loads(last)
  assert found["settings"] == cpu.settings(environment)
  for kind in ("training", "evaluation"):
    for name, figures in found[kind].items():
      seconds = figures["seconds"]["median"]
      assert figures["clips_per_second"] == pytest.approx(BATCH / seconds)
      ours = found[kind]["ours"]["seconds"]["median"]
      assert figures["ratio"] == pytest.approx(seconds / ours), name
  assert all(max(x.values()) < 1e-3 for x in found["agreement"].values())


def test_command_names_what_is_wrong(toy_file):
  with pytest.raises(SystemExit, match="no config called 'nowhere.py'"):
    torch_peer.main(["--config", "nowhere.py"])
  with pytest.raises(SystemExit, match="fusion 'lateral_attention'"):
    torch_peer.main(["--config", f"{toy_file}:release", "--batch", "2"])


@pytest.mark.parametrize("flag", ["--batch", "--repeats"])
def test_command_refuses_numbers_that_cannot_be(flag, capsys):
  with pytest.raises(SystemExit):
    torch_peer.main([flag, "0"])
  assert f"{flag} must be 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("kind", workload.KINDS)
def test_pytorch_is_timed_alone(kind, toy):
  found = timed_peer.time_peer(toy, kind, BATCH, "frames", seconds=0.05)
  assert found["form"] == "frames"
  assert 0 < found["least_ms"] <= found["ms"]
  assert found["clips_per_second"] == pytest.approx(1000 * BATCH / found["ms"])
  assert found["first_call_seconds"] > 0 and found["steps"] >= 1
  assert found["peak_bytes"] is None, "there is no GPU"


def test_forms_follow_type_and_device():
  on_gpu = timed_peer.find_form("frames-compiled", "bfloat16", torch.device("cuda"))
  assert on_gpu == Form(torch.bfloat16, "frames", channels=8, compiled="default")
  assert timed_peer.find_form("frames", "float32", CPU) == Form(layout="frames")
  with pytest.raises(ValueError, match="no form 'jit' of PyTorch; there are eager, channels-last"):
    timed_peer.find_form("jit", "float32", CPU)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # of its own
def test_compilation_has_one_graph(peer, trained):
  """What breaks a graph would cost compiled forms launches and copies."""
  before, _, _, batch = trained
  graphs = []

  def keep(graph, inputs):
    graphs.append(graph)
    return graph

  torch._dynamo.reset()
  form = Form(layout="frames", compiled="default")
  net = peer.torch_network(before)
  with pytest.MonkeyPatch.context() as patch:
    compile_with = functools.partial(torch.compile, backend=keep, fullgraph=True)
    patch.setattr(Form, "compile", lambda self, function: compile_with(function))
    step = steps.train_step(
      net,
      steps.sgd(net, peer.spec.config.optimizer, BATCH),
      peer.parents,
      peer.loss_config,
      peer.spec.train_preprocessing,
      form,
    )
    for _ in range(2):
      step(peer.batch(batch))
  assert len(graphs) == 1


def test_processes_are_started_with_settings(monkeypatch):
  monkeypatch.setenv("KEPT", "before")
  monkeypatch.delenv("NEW", raising=False)
  with torch_peer.starting_with({"KEPT": "during", "NEW": "during"}):
    command = [sys.executable, "-c", "import os; print(os.environ['KEPT'], os.environ['NEW'])"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
  assert printed.split() == ["during", "during"]
  assert os.environ["KEPT"] == "before" and "NEW" not in os.environ

import functools
import logging
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from benchmarks.shipped_start import write_start
from configs import ma52
from pcan_jax.checkpoints import Checkpoints, load_model
from pcan_jax.config import load_config
from pcan_jax.feed.dataset import open_dataset
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import LabelTree
from pcan_jax.mesh import data_mesh, replicated
from pcan_jax.network.backbone import FUSIONS
from pcan_jax.saved_steps import find_steps
from pcan_jax.shipped import find_start
from pcan_jax.spec import ModelSpec
from pcan_jax.training import loop, warm_start
from tests.tiny_config import shrink

TREE = LabelTree(("nod", "shake", "wave", "point"), ("head", "arm"), (0, 0, 1, 1))
OTHER_TREE = LabelTree(("nod", "shake", "wave", "clap"), ("head", "arm"), (0, 0, 1, 1))
LAYOUT = get_layout("openpose-28")
STREAMS = ("rgb", "pose")


def describe(variant, tree=TREE, layout=LAYOUT, **overrides):
  config = shrink(ma52.get_config(variant))
  config.update_from_flattened_dict(overrides)
  return ModelSpec(config, tree, layout, stored_size=32)


@functools.cache
def _shapes(variant, tree, layout, overrides):
  return jax.eval_shape(describe(variant, tree, layout, **dict(overrides)).init)


def variables_of(variant, seed, tree=TREE, layout=LAYOUT, **overrides):
  """Random variables; those of `init` would make every block the identity."""
  generator = np.random.default_rng(seed)

  def fill(path, x):
    values = generator.uniform(0.5, 1.5, x.shape)
    if path[-1].key in ("kernel", "bias", "mean"):
      values = generator.standard_normal(x.shape) / np.sqrt(np.prod(x.shape[:-1]))
    return jnp.asarray(values, jnp.float32)

  shapes = _shapes(variant, tree, layout, tuple(sorted(overrides.items())))
  return jax.tree_util.tree_map_with_path(fill, shapes)


def save(directory, variant, seed, **settings):
  """A run's checkpoint with random variables, which are returned."""
  spec = describe(variant, **settings)
  variables = variables_of(variant, seed, **settings)
  with Checkpoints(directory / "checkpoints") as checkpoints:
    checkpoints.save(7, variables, {"step": jnp.array(7)}, spec)
  return variables


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Working directories with a checkpoint each, and the variables in them."""
  directory = tmp_path_factory.mktemp("runs")
  variants = ("pcan_rgb", "pcan_pose", "pcan", "release", "posec3d")
  return {
    variant: (directory / variant, save(directory / variant, variant, seed))
    for seed, variant in enumerate(variants)
  }


def started(variant, init_from, **settings):
  """What a fresh run of a variant starts from, and what that replaced."""
  spec = describe(variant, **settings)
  spec.config.init_from.update({k: str(v) for k, v in init_from.items()})
  fresh = variables_of(variant, seed=99, **settings)
  return warm_start.initialize(fresh, spec), fresh


@functools.partial(jax.jit, static_argnums=0)
def outputs_and_features(model, variables, inputs):
  outputs, state = model.apply(variables, inputs, train=False, mutable="intermediates")
  backbone = state["intermediates"]["backbone"]
  last = {"rgb_path": "stage4", "pose_path": "stage3"}
  features = {path: backbone[path][stage][0] for path, stage in last.items() if path in backbone}
  return outputs, features


def random_inputs():
  generator = np.random.default_rng(5)
  return {
    "rgb": jnp.asarray(generator.standard_normal((2, 2, 32, 32, 3)), jnp.float32),
    "heatmaps": jnp.asarray(generator.random((2, 8, 8, 8, 28)), jnp.float32),
  }


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def merge(runs):
  return {stream: runs[f"pcan_{stream}"][0] for stream in STREAMS}


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "late"])
def test_merged_network_behaves_like_its_parts(runs, fusion):
  settings = {"model.fusion": fusion}
  merged, fresh = started("pcan", merge(runs), **settings)
  assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, fresh)
  inputs = random_inputs()
  outputs, features = outputs_and_features(describe("pcan", **settings).model, merged, inputs)
  for stream, key in (("rgb", "rgb"), ("pose", "heatmaps")):
    part = f"pcan_{stream}"
    alone, its_features = outputs_and_features(
      describe(part).model, runs[part][1], {key: inputs[key]}
    )
    path = f"{stream}_path"
    assert float(jnp.std(features[path])) > 0.1
    # Products with zeros are added in another order, which moves the last bits.
    np.testing.assert_allclose(features[path], its_features[path], rtol=1e-5, atol=1e-5)
    for level in ("action", "body"):
      found, wanted = (one[stream][level]["logits"] for one in (outputs, alone))
      np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
  # The zeros are to be trained: what they multiply is not zero.
  for stream in STREAMS:
    laterals = [name for name in merged["params"]["backbone"] if name.endswith(f"to_{stream}2")]
    for name in laterals:
      assert_same(merged["params"]["backbone"][name], fresh["params"]["backbone"][name])


def test_merging_takes_pathways_and_classifiers_by_name(runs):
  merged, fresh = started("pcan", merge(runs))
  flat, flat_fresh = traverse_util.flatten_dict(merged), traverse_util.flatten_dict(fresh)
  parts = {s: traverse_util.flatten_dict(runs[f"pcan_{s}"][1]) for s in STREAMS}
  joined = {
    ("params", "backbone", f"{stream}_path", layer, "block0", conv, "conv", "kernel")
    for stream, layers in (("rgb", ("layer3", "layer4")), ("pose", ("layer2", "layer3")))
    for layer in layers
    for conv in ("conv1", "downsample")
  }
  assert joined < flat.keys()
  for path, array in flat.items():
    stream = "pose" if any("pose" in name for name in path[1:3]) else "rgb"
    if path in joined:
      own = parts[stream][path].shape[-2]
      np.testing.assert_array_equal(array[..., :own, :], parts[stream][path])
      assert array.shape[-2] > own and not np.any(array[..., own:, :])
    elif "_to_" in path[2] or path[0] == "prototypes" or path[2].endswith("_embedding"):
      np.testing.assert_array_equal(array, flat_fresh[path])
    else:
      np.testing.assert_array_equal(array, parts[stream][path])


def test_one_stream_may_start_fresh(runs):
  merged, fresh = started("pcan", {"rgb": runs["pcan_rgb"][0]})
  assert_same(
    merged["params"]["head_rgb"]["action"], runs["pcan_rgb"][1]["params"]["head_rgb"]["action"]
  )
  assert_same(merged["params"]["backbone"]["pose_path"], fresh["params"]["backbone"]["pose_path"])


def test_same_network_is_taken_over_entirely(runs):
  started_from, _ = started("release", {"checkpoint": runs["release"][0]})
  assert_same(started_from, runs["release"][1])


def test_shardings_are_kept(runs):
  spec = describe("pcan_pose")
  spec.config.init_from.checkpoint = str(runs["pcan_pose"][0])
  sharding = replicated(data_mesh())
  fresh = jax.device_put(variables_of("pcan_pose", 99), sharding)
  found = warm_start.initialize(fresh, spec)
  assert {x.sharding for x in jax.tree.leaves(found)} == {sharding}


def test_other_labels_leave_classifiers_and_prototypes_fresh(runs):
  found, fresh = started("pcan", {"checkpoint": runs["pcan"][0]}, tree=OTHER_TREE)
  source = runs["pcan"][1]
  assert_same(found["params"]["backbone"], source["params"]["backbone"])
  assert_same(found["batch_stats"], source["batch_stats"])
  assert_same(found["prototypes"], fresh["prototypes"])
  for stream in STREAMS:
    head, theirs = found["params"][f"head_{stream}"], source["params"][f"head_{stream}"]
    assert_same(head["action_embedding"], theirs["action_embedding"])
    for level in ("action", "body"):
      assert_same(head[level], fresh["params"][f"head_{stream}"][level])


def test_other_heatmaps_leave_the_pose_stem_fresh(runs):
  source, settings = runs["pcan_pose"], {"input.heatmaps": "limbs"}
  found, fresh = started("pcan_pose", {"checkpoint": source[0]}, **settings)
  pathway, theirs = (x["params"]["backbone"]["pose_path"] for x in (found, source[1]))
  assert_same(pathway["layer1"], theirs["layer1"])
  assert_same(pathway["conv1"], fresh["params"]["backbone"]["pose_path"]["conv1"])


@pytest.mark.parametrize(
  "settings",
  [
    {"layout": get_layout("coco-17")},
    {"layout": get_layout("kinect-20")},
    {"input.heatmaps": "both"},
  ],
)
def test_of_the_pose_stem_keypoints_of_the_same_name_are_taken(runs, settings, caplog):
  caplog.set_level(logging.INFO, logger="pcan_jax")
  source = runs["pcan_pose"]
  found, fresh = started("pcan_pose", {"checkpoint": source[0]}, **settings)
  stems = [x["params"]["backbone"]["pose_path"]["conv1"] for x in (found, fresh, source[1])]
  kernel, before, theirs = (stem["conv"]["kernel"] for stem in stems)
  assert_same(stems[0]["bn"], stems[2]["bn"])
  layout = settings.get("layout", get_layout("openpose-28"))
  taken = 0
  for channel, name in enumerate(layout.joints):
    there = name in get_layout("openpose-28").joints
    place = get_layout("openpose-28").joints.index(name) if there else channel
    assert_same(kernel[..., channel, :], (theirs if there else before)[..., place, :])
    taken += there
  assert_same(kernel[..., len(layout.joints) :, :], before[..., len(layout.joints) :, :])
  note = f"{taken} of {kernel.shape[-2]} heatmaps, the others fresh"
  assert (note in caplog.messages[-1]) == (taken < kernel.shape[-2])


@pytest.mark.parametrize("variant", ["pcan_pose", "posec3d"])
def test_few_clips_start_from_what_comes_with_the_package(variant):
  spec = ModelSpec(load_config(f"small:{variant}"), TREE, get_layout("kinect-20"), stored_size=64)
  fresh = jax.tree.map(lambda x: jnp.full(x.shape, 7, x.dtype), jax.eval_shape(spec.init))
  found = warm_start.initialize(fresh, spec)
  assert spec.config.init_from.pose == "shipped:figures"
  shipped, variables, _ = load_model(find_start("shipped:figures"))
  pathway, theirs = (x["params"]["backbone"]["pose_path"] for x in (found, variables))
  assert_same(pathway["layer1"], theirs["layer1"])
  wrist = [layout.joints.index("left_wrist") for layout in (spec.layout, shipped.layout)]
  stem, its_stem = (x["conv1"]["conv"]["kernel"] for x in (pathway, theirs))
  assert_same(stem[..., wrist[0], :], its_stem[..., wrist[1], :])
  assert (stem == 7).any()
  assert shipped.config.data.path == ""


def test_a_start_is_a_run_without_its_optimizer(runs, tmp_path):
  write_start(runs["pcan_pose"][0], tmp_path / "start")
  found, _ = started("pcan_pose", {"checkpoint": tmp_path / "start"})
  assert_same(found, runs["pcan_pose"][1])
  (saved,) = find_steps(tmp_path / "start/checkpoints")
  assert list(saved.shapes("training")) == ["step"]
  with pytest.raises(FileExistsError):
    write_start(runs["pcan_pose"][0], tmp_path / "start")


def test_a_config_for_frames_alone_starts_from_nothing():
  assert not any(load_config("small:pcan_rgb").init_from.values())


def test_what_a_checkpoint_lacks_starts_fresh(runs):
  found, fresh = started("release", {"checkpoint": runs["posec3d"][0]})
  source = runs["posec3d"][1]["params"]
  assert_same(
    found["params"]["backbone"]["rgb_path"], source["backbone"]["rgb_path"]
  )  # with the inputs from the lateral projections, which are there as well
  assert_same(found["params"]["backbone"]["pose_to_rgb2"], source["backbone"]["pose_to_rgb2"])
  assert_same(found["prototypes"], fresh["prototypes"])
  gate = found["params"]["backbone"]["gate2"]
  assert not np.any(gate["rgb_out"]["kernel"]) and not np.any(gate["pose_out"]["kernel"])
  assert_same(gate["rgb_attention"], fresh["params"]["backbone"]["gate2"]["rgb_attention"])


def test_one_stream_of_two_is_taken_without_the_other(runs):
  found, _ = started("pcan_rgb", {"checkpoint": runs["pcan"][0]})
  source = runs["pcan"][1]["params"]["backbone"]["rgb_path"]["layer3"]["block0"]["conv1"]["conv"]
  kernel = found["params"]["backbone"]["rgb_path"]["layer3"]["block0"]["conv1"]["conv"]["kernel"]
  np.testing.assert_array_equal(kernel, source["kernel"][..., : kernel.shape[-2], :])


def test_log_says_what_came_from_where(runs, caplog):
  caplog.set_level(logging.INFO, logger="pcan_jax")
  started("release", merge(runs))
  lines = caplog.messages[-1].splitlines()
  rgb, pose = (runs[f"pcan_{stream}"][0] for stream in STREAMS)
  assert f"  rgb pathway          from {rgb}, step 7; other stream at zero" in lines
  assert f"  pose classifiers     from {pose}, step 7" in lines
  assert "  lateral projections  fresh" in lines
  assert "  attention            fresh; gates closed" in lines
  assert len(lines) < 16
  started("posec3d_rgb", {"checkpoint": runs["pcan"][0]}, tree=OTHER_TREE)
  lines = caplog.messages[-1].splitlines()
  where = f"{runs['pcan'][0]}, step 7"
  assert f"  rgb classifiers  fresh, {where} has other labels" in lines
  assert lines[-1].startswith(f"  not used from {where}: lateral projections, pose classifiers, ")


@pytest.mark.parametrize(
  ("variant", "names", "error", "message"),
  [
    ("pcan", {"checkpoint": "nowhere"}, FileNotFoundError, "init_from.checkpoint: no checkpoint"),
    ("pcan", {"rgb": "pcan_rgb", "pose": "nowhere"}, FileNotFoundError, "init_from.pose: no ch"),
    ("pcan", {"rgb": "pcan_pose"}, ValueError, "init_from.rgb: .* has no rgb stream, only pose"),
    ("pcan", {"checkpoint": "pcan_rgb"}, ValueError, "has no pose stream, only rgb; merge runs"),
    ("pcan", {"checkpoint": "pcan", "rgb": "pcan_rgb"}, ValueError, "set the first or the others"),
    ("pcan_rgb", {"pose": "pcan_pose"}, ValueError, "init_from.pose is set, but the network has"),
    (
      "pcan",
      {"pose": "shipped:figure"},
      FileNotFoundError,
      "init_from.pose: no .* shipped:figures",
    ),
    ("pcan", {"pose": "shipped:../starts"}, FileNotFoundError, "init_from.pose: no weights"),
  ],
)
def test_errors_name_the_option(runs, tmp_path, variant, names, error, message):
  def where(name):
    return runs[name][0] if name in runs else name if ":" in name else tmp_path / name

  init_from = {option: where(name) for option, name in names.items()}
  with pytest.raises(error, match=message):
    started(variant, init_from)


@pytest.mark.parametrize(
  ("variant", "overrides", "message"),
  [
    ("pcan_pose", {"action_embedding": 12}, r"embedding/kernel: .* \(32, 16\), network \(32, 12\)"),
    ("pcan_pose", {"pose.blocks": (1, 1, 2)}, r"layer3/block1/.*, step 7 lacks it, network \("),
    # A wider stage before an exchange is not taken for a lateral projection.
    ("pcan", {"pose.widths": (8, 16, 8)}, r"layer3/block0/conv1/conv/kernel: .* 32, 8\)"),
  ],
)
def test_arrays_that_do_not_fit_are_named(runs, variant, overrides, message):
  init_from = merge(runs) if variant == "pcan" else {"checkpoint": runs[variant][0]}
  with pytest.raises(ValueError, match="give both the same config.model") as error:
    started(variant, init_from, **{f"model.{name}": value for name, value in overrides.items()})
  everything = str(error.value)
  assert re.search(message, everything), everything


@pytest.mark.slow
def test_a_run_starts_so_but_resumes_from_itself(tiny_dataset_path, tmp_path):
  config = shrink(ma52.get_config("pcan_pose"))
  config.data.path = str(tiny_dataset_path)
  config.optimizer.learning_rate = 0.0
  config.init_from.pose = str(tmp_path / "source")
  dataset = open_dataset(tiny_dataset_path)
  of_a_step = config.optimizer.batch_size / dataset.num_clips("train")
  config.optimizer.epochs = of_a_step
  spec = ModelSpec(config, dataset.tree, dataset.layout, dataset.stored_size)
  source = save(tmp_path / "source", "pcan_pose", 3)

  first = loop.train(config, tmp_path / "run")
  assert_same(first.params["backbone"], source["params"]["backbone"])
  assert int(first.step) == 1

  trained = first.replace(step=first.step + 4, params=jax.tree.map(jnp.zeros_like, first.params))
  with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
    checkpoints.save(5, trained.model(), trained.training(), spec)
  shutil.rmtree(tmp_path / "source")
  config.optimizer.epochs = 5 * of_a_step
  resumed = loop.train(config, tmp_path / "run", ["optimizer.epochs"])
  assert_same(resumed.params, trained.params)

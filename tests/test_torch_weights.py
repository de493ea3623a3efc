import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax.labels import LabelTree
from pcan_jax.network.pcan import build_model
from pcan_jax.torch.weights import from_state_dict, to_state_dict
from tests import parity_forward
from tests.paper import CONFIG, POSE_PATHWAY, RGB_PATHWAY
from tests.toy_pathways import POSE, RGB

REFERENCE = pathlib.Path(__file__).parent / "reference"
TREE = LabelTree(("nod", "wave", "clap"), ("head", "arm"), (0, 1, 1))


def network(streams=("rgb", "pose"), keypoints=28, seed=0, tree=TREE, **fields):
  """A small network with random values in all its variables."""
  model = build_model(CONFIG.model, tree).clone(
    rgb=RGB if "rgb" in streams else None,
    pose=POSE if "pose" in streams else None,
    action_embedding=16,
    body_embedding=8,
    dtype=jnp.dtype("float32"),
    **({"fusion": "lateral_attention"} | fields),
  )
  inputs = {"rgb": jnp.zeros((1, 2, 32, 32, 3)), "heatmaps": jnp.zeros((1, 8, 8, 8, keypoints))}
  randomness = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: randomness.standard_normal(x.shape, np.float32),
    parity_forward.abstract_variables(model, inputs),
  )


def without(state_dict, *parts):
  return {name: x for name, x in state_dict.items() if not any(part in name for part in parts)}


def assert_same(found, wanted):
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_names_and_shapes_are_those_of_the_release():
  listing = json.loads((REFERENCE / "release_state_dict.json").read_text())
  model = parity_forward.release_model()
  inputs = parity_forward.draw_inputs(0, 1, 32)
  found = to_state_dict(parity_forward.zeros(parity_forward.abstract_variables(model, inputs)))
  body_prototypes = {
    f"cls_head.fr_coarse_{stream}.spatio_cl_net.avg_f": [128, 7] for stream in ("rgb", "pose")
  }
  assert {name: list(x.shape) for name, x in found.items()} == listing | body_prototypes


def test_there_and_back_is_the_identity():
  variables = network()
  conversion = from_state_dict(to_state_dict(variables), network(seed=1))
  assert conversion.notes == ()
  assert_same(conversion.variables, variables)


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["rgb", "pose"])
def test_slowonly_forward(stream):
  pathway = {"rgb": RGB_PATHWAY, "pose": POSE_PATHWAY}[stream]
  pathways = {"rgb": None, "pose": None} | {stream: pathway}
  model = build_model(CONFIG.model, TREE).clone(
    **pathways, action_embedding=0, body_embedding=0, dtype=jnp.dtype("float32")
  )
  inputs = parity_forward.draw_inputs(7, 2, 224, keypoints=17)
  initial = parity_forward.zeros(parity_forward.abstract_variables(model, inputs))
  state_dict = parity_forward.draw_state_dict("slowonly_state_dicts.json", f"{stream}_only")
  conversion = from_state_dict(state_dict, initial)
  assert f"action classifier of {stream}: 60 classes in the file, 3 here; starts fresh" in (
    conversion.notes
  )
  features = jax.jit(
    lambda variables, inputs: model.apply(
      variables,
      inputs,
      method=lambda model, inputs: model.backbone(
        inputs.get("rgb"), inputs.get("heatmaps"), train=False
      ),
    )
  )(conversion.variables, inputs)
  with np.load(REFERENCE / "slowonly_forward.npz") as wanted:
    np.testing.assert_allclose(
      features[stream].mean((1, 2, 3)), wanted[f"{stream}_only"], rtol=0, atol=1e-4
    )


def test_body_prototypes_that_the_release_forgets_start_fresh():
  variables, initial = network(), network(seed=1)
  file = without(to_state_dict(variables), "fr_coarse_rgb.spatio_cl_net.avg_f")
  conversion = from_state_dict(file, initial)
  assert conversion.notes == ("body prototypes of rgb: not in the file; starts fresh",)
  found = conversion.variables["prototypes"]
  assert_same(found["rgb"]["body"], initial["prototypes"]["rgb"]["body"])
  assert_same(found["pose"], variables["prototypes"]["pose"])


def test_start_of_rgbpose_may_lack_heads_and_lateral_connections():
  variables, initial = network(), network(seed=1)
  file = without(to_state_dict(variables), "cls_head", "lateral", "featuredifference")
  conversion = from_state_dict(file, initial)
  params, fresh = conversion.variables["params"], initial["params"]
  assert_same(params["head_rgb"], fresh["head_rgb"])
  assert_same(params["backbone"]["gate2"], fresh["backbone"]["gate2"])
  assert_same(params["backbone"]["rgb_path"], variables["params"]["backbone"]["rgb_path"])
  assert "lateral connection pose_to_rgb2: not in the file; starts fresh" in conversion.notes
  assert len(conversion.notes) == 12 + 3  # eight heads, four sets of prototypes
  with pytest.raises(ValueError, match="1 tensors missing: .*layer1_lateral.bn.weight"):
    from_state_dict(without(to_state_dict(variables), "layer1_lateral.bn.weight"), initial)


def test_classifiers_for_the_same_classes_are_kept():
  variables, initial = network(), network(seed=1)
  file = without(to_state_dict(variables), "cls_head.fr_", "_coarse")
  conversion = from_state_dict(file, initial)
  assert_same(
    conversion.variables["params"]["head_pose"]["action"],
    variables["params"]["head_pose"]["action"],
  )


def slowonly(stream, **changes):
  """A network's weights under MMAction2's names for a single pathway."""
  file = without(to_state_dict(network((stream,), **changes)), "cls_head.fr", "_coarse")
  return {
    name.replace(f"{stream}_path.", "").replace(f"fc_{stream}", "fc_cls"): x
    for name, x in file.items()
  }


def test_pose_stem_for_other_keypoints_needs_a_flag():
  initial = network(("pose",), seed=1)
  with pytest.raises(ValueError, match=r"backbone.conv1.conv.weight \(file .*17.*reinit_stem"):
    from_state_dict(slowonly("pose", keypoints=17), initial)
  conversion = from_state_dict(slowonly("pose", keypoints=17), initial, reinit_stem=True)
  assert "pose stem: 17 keypoints in the file, 28 here; starts fresh" in conversion.notes
  found, fresh = (v["params"]["backbone"]["pose_path"] for v in (conversion.variables, initial))
  assert_same(found["conv1"]["conv"], fresh["conv1"]["conv"])
  assert (found["conv1"]["bn"]["scale"] != fresh["conv1"]["bn"]["scale"]).all()


def test_one_pathway_does_not_fill_two():
  with pytest.raises(ValueError, match="one SlowOnly pathway, the network has two streams"):
    from_state_dict(slowonly("rgb"), network())


def test_everything_that_does_not_fit_is_named():
  file = to_state_dict(network())
  stem = file.pop("backbone.rgb_path.conv1.conv.weight")
  file["backbone.rgb_path.conv0.weight"] = stem
  file["backbone.rgb_path.conv0.num_batches_tracked"] = np.zeros((), np.int64)
  file["cls_head.fc_rgb.weight"] = np.zeros((7, 32), np.float32)
  file["cls_head.fc_rgb.bias"] = np.zeros((3, 1), np.float32)
  file["cls_head.fc_pose.bias"] = np.full(3, np.nan, np.float32)
  with pytest.raises(ValueError) as error:
    from_state_dict(file, network(seed=1))
  assert str(error.value).splitlines() == [
    "the weights do not fit the network:",
    "  1 tensors missing: backbone.rgb_path.conv1.conv.weight",
    "  2 tensors unused: backbone.rgb_path.conv0.weight, "
    "backbone.rgb_path.conv0.num_batches_tracked",
    "  2 tensors of the wrong shape: cls_head.fc_rgb.bias (file (3, 1), network (3,)), "
    "cls_head.fc_rgb.weight (file (7, 32), network (3, 32))",
    "  1 tensors not finite: cls_head.fc_pose.bias",
  ]


def test_a_network_without_attention_refuses_its_weights():
  with pytest.raises(
    ValueError, match="24 tensors unused: backbone.featuredifference2.* and 14 more"
  ):
    from_state_dict(to_state_dict(network()), network(seed=1, fusion="lateral"))

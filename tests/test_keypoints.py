import dataclasses
import json

import numpy as np
import pytest

from pcan_jax.keypoints import LAYOUTS, KeypointLayout, get_layout

TOY = KeypointLayout("toy", ("nose", "left", "right"), ((1, 2),), ((0, 1), (0, 2)))


@pytest.mark.parametrize("name, layout", LAYOUTS.items())
def test_layouts_have_the_joints_in_their_names(name, layout):
  assert layout.name == name
  assert layout.num_keypoints == int(name.split("-")[1])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_flipping_swaps_sides_and_nothing_else(layout):
  permutation = layout.flip_permutation()
  np.testing.assert_array_equal(permutation[permutation], np.arange(layout.num_keypoints))
  for joint, mirrored in zip(layout.joints, permutation):
    other = joint.replace("left", "?").replace("right", "left").replace("?", "right")
    assert layout.joints[mirrored] == other


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_mirrored_limbs_are_limbs(layout):
  permutation = layout.flip_permutation()
  limbs = {frozenset(limb) for limb in layout.limbs}
  assert {frozenset(permutation[list(limb)].tolist()) for limb in limbs} == limbs
  assert len(limbs) == len(layout.limbs)


def test_ma52_layout_is_as_released():
  layout = LAYOUTS["openpose-28"]
  first = [2, 3, 4, 8, 9, 10, 14, 16, *range(23, 28)]
  second = [5, 6, 7, 11, 12, 13, 15, 17, *range(18, 23)]
  assert {frozenset(pair) for pair in layout.flip_pairs} == set(map(frozenset, zip(first, second)))
  # Fingertips 18-22 belong to the wrist 7, 23-27 to the wrist 4.
  for tip in range(18, 28):
    assert (tip, 7 if tip < 23 else 4) in layout.limbs


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), TOY], ids=[*LAYOUTS, "toy"])
def test_layouts_survive_json(layout, tmp_path):
  path = tmp_path / "layout.json"
  path.write_text(json.dumps(layout.to_dict()))
  assert get_layout(path) == layout
  assert get_layout(str(path)) == layout


def test_names_are_looked_up():
  assert get_layout("coco-17") is LAYOUTS["coco-17"]


def test_unknown_name_lists_the_known_ones():
  with pytest.raises(ValueError, match=r"'coco-16'.*coco-17"):
    get_layout("coco-16")


def test_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"none\.json"):
    get_layout(tmp_path / "none.json")


@pytest.mark.parametrize(
  "text, complaint",
  [
    ("{", "layout.json"),
    ("[]", "an object"),
    ("{}", "missing"),
    (json.dumps(TOY.to_dict() | {"colour": 1}), "colour"),
    (json.dumps(TOY.to_dict() | {"limbs": [["nose", "hand"]]}), "'hand'"),
    (json.dumps(TOY.to_dict() | {"limbs": [["nose", "nose"]]}), "twice"),
    (json.dumps(TOY.to_dict() | {"limbs": [["nose", "left", "right"]]}), "not a pair"),
    (json.dumps(TOY.to_dict() | {"joints": ["nose", "left", "right", "left"]}), "left"),
    (json.dumps(TOY.to_dict() | {"flip_pairs": [["left", "right"], ["left", "nose"]]}), "more"),
    (json.dumps(TOY.to_dict() | {"flip_pairs": 3}), "layout.json"),
  ],
)
def test_bad_files_are_named_with_the_reason(text, complaint, tmp_path):
  path = tmp_path / "layout.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=complaint) as error:
    get_layout(path)
  assert str(path) in str(error.value)


@pytest.mark.parametrize("pair", [(0, 3), (-1, 0), (0, 0)])
def test_pairs_must_be_of_two_joints(pair):
  with pytest.raises(ValueError, match="limbs"):
    dataclasses.replace(TOY, limbs=(pair,))

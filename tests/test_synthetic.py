import pathlib
import pickle
import zlib

import numpy as np
import pytest

from data.synthetic import __main__ as command_line
from data.synthetic import actions, generate, skeleton
from data.synthetic.figure import sample_figure
from data.synthetic.skeleton import LEFT, RIGHT, Body
from data.synthetic.take import Take
from pcan_jax.clips.source_layout import read_split, read_tree
from pcan_jax.clips.timing import frame_rate
from pcan_jax.clips.video import decode_video
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import get_tree

SMALL = generate.Settings(seed=3, train=4, val=2, height=96, figures=3)
LABELS = {action.perform.__name__: label for label, action in enumerate(actions.ACTIONS)}
NOSE, NECK = 0, 1
WRISTS, KNEES, ANKLES = (4, 7), (9, 12), (10, 13)
TIPS = (range(23, 28), range(18, 23))


def act(name, seed, num_frames=60):
  """A take of an action by an average body, after `perform`."""
  take = Take(Body(), np.random.default_rng(seed), num_frames)
  actions.ACTIONS[LABELS[name]].perform(take)
  return take, take.perform()


def travel(track):
  """How far a point [t, ...] ranges on each axis."""
  return track.max(0) - track.min(0)


def checksums(folder):
  return {
    str(path.relative_to(folder)): zlib.crc32(path.read_bytes())
    for path in sorted(pathlib.Path(folder).rglob("*"))
    if path.is_file()
  }


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  out = tmp_path_factory.mktemp("synthetic") / "source"
  assert generate.generate(out, SMALL, jobs=1)
  return out


def test_layout_can_be_read(source):
  tree = read_tree(source)
  assert tree == get_tree("ma52")
  layout = get_layout("openpose-28")
  for split, count in (("train", 4), ("val", 2)):
    clips = read_split(source, split, tree, layout)
    assert len(clips) == count
    text = (source / "annotations" / f"{split}_list_videos.txt").read_bytes()
    assert text.count(b".mp4 ") == text.count(b"\r\n") == count
    with (source / "pose" / f"MA52_{split}.pkl").open("rb") as file:
      entries = pickle.load(file)
    for entry in entries:
      num_frames = entry["total_frames"]
      assert 45 <= num_frames <= 75
      assert entry["frame_dir"].startswith(f"{split}/synthetic_")
      assert entry["img_shape"] == entry["original_shape"] == (96, 116)
      assert entry["keypoint"].shape == (1, num_frames, 28, 2)
      assert entry["keypoint_score"].shape == (1, num_frames, 28)
      assert entry["keypoint"].dtype == entry["keypoint_score"].dtype == np.float16
      video = decode_video(source / "raw_videos" / f"{entry['frame_dir']}.mp4")
      frames = list(video)
      assert (len(frames), frame_rate(video.times)) == (num_frames, 30.0)
      assert frames[0].shape == (96, 116, 3)


def test_same_seed_same_bytes_whatever_the_number_of_jobs(source, tmp_path):
  generate.generate(tmp_path / "again", SMALL, jobs=2)
  assert checksums(tmp_path / "again") == checksums(source)


def test_other_seed_other_clips():
  other = generate.Settings(seed=4, train=4, val=2, height=96, figures=3)
  clip = generate.plan(SMALL, "train")[0]
  ours, _, _ = generate.perform(SMALL, clip)
  theirs, _, _ = generate.perform(other, clip)
  assert ours.keypoints.shape != theirs.keypoints.shape or not np.allclose(
    ours.keypoints, theirs.keypoints
  )


def test_what_is_there_is_kept(source, tmp_path):
  assert not generate.generate(source, SMALL)
  with pytest.raises(FileExistsError, match="has other contents"):
    generate.generate(source, generate.Settings(seed=9, train=4, val=2, height=96, figures=3))
  (tmp_path / "mine.txt").write_text("x")
  with pytest.raises(FileExistsError, match="another directory"):
    generate.generate(tmp_path, SMALL)


@pytest.mark.parametrize("wrong", [{"height": 97}, {"height": 10}, {"train": 0}, {"figures": 0}])
def test_wrong_settings(wrong):
  with pytest.raises(ValueError, match="at least"):
    generate.Settings(**wrong)


def test_flags_are_the_settings(capsys, monkeypatch):
  calls = []
  monkeypatch.setattr(command_line, "generate", lambda *arguments: calls.append(arguments))
  flags = "--out=DIR --seed=1 --train=2 --val=3 --height=64 --figures=4 --jobs=5"
  monkeypatch.setattr("sys.argv", ["synthetic", *flags.split()])
  command_line.main()
  assert calls == [("DIR", generate.Settings(seed=1, train=2, val=3, height=64, figures=4), 5)]
  assert "5 clips of this seed and size are already in DIR" in capsys.readouterr().out


def test_command_line_names_the_problem(source, capsys, monkeypatch):
  monkeypatch.setattr("sys.argv", ["synthetic", "--out", str(source), "--train", "5"])
  with pytest.raises(SystemExit):
    command_line.main()
  assert str(source) in capsys.readouterr().err


def test_long_tail():
  assert len(actions.ACTIONS) == get_tree("ma52").num_actions
  counts = np.array([action.train_clips for action in actions.ACTIONS])
  assert counts.sum() == 11250
  clips = actions.long_tail(1200, least=4)
  assert clips.sum() == 1200
  assert clips.min() == 4
  assert np.abs(clips - 4 - (1200 - 208) * counts / 11250).max() < 1
  assert actions.long_tail(52, least=4).tolist() == [1] * 52
  assert actions.long_tail(6, least=4).sum() == 6
  plan = generate.plan(generate.Settings(), "val")
  assert np.bincount([clip.label for clip in plan], minlength=52).tolist() == (
    actions.long_tail(400, least=2).tolist()
  )


def test_figures_of_validation_are_new():
  settings = generate.Settings(figures=12)
  figures = [generate.figure_of(settings, "train", i) for i in range(12)]
  figures += [generate.figure_of(settings, "val", i) for i in range(4)]
  assert len({(figure.body, figure.setting) for figure in figures}) == 16


def test_keypoints_lie_in_the_frame_and_on_the_figure():
  settings = generate.Settings(train=52, val=52)
  for clip in generate.plan(settings, "train"):
    performance, figure, rng = generate.perform(settings, clip)
    setting = np.random.default_rng(figure.setting)
    camera = generate.sample_camera(rng, setting, settings.height, settings.width)
    camera = camera.framed(performance.outermost())
    pixels, _ = camera.project(performance.keypoints)
    assert (pixels >= 0).all()
    assert (pixels <= [settings.width - 1, settings.height - 1]).all()
    found, scores = generate.detect(performance, camera, rng)
    seen = scores > 0
    assert seen.mean() > 0.9
    assert (found[~seen] == 0).all()
    assert np.median(np.abs(found - pixels)[seen]) < 1


def test_nose_and_waving_hand_are_drawn_where_the_keypoints_are():
  settings = generate.Settings(train=1, val=1, height=240)
  differences = []
  for index in range(4):
    clip = generate.Clip("train", index, "synthetic_000000", LABELS["waving"], index)
    frames, annotation = generate.make_clip(settings, clip)
    points = annotation["keypoint"][0, -1].astype(float)
    waving = max(TIPS, key=lambda tips: -points[list(tips), 1].mean())
    palm = (points[list(waving)].mean(0) + points[WRISTS[TIPS.index(waving)]]) / 2
    skin = np.array(generate.figure_of(settings, "train", index).looks.skin)
    for x, y in np.round([points[NOSE], palm]).astype(int):
      patch = frames[-1][y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3)
      differences.append(np.abs(patch.mean(0) - skin).mean())
  assert np.median(differences) < 15  # not all: glasses, gaps between fingers


def test_order_of_keypoints():
  points = act("nodding", 0)[1].keypoints[0]
  layout = get_layout("openpose-28")
  for left, right in zip((5, 6, 7, 11, 12, 13, 15, 17), (2, 3, 4, 8, 9, 10, 14, 16)):
    assert points[left, 0] > points[right, 0]  # the image's right is the figure's left
    assert {left, right} in [set(pair) for pair in layout.flip_pairs]
  for wrist, tips in zip(WRISTS, TIPS):
    assert np.linalg.norm(points[list(tips)] - points[wrist], axis=1).max() < 0.22
  assert points[NOSE, 1] > points[NECK, 1] > points[8, 1] > points[10, 1] > 0


def test_two_bone_inverse_kinematics():
  rng = np.random.default_rng(0)
  root, end, pole = (rng.normal(0, s, (50, 3)) for s in (0.1, 0.25, 1.0))
  middle, reached = skeleton.bend(root, end, 0.3, 0.25, pole)
  np.testing.assert_allclose(np.linalg.norm(middle - root, axis=1), 0.3, atol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(reached - middle, axis=1), 0.25, atol=1e-6)
  distance = np.linalg.norm(end - root, axis=1)
  near = (distance > 0.1) & (distance < 0.54)
  assert near.sum() > 10
  np.testing.assert_allclose(reached[near], end[near], atol=1e-6)


def test_rotation_axes():
  turn = skeleton.rotation(np.radians([[90.0, 0, 0], [0, 90.0, 0], [0, 0, 90.0]]))
  np.testing.assert_allclose(turn[0] @ [0, 1, 0], [0, 0, 1], atol=1e-12)  # bows forward
  np.testing.assert_allclose(turn[1] @ [0, 0, 1], [1, 0, 0], atol=1e-12)  # looks to its left
  np.testing.assert_allclose(turn[2] @ [0, 1, 0], [-1, 0, 0], atol=1e-12)  # leans to its right


@pytest.mark.parametrize("name", list(LABELS))
def test_every_motion_is_smooth_and_bones_keep_their_lengths(name):
  for seed in range(3):
    body = sample_figure(np.random.default_rng(seed)).body
    take = Take(body, np.random.default_rng(seed), 60)
    actions.ACTIONS[LABELS[name]].perform(take)
    performance = take.perform()
    points = performance.keypoints
    assert np.isfinite(points).all()
    assert np.abs(np.diff(points, axis=0)).max() < 0.2
    for start, end, length in (
      (2, 3, body.upper_arm),
      (6, 7, body.forearm),
      (8, 9, body.thigh),
      (12, 13, body.shin),
    ):
      bone = np.linalg.norm(points[:, end] - points[:, start], axis=-1)
      np.testing.assert_allclose(bone, length, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_heads(seed):
  """Nodding and bowing go down, the one often; shaking and turning go aside."""

  def look(name):  # of the nose, against the neck
    points = act(name, seed)[1].keypoints
    return points[:, NOSE] - points[:, NECK]

  def reversals(track):
    moved = track - track.mean()
    return (np.diff(np.sign(moved)) != 0).sum()

  nod, shake = look("nodding"), look("shaking_head")
  assert travel(nod)[1] > travel(nod)[0]
  assert travel(shake)[0] > travel(shake)[1]
  assert reversals(nod[:, 1]) >= 4
  assert reversals(shake[:, 0]) >= 3
  bow, up, turn = look("bowing_head"), look("head_up"), look("turning_head")
  assert reversals(bow[:, 1]) <= 2
  assert bow[:, 1].min() < bow[0, 1] - 0.02
  assert up[:, 1].max() > up[0, 1] + 0.02
  assert travel(turn)[0] > 0.03


@pytest.mark.parametrize(
  ("name", "place"),
  [
    ("touching_nose", (0, -0.12, 1.12)),
    ("rubbing_eyes", (0.42, 0.16, 0.88)),
    ("touching_ears", (1, 0.02, -0.05)),
    ("touching_forehead", (0.15, 0.62, 0.9)),
    ("pushing_glasses", (0.4, 0.12, 0.9)),
    ("touching_hindbrain", (0.3, 0.1, -1.0)),
  ],
)
def test_hands_reach_the_head(name, place):
  for seed in range(4):
    take, performance = act(name, seed)
    sides = skeleton.SIGN[take.side]
    target = skeleton.head_points(performance.trunk, np.array(place) * [sides, 1, 1])
    tips = performance.keypoints[:, TIPS[take.side]]
    distance = np.linalg.norm(tips - target[:, None], axis=-1).min(1)
    assert distance.min() < 0.055
    assert distance[0] > 0.2


@pytest.mark.parametrize("seed", range(4))
def test_hands_reach_the_body_and_the_legs(seed):
  take, performance = act("touching_shoulder", seed)
  trunk = performance.trunk
  hand = performance.keypoints[:, TIPS[take.side]].mean(1)
  assert np.linalg.norm(hand[:, None] - trunk.shoulders, axis=-1).min() < 0.09
  take, performance = act("touching_chest", seed)
  palm = performance.arms[take.side].palm
  chest = performance.trunk.neck_base + skeleton.apply(
    performance.trunk.chest_turn, [0, -0.15, 0.1]
  )
  assert np.linalg.norm(palm - chest, axis=-1).min() < 0.14
  take, performance = act("scratching_legs", seed)
  shin = performance.trunk.knees[:, take.side] + performance.trunk.ankles[:, take.side]
  hand = performance.keypoints[:, TIPS[take.side]].mean(1)
  assert np.linalg.norm(hand - shin / 2, axis=-1).min() < 0.2
  _, performance = act("putting_hands_together", seed)
  palms = np.linalg.norm(performance.arms[0].palm - performance.arms[1].palm, axis=-1)
  assert palms[-1] < 0.05 < palms[0]


@pytest.mark.parametrize("seed", range(4))
def test_legs(seed):
  def gap(name, joints):
    points = act(name, seed)[1].keypoints
    return points[:, joints[LEFT], 0] - points[:, joints[RIGHT], 0]

  spread, closing = gap("spread_legs", KNEES), gap("closing_legs", KNEES)
  assert spread[-1] > spread[0] + 0.15
  assert closing[-1] < closing[0] - 0.15
  assert gap("crossing_legs", ANKLES).min() < 0 < gap("crossing_legs", ANKLES)[0]
  take, performance = act("stretching_feet", seed)
  ankle = performance.keypoints[:, ANKLES[take.side]]
  assert ankle[-1, 2] > ankle[0, 2] + 0.08
  take, performance = act("retracting_feet", seed)
  ankle = performance.keypoints[:, ANKLES]
  assert (ankle[-1, :, 2] < ankle[0, :, 2] - 0.08).any()
  take, performance = act("curling_legs", seed)
  assert travel(performance.keypoints[:, ANKLES[take.side]])[1] > 0.12
  take, performance = act("shaking_legs", seed)
  knee = performance.keypoints[:, KNEES[take.side], 1]
  assert (np.diff(np.sign(knee - knee.mean())) != 0).sum() >= 8


@pytest.mark.parametrize("seed", range(4))
def test_idle_limbs_stay_where_they_are(seed):
  points = act("nodding", seed)[1].keypoints
  assert travel(points[:, WRISTS + KNEES + ANKLES]).max() < 0.08
  points = act("shaking_legs", seed)[1].keypoints
  assert travel(points[:, NOSE] - points[:, NECK])[:2].max() < 0.05


def test_objects_and_glasses():
  assert act("playing_objects", 0)[1].prop
  assert act("pushing_glasses", 0)[1].glasses
  assert not act("touching_nose", 0)[1].prop

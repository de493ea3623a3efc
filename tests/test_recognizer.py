import dataclasses

import jax
import numpy as np
import pytest

from pcan_jax.checkpoints import load_model
from pcan_jax.clips.pose_files import open_poses
from pcan_jax.clips.timing import evenly_in_time
from pcan_jax.feed.pipeline import evaluation_batches
from pcan_jax.prediction.recognizer import Recognizer
from pcan_jax.prediction.videos import Video, Window
from tests.test_video import write
from tests.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="module")
def source(tiny_dataset_path):
  return tiny_dataset_path.parents[3] / "source"


@pytest.fixture(scope="module")
def workdir(tiny_dataset, tmp_path_factory):
  return write_tiny_checkpoint(tmp_path_factory.mktemp("run"), tiny_dataset)


@pytest.fixture(scope="module")
def recognizer(workdir):
  return Recognizer.load(workdir)


@pytest.fixture(scope="module")
def poses(source, recognizer):
  return open_poses(source / "pose" / "Tiny_val.pkl", recognizer.layout)


@pytest.fixture(scope="module")
def video(source, poses):
  return Video.open(source / "raw_videos" / "val" / "val_000.mp4", poses)


def largest_difference(a, b):
  return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), a.outputs, b.outputs)))


def test_a_video_is_predicted_as_the_data_set_built_from_it(
  recognizer, tiny_dataset, source, poses
):
  sampling = recognizer.spec.frame_sampling(recognizer.num_clips)
  seen = []
  for batch in evaluation_batches(tiny_dataset, "val", sampling, batch_size=1):
    clip_id = tiny_dataset.clip_ids("val")[batch["index"][0]]
    inputs = {name: batch[name] for name in ("rgb", "keypoints", "keypoint_scores")}
    evaluated = recognizer._predict_batch(recognizer._variables, inputs)  # compiled already
    path = source / "raw_videos" / "val" / f"{clip_id}.mp4"
    prediction = recognizer.predict_video(path, pose=poses)
    jax.tree.map(
      lambda predicted, values: np.testing.assert_allclose(
        predicted, values[0], rtol=1e-5, atol=1e-5
      ),
      prediction.outputs,
      evaluated,
    )
    seen.append(prediction.outputs["fused"]["action"]["probabilities"])
  assert len(seen) == tiny_dataset.num_clips("val")
  assert np.ptp(seen, axis=0).max() > 0.01


def test_arrays_are_predicted_as_the_video_they_come_from(recognizer, video, poses):
  frames = np.stack(list(video.frames()))
  by_arrays = recognizer.predict(frames, video.keypoints, video.scores)
  by_path = recognizer.predict_video(video.path, pose=poses.path)
  assert largest_difference(by_arrays, by_path) == 0
  assert by_arrays.outputs.keys() == {"fused", "rgb", "pose"}
  assert by_arrays.outputs["pose"]["body"]["embedding"].shape == (8,)


def test_windows_of_one_pass_equal_their_frames_alone(recognizer, video):
  frames = np.stack(list(video.frames()))
  spans = [(0, 6), (2, 8), (2, 11), (10, 11), (10, len(frames))]
  windows = [Window(*span, 0.0, 0.0) for span in spans]
  predictions = list(recognizer.predict_windows(video, windows))
  assert len(predictions) == len(windows)
  for (first, stop), prediction in zip(spans, predictions):
    alone = recognizer.predict(
      frames[first:stop], video.keypoints[:, first:stop], video.scores[:, first:stop]
    )
    assert largest_difference(prediction, alone) < 1e-5  # of another batch


def test_the_best_classes_come_first_by_name(recognizer, video):
  prediction = next(recognizer.predict_windows(video, video.windows()))
  actions = prediction.top_actions(3, branch="rgb")
  probabilities = prediction.outputs["rgb"]["action"]["probabilities"]
  assert [name for name, _ in actions] == [
    recognizer.tree.actions[i] for i in np.argsort(-probabilities)[:3]
  ]
  assert [p for _, p in actions] == sorted(probabilities.tolist(), reverse=True)[:3]
  assert len(prediction.top_bodies()) == recognizer.tree.num_bodies


def test_prototypes_are_those_of_the_checkpoint(workdir, recognizer):
  stored = load_model(workdir)[1]["prototypes"]
  for stream in ("rgb", "pose"):
    for level in ("action", "body"):
      np.testing.assert_array_equal(
        recognizer.prototypes[stream][level], np.asarray(stored[stream][level])
      )


def test_only_the_strongest_person_is_looked_at(recognizer, video):
  frames = np.stack(list(video.frames()))
  alone = recognizer.predict(frames, video.keypoints, video.scores)
  # Within the first one's box, so that the crop stays.
  other = video.keypoints.mean(axis=2, keepdims=True) + 0 * video.keypoints
  keypoints = np.concatenate([other, video.keypoints])
  scores = np.concatenate([0.1 * video.scores, video.scores])
  assert largest_difference(recognizer.predict(frames, keypoints, scores), alone) == 0
  stronger = recognizer.predict(frames, keypoints, scores[::-1].copy())
  assert largest_difference(stronger, alone) > 0


def test_a_recognizer_follows_the_config_it_is_made_with(tiny_dataset, tmp_path, video):
  spec, variables, step = load_model(write_tiny_checkpoint(tmp_path, tiny_dataset, "pcan_pose"))
  recognizers, predictions = [], []
  for gamma in (1.0, 9.0):
    spec.config.eval.gamma.pose = gamma
    recognizers.append(Recognizer(spec, variables, step))
    predictions.append(
      recognizers[-1].predict(keypoints=video.keypoints, scores=video.scores, size=video.size)
    )
  assert largest_difference(*predictions) > 0


def test_nobody_and_a_single_frame_are_predicted(recognizer, video):
  frames = np.stack(list(video.frames()))[:1]
  nobody = np.zeros((0, 1, *video.keypoints.shape[2:]), np.float32)
  prediction = recognizer.predict(frames, nobody, nobody[..., 0])
  assert prediction.outputs["fused"]["action"]["probabilities"].sum() == pytest.approx(1, abs=1e-5)


def test_a_model_of_poses_needs_no_frames(tiny_dataset, video, tmp_path):
  recognizer = Recognizer.load(write_tiny_checkpoint(tmp_path, tiny_dataset, "pcan_pose"))
  assert recognizer.streams == ("pose",)
  prediction = recognizer.predict(keypoints=video.keypoints, scores=video.scores, size=video.size)
  by_video = next(recognizer.predict_windows(video, video.windows()))
  assert largest_difference(prediction, by_video) == 0
  alone = recognizer.predict(keypoints=video.keypoints, scores=video.scores)
  assert largest_difference(prediction, alone) == 0
  with pytest.raises(ValueError, match="size must be"):
    recognizer.predict(keypoints=video.keypoints, scores=video.scores, size=(0, 8))
  with pytest.raises(ValueError, match="pcan extract_pose VIDEO --out FILE.pkl"):
    recognizer.predict_video(video.path)


def test_a_model_of_rgb_needs_no_poses(tiny_dataset, video, tmp_path):
  recognizer = Recognizer.load(write_tiny_checkpoint(tmp_path, tiny_dataset, "posec3d_rgb"))
  frames = np.stack(list(video.frames()))
  whole = recognizer.predict(frames)
  assert largest_difference(recognizer.predict_video(video.path), whole) == 0
  assert "embedding" not in whole.outputs["rgb"]["action"] and recognizer.prototypes == {}
  cropped = recognizer.predict(frames, video.keypoints, video.scores)
  assert largest_difference(cropped, whole) > 0


def without(name, video):
  arrays = {
    "frames": np.stack(list(video.frames())),
    "keypoints": video.keypoints,
    "scores": video.scores,
  }
  return {key: value for key, value in arrays.items() if key != name}


def test_wrong_arrays_are_named(recognizer, video):
  frames, keypoints, scores = without(None, video).values()
  for arrays, message in (
    (without("frames", video), "give frames"),
    (without("scores", video), "both keypoints and scores"),
    ({"frames": frames}, "the model needs poses"),
    ({"frames": frames.astype(np.float32)} | without("frames", video), "must be uint8"),
    ({"frames": frames[:-1]} | without("frames", video), "frames, but keypoints of"),
    ({"keypoints": keypoints[:, :, :5]} | without("keypoints", video), r"\[M, T, 28, 2\]"),
    ({"scores": scores[:, :-1]} | without("scores", video), r"'scores' has the shape"),
    ({"keypoints": keypoints * np.nan} | without("keypoints", video), "NaN"),
    ({"keypoints": keypoints * 1000} | without("keypoints", video), "must be pixels"),
    ({"keypoints": keypoints / 100} | without("keypoints", video), "lie between -1 and 1"),
    ({"scores": scores * np.inf} | without("scores", video), "'scores' holds NaN or infinity"),
    ({"scores": scores * 1e6} | without("scores", video), "'scores' holds more than 10"),
    (
      {"scores": scores > 0} | without("scores", video),
      "'scores' is missing, or not an array of n",
    ),
    ({"keypoints": [[1], [1, 2]]} | without("keypoints", video), "keypoints cannot be made an arr"),
    ({"frames": [*frames, frames[0][:5]]} | without("frames", video), "frames cannot be made an"),
  ):
    with pytest.raises(ValueError, match=message):
      recognizer.predict(**arrays)


def test_lists_are_as_good_as_arrays(recognizer, video):
  frames = np.stack(list(video.frames()))
  by_arrays = recognizer.predict(frames, video.keypoints, video.scores)
  for lists in (list(frames), frames.tolist()):
    by_lists = recognizer.predict(lists, video.keypoints.tolist(), video.scores.tolist())
    assert largest_difference(by_arrays, by_lists) < 1e-5


def test_keypoints_without_a_score_change_nothing(recognizer, video):
  frames = np.stack(list(video.frames()))
  keypoints, scores = video.keypoints.copy(), video.scores.copy()
  scores[:, :, 3] = keypoints[:, :, 3] = 0
  expected = recognizer.predict(frames, keypoints, scores)
  for place in (-1, 70, 1e9, np.nan):
    for score in (0, -1):
      keypoints[:, :, 3], scores[:, :, 3] = place, score
      assert largest_difference(recognizer.predict(frames, keypoints, scores), expected) == 0


def test_frames_are_chosen_by_their_times(recognizer, video, tmp_path):
  """A video of varying rate gives what the same one does with its frames repeated as they stand."""
  frames = np.stack(list(video.frames()))[:12]
  # Nobody moves, or other frames would mean another box.
  pose = np.repeat(video.keypoints[:, :1], 12, axis=1), video.scores[:, :12]
  stays = [1] * 6 + [4] * 6
  ticks = np.cumsum([0, *stays])
  path = write(tmp_path / "val_000.mkv", frames, times=20 * ticks[:-1])
  varying = Video.open(path)
  varying = dataclasses.replace(varying, keypoints=pose[0], scores=pose[1])
  prediction = next(recognizer.predict_windows(varying, varying.windows()))
  order = evenly_in_time(ticks / 30)
  assert len(set(order)) < 12
  stored = np.stack(list(varying.frames()))[order]
  expected = recognizer.predict(stored, pose[0][:, order], pose[1][:, order])
  assert largest_difference(prediction, expected) == 0
  (window, *_) = varying.windows(0.2, 0.2)
  assert (window.first, window.stop) == (0, 6) and window.end_seconds == pytest.approx(
    0.2, abs=2e-3
  )


def test_a_video_that_shrinks_is_noticed(recognizer, video):
  longer = dataclasses.replace(video, times=np.append(video.times, video.times[-1] + 1 / 30))
  windows = [Window(0, longer.num_frames, 0.0, 0.0)]
  # The poses still fit, the frames end too early.
  with pytest.raises(ValueError, match="fewer frames than when it was opened"):
    list(recognizer.predict_windows(longer, windows))

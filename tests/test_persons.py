import numpy as np
import pytest
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from pcan_jax.clips.persons import strongest_persons

FRAMES, JOINTS = 3, 5


def persons(strengths):
  """Random keypoints of persons who have the given score on every joint."""
  keypoints = np.random.default_rng(0).normal(size=(len(strengths), FRAMES, JOINTS, 2))
  scores = np.broadcast_to(np.reshape(strengths, (-1, 1, 1)), keypoints.shape[:3])
  return keypoints.astype(np.float32), scores.astype(np.float32)


@pytest.mark.parametrize(
  ("strengths", "max_persons", "chosen"),
  [
    ([], 2, []),
    ([0.5], 1, [0]),
    ([0.5], 3, [0]),
    ([0.5, 0.9], 2, [1, 0]),
    ([0.1, 0.9, 0.5], 2, [1, 2]),
    ([0.5, 0.9, 0.5, 0.9], 3, [1, 3, 0]),  # of equal ones the first comes first
    ([0.0, 0.0, 0.4], 2, [2, 0]),  # whoever is there comes before places that are filled up
  ],
)
def test_the_strongest_come_first_in_numpy_and_in_tensorflow(strengths, max_persons, chosen):
  keypoints, scores = persons(strengths)
  expected_keypoints = np.zeros((FRAMES, max_persons, JOINTS, 2), np.float32)
  expected_scores = np.zeros((FRAMES, max_persons, JOINTS), np.float32)
  for rank, person in enumerate(chosen):
    expected_keypoints[:, rank], expected_scores[:, rank] = keypoints[person], scores[person]

  def in_a_pipeline(keypoints, scores):
    return strongest_persons(keypoints, scores, max_persons, xp=tnp)

  # Neither the number of persons nor that of frames is known when a pipeline is made.
  signature = [tf.TensorSpec([None, None, JOINTS, *last], tf.float32) for last in ((2,), ())]
  for found in (
    strongest_persons(keypoints, scores, max_persons),
    tf.function(in_a_pipeline, input_signature=signature)(keypoints, scores),
  ):
    for array, expected in zip(found, (expected_keypoints, expected_scores)):
      assert np.asarray(array).dtype == np.float32
      np.testing.assert_array_equal(array, expected)

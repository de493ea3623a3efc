import numpy as np

from pcan_jax.clips.skeleton import draw_skeletons
from pcan_jax.keypoints import get_layout


def test_skeletons_are_drawn_where_joints_were_found():
  layout = get_layout("coco-17")
  image = np.zeros((240, 320, 3), np.uint8)
  keypoints = np.random.default_rng(0).uniform(60, 180, (1, 17, 2)).astype(np.float32)
  scores = np.full((1, 17), 0.9, np.float32)
  draw_skeletons(image, keypoints, scores, layout)
  for joint, (x, y) in zip(layout.joints, keypoints[0].round().astype(int)):
    assert image[y, x].any(), joint
  drawn = np.argwhere(image.any(axis=-1))
  assert drawn.min() >= 55 and drawn.max() <= 185

  image[:] = 0
  draw_skeletons(image, keypoints, 0 * scores, layout)
  draw_skeletons(image, 0 * keypoints, scores, layout)
  assert not image.any()
  draw_skeletons(image, keypoints * 1e9, scores, layout)  # far away, and no overflow

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcan_jax import heatmaps
from pcan_jax.keypoints import LAYOUTS

SIZE = (20, 24)
SIGMA = 0.7


def random_keypoints(*leading, num_joints=6, seed=0):
  rng = np.random.default_rng(seed)
  keypoints = rng.uniform(-4, 28, (*leading, num_joints, 2)).astype(np.float32)
  scores = rng.uniform(0, 1, (*leading, num_joints)).astype(np.float32)
  scores[rng.random(scores.shape) < 0.2] = 5e-5
  return jnp.asarray(keypoints), jnp.asarray(scores)


render_joints = jax.jit(heatmaps.render_joints, static_argnames=("size", "sigma"))
render_limbs = jax.jit(heatmaps.render_limbs, static_argnames=("limbs", "size", "sigma"))


def limb_by_pixel(start, end, start_score, end_score, sigma):
  """One limb of one person, pixel by pixel."""
  peak = min(start_score, end_score)
  length = np.hypot(*(end - start))
  if length < 1:
    end, peak = start, start_score
  image = np.zeros(SIZE)
  first = np.trunc(np.minimum(start, end) - 3 * sigma)
  last = np.trunc(np.maximum(start, end) + 3 * sigma)
  if min(start_score, end_score) < 1e-4:
    return image
  for y in range(SIZE[0]):
    for x in range(SIZE[1]):
      pixel = np.array([x, y])
      if (pixel >= first).all() and (pixel <= last).all():
        along = 0.0
        if length >= 1:
          along = np.clip((pixel - start) @ (end - start) / length**2, 0, 1)
        squared = np.sum((pixel - start - along * (end - start)) ** 2)
        image[y, x] = peak * np.exp(-squared / 2 / sigma**2)
  return image


def test_joint_is_a_gaussian_with_its_score_as_peak():
  keypoints = jnp.array([[[[3.0, 5.0]]]])
  image = render_joints(keypoints, jnp.array([[[0.8]]]), SIZE, sigma=0.7)[0, :, :, 0]
  assert image[5, 3] == pytest.approx(0.8)
  assert image[5, 4] == pytest.approx(0.8 * np.exp(-1 / 2 / 0.7**2))
  assert image[6, 2] == pytest.approx(0.8 * np.exp(-2 / 2 / 0.7**2))
  # 3 - 3 sigma = 0.9 begins the patch with pixel 0, 3 + 3 sigma = 5.1 ends it with pixel 5.
  assert image[5, 0] > 0
  assert image[5, 5] > 0
  assert image[5, 6] == 0


@pytest.mark.parametrize("score", [0.0, 9e-5, -1.0, np.nan])
def test_unseen_joints_are_not_drawn(score):
  keypoints = jnp.full((1, 1, 1, 2), 5.0)
  assert not render_joints(keypoints, jnp.full((1, 1, 1), score), SIZE, SIGMA).any()


@pytest.mark.parametrize("place", [(np.nan, 5.0), (5.0, np.inf), (-5.0, 5.0), (5.0, 24.0)])
def test_joints_outside_or_nowhere_leave_the_map_empty(place):
  keypoints = jnp.array(place).reshape(1, 1, 1, 2)
  assert not render_joints(keypoints, jnp.ones((1, 1, 1)), SIZE, SIGMA).any()


@pytest.mark.parametrize("render", ["joints", "limbs"])
def test_batch_axes_and_jit_change_nothing(render):
  keypoints, scores = random_keypoints(2, 3, 4, 2)
  limbs = ((0, 1), (3, 5))

  def draw(keypoints, scores):
    if render == "joints":
      return render_joints(keypoints, scores, SIZE, SIGMA)
    return render_limbs(keypoints, scores, limbs, SIZE, SIGMA)

  batched = jax.jit(draw)(keypoints, scores)
  for i in range(2):
    for j in range(3):
      np.testing.assert_allclose(batched[i, j], draw(keypoints[i, j], scores[i, j]), atol=1e-6)


@pytest.mark.parametrize("render", ["joints", "limbs"])
def test_order_of_persons_does_not_matter(render):
  keypoints, scores = random_keypoints(4, 3)

  def draw(order):
    args = keypoints[:, order], scores[:, order]
    if render == "joints":
      return render_joints(*args, SIZE, SIGMA)
    return render_limbs(*args, ((0, 1), (3, 5)), SIZE, SIGMA)

  together = draw(np.array([0, 1, 2]))
  np.testing.assert_array_equal(together, draw(np.array([2, 0, 1])))
  alone = [draw(np.array([person])) for person in range(3)]
  np.testing.assert_array_equal(together, np.maximum.reduce(alone))


def test_limbs_match_their_definition():
  sigma = 0.6
  keypoints, scores = random_keypoints(5, 1, seed=3)
  keypoints = keypoints.at[0, 0, 1].set(keypoints[0, 0, 0] + 0.3)  # shorter than a pixel
  limbs = ((0, 1), (2, 1), (3, 4), (5, 0))
  drawn = render_limbs(keypoints, scores, limbs, SIZE, sigma)
  assert drawn.shape == (5, *SIZE, 4)
  for t in range(5):
    for i, (a, b) in enumerate(limbs):
      points, score = np.float64(keypoints[t, 0]), np.float64(scores[t, 0])
      wanted = limb_by_pixel(points[a], points[b], score[a], score[b], sigma)
      np.testing.assert_allclose(drawn[t, :, :, i], wanted, atol=1e-5)


def test_limb_covers_its_joints_at_equal_scores():
  keypoints, _ = random_keypoints(3, 2, seed=5)
  scores = jnp.ones(keypoints.shape[:-1])
  limb = render_limbs(keypoints, scores, ((2, 4),), SIZE, SIGMA)[..., 0]
  joints = render_joints(keypoints, scores, SIZE, SIGMA)
  assert (limb >= jnp.maximum(joints[..., 2], joints[..., 4]) - 1e-6).all()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_every_layout_can_be_drawn(layout):
  keypoints, scores = random_keypoints(2, 1, num_joints=layout.num_keypoints)
  limbs = jax.eval_shape(lambda: render_limbs(keypoints, scores, layout.limbs, SIZE, SIGMA))
  joints = jax.eval_shape(lambda: render_joints(keypoints, scores, SIZE, SIGMA))
  assert limbs.shape == (2, *SIZE, len(layout.limbs))
  assert joints.shape == (2, *SIZE, layout.num_keypoints)


def test_nobody_gives_empty_maps():
  keypoints, scores = random_keypoints(3, 0)
  joints = render_joints(keypoints, scores, SIZE, SIGMA)
  limbs = render_limbs(keypoints, scores, ((0, 1),), SIZE, SIGMA)
  assert joints.shape == (3, *SIZE, 6)
  assert limbs.shape == (3, *SIZE, 1)
  assert not joints.any()
  assert not limbs.any()


def test_half_precision_keypoints_are_drawn_in_float32():
  keypoints, scores = random_keypoints(1, 1)
  keypoints = keypoints.astype(jnp.float16)
  drawn = render_joints(keypoints, scores, SIZE, SIGMA)
  assert drawn.dtype == jnp.float32
  np.testing.assert_array_equal(
    drawn, render_joints(keypoints.astype(jnp.float32), scores, SIZE, SIGMA)
  )


@pytest.mark.parametrize("limb", [(0, 6), (-1, 0)])
def test_limbs_between_missing_joints_are_refused(limb):
  keypoints, scores = random_keypoints(2, 1)
  with pytest.raises(ValueError, match="not a pair of joints"):
    render_limbs(keypoints, scores, (limb,), SIZE, SIGMA)

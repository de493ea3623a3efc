import numpy as np
import pytest

from pcan_jax.labels import LabelTree
from pcan_jax.prediction.overlay import draw_panel
from pcan_jax.prediction.recognizer import Prediction
from pcan_jax.prediction.videos import Window

BLUE, ORANGE = (86, 180, 233), (230, 159, 0)


def make_prediction(actions, names=("nod", "scratching or touching the hindbrain", "gähnen 伸")):
  fused = {
    "action": {"probabilities": np.array(actions, np.float32)},
    "body": {"probabilities": np.array([0.75, 0.25], np.float32)},
  }
  return Prediction(LabelTree(names, ("head", "arm"), (0, 1, 0)), {"fused": fused})


def bars(panel, colour):
  """Widths of the bars of a colour, from top to bottom: what starts at the margin, unlike text."""
  margin = round(16 * len(panel) / 480)
  is_bar = (panel == colour).all(axis=-1)
  rows = is_bar.sum(axis=1) * is_bar[:, margin : margin + 10].all(axis=1)
  return [int(width) for width, above in zip(rows[1:], rows[:-1]) if width and not above]


@pytest.mark.parametrize("height", [480, 1080])
def test_bars_are_as_long_as_classes_are_likely(height):
  width = round(340 * height / 480)
  prediction = make_prediction([0.2, 0.5, 0.3])
  panel = draw_panel(Window(0, 30, 0.0, 1.0), prediction, (height, width))
  assert panel.shape == (height, width, 3) and panel.dtype == np.uint8
  full = width - 2 * round(16 * height / 480)
  for colour, expected in ((BLUE, (0.5, 0.3, 0.2)), (ORANGE, (0.75, 0.25))):
    np.testing.assert_allclose(bars(panel, colour), np.array(expected) * full, atol=1)


def test_text_stays_on_the_panel():
  prediction = make_prediction([1.0, 0.0, 0.0], names=("x" * 300, "y", "z"))
  panel = draw_panel(Window(0, 30, 0.0, 1.0), prediction, (480, 340))
  background = panel[0, 0]
  assert (panel[:, :12] == background).all() and (panel[:, -12:] == background).all()
  assert (panel[60:90] != background).any()

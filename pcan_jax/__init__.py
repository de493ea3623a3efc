"""PCAN in JAX: prototypical calibration of ambiguous samples for micro-action recognition.

from pcan_jax import Recognizer

print(Recognizer.load("runs/demo").predict_video("clip.mp4", pose="poses.pkl").top_actions())
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from pcan_jax.prediction.recognizer import Prediction, Recognizer

__all__ = ["Prediction", "Recognizer"]


def __getattr__(name: str) -> Any:
  """Imports what is asked for when it is asked for: JAX takes seconds."""
  if name in __all__:
    from pcan_jax.prediction import recognizer

    return getattr(recognizer, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Which form of an operation runs on which kind of device.

Forms of one operation return the same values to rounding and have the same parameters; they differ
in how often they read and write memory. docs/PERFORMANCE.md has the measurements behind the choice.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Forms:
  """A form for each operation that has several.

  Attributes:
    temporal: a k x 1 x 1 convolution as one matrix product for all taps and shifts of the result
      ("products"), or as a 2D convolution over time and pixels ("convolution").
    pool: the stems' maximum by "comparisons" of shifted copies, which its gradient repeats; with
      the "index" of the maximum kept for the gradient; or by XLA's "window" operation.
    expansion: training BatchNorm after a 1 x 1 x 1 convolution that adds channels from the
      convolution's "output", or from the second moments of its "input", which is smaller.
    fold: whether wide 2D convolutions of a few channels get neighbouring pixels as channels.
    channel_multiple: 2D convolutions get channels of zeros up to a multiple of this.
  """

  temporal: str = "products"
  pool: str = "comparisons"
  expansion: str = "output"
  fold: bool = False
  channel_multiple: int = 1

  def __post_init__(self) -> None:
    for name, known in (
      ("temporal", ("products", "convolution")),
      ("pool", ("comparisons", "index", "window")),
      ("expansion", ("output", "input")),
    ):
      if getattr(self, name) not in known:
        raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")


CPU = Forms()
# Tensor cores want eight channels, and steps are bound by memory bandwidth.
GPU = Forms("convolution", "index", "input", fold=True, channel_multiple=8)
# Channels lie in 128 lanes, so that the fewer positions the better.
TPU = Forms("convolution", "window", "input", fold=True)


def for_platform(platform: str) -> Forms:
  """The forms for a platform as JAX names it: "cpu", "gpu", "cuda", "rocm" or "tpu"."""
  return {"cpu": CPU, "tpu": TPU}.get(platform, GPU)

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
    upsampling: along time, as one matrix product for all taps whose results are put between each
      other ("products"), or as a convolution of frames with zeros between them ("dilated").
    pool: the stems' maximum with its "index" kept for the gradient, or by XLA's "window" operation.
    moments: up to how many channels a 1 x 1 x 1 convolution that adds some may have before them for
      BatchNorm, in training, to take its statistics from the second moments of the convolution's
      input instead of from the wider output.
    fold: whether wide 2D convolutions of a few channels get neighbouring pixels as channels.
    channel_multiple: 2D convolutions get channels of zeros up to a multiple of this.
    attention: of video transformers in half precision, by XLA ("xla") or by the fused kernel of
      NVIDIA's library ("cudnn"), which does not write the weights of the attention to memory.
  """

  temporal: str = "products"
  upsampling: str = "products"
  pool: str = "index"
  moments: int = 0
  fold: bool = False
  channel_multiple: int = 1
  attention: str = "xla"

  def __post_init__(self) -> None:
    for name, known in (
      ("temporal", ("products", "convolution")),
      ("upsampling", ("products", "dilated")),
      ("pool", ("index", "window")),
      ("attention", ("xla", "cudnn")),
    ):
      if getattr(self, name) not in known:
        raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")


CPU = Forms()
# Tensor cores want many channels, and steps are bound by memory bandwidth.
GPU = Forms("convolution", moments=512, fold=True, channel_multiple=8, attention="cudnn")
# XLA chooses layouts by itself, and has to copy wherever axes are split or merged for a form.
TPU = Forms("convolution", "dilated", pool="window", moments=512)


def for_platform(platform: str) -> Forms:
  """The forms for a platform as JAX names it: "cpu", "gpu", "cuda", "rocm" or "tpu"."""
  if platform == "rocm":
    return dataclasses.replace(GPU, attention="xla")
  return {"cpu": CPU, "tpu": TPU}.get(platform, GPU)

"""Which form of an operation runs on which kind of device.

Forms of one operation return the same values to rounding and have the same parameters; they differ
in how often they read and write memory. docs/PERFORMANCE.md has the measurements behind the choice.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Forms:
  """A form for each operation that has several.

  Attributes:
    products: up to how many channels a k x 1 x 1 convolution may return to be one matrix product
      for all taps, and shifts of the result; above, it is a 2D convolution over time and pixels.
    upsampling: along time, as one matrix product for all taps whose results are put between each
      other ("products"), or as a convolution of frames with zeros between them ("dilated").
    pool: the stems' maximum with its "index" kept for the gradient, or by XLA's "window" operation.
    moments: up to how many channels a 1 x 1 x 1 convolution that adds some may have before them for
      BatchNorm, in training, to take its statistics from the second moments of the convolution's
      input instead of from the wider output.
    fold: whether wide 2D convolutions of a few channels get neighbouring pixels as channels.
    channel_multiple: 2D convolutions get channels of zeros up to a multiple of this.
    lateral: channels from the other stream as "joined" ones of a convolution's input, or convolved
      by themselves and "added".
    subsampling: whether the pixels that a block's shortcut reads are "kept" for the gradient of its
      weights, or taken again ("repeated") from the block's input, which is kept in any case.
    attention: of video transformers in half precision, by XLA ("xla") or by the fused kernel of
      NVIDIA's library ("cudnn"), which does not write the weights of the attention to memory.
  """

  products: int = 0
  upsampling: str = "products"
  pool: str = "index"
  moments: int = 0
  fold: bool = False
  channel_multiple: int = 1
  lateral: str = "joined"
  subsampling: str = "kept"
  attention: str = "xla"

  def __post_init__(self) -> None:
    for name, known in (
      ("upsampling", ("products", "dilated")),
      ("pool", ("index", "window")),
      ("lateral", ("joined", "added")),
      ("subsampling", ("kept", "repeated")),
      ("attention", ("xla", "cudnn")),
    ):
      if getattr(self, name) not in known:
        raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")


# Libraries add what follows to a convolution's result, but have to fill their matrix units.
CPU = Forms(products=64)
# Tensor cores want many channels, and steps are bound by memory bandwidth.
GPU = Forms(
  moments=512,
  fold=True,
  channel_multiple=8,
  lateral="added",
  subsampling="repeated",
  attention="cudnn",
)
# XLA chooses layouts by itself, and has to copy wherever axes are split or merged for a form.
TPU = Forms(upsampling="dilated", pool="window", moments=512)


def for_platform(platform: str) -> Forms:
  """The forms for a platform as JAX names it: "cpu", "gpu", "cuda", "rocm" or "tpu"."""
  if platform == "rocm":
    return dataclasses.replace(GPU, attention="xla")
  return {"cpu": CPU, "tpu": TPU}.get(platform, GPU)

"""The style of all figures: colour-blind safe colours, fonts, sizes, files.

Colours are Okabe and Ito's, without their yellow, which is too pale on paper. Blue is the run and
right predictions, vermillion wrong ones, grey the baseline.
"""

import contextlib
import io
import pathlib
from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"
PALE, INK = "#D9D9D9", "#333333"

RUN, BASELINE, RIGHT, WRONG = BLUE, GREY, BLUE, VERMILLION
BRANCHES = {"fused": BLUE, "rgb": VERMILLION, "pose": GREEN}
BRANCH_NAMES = {"fused": "both streams", "rgb": "RGB", "pose": "pose"}
LEVEL_NAMES = {"action": "actions", "body": "body parts"}

SHARES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", SKY, BLUE, "#002B45"])
"""White for 0, darker blue for larger values."""

_BODIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, BLACK, GREY)
_MARKERS = "os^DvPX<>*"
# Fallbacks for labels in scripts that the first font lacks, if installed.
_FONTS = (
  "DejaVu Sans",
  "Noto Sans CJK SC",
  "Noto Sans CJK JP",
  "Microsoft YaHei",
  "PingFang SC",
  "Hiragino Sans",
  "Noto Sans",
)
_LONGEST_LABEL = 44
_PIXELS_PER_INCH = 160
_PAPER = {
  "font.size": 9.0,
  "axes.titlesize": 10.0,
  "axes.titleweight": "bold",
  "axes.titlelocation": "left",
  "axes.labelsize": 9.0,
  "axes.labelcolor": INK,
  "axes.edgecolor": GREY,
  "axes.linewidth": 0.8,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.axisbelow": True,
  "axes.grid": False,
  "grid.color": "#E6E6E6",
  "grid.linewidth": 0.8,
  "xtick.color": GREY,
  "ytick.color": GREY,
  "xtick.labelcolor": INK,
  "ytick.labelcolor": INK,
  "xtick.labelsize": 8.0,
  "ytick.labelsize": 8.0,
  "lines.linewidth": 1.6,
  "text.color": INK,
  "text.parse_math": False,  # labels may contain dollar signs
  "legend.frameon": False,
  "legend.fontsize": 8.0,
  "pdf.fonttype": 42,  # embeds fonts, so that text stays text
  "svg.fonttype": "none",
  "savefig.facecolor": "white",
}


@contextlib.contextmanager
def applied() -> Iterator[None]:
  """Draws and saves figures in this style."""
  installed = set(font_manager.get_font_names())
  fonts = [name for name in _FONTS if name in installed]
  with matplotlib.rc_context(_PAPER | {"font.family": fonts or "sans-serif"}):
    yield


def new_figure(width: float, height: float, layout: str = "constrained") -> Figure:
  """An empty figure, sizes in inches; the layout "compressed" suits axes with a fixed aspect."""
  return Figure(figsize=(width, height), dpi=_PIXELS_PER_INCH, layout=layout)  # as it is saved


def save(figure: Figure, path: pathlib.Path) -> bytes:
  """Writes PATH.pdf and PATH.png, with identical bytes for identical figures.

  Returns:
    The PNG.
  """
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=_PIXELS_PER_INCH, metadata={"Software": None})
  path.with_suffix(".png").write_bytes(picture.getvalue())
  figure.set_layout_engine("none")  # already laid out above, and layout takes longer than drawing
  figure.savefig(
    path.with_suffix(".pdf"), metadata={"CreationDate": None, "Creator": None, "Producer": None}
  )
  return picture.getvalue()


def short(label: str) -> str:
  """Shortens a label to fit beside a figure."""
  return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1].rstrip() + "…"


def label_width(labels: Sequence[str], size: float = 8.0) -> float:
  """Approximate width in inches of the longest label, at a font size in points."""
  return max(len(short(label)) for label in labels) * size * 0.56 / 72


def body_colour(body: int) -> str:
  return _BODIES[body % len(_BODIES)]


def text_on(colour: str) -> str:
  """Black or white, whichever is easier to read on a colour (WCAG's relative luminance)."""
  linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04 else c / 12.92 for c in to_rgb(colour)]
  luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
  return BLACK if luminance > 0.24 else "white"


def body_marker(body: int) -> str:
  """Markers distinguish body parts without colour, and if there are more parts than colours."""
  return _MARKERS[(body + body // len(_BODIES)) % len(_MARKERS)]


def percent_axis(axis: Axes, which: str = "x") -> None:
  """Formats fractions as per cent and adds a faint grid."""
  getattr(axis, f"{which}axis").set_major_formatter(lambda value, _: f"{100 * value:.0f}")
  axis.grid(True, axis=which)

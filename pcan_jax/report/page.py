"""A self-contained HTML page: sections of text, tables and figures."""

import base64
import dataclasses
import pathlib
from collections.abc import Sequence

import jinja2
import tqdm
from matplotlib.figure import Figure

from pcan_jax.report import style

_TEMPLATE = "page.html.jinja"
_CSS_PIXELS_PER_INCH = 96


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure of a section.

  Attributes:
    name: of its files, without suffix.
    figure: the figure.
    caption: what it shows and how to read it.
    alt: description for readers who cannot see it.
  """

  name: str
  figure: Figure
  caption: str
  alt: str


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of a section.

  Attributes:
    caption: what it shows.
    header: names of the columns.
    rows: cells; the first cell of a row names it.
    folded: whether the table is initially folded.
    text_columns: number of columns, from the left, with text instead of numbers.
  """

  caption: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  folded: bool = False
  text_columns: int = 1


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page.

  Attributes:
    anchor: its address on the page.
    title: its heading.
    paragraphs: the text above tables and figures, or why there are none.
    tables: below the text.
    pictures: below the tables.
    code: shown verbatim, folded.
  """

  anchor: str
  title: str
  paragraphs: Sequence[str] = ()
  tables: Sequence[Table] = ()
  pictures: Sequence[Picture] = ()
  code: str = ""


def write_page(
  path: pathlib.Path,
  *,
  title: str,
  facts: dict[str, str],
  sections: Sequence[Section],
  figures: pathlib.Path,
) -> None:
  """Writes the page and the files of its figures.

  Args:
    path: of the page.
    title: of the page.
    facts: about the run, by name, shown at the top.
    sections: in their order.
    figures: folder for the figures, below the folder of the page.
  """
  figures.mkdir(parents=True, exist_ok=True)
  images = {}
  pictures = [picture for section in sections for picture in section.pictures]
  # disable=None: no progress bar unless on a terminal.
  for picture in tqdm.tqdm(pictures, "figures", disable=None):
    png = style.save(picture.figure, figures / picture.name)
    images[picture.name] = {
      "data": base64.b64encode(png).decode(),
      "width": round(picture.figure.get_figwidth() * _CSS_PIXELS_PER_INCH),
      "height": round(picture.figure.get_figheight() * _CSS_PIXELS_PER_INCH),
    }
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  page = environment.get_template(_TEMPLATE).render(
    title=title,
    facts=facts,
    sections=sections,
    images=images,
    folder=figures.relative_to(path.parent).as_posix(),
  )
  path.write_text(page, encoding="utf-8")

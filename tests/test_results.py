"""What documents say was measured by a study is what the lines in results/ say."""

import pathlib

import pytest

from benchmarks.study import configs
from benchmarks.study.lines import Results
from benchmarks.study.page import documents, fill_blocks, page, quoted, without_their_section
from benchmarks.study.summaries import summarise
from benchmarks.study.tables import STUDIES
from pcan_jax import shipped

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = Results(ROOT / "results")
ADVICE = "run `python -m benchmarks.study --render` and commit what it writes"


@pytest.fixture(scope="module")
def sections():
  return summarise(RESULTS)


def test_the_page_is_made_of_the_lines(sections):
  written = (ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8")
  assert written == page(sections), ADVICE
  pictures = [section.picture for section in sections if section.compares]
  missing = [name for name in pictures if not (ROOT / "docs" / "images" / name).is_file()]
  assert missing == [], ADVICE


@pytest.mark.parametrize("path", documents(ROOT), ids=lambda path: path.name)
def test_documents_quote_the_page(path, sections):
  text = path.read_text(encoding="utf-8")
  assert text == fill_blocks(text, sections), ADVICE
  written = (ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8")
  assert without_their_section(quoted(text), written) == []


@pytest.mark.parametrize("study", STUDIES)
def test_lines_are_of_the_configs_as_they_are_now(study):
  """A config that changes makes another run: its old lines have to go, or to be run again."""
  stale = set()
  for line in RESULTS.lines(study):
    config = line["config"]
    shipped.find_file(config, "configs", ".py", "config")
    what = configs.resolve(STUDIES[study], line["row"], config, pathlib.Path(line["data"]))
    if what.digest != line["digest"]:
      stale.add((line["row"], config))
  assert stale == set()


def test_every_run_is_there_once():
  for study in RESULTS.studies:
    lines = RESULTS.lines(study)
    runs = [(line["row"], line["digest"], line["fingerprint"], line["seed"]) for line in lines]
    assert len(runs) == len(set(runs))


def test_quotes_that_the_page_does_not_have_are_found():
  written = (
    "# Results\n\n## Headline\n\n### Headline, toy\n\n| 61.25 | +1.50 |\n\n"
    "## Parts\n\n70.00 ± 0.50 [69.00, 71.00]\n"
  )
  text = (
    "It reached [61.25](docs/RESULTS.md#headline-toy), [+1.50](RESULTS.md#headline) more, "
    "not [70.00](RESULTS.md#headline) or [61.2](RESULTS.md); see [the page](docs/RESULTS.md). "
    "Parts have [70.00 ± 0.50](RESULTS.md#parts), not [70.00 ± 0.5](RESULTS.md#parts)."
  )
  found = quoted(text)
  assert len(found) == 6
  assert without_their_section(found, written) == [
    ("70.00", "headline"),
    ("61.2", ""),
    ("70.00 ± 0.5", "parts"),
  ]


def test_documents_that_quote_are_compared():
  quoting = {path.name for path in documents(ROOT) if quoted(path.read_text(encoding="utf-8"))}
  assert {"README.md", "SMALL_DATA.md"} <= quoting
  assert ROOT / "docs" / "RESULTS.md" not in documents(ROOT)

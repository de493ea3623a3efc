"""docs/RESULTS.md, and the figures that other documents quote from it.

Everything on the page follows from the files in `results/`. Documents quote a figure as a link to
the page, `[12.34](docs/RESULTS.md#headline)`, or as a block that `--render` fills in:

    <!-- study: headline lookalikes -->
    ...
    <!-- end of study -->
"""

import math
import pathlib
import re
from collections.abc import Iterable

from benchmarks.study import explain
from benchmarks.study.lines import BRANCHES
from benchmarks.study.summaries import Section, Summarised, counted
from benchmarks.study.tables import STUDIES, Row

QUOTE = re.compile(
  r"\[([+-]?\d+(?:\.\d+)?(?: ± [\d.]+)?)(?: %)?\]\((?:docs/)?RESULTS\.md(?:#([\w-]+))?\)"
)
BLOCK = re.compile(r"(<!-- study: (\w+) (\w+) -->\n)(.*?)(<!-- end of study -->)", re.DOTALL)

_HEAD = """# Results

`python -m benchmarks.study --render` makes this page from the files in `results/`; do not edit it.
A line of `results/STUDY.csv` is one trained and evaluated run, with the digest of its config, the
fingerprint of its data, commit, versions and machine. To add lines of your own:

```bash
python -m benchmarks.study headline --seeds 0-4 --data datasets/lookalikes
python -m benchmarks.study --render
```

Other data sets are `datasets/lookalikes_full`, for a GPU, `datasets/utd_mhad` and `datasets/ma52`.
Figures are in %, differences in points. `a ± b` is the mean and the standard deviation over seeds;
brackets hold a 95 % interval: Student's t for a mean over seeds; for a difference, a bootstrap that
resamples seeds and clips, identically for both rows. A difference is *clear* if its interval
excludes zero, and bold if there is also more than one seed. One in twenty rows without any effect
is clear by chance. With two seeds, intervals of a mean are so wide that they may exceed 100.
"""


def page(sections: Iterable[Section]) -> str:
  """The whole page."""
  sections = list(sections)
  parts = [_HEAD]
  for name, study in STUDIES.items():
    parts.append(f"## {name.capitalize()}\n\n**{study.title}.** {study.question}\n")
    own = [section for section in sections if section.study == name]
    if not own:
      parts.append("No run has been recorded.\n")
    parts += [_section(section) for section in own]
  return "\n".join(parts)


def fill_blocks(text: str, sections: Iterable[Section]) -> str:
  """A document with its blocks as the results have them.

  Raises:
    ValueError: a block names a study or data set without results.
  """
  by_name = {(section.study, section.data): section for section in sections}

  def content(found: re.Match) -> str:
    name = (found[2], found[3])
    if name not in by_name:
      raise ValueError(f"there are no results of study {name[0]!r} on {name[1]!r}")
    return f"{found[1]}{table(by_name[name])}{found[4]}"

  return BLOCK.sub(content, text)


def quoted(text: str) -> list[tuple[str, str]]:
  """The figures that a document quotes, each with the anchor of the section it links to."""
  return QUOTE.findall(text)


def without_their_section(quotes: Iterable[tuple[str, str]], written: str) -> list[tuple[str, str]]:
  """Those quotes whose figure is not in the section of the page that they name."""
  sections, open_sections = {"": ""}, []
  for line in written.splitlines(keepends=True):
    heading = re.match(r"(#+) (.*)", line)
    if heading:
      depth = len(heading[1])
      anchor = re.sub(r"[^\w\- ]", "", heading[2].lower()).replace(" ", "-")
      open_sections = [*(one for one in open_sections if one[0] < depth), (depth, anchor)]
    for anchor in ["", *(anchor for _, anchor in open_sections)]:
      sections[anchor] = sections.get(anchor, "") + line
  return [
    (figure, anchor)
    for figure, anchor in quotes
    if not re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]*\d)", sections.get(anchor, ""))
  ]


def table(section: Section) -> str:
  """The rows of a section in Markdown, branch by branch."""
  lines = [
    "| row | branch | seeds | action top-1 | F1 mean | F1 mean, against | action top-1, against |",
    "|---|---|---|---|---|---|---|",
  ]
  for name, row in _rows(section):
    for branch in BRANCHES:
      found = section.rows[name].get(branch)
      if found is None:
        continue
      against = f" `{row.against}`" if row.against else ""
      cells = [
        f"`{name}`",
        branch,
        str(found.means["f1_mean"].seeds),
        _mean(found, "action_top1"),
        _mean(found, "f1_mean"),
        _change(found, "f1_mean") + (against if "f1_mean" in found.differences else ""),
        _change(found, "action_top1"),
      ]
      lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def _section(section: Section) -> str:
  clips = f"{section.clips:,} clips of split `{section.split}`"
  machines = " and ".join(section.machines)
  parts = [
    f"### {section.study.capitalize()}, {section.data}\n",
    f"{clips}, {counted(section.num_clips, 'clip')} per video; data {section.fingerprint[:8]}; "
    f"{counted(section.runs, 'run')}, {section.hours:.1f} hours by the clock, on {machines}.\n",
    table(section),
    "\n".join(_verdicts(section)) + "\n",
  ]
  if section.difficulty:
    parts.append(_difficulty(section))
  parts.append(_why(section))
  if section.compares:
    parts.append(f"![Differences to the baseline](images/{section.picture})\n")
  return "\n".join(part for part in parts if part.strip())


def _rows(section: Section) -> list[tuple[str, Row]]:
  return [(name, row) for name, row in STUDIES[section.study].rows.items() if name in section.rows]


def _verdicts(section: Section) -> list[str]:
  """A sentence per compared row: what its interval says of F1 mean."""
  sentences = []
  for name, row in _rows(section):
    for branch in _main_branches(section, name):
      change = section.rows[name][branch].differences.get("f1_mean")
      if change is None:
        continue
      words = {
        "above": "is clearly above",
        "below": "is clearly below",
        "open": "cannot be distinguished from",
      }[change.verdict]
      caution = ""
      if change.seeds == 1:
        caution = " With one seed, the interval does not cover the variation between seeds."
      sentences.append(
        f"- `{name}` {words} `{row.against}`: {_points(change.mean)} points of F1 mean "
        f"{_interval(change.low, change.high)}, {branch}.{caution}"
      )
  return sentences or ["No row can be compared with its baseline yet."]


def _main_branches(section: Section, name: str) -> list[str]:
  """Fused where there are two streams, else the only one."""
  return [branch for branch in BRANCHES if branch in section.rows[name]][:1]


def _why(section: Section) -> str:
  lines = [
    "\nWhy, means over seeds: false negatives before rectification as shares of the clips (A1: "
    "body part right, A2: neither, A3: action right), clips that rectification corrected or made "
    "wrong, and mean cosines of prototypes of one body part and of different ones.\n",
    "| row | stream | A1 | A2 | A3 | corrected | made wrong | cosine, one part | different parts |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for name, _ in _rows(section):
    for branch, found in section.rows[name].items():
      if not found.why:
        continue
      shares = [f"{100 * found.why[f'share_{kind}']:.1f}" for kind in ("a1", "a2", "a3")]
      shares += [_optional(found.why, key, 100, 2) for key in ("mended", "spoilt")]
      cosines = [_optional(found.why, f"cosine_{of}", 1, 3) for of in ("siblings", "strangers")]
      lines.append(f"| `{name}` | {branch} | " + " | ".join([*shares, *cosines]) + " |")
  return "\n".join(lines) + "\n" + _gradients(section)


def _gradients(section: Section) -> str:
  """A table of the norms of gradients; nothing if no run logged them."""
  found = [
    (name, branch, row.why)
    for name, _ in _rows(section)
    for branch, row in section.rows[name].items()
  ]
  terms = [term for term in explain.TERMS if any(f"gradient_{term}" in why for _, _, why in found)]
  if not terms:
    return ""
  lines = [
    "\nMean norms of the gradients of the terms of the loss, weighted as in the total.\n",
    "| row | stream | " + " | ".join(f"`{term}`" for term in terms) + " |",
    "|---" * (2 + len(terms)) + "|",
  ]
  for name, branch, why in found:
    cells = [_optional(why, f"gradient_{term}", 1, 3) for term in terms]
    if any(cells):
      lines.append(f"| `{name}` | {branch} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def _optional(values: dict[str, float], key: str, factor: int, digits: int) -> str:
  return f"{factor * values[key]:.{digits}f}" if key in values else ""


def _difficulty(section: Section) -> str:
  lines = [
    "\nGain in accuracy of hard, medium and easy actions (below 50 %, up to 60 %, above, by the "
    "baseline), and their number, as in the paper's figure 3. *Other clips*: grouped by one half "
    "of each action's clips, reported on the other half. *Same clips*: both on all clips, which "
    "flatters any second run, as actions that were unlucky once count as hard.\n",
    "| row | branch | hard, other clips | medium | easy | hard, same clips | medium | easy |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for (name, branch), (honest, naive) in section.difficulty.items():
    cells = [
      f"{_points(gain)} ({count})" if math.isfinite(gain) else "-"
      for groups in (honest, naive)
      for count, gain in groups.values()
    ]
    lines.append(f"| `{name}` | {branch} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def _mean(found: Summarised, metric: str) -> str:
  summary = found.means[metric]
  text = f"{100 * summary.mean:.2f}"
  if summary.seeds > 1:
    text += f" ± {100 * summary.deviation:.2f}"
    text += f" [{100 * summary.low:.2f}, {100 * summary.high:.2f}]"
  return text


def _change(found: Summarised, metric: str) -> str:
  change = found.differences.get(metric)
  if change is None:
    return ""
  text = f"{_points(change.mean)} {_interval(change.low, change.high)}"
  return f"**{text}**" if change.verdict != "open" and change.seeds > 1 else text


def _points(value: float) -> str:
  return f"{100 * value:+.2f}"


def _interval(low: float, high: float) -> str:
  return f"[{_points(low)}, {_points(high)}]"


def documents(root: pathlib.Path) -> list[pathlib.Path]:
  """The documents that may quote results: all but the page itself."""
  return [
    root / "README.md",
    *(path for path in sorted(root.glob("docs/*.md")) if path.name != "RESULTS.md"),
  ]

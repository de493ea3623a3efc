"""The command `pcan agreement`: tables, numbers and a page."""

import dataclasses
import json
import math
import sys

import av
import pytest

from pcan_jax.agreement import __main__ as command
from pcan_jax.agreement import tables
from pcan_jax.coding.formats import write_codings
from tests.test_agreement import TREE, coding, event, two_sides


def run(monkeypatch, *words):
  monkeypatch.setattr(sys, "argv", ["pcan agreement", *map(str, words)])
  command.main()


def test_the_command_writes_tables_numbers_and_a_page(tmp_path, monkeypatch, capsys):
  first, second = two_sides()
  hostile = 'a_b & 50 % | <script>"x"'
  extra = event(100, 101, hostile, "head")
  first[0] = dataclasses.replace(first[0], events=(*first[0].events, extra))
  write_codings("eaf", first, TREE, tmp_path / "coder")
  [table] = write_codings("csv", second, TREE, tmp_path)
  run(monkeypatch, tmp_path / "coder", table, "--out", tmp_path / "out", "--unit", "0.2")
  shown = capsys.readouterr().out
  assert "kappa, events" in shown and "is not known: compared up to" in shown
  out = tmp_path / "out"
  assert shown.rstrip().endswith(str(out / "agreement.html"))
  numbers = json.loads((out / "agreement.json").read_text("utf-8"))
  assert numbers["unit"] == 0.2 and len(numbers["videos"]) == 3
  assert numbers["overall"]["values"]["f1_0.5"]["low"] is not None
  markdown = (out / "agreement.md").read_text("utf-8")
  assert "a\\_b & 50 % \\| \\<script\\>" in markdown
  assert all(line.count("|") >= 3 for line in markdown.splitlines() if line.startswith("|"))
  latex = (out / "agreement.tex").read_text("utf-8")
  assert "a\\_b \\& 50 \\% | <script>" in latex and latex.count("\\midrule") == 3
  page = (out / "agreement.html").read_text("utf-8")
  assert "<script>" not in page and page.count("<figure>") == 5
  assert len(list((out / "figures").glob("*.pdf"))) == 5


def test_the_command_reads_the_lengths_of_videos(tmp_path, monkeypatch, capsys):
  with av.open(str(tmp_path / "a.mkv"), "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for _ in range(30):
      container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
    container.mux(stream.encode())
  [one] = write_codings("csv", [coding(event(0, 1))], TREE, tmp_path)
  run(monkeypatch, one, one, "--videos", tmp_path)
  shown = capsys.readouterr().out
  assert "is not known: compared up to" not in shown and "0.1 minutes" in shown  # 3 s


def test_the_command_names_what_is_wrong(tmp_path, monkeypatch):
  [one] = write_codings("csv", [coding(event(0, 1))], TREE, tmp_path / "one")
  [other] = write_codings("csv", [coding(event(0, 1), video="b.mp4")], TREE, tmp_path / "other")
  (tmp_path / "empty").mkdir()
  for words, message in (
    ((one, other), f"only {one} has 'a.mp4'; only {other} has 'b.mp4'"),
    ((one, tmp_path / "missing.eaf"), "missing.eaf"),
    ((tmp_path / "empty", one), "no file of codings in"),
    ((one, one, "--overlap", "0"), "least overlap"),
  ):
    with pytest.raises(SystemExit, match="error: ") as stopped:
      run(monkeypatch, *words)
    assert message in str(stopped.value)


def test_numbers_are_written_plainly():
  assert [tables.number(x) for x in (-0.001, 1.0, math.nan)] == ["0.00", "1.00", "–"]

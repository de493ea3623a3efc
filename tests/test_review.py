"""The page for reviews, used in a browser by keyboard and mouse; what it saves is read again."""

import json
import re
import sys

import av
import numpy as np
import pytest

from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.formats import read_codings, write_codings
from pcan_jax.labels import LabelTree
from pcan_jax.review import __main__ as command
from pcan_jax.review.write import write_review
from tests import elan_documents
from tests.browser import chromium, downloaded, wait

HOSTILE = '</script><script>document.title="owned"</script> "a", <b>ü\u2028 & 握手\nnew line'
ENTER, ALL = "\ue007", "\ue009a\ue000"  # and Control with A
TREE = LabelTree(
  ("nodding", "shaking head", "waving", HOSTILE), ("head", "<i>arms", "legs"), (0, 0, 1, 1)
)
EVENTS = (
  Event(0.5, 1.5, "nodding", "head", confidence=0.9),
  Event(1.0, 2.25, HOSTILE, "<i>arms", confidence=0.4),
  Event(2.0, 2.5, "shaking head", "head", confidence=0.7),
  Event(3.0, 3.8, "waving", "<i>arms", confidence=0.2),
  Event(3.1, 3.9, "waving", "<i>arms", confidence=0.3),
)


FOREIGN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="somebody" DATE="2006-06-13T15:09:43+01:00" FORMAT="2.7" VERSION="2.7">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///x.mpg" MIME_TYPE="video/mpeg" TIME_ORIGIN="500"/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="ts2"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/><TIME_SLOT TIME_SLOT_ID="ts4"/><TIME_SLOT TIME_SLOT_ID="ts5"/>
    <TIME_SLOT TIME_SLOT_ID="ts6" TIME_VALUE="4000"/>
  </TIME_ORDER>
  <TIER TIER_ID="phases" LINGUISTIC_TYPE_REF="t">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>a</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE>b</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts5" TIME_SLOT_REF2="ts6">
      <ANNOTATION_VALUE>c</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
</ANNOTATION_DOCUMENT>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("review")


@pytest.fixture(scope="module")
def video(folder):
  path = folder / "videos" / "a talk #1 ü.webm"
  path.parent.mkdir()
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libvpx", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(50):
      frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number, np.uint8))
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


@pytest.fixture(scope="module")
def page(folder, video):
  return write_review(Coding(video.name, EVENTS), TREE, video, folder / "pages")


@pytest.fixture(scope="module")
def downloads(folder):
  return folder / "downloads"


@pytest.fixture(scope="module")
def browser(downloads):
  with chromium(downloads) as driver:
    yield driver


class Page:
  """The page in a browser."""

  def __init__(self, browser, path):
    self.browser = browser
    browser.get(path.as_uri())

  def find(self, name):
    return self.browser.find_element("id", name)

  def keys(self, *keys):
    for key in keys:
      self.browser.switch_to.active_element.send_keys(key)

  @property
  def said(self):
    return self.find("said").text

  @property
  def chosen(self):
    return self.find("label").text

  def load(self, path):
    self.find("file").send_keys(str(path))


@pytest.fixture
def opened(browser, page):
  opened = Page(browser, page)
  wait(lambda: browser.execute_script("return document.querySelector('video').readyState > 0"))
  return opened


def rounded(events):
  return [
    (round(e.onset, 3), round(e.offset, 3), e.label, e.tier, e.subject, e.confidence)
    for e in sorted(events)
  ]


def test_the_page_needs_nothing_else_and_its_names_are_harmless(page, video):
  text = page.read_text(encoding="utf-8")
  assert page.name == "a talk #1 ü.review.html"
  assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
  assert text.count("</script>") == 2 and "@" not in re.findall(r'content="([^"]*)"', text)[0]
  assert "default-src 'none'" in text
  data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
  assert data["video"]["url"] == "../videos/a%20talk%20%231%20%C3%BC.webm"
  assert [event["label"] for event in data["events"]] == [event.label for event in EVENTS]
  assert {"tier": "<i>arms", "label": HOSTILE} in data["labels"]


def test_a_label_outside_the_tree_can_be_chosen(tmp_path, video):
  events = (Event(0.0, 1.0, "other", "own tier"), Event(1.0, 2.0, "nodding"))
  page = write_review(Coding("x", events), TREE, video, tmp_path)
  data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)[1])
  assert data["labels"][-1] == {"tier": "own tier", "label": "other"}
  assert data["events"][1]["tier"] == "head"
  without = write_review(Coding("x", events), None, video, tmp_path).read_text("utf-8")
  assert '"labels": [{"tier": "", "label": "nodding"}' in without


def test_a_review_by_keyboard_is_saved_and_read(opened, downloads, browser):
  assert browser.title == "a talk #1 ü.webm"  # and not "owned"
  assert "0 of 5 reviewed" in opened.find("count").text
  opened.keys(ENTER)  # accept the first, which goes on to the second
  assert opened.chosen == " ".join(HOSTILE.split())
  opened.keys(ENTER)
  assert opened.chosen == "shaking head"
  opened.keys("l", "nod", ENTER)  # change its label
  assert opened.chosen == "nodding" and opened.find("where").text == "head"
  opened.keys("a", "a", "F")  # two frames earlier, and ten frames longer
  opened.keys("j", "x")  # delete the fourth
  assert "3 of 4 reviewed" in opened.find("count").text
  opened.keys("z", "z", "Z", "Z")  # there it is again, and the third as it was; and back
  opened.keys("n", "shaking", ENTER)  # a new one, of a second
  assert opened.chosen == "shaking head"
  for border, time in (("offset", "0:04.75"), ("onset", "4.5")):
    opened.find(border).send_keys(ALL, time, ENTER)
  assert "4 of 5 reviewed" in opened.find("count").text
  opened.find("save-csv").send_keys(ENTER)
  name = "a talk #1 ü"
  [coding] = read_codings(downloaded(downloads / f"{name}.csv"))
  assert rounded(coding.events) == [
    (0.5, 1.5, "nodding", "head", "", None),
    (1.0, 2.25, HOSTILE, "<i>arms", "", None),
    (1.92, 2.9, "nodding", "head", "", None),
    (3.1, 3.9, "waving", "<i>arms", "", 0.3),
    (4.5, 4.75, "shaking head", "head", "", None),
  ]
  assert coding.video == f"{name}.webm"
  assert "not saved" not in opened.find("count").text
  opened.find("save-eaf").send_keys(ENTER)
  document = downloaded(downloads / f"{name}.eaf")
  [elan] = read_codings(document)
  tiers = elan_documents.check_order(document, f"{name}.webm")
  assert tiers == ["head", "<i>arms", "<i>arms confidence"]
  if elan_documents.SCHEMA.is_file():
    elan_documents.check_by_schema(document)
  assert rounded(elan.events) == rounded(coding.events)
  assert elan.video.endswith(f"{name}.webm")
  assert browser.get_log("browser") == []


def test_what_was_saved_is_loaded_again(opened, tmp_path, browser):
  events = (
    Event(0.25, 1.0, HOSTILE, "<i>arms", "P1"),
    Event(0.5, 2.0, "waving", "<i>arms", "P1", confidence=0.123),
    Event(0.75, 2.0, "elsewhere", "other", "P2"),
  )
  for kind in ("eaf", "csv"):
    coding = Coding("/elsewhere/a talk #1 ü.webm", events)
    [path] = write_codings(kind, [coding], TREE, tmp_path / kind)
    opened.load(path)
    wait(lambda path=path: opened.said.startswith(f"Loaded 3 events of {path.name}"))
    assert "2 of 3 reviewed" in opened.find("count").text
    for saved in ("csv", "eaf"):
      target = tmp_path / f"{kind}-{saved}"
      browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(target)}
      )
      opened.find(f"save-{saved}").send_keys(ENTER)
      [read] = read_codings(downloaded(target / f"a talk #1 ü.{saved}"))
      assert rounded(read.events) == rounded(events), (kind, saved)
  broken = tmp_path / "broken.csv"
  broken.write_text("video,start,end,label\nother.mp4,1,2,nodding\n", encoding="utf-8")
  opened.load(broken)
  wait(lambda: "it has no events of a talk #1 ü.webm" in opened.said)
  broken.write_text("video,start,end,label\na talk #1 ü.mp4,2,1,nodding\n", encoding="utf-8")
  opened.load(broken)
  wait(lambda: "row 2: it ends before it starts" in opened.said)
  assert "of 3 reviewed" in opened.find("count").text
  assert browser.get_log("browser") == []


def test_annotations_of_elan_between_aligned_ones_are_placed(opened, tmp_path):
  path = tmp_path / "subdivided.eaf"
  path.write_text(FOREIGN, encoding="utf-8")
  opened.load(path)
  wait(lambda: opened.said.startswith("Loaded 3 events"))
  rows = [row.text.split() for row in opened.find("rows").find_elements("css selector", ".event")]
  assert [(row[1], row[2]) for row in rows] == [
    ("0:01.500", "a"),
    ("0:02.500", "b"),
    ("0:03.500", "c"),
  ]
  [coding] = read_codings(path)
  assert [event.onset for event in coding.events] == [1.5, 2.5, 3.5]


def test_unsure_events_come_first_on_demand(opened):
  rows = opened.find("rows").find_elements("css selector", ".event")
  assert [row.text.split()[-2] for row in rows] == ["90", "40", "70", "20", "30"]
  opened.keys("u")
  rows = opened.find("rows").find_elements("css selector", ".event")
  assert [row.text.split()[-2] for row in rows] == ["20", "30", "40", "70", "90"]
  assert opened.said.startswith("1 of 5: waving, <i>arms, 0:03.000 to 0:03.800, not reviewed, 20 %")
  opened.keys(ENTER, ENTER)
  assert opened.chosen.startswith("</script>")
  opened.find("open-only").send_keys(" ")
  assert len(opened.find("rows").find_elements("css selector", ".event")) == 3


def test_the_mouse_moves_borders_and_chooses(opened, browser):
  from selenium.webdriver import ActionChains

  canvas = opened.find("timeline")
  # Where the drawing is, by the constants of the script: the names take 118 px.
  width = canvas.size["width"] - 118
  span = 5.0 * 1.02

  def at(seconds, row):
    x = 118 + width * seconds / span - canvas.size["width"] / 2
    return round(x), round(22 + 15 + row * 30 - canvas.size["height"] / 2)

  def act():
    return ActionChains(browser, duration=20)

  act().move_to_element_with_offset(canvas, *at(2.25, 0)).click().perform()
  assert opened.chosen == "shaking head"
  act().move_to_element_with_offset(canvas, *at(2.5, 0)).click_and_hold().move_by_offset(
    round(width / span), 0
  ).release().perform()
  moved = float(opened.find("offset").get_attribute("value").split(":")[1])
  assert moved == pytest.approx(3.5, abs=0.02)
  opened.keys("z")  # all of the drag at once
  assert opened.find("offset").get_attribute("value") == "0:02.500"
  act().move_to_element_with_offset(canvas, *at(4.5, 0)).double_click().perform()
  opened.keys("nodding", ENTER)
  assert opened.chosen == "nodding"
  assert float(opened.find("onset").get_attribute("value").split(":")[1]) == pytest.approx(
    4.5, abs=0.02
  )


def test_the_page_is_usable_by_keyboard_and_screen_reader(opened, browser):
  names = browser.execute_script("""
    return [...document.querySelectorAll("button, input, select, canvas, [role=listbox]")]
      .filter((one) => one.type !== "file")
      .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))
      .map((one) => one.id);
  """)
  assert names == []
  opened.keys("?")
  assert opened.find("help").is_displayed() and "Next event" in opened.find("keys").text
  opened.keys("\ue00c")  # Escape
  assert not opened.find("help").is_displayed()
  opened.keys("l", "\ue00c")
  assert opened.chosen == "nodding" and "0 of 5" in opened.find("count").text
  focused = set()
  for _ in range(24):
    opened.keys("\ue004")  # Tab
    focused.add(browser.switch_to.active_element.get_attribute("id"))
  assert {"save-eaf", "play", "label", "onset", "accept", "unsure", "list"} <= focused
  opened.find("list").send_keys("\ue015")  # arrow down
  assert opened.said.startswith("2 of 5")


def test_thousands_of_events_stay_few_elements(browser, video, tmp_path):
  events = tuple(
    Event(2.4 * n, 2.4 * n + 1.5, "nodding", "head", confidence=0.5) for n in range(3000)
  )
  opened = Page(browser, write_review(Coding(video.name, events), TREE, video, tmp_path))
  opened.keys("0", "j", "j")
  assert opened.said.startswith("3 of 3000")
  assert len(browser.find_elements("css selector", "#rows .event")) < 60
  browser.execute_script("document.getElementById('list').scrollTop = 1e9")
  wait(lambda: browser.find_elements("css selector", "#rows [aria-posinset='3000']"))


def test_a_video_that_cannot_be_played_is_said(browser, tmp_path):
  video = tmp_path / "talk.avi"
  video.write_bytes(b"no video")
  opened = Page(browser, write_review(Coding(video.name, EVENTS), TREE, video, tmp_path))
  wait(lambda: "cannot play talk.avi" in opened.find("no-video").text)
  opened.keys("j", ENTER)
  assert "1 of 5 reviewed" in opened.find("count").text


def run(monkeypatch, *words):
  monkeypatch.setattr(sys, "argv", ["pcan review", *map(str, words)])
  command.main()


def test_any_coding_is_opened_by_the_command(tmp_path, monkeypatch, video, capsys):
  codings = [Coding(f"C:\\films\\{video.stem}.mpg", EVENTS), Coding("other.mp4", EVENTS[:1])]
  [path] = write_codings("csv", codings, TREE, tmp_path)
  run(monkeypatch, path, "--video", video, "--out", tmp_path, "--tree", "ma52")
  page = tmp_path / f"{video.stem}.review.html"
  assert capsys.readouterr().out == f"{page}\n"
  data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)[1])
  assert data["video"]["name"] == video.name and len(data["events"]) == len(EVENTS)
  assert {"tier": "leg-hand", "label": "patting legs"} in data["labels"]
  [single] = write_codings("eaf", codings[1:], TREE, tmp_path)
  run(monkeypatch, single, "--video", video, "--out", tmp_path)
  assert "is of other.mp4; its events are shown on" in capsys.readouterr().out
  before, namesake = page.read_text("utf-8"), tmp_path / "b" / video.name
  namesake.parent.mkdir()
  namesake.write_bytes(video.read_bytes())
  with pytest.raises(SystemExit, match="is of another video of this name; .* --out"):
    run(monkeypatch, single, "--video", namesake, "--out", tmp_path)
  assert page.read_text("utf-8") == before


def test_the_command_names_what_is_wrong(tmp_path, monkeypatch, video):
  codings = [Coding("one.mp4", EVENTS), Coding("other.mp4", EVENTS)]
  [path] = write_codings("csv", codings, TREE, tmp_path)
  for words, message in (
    ((path, "--video", tmp_path / "no.mp4"), "no video at"),
    ((path, "--video", video), "0 codings of a talk #1 ü.webm, not one; it has one.mp4, other.mp4"),
    ((tmp_path / "no.eaf", "--video", video), "no.eaf"),
  ):
    with pytest.raises(SystemExit, match="error: ") as stopped:
      run(monkeypatch, *words, "--out", tmp_path)
    assert message in str(stopped.value)

import pytest

from data.clip_table import label_rows, read_rows
from pcan_jax.labels import LabelTree, similar_names
from tests.tiny_source import TREE


def table(tmp_path, text):
  path = tmp_path / "clips.csv"
  path.write_bytes(text.encode())
  return path


def test_rows_are_read(tmp_path):
  path = table(
    tmp_path,
    "\ufeffvideo, label,split,notes,person\r\n"
    '"day 1/clip, 1.MP4",head/nod,train,"a\nb",Ann\r\n\r\n微动作 é.avi,,test,,Bob\r\n',
  )
  (first, second), unused = read_rows(path)
  assert (first.id, first.video, first.label) == ("clip, 1", "day 1/clip, 1.MP4", "head/nod")
  assert (first.split, first.person, first.body) == ("train", "Ann", "")
  assert (second.id, second.video_name, second.label) == ("微动作 é", "微动作 é.avi", "")
  assert unused == ["notes"] and second.where == f"{path}, line 5"


@pytest.mark.parametrize(
  "name",
  [
    "../a.mp4", "/etc/a.mp4", "x/../a.mp4", "x//a.mp4", "./a.mp4", "..\\a.mp4", "a\x1b[31m.mp4",
    "a\u2028b.mp4", "a\x85.mp4", "\u00a0a.mp4", "a/b /c.mp4", '"a""b.mp4"', "",
    "a" * 252 + ".mp4", "é" * 126 + ".mp4",
  ],
)  # fmt: skip
def test_hostile_names_are_refused(tmp_path, name):
  path = table(tmp_path, f"video,label\nok.mp4,x\n{name},x\n")
  with pytest.raises(ValueError, match="line 3: .* is not a plain file name below the folder"):
    read_rows(path)


@pytest.mark.parametrize("name", [".mp4", "a.txt", "a", "...mp4", "mp4", "a.mp4.exe"])
def test_names_of_other_files_are_refused(tmp_path, name):
  with pytest.raises(ValueError, match="line 2: .* does not end in one of .mp4 .avi"):
    read_rows(table(tmp_path, f"video,label\n{name},x\n"))


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "the first line must name the columns 'video,label'"),
    ("a.mp4,x\n", "the first line must name the columns 'video,label'.*found 'a.mp4,x'"),
    ("video,label\n", "names no video"),
    ("video,label,label\n", "a column is named twice"),
    ("video,label\na.mp4\n", "line 2: no label"),
    ("video,label\na.mp4,x,y\n", "line 2: 3 cells in 2 columns"),
    ("video,label\na.mp4,\n", "line 2: no label"),
    ("video,label\na.mp4,x\x00\n", "not CSV in UTF-8|control characters"),
    ("video,label\na.mp4,x\x1b\n", "line 2: the label 'x.x1b' holds control characters"),
    ('video,label\na.mp4,"x', "not CSV in UTF-8"),
    ("video,label,split\na.mp4,x,dev\n", "line 2: split 'dev'; expected one of train, val, test"),
    ("video,label,split\na.mp4,x,val\nb.mp4,x,\n", "line 3: 'split' is empty; fill it everywhere"),
    ("video,label,person\na.mp4,x,\n", "line 2: 'person' is empty"),
    ("video,label\na.mp4,x\nb/a.avi,x\n", "line 3: 'b/a.avi' has the id of 'a.mp4' .*line 2"),
    ("video,label\na.mp4,x\na.mp4,x\n", "line 3: 'a.mp4' is listed twice, first in .*line 2"),
    ("video,label\nu\u0308.mp4,x\n\u00fc.mp4,x\n", "line 3: '\u00fc.mp4' is listed twice"),
    ("video,label,,\na.mp4,x,,y\n", "line 2: the column of 'y' has no name"),
    (",,\n,,\n", "the first line must name the columns"),
  ],
)
def test_a_bad_table_is_named(tmp_path, text, message):
  path = table(tmp_path, text)
  with pytest.raises(ValueError, match=message) as error:
    read_rows(path)
  assert str(error.value).startswith(str(path))


def test_tables_must_be_there_and_be_utf_8(tmp_path):
  with pytest.raises(FileNotFoundError, match="no table of clips at"):
    read_rows(tmp_path / "clips.csv")
  (tmp_path / "clips.csv").write_bytes(b"video,label\n\xff.mp4,x\n")
  with pytest.raises(ValueError, match="clips.csv: not CSV in UTF-8"):
    read_rows(tmp_path / "clips.csv")


@pytest.mark.parametrize(
  "text",
  [
    "video,label\r\na.mp4,arm/wave\r\nb.mp4,leg/kick\r\n,\r\n, \r\n",
    "\n,\nvideo,label\na.mp4,arm/wave\n,\nb.mp4,leg/kick\n",
    "video,label,,\r\na.mp4,arm/wave,,\r\nb.mp4,leg/kick,,\r\n",
    ",video,,label\n,a.mp4, ,arm/wave\n,b.mp4,,leg/kick,,\n",
    "Video;Label\r\na.mp4;arm/wave\r\nb.mp4;leg/kick\r\n;\r\n",
    "video\tlabel\na.mp4\tarm/wave \u00a0\nb.mp4\tleg/kick\n",
    "video,label,,\na.mp4,arm/wave\nb.mp4,leg/kick,\n",
  ],
)
def test_spreadsheets_leave_empty_rows_and_columns(tmp_path, text):
  rows, unused = read_rows(table(tmp_path, text))
  assert [(row.video, row.label) for row in rows] == [("a.mp4", "arm/wave"), ("b.mp4", "leg/kick")]
  assert unused == []


def test_names_that_differ_only_in_case_are_similar():
  names = ("Wave", "kick", "wave", "high kick", "kick", "highkick", "wave")
  assert similar_names(names) == ["'Wave' and 'wave'", "'high kick' and 'highkick'"]
  assert similar_names(TREE.actions) == []
  assert similar_names(["touch_face", "touch face", "touch\u2013face"]) == [
    "'touch_face' and 'touch face'",
    "'touch_face' and 'touch\u2013face'",
  ]


def test_characters_that_nobody_sees_make_no_names(tmp_path):
  text = (
    "video,label,person\na.mp4,arm/wave,P1\nb.mp4,arm/wa\u00adve,P1\u200b\nc.mp4,leg/k,P1\ufeff\n"
  )
  rows, _ = read_rows(table(tmp_path, text))
  assert {row.person for row in rows} == {"P1"}
  assert label_rows(rows, None)[0].actions == ("wave", "k")


def test_a_column_body_may_repeat_the_label_but_not_contradict_it(tmp_path):
  text = "video,body,label\na.mp4,arm,Arm / wave\nb.mp4,arm,arm/wave\nc.mp4,leg,kick\n"
  rows, _ = read_rows(table(tmp_path, text))
  assert label_rows(rows, None)[0].actions == ("wave", "kick")
  rows, _ = read_rows(table(tmp_path, text + "d.mp4,arm,leg/kick\n"))
  with pytest.raises(ValueError, match="line 5: .*'leg/kick' says another body part"):
    label_rows(rows, None)


def labelled(tmp_path, text, tree=None):
  rows, _ = read_rows(table(tmp_path, text))
  return label_rows(rows, tree)


@pytest.mark.parametrize(
  "text",
  [
    "video,label\na.mp4,leg/tap\nb.mp4,head/nod\nc.mp4,leg/kick\nd.mp4,head/nod\n",
    "video,label,body\na.mp4,tap,leg\nb.mp4,nod,head\nc.mp4,leg/kick,leg\nd.mp4,nod,head\n",
  ],
)
def test_a_tree_is_made_of_the_labels(tmp_path, text):
  tree, actions = labelled(tmp_path, text)
  assert tree == LabelTree(("nod", "kick", "tap"), ("head", "leg"), (0, 1, 1))
  assert actions == [2, 0, 1, 0]


def test_labels_are_names_or_ids_of_a_tree_and_nothing_in_test(tmp_path):
  text = "video,label,split\na.mp4,wave,train\nb.mp4,5,val\nc.mp4,arm/point,val\nd.mp4,?,test\n"
  tree, actions = labelled(tmp_path, text, TREE)
  assert tree == TREE and actions == [2, 5, 3, -1]


@pytest.mark.parametrize(
  ("text", "tree", "message"),
  [
    ("video,label\na.mp4,nod\n", None, "line 2: the label 'nod' does not say which body part"),
    ("video,label\na.mp4,head/\n", None, "line 2: the label 'head/' does not say which body part"),
    ("video,label\na.mp4,head/1\n", None, "line 2: the label '1' is an id, which needs a --tree"),
    ("video,label\na.mp4,a/x\nb.mp4,b/x\n", None, "line 3: the action 'x' belongs to 'b', above"),
    ("video,label,split\na.mp4,,test\n", None, "all clips are in the split test"),
    ("video,label\na.mp4,Nod\n", TREE, "line 2: the label 'Nod' is not in the label tree"),
    ("video,label\na.mp4,6\n", TREE, "line 2: the label '6' is not in the label tree.*0 to 5"),
    ("video,label\na.mp4,leg/nod\n", TREE, "line 2: 'nod' belongs to 'head' .* not to 'leg'"),
    ("video,label,body\na.mp4,nod,leg\n", TREE, "line 2: 'nod' belongs to 'head' .* not to 'leg'"),
    ("video,label\na.mp4,1\n", LabelTree(("1", "b"), ("x",), (0, 0)), "name of one action and"),
  ],
)
def test_a_wrong_label_is_named(tmp_path, text, tree, message):
  with pytest.raises(ValueError, match=message):
    labelled(tmp_path, text, tree)

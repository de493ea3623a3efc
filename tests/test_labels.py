import pytest

from pcan_jax.labels import LabelTree, get_tree

TREE = LabelTree(("nod", "shake", "wave"), ("head", "arm"), (0, 0, 1))


def test_csv_round_trip(tmp_path):
  path = tmp_path / "actions.csv"
  TREE.write_csv(path)
  assert LabelTree.read_csv(path) == TREE


@pytest.mark.parametrize(
  "text",
  [
    "id;action;body;\r\n0;nod;head;\r\n1;shake ;head;\r\n2;wave;arm;\r\n;;;\r\n",
    "\ufeffID,Action,Body,note\n,,,\n0,nod,head,x\n1, shake,head\n\n2,wave,arm,\n",
  ],
)
def test_spreadsheets_leave_empty_rows_and_columns(tmp_path, text):
  path = tmp_path / "actions.csv"
  for encoding in ("utf-8", "utf-16"):
    path.write_text(text.removeprefix("\ufeff" * (encoding == "utf-16")), encoding=encoding)
    assert LabelTree.read_csv(path) == TREE


def test_accents_are_composed_as_in_the_tables_of_clips(tmp_path):
  (tmp_path / "actions.csv").write_text("id,action,body\n0,gru\u0308n,e\u0301\n")
  assert LabelTree.read_csv(tmp_path / "actions.csv") == LabelTree(
    ("gr\u00fcn",), ("\u00e9",), (0,)
  )


def test_dict_round_trip():
  assert LabelTree.from_dict(TREE.to_dict()) == TREE


def test_ma52_ships_with_the_project():
  tree = get_tree("ma52")
  assert (tree.num_actions, tree.num_bodies) == (52, 7)
  per_body = [tree.parents.count(body) for body in range(7)]
  assert per_body == [5, 6, 13, 8, 6, 10, 4]
  assert tree.actions[9] == "nodding"
  assert tree.bodies[tree.parents[47]] == "head-hand"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("action,body\nnod,head\n", "first line must be"),
    ("id,action,body\n1,nod,head\n", "line 2: expected id 0"),
    ("id,action,body\n0,nod,\n", "must not be empty"),
    ("id,action,body\n0,nod,head\n1,nod,head\n", "repeated"),
    ("id,action,body\n", "at least one action"),
  ],
)
def test_bad_files_are_named(tmp_path, text, message):
  path = tmp_path / "tree.csv"
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    LabelTree.read_csv(path)
  assert "tree.csv" in str(error.value)


def test_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match="no label tree"):
    LabelTree.read_csv(tmp_path / "none.csv")


def test_a_tree_is_named_or_a_file(tmp_path):
  TREE.write_csv(tmp_path / "own.csv")
  assert get_tree(tmp_path / "own.csv") == TREE
  with pytest.raises(FileNotFoundError, match="no label tree called 'ma53': choose from .*ma52"):
    get_tree("ma53")

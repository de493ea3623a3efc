import csv
import zipfile

import numpy as np
import pytest

from pcan_jax.evaluation.results import Results
from pcan_jax.evaluation.submission import check_submission, main, read_split, write_submission
from pcan_jax.labels import get_tree

TREE = get_tree("ma52")
IDS = ["test0002", "test0000", "test0001"]
HEADER = (
  "vid,action_pred_1,action_pred_2,action_pred_3,action_pred_4,action_pred_5,"
  "body_pred_1,body_pred_2,body_pred_3,body_pred_4,body_pred_5"
)


def make_results(ids, tree):
  rng = np.random.default_rng(0)
  fused = {
    level: {"probabilities": rng.dirichlet(np.ones(classes), len(ids)).astype(np.float32)}
    for level, classes in (("action", tree.num_actions), ("body", tree.num_bodies))
  }
  actions = np.full(len(ids), -1)
  return Results(ids, actions, num_clips=10, outputs={"fused": fused}, metrics={})


def write(ids, tree, directory):
  return write_submission(make_results(ids, tree), tree, directory)


def test_the_archive_holds_the_table_in_the_order_of_the_official_list(tmp_path):
  path = write(IDS, TREE, tmp_path / "eval")
  assert path.name == "submission.zip"
  with zipfile.ZipFile(path) as archive:
    assert archive.namelist() == ["prediction.csv"]
    content = archive.read("prediction.csv")
  assert content == (tmp_path / "eval" / "prediction.csv").read_bytes()
  lines = content.decode().splitlines()
  assert lines[0] == HEADER
  rows = list(csv.reader(lines[1:]))
  assert [row[0] for row in rows] == ["test0000.mp4", "test0001.mp4", "test0002.mp4"]
  fused = make_results(IDS, TREE).outputs["fused"]
  action, body = (fused[level]["probabilities"] for level in ("action", "body"))
  for row, index in zip(rows, (1, 2, 0)):
    assert [int(cell) for cell in row[1:6]] == np.argsort(-action[index])[:5].tolist()
    assert [int(cell) for cell in row[6:]] == np.argsort(-body[index])[:5].tolist()
  check_submission(path, IDS, TREE)
  check_submission(tmp_path / "eval" / "prediction.csv", IDS, TREE)


def edited(lines, row, column, value):
  cells = lines[row].split(",")
  cells[column] = value
  return [*lines[:row], ",".join(cells), *lines[row + 1 :]]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda lines: lines[1:], "first line must be vid,action_pred_1"),
    (lambda lines: [], "first line must be"),
    (lambda lines: edited(lines, 0, 1, "action_1"), "first line must be"),
    (lambda lines: lines[:-1], "1 videos are missing: 'test0002.mp4'"),
    (lambda lines: [*lines, lines[-1]], "repeated: 'test0002.mp4'"),
    (lambda lines: [*lines, "", ""], "not in the split"),
    (lambda lines: edited(lines, 1, 0, "test0000"), "not in the split: 'test0000'"),
    (
      lambda lines: [lines[0], lines[2], lines[1], lines[3]],
      "line 2: 'test0001.mp4' where",
    ),
    (lambda lines: edited(lines, 2, 3, "52"), r"line 3: action_pred_3 is '52', not .* 0..51"),
    (lambda lines: edited(lines, 3, 10, "7"), r"line 4: body_pred_5 is '7', not .* 0..6"),
    (lambda lines: edited(lines, 1, 1, "-1"), "'-1'"),
    (lambda lines: edited(lines, 1, 1, "nodding"), "'nodding'"),
    (lambda lines: edited(lines, 1, 1, "3.0"), "'3.0'"),
    (lambda lines: edited(lines, 1, 10, "1,2"), "line 2: 12 cells instead of 11"),
    (lambda lines: edited(lines, 1, 1, "9" * 5000), "not a class"),
  ],
)
def test_a_table_with_a_mistake_is_refused_by_the_line(tmp_path, change, message):
  write(IDS, TREE, tmp_path)
  table = tmp_path / "prediction.csv"
  table.write_text("\n".join(change(table.read_text().splitlines())))
  with pytest.raises(ValueError, match=message):
    check_submission(table, IDS, TREE)


def test_an_archive_with_a_mistake_is_refused(tmp_path):
  write(IDS, TREE, tmp_path)
  for name in ("folder/prediction.csv", "predictions.csv"):
    with zipfile.ZipFile(tmp_path / "wrong.zip", "w") as archive:
      archive.write(tmp_path / "prediction.csv", name)
    with pytest.raises(ValueError, match="must hold prediction.csv and nothing else"):
      check_submission(tmp_path / "wrong.zip", IDS, TREE)
  (tmp_path / "wrong.zip").write_bytes((tmp_path / "submission.zip").read_bytes()[:100])
  with pytest.raises(ValueError, match="not a zip archive"):
    check_submission(tmp_path / "wrong.zip", IDS, TREE)
  (tmp_path / "prediction.csv").write_bytes(b"\xff\xfe")
  with pytest.raises(ValueError, match="UTF-8"):
    check_submission(tmp_path / "prediction.csv", IDS, TREE)
  with pytest.raises(FileNotFoundError, match="no submission at"):
    check_submission(tmp_path / "missing.zip", IDS, TREE)


def test_the_command_checks_against_a_data_set(tiny_dataset_path, tmp_path, capsys):
  ids, tree = read_split(tiny_dataset_path, "test")
  assert sorted(ids) == ["test_000", "test_001", "test_002"]
  write(ids, tree, tmp_path)  # of its three body parts, each row names all
  data = ["--data", str(tiny_dataset_path)]
  main([str(tmp_path / "submission.zip"), *data])
  assert "3 videos" in capsys.readouterr().out
  with pytest.raises(SystemExit, match="not in the split"):
    main([str(tmp_path / "submission.zip"), *data, "--split=val"])
  with pytest.raises(SystemExit, match="has no split 'dev'"):
    main([str(tmp_path / "submission.zip"), *data, "--split=dev"])

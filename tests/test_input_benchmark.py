"""The benchmark at toy size: that it runs and adds up, not how fast it is."""

import itertools
import json
import pathlib
import time
import types

import pytest

from benchmarks import input as input_benchmark
from benchmarks import input_costs
from tests.test_benchmarks import TOY_CONFIG


@pytest.mark.slow
def test_prints_tables_and_one_line_of_json(capsys):
  input_benchmark.main(
    "--clips 2 --side 48 --cores 0 --batch_size 2 --repeats 1 --clips_per_repeat 4".split()
  )
  *tables, last = capsys.readouterr().out.splitlines()
  result = json.loads(last)
  stages = result["stages_ms"]
  assert stages.keys() == {"order", "read", "parse", "choose", "decode", "batch"}
  assert sum(stages.values()) == pytest.approx(1e3 / result["training"]["clips per CPU second"])
  assert result["clips"] == 2
  assert result["evaluation"]["clips/s"] > 0
  assert any("decode" in line for line in tables)


def test_waiting_is_what_the_loop_waits_for_its_batches(monkeypatch):
  """Steps of no time, batches of 2 ms: nearly all of the time is spent waiting."""

  def slow_batches():
    for number in itertools.count():
      time.sleep(0.002)
      yield number

  run = types.SimpleNamespace(spec=None, schedule=None, mesh=None, batches=slow_batches)
  monkeypatch.setattr(input_costs, "prepare", lambda config: run)
  monkeypatch.setattr(
    input_costs, "compile_step", lambda *_: (lambda: 0, lambda state, batch: (state + 1, {}))
  )
  wait = input_costs.training_wait(None, steps=50)
  assert wait["steps"] == 50
  assert 0.5 < wait["blocked"] <= 1
  assert wait["fed"] > 2 > wait["not_fed"]


@pytest.mark.long
def test_a_training_run_is_measured(tmp_path, capsys):
  config = tmp_path / "toy.py"
  config.write_text(TOY_CONFIG)
  data = str(pathlib.Path(__file__).parent / "earlier" / "dataset")
  input_benchmark.main(["--data", data, "--train", f"{config}:posec3d_pose", "--steps", "25"])
  result = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert result["steps"] == 25
  assert 0 <= result["blocked"] < 1
  assert min(result["fed"], result["not_fed"]) > 0


def test_bad_flags_are_named(tmp_path):
  with pytest.raises(SystemExit, match="--cores is 4096, but there are"):
    input_benchmark.main(["--data", str(tmp_path), "--cores", "4096"])
  for arguments in (["--cores", "0"], ["--train", "ma52:pcan_pose"]):
    with pytest.raises(SystemExit, match="no data set at"):
      input_benchmark.main(["--data", str(tmp_path), *arguments])
  with pytest.raises(SystemExit, match="no config called 'ma53'"):
    input_benchmark.main(["--train", "ma53"])

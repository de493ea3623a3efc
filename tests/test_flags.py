"""Every flag of the modes arrives at the function that it is for."""

import inspect
import json

import pytest

from pcan_jax.cli import MODES, _several
from pcan_jax.evaluation.protocol import evaluate_checkpoints
from pcan_jax.hosts import joined
from pcan_jax.prediction.export import export_checkpoint
from pcan_jax.prediction.files import predict_files
from pcan_jax.report import write_report
from pcan_jax.training import preflight
from pcan_jax.training.folds import cross_validate
from pcan_jax.training.loop import train
from pcan_jax.yardstick.beside import print_beside
from tests.command_lines import answers

FUNCTIONS = [
  joined,
  train,
  cross_validate,
  preflight.dry_run,
  preflight.overfit_batch,
  evaluate_checkpoints,
  print_beside,
  write_report,
  predict_files,
  export_checkpoint,
]
# Modules are replaced, so that nothing large is imported.
RECORD = f"""
import contextlib
class Nothing(contextlib.nullcontext):
  def __bool__(self): return False
def record(module, name):
  def call(*args, **options):
    print(json.dumps([name, args, options], default=str))
    return Nothing()
  setattr(sys.modules.setdefault(module, types.ModuleType(module)), name, call)
for module, name in {[(f.__module__, f.__name__) for f in FUNCTIONS]}:
  record(module, name)
sys.modules["pcan_jax.evaluation.protocol"].open_evaluated = lambda *_: types.SimpleNamespace(
  has_split=lambda split: True
)
sys.modules["jax"] = types.SimpleNamespace(process_index=lambda: 0)
sys.modules["pcan_jax.checkpoints"] = types.SimpleNamespace(BEST="best", workdir_of=os.path.dirname)
sys.modules["pcan_jax.report"] = sys.modules["pcan_jax.report.write"]
cli._suit_cpu = lambda: None
"""
NO_OPTIONS = {
  "data_paths": [None],
  "branches": ["fused"],
  "weights": None,
  "fit_split": None,
  "split": None,
  "num_clips": None,
  "rectify": True,
  "flip": None,
}
EVALUATE = "--data=D --split=test --num_clips=3 --norectify --flip"
BESIDE = {"split": None, "data_path": None}
EVALUATED = NO_OPTIONS | {
  "data_paths": ["D"],
  "split": "test",
  "num_clips": 3,
  "rectify": False,
  "flip": True,
}
WRITTEN = "--overlay --features --events --formats=eaf,csv --review"
EVALUATED_BESIDE = {"split": "test", "data_path": "D"}
VIDEOS = "--mode=predict --video=V --out=O"
PREDICTED = {
  "pose": None,
  "output": "O",
  "window": None,
  "stride": None,
  "num_clips": None,
  "overlay": False,
  "features": False,
  "events": False,
  "formats": [],
  "review": False,
  "fps": None,
}

LINES = {
  "--config=demo --dry_run": [("dry_run", ["CONFIG"], {})],
  "--config=demo --overfit_batch": [("overfit_batch", ["CONFIG"], {})],
  f"--config=demo --workdir=W --allow_changes=seed,data.path {EVALUATE}": [
    ("train", ["CONFIG", "W", ["seed", "data.path"]], {}),
    ("evaluate_checkpoints", [["W"], "W"], EVALUATED),
    ("print_beside", ["CONFIG", "W", "W"], EVALUATED_BESIDE),
  ],
  # As the config says: the checkpoint of a finished run may say otherwise.
  "--config=demo --config.data.path=D --config.eval.num_clips=3 --workdir=W": [
    ("train", ["CONFIG", "W", []], {}),
    (
      "evaluate_checkpoints",
      [["W"], "W"],
      NO_OPTIONS | {"data_paths": ["D"], "split": "val", "num_clips": 3, "flip": False},
    ),
    ("print_beside", ["CONFIG", "W", "W"], {"split": "val", "data_path": "D"}),
  ],
  "--config=demo --workdir=W --folds=person": [("cross_validate", ["CONFIG", "W", "CONFIG"], {})],
  "--mode=eval --workdir=W": [
    ("evaluate_checkpoints", [["W"], "W"], NO_OPTIONS),
    ("print_beside", ["CONFIG", "W", "W"], BESIDE),
  ],
  "--mode=eval --workdir=W --multi_host --coordinator=c:1 --num_hosts=2 --host=1 --wait=9": [
    ("joined", ["c:1", 2, 1, 9], {}),
    ("evaluate_checkpoints", [["W"], "W"], NO_OPTIONS),
    ("print_beside", ["CONFIG", "W", "W"], BESIDE),
  ],
  "--mode=eval --checkpoint=W/best": [
    ("evaluate_checkpoints", [["W/best"], "W"], NO_OPTIONS),
    ("print_beside", ["CONFIG", "W/best", "W"], BESIDE),
  ],
  f"--mode=eval --workdir=W --checkpoint=C {EVALUATE}": [
    ("evaluate_checkpoints", [["C"], "W"], EVALUATED),
    ("print_beside", ["CONFIG", "C", "W"], EVALUATED_BESIDE),
  ],
  "--mode=eval --checkpoint=A,B/best --workdir=W --data=D, --weights=2,1 --branches=rgb,pose": [
    (
      "evaluate_checkpoints",
      [["A", "B/best"], "W"],
      NO_OPTIONS | {"data_paths": ["D", None], "branches": ["rgb", "pose"], "weights": [2.0, 1.0]},
    ),
    ("print_beside", ["CONFIG", "A", "W"], {"split": None, "data_path": "D"}),
  ],
  "--mode=eval --checkpoint=A,B --workdir=W --fit_weights=val --split=test": [
    (
      "evaluate_checkpoints",
      [["A", "B"], "W"],
      NO_OPTIONS | {"fit_split": "val", "split": "test"},
    ),
    ("print_beside", ["CONFIG", "A", "W"], {"split": "test", "data_path": None}),
  ],
  "--mode=report --workdir=W --baseline=B --data=D --split=test": [
    ("write_report", ["W"], {"baseline": "B", "split": "test", "data_path": "D"})
  ],
  f"{VIDEOS} --workdir=W": [("predict_files", ["W", "V"], PREDICTED)],
  "--mode=predict --workdir=W --pose=P --fps=25 --out=O": [
    ("predict_files", ["W", None], PREDICTED | {"pose": "P", "fps": 25.0})
  ],
  f"{VIDEOS} --checkpoint=C --pose=P --window=2 --stride=0.5 --num_clips=3 {WRITTEN}": [
    (
      "predict_files",
      ["C", "V"],
      {
        "pose": "P",
        "output": "O",
        "window": 2.0,
        "stride": 0.5,
        "num_clips": 3,
        "overlay": True,
        "features": True,
        "events": True,
        "formats": ["eaf", "csv"],
        "review": True,
        "fps": None,
      },
    )
  ],
  "--mode=export --checkpoint=C --out=O --num_clips=3": [
    ("export_checkpoint", ["C", "O"], {"num_clips": 3})
  ],
}


@pytest.fixture(scope="module")
def found():
  return answers(list(LINES), RECORD)


@pytest.mark.parametrize("line", LINES)
def test_flags_arrive_where_they_are_used(found, line):
  assert found[line].stderr == ""
  printed = found[line].stdout.splitlines()
  calls = [json.loads(text) for text in printed if text.startswith('["')]
  assert [name for name, _, _ in calls] == [name for name, _, _ in LINES[line]]
  functions = {function.__name__: function for function in FUNCTIONS}
  for (name, arguments, options), (_, wanted, wanted_options) in zip(calls, LINES[line]):
    inspect.signature(functions[name]).bind(*arguments, **options)
    assert options == wanted_options
    assert len(arguments) == len(wanted)
    for argument, value in zip(arguments, wanted):
      assert value == "CONFIG" or argument == value


def test_every_flag_is_set_by_a_line():
  given = {
    word.lstrip("-").removeprefix("no").split("=")[0] for line in LINES for word in line.split()
  }
  assert set(" ".join(flags for _, flags in MODES.values()).split()) <= given


MISTAKES = {
  "--mode=eval --checkpoint=A,B": "--mode=eval needs --workdir",
  "--mode=eval --checkpoint=A,,B --workdir=W": "names nothing at one of its commas",
  "--mode=eval --checkpoint=A,B --workdir=W --weights=1,b": "--weights must be numbers such as",
  "--mode=report --workdir=W --weights=1,2": "--weights means nothing with --mode=report",
  "--mode=export --workdir=W --checkpoint=C --out=O": "both name the model: give one",
  "--config=demo --dry_run --norectify": "--rectify means nothing with --dry_run",
  "--config=demo --dry_run --overfit_batch": "--overfit_batch means nothing with --dry_run",
  "--config=demo --overfit_batch --allow_changes=seed": "--allow_changes means nothing with --over",
}


def test_mistakes_in_lists_are_answered():
  for line, found in answers(list(MISTAKES), RECORD).items():
    assert found.code == 1 and MISTAKES[line] in found.stderr


def test_a_path_with_a_comma_is_one_path(tmp_path):
  (tmp_path / "a,b").mkdir()
  assert _several(f"{tmp_path}/a,b") == [f"{tmp_path}/a,b"]
  assert _several(f"{tmp_path}/a,b/best") == [f"{tmp_path}/a,b/best"]
  assert _several(f"{tmp_path}/a,{tmp_path}/b/best") == [f"{tmp_path}/a", f"{tmp_path}/b/best"]

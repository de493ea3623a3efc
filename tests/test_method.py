"""What docs/METHOD.md says and no other test pins, and the tests that documents name."""

import importlib
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from configs import ma52
from pcan_jax.labels import LabelTree, get_tree
from pcan_jax.method.losses import LossConfig
from pcan_jax.network.pcan import Head, build_model
from pcan_jax.training.optimizer import build_optimizer
from tests.paper import RELEASE_LOSSES

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "METHOD.md").read_text(encoding="utf-8")
ABLATIONS = {
  cells[1].strip(): " ".join(re.findall(r"`([^`]*)`", cells[2]))
  for cells in (line.split("|") for line in DOCUMENT.splitlines())
  if len(cells) == 5 and "--config." in cells[2]
}


def parsed(arguments, monkeypatch):
  """configs/ma52.py with flags as the command line takes them."""
  argv = ["launch.py", *shlex.split(arguments)]
  values = flags.FlagValues()
  monkeypatch.setattr("sys.argv", argv)
  config_flags.DEFINE_config_dict("config", ma52.get_config(), flag_values=values, lock_config=True)
  values(argv)
  return values.config


def test_every_test_that_is_named_exists():
  documents = [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
  text = "".join(path.read_text(encoding="utf-8") for path in documents)
  named = set(re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(test_\w+))?`", text))
  assert len(named) > 60
  missing = [
    f"{file}::{name}"
    for file, name in sorted(named)
    if not (path := ROOT / "tests" / file).is_file()
    or (name and f"\ndef {name}(" not in path.read_text(encoding="utf-8"))
  ]
  assert missing == []


def test_every_point_of_the_comparison_names_a_test():
  rows = [line for line in DOCUMENT.splitlines() if line.count("|") == 6 and "---" not in line]
  (header,) = (i for i, row in enumerate(rows) if row.startswith("| point | paper |"))
  comparison = rows[header + 1 :]
  assert len(comparison) > 30
  assert [row for row in comparison if "::test_" not in row.split("|")[5]] == []


def test_modules_and_functions_that_are_named_exist():
  named = set(re.findall(r"`(\w+(?:/\w+)*)(?:\.py|\.(\w+)(?:\.(\w+))?)`", DOCUMENT))
  wings = {path.stem for path in (ROOT / "pcan_jax").iterdir()} - {
    "config"
  }  # a run's, not the module
  named = {name for name in named if name[0].split("/")[0] in wings}
  assert len(named) > 15
  for module, *names in sorted(named):
    found = importlib.import_module("pcan_jax." + module.replace("/", "."))
    for name in filter(None, names):
      found = getattr(found, name)


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_are_configs(name, monkeypatch):
  config = parsed(ABLATIONS[name], monkeypatch)
  default = ma52.get_config()
  stays = name in ("lambda 1", "alpha 1, 0.5, 0.1")
  assert (config.to_dict() == default.to_dict()) == stays
  loss = LossConfig(**config.loss)
  assert loss.needs_prototypes <= config.model.prototypes
  tree = get_tree("ma52")
  assert build_model(config.model, tree).has_prototypes == config.model.prototypes


def test_ablations_of_the_release_make_its_losses(monkeypatch):
  config = parsed(ABLATIONS["the release's losses"], monkeypatch)
  assert LossConfig(**config.loss) == RELEASE_LOSSES


def test_default_values_are_the_papers():
  config = ma52.get_config()
  assert LossConfig(**config.loss) == LossConfig(
    ce_weight=1.0,
    hp_weight=1.0,
    hp_lambda=1.0,
    pcc_weight=1.0,
    pcc_ramp_steps=0,
    pcc_temperature=0.125,
    pcc_alpha=(1.0, 0.5, 0.1),
    pcc_alpha_scales="loss",
    pcc_fp_weight=1.0,
    pcc_body_weight=1.0,
    pcc_covers="sets",
    pda_weight=5.0,
    pda_gradient=True,
    pda_of="prototypes",
    pda_between="all",
    pda_centred=False,
    prototype_momentum=0.9,
    prototype_samples="true_positives",
    prototype_start="normal",
    prototype_on_sphere=False,
    label_smoothing=0.0,
    logit_adjustment=0.0,
    class_balance=0.0,
    soft_f1_weight=0.0,
    frame_weight=0.0,
    margin=0.0,
  )
  assert config.eval.gamma.to_dict() == {"rgb": 1.0, "pose": 5.0}
  optimizer = config.optimizer
  assert (optimizer.schedule, optimizer.epochs, optimizer.decay_epochs) == ("step", 40, (15, 30))
  assert (optimizer.learning_rate, optimizer.batch_size, optimizer.clip_norm) == (0.0075, 10, 0)
  assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, False, 1e-4)
  assert config.model.pool_embedding == "mean"


def test_max_pooling_is_for_training_only():
  tree = LabelTree(("nod", "wave"), ("head", "arm"), (0, 1))
  features = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 5))
  head = Head(tree, action_embedding=6, body_embedding=4, dropout=0.0, pool_embedding="mean")
  variables = jax.jit(lambda: head.init(jax.random.key(1), features, train=False))()
  kernel = np.asarray(variables["params"]["action_embedding"]["kernel"])
  mean, maximum = features.mean((1, 2, 3)), features.mean(1).max((1, 2))
  for pool, is_training, pooled in (
    ("mean", True, mean),
    ("mean", False, mean),
    ("max", True, maximum),
    ("max", False, mean),
  ):
    outputs = head.clone(pool_embedding=pool).apply(variables, features, train=is_training)
    # Biases start at zero.
    np.testing.assert_allclose(outputs["action"]["embedding"], pooled @ kernel, atol=1e-5)


def test_clipping_comes_before_weight_decay():
  config = ma52.get_config().optimizer
  config.clip_norm, config.weight_decay = 1.0, 0.5
  optimizer = build_optimizer(config, lambda _: 1.0)
  params = {"kernel": jnp.array([4.0, 0.0])}
  updates, _ = optimizer.update({"kernel": jnp.array([30.0, 40.0])}, optimizer.init(params), params)
  np.testing.assert_allclose(updates["kernel"], [-(0.6 + 2.0), -0.8], rtol=1e-5)

"""The parts of `benchmarks.accelerator`, each run in a process of its own."""

import argparse
import ast
import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import forms, kernel_profile, timing, workload
from benchmarks.accelerator import Results, command_of, enter, running, send_signal
from pcan_jax import checkpoints
from pcan_jax.config import load_config
from pcan_jax.inputs import preprocess
from pcan_jax.mesh import data_mesh, jit_step, replicated, send, sharded
from pcan_jax.network.forms import for_platform
from pcan_jax.training.optimizer import learning_rate
from pcan_jax.training.step import build_step

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
  """What a part is run with.

  Attributes:
    results: the folder of the results.
    name: of the config.
    toy: whether to measure with few clips and calls.
  """

  results: pathlib.Path
  name: str
  toy: bool

  def calls(self, size: int) -> int:
    """Calls that are timed together, so that the host's share of the time overlaps the device's."""
    return 2 if self.toy else max(5, 640 // size)

  def config(self, dtype: str, remat: str = "none") -> ConfigDict:
    config = load_config(self.name)
    config.model.dtype, config.model.remat = dtype, remat
    return config

  def batch(self, batch: str) -> int:
    return 4 if self.toy else int(batch)

  @contextlib.contextmanager
  def measuring(self) -> Iterator[None]:
    """Waits until no other part measures."""
    with (self.results / "scratch" / "measuring").open("w") as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      yield

  @contextlib.contextmanager
  def alone(self) -> Iterator[None]:
    """Waits until no other part measures, and stops all others meanwhile."""
    with self.measuring():
      others = running(self.results) - {os.getpgrp()}
      send_signal(others, signal.SIGSTOP)
      try:
        yield
      finally:
        send_signal(others, signal.SIGCONT)


def machine(setting: Setting) -> Iterator[Row]:
  """What the device is, and what it can do at best."""
  found: Row = dict(timing.environment())
  found["memory_GB"] = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0) / 1e9
  for dtype in ("bfloat16", "float32"):
    found[f"product_TFLOPs_{dtype}"] = timing.matmul_peak(dtype) / 1e12
  size = 2**20 if setting.toy else 2**30
  x = jax.random.normal(jax.random.key(0), (size,)).astype(jnp.bfloat16)
  add = jax.jit(lambda x: x + 1)
  seconds = _seconds_per_call(lambda: add(x), 10)
  found["elementwise_GB_per_s"] = 2 * x.nbytes / seconds / 1e9
  host = np.zeros((4 if setting.toy else 64, 8, 256, 256, 3), np.uint8)
  found["host_to_device_GB_per_s"] = (
    host.nbytes / _seconds_per_call(lambda: jax.device_put(host), 5) / 1e9
  )
  yield found


def training(setting: Setting, dtype: str, batch: str, *changes: str) -> Iterator[Row]:
  """Steps on one batch that stays on the device; without changes also their profile.

  A change is `remat=VALUE` for `model.remat`, `forms=PLATFORM` for another platform's forms of
  operations, FIELD=VALUE for a field of `Forms`, or an option of XLA, xla_...=VALUE.
  """
  size = setting.batch(batch)
  changed = dict(change.split("=", 1) for change in changes)
  config = setting.config(dtype, changed.pop("remat", "none"))
  flags = {name: _value(changed.pop(name)) for name in [*changed] if name.startswith("xla_")}
  forms = for_platform(changed.pop("forms", jax.default_backend()))
  forms = dataclasses.replace(forms, **{name: _value(text) for name, text in changed.items()})
  program = workload.trace(config, "training", size, forms=forms)
  step = program.compile(flags)
  plan = step.compiled.memory_analysis()
  state, clips = program.make_state(), program.make_batch()
  losses = []
  for _ in range(3):
    state, terms = step.compiled(state, clips)
    losses.append(float(terms["loss"]))
  state, terms, runs = _timed(setting, step.compiled, state, clips, setting.calls(size))
  losses.append(float(terms["loss"]))
  yield _row(size, runs) | {
    "compile_s": step.compile_seconds,
    "plan_GB": step.memory / 1e9,
    "temporaries_GB": plan.temp_size_in_bytes / 1e9,
    "peak_GB": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e9,
    "losses_on_one_batch": losses,
  }
  if changes:
    return

  def again() -> Any:
    nonlocal state
    state, terms = step.compiled(state, clips)
    return terms

  yield _profile(setting, f"training-{dtype}-{batch}", step.compiled, again)
  host = jax.device_get(clips)
  mesh = data_mesh(jax.devices()[:1])
  calls = setting.calls(size)
  with setting.alone():
    ahead = send(host, mesh)
    start = time.perf_counter()
    for _ in range(calls):
      state, terms = step.compiled(state, ahead)
      ahead = send(host, mesh)
    jax.block_until_ready((state, terms))
    fed = (time.perf_counter() - start) / calls
  yield {"fed_from_host_ms": 1e3 * fed, "clips_per_s": size / fed}


def _value(text: str) -> Any:
  """A number, True or False, or else the text."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def _timed(
  setting: Setting, step: Callable, state: Any, clips: Any, calls: int
) -> tuple[Any, Any, list[float]]:
  """The state and the terms after rounds of calls, and the seconds per call of each round."""
  seconds, terms = [], None
  with setting.alone():
    for _ in range(5):
      start = time.perf_counter()
      for _ in range(calls):
        state, terms = step(state, clips)
      jax.block_until_ready((state, terms))
      seconds.append((time.perf_counter() - start) / calls)
  return state, terms, seconds


def _row(size: int, runs: list[float]) -> Row:
  """Of runs, given as seconds per call, the median and the least."""
  return {
    "clips_per_s": size / statistics.median(runs),
    "most_clips_per_s": size / min(runs),
    "ms": 1e3 * statistics.median(runs),
    "ms_of_runs": [1e3 * run for run in runs],
  }


def _profile(
  setting: Setting, name: str, compiled: jax.stages.Compiled, call: Callable[[], Any]
) -> Row:
  """Where the time of three calls goes; the program and all of its kernels go to files."""
  with setting.alone(), kernel_profile.recording(calls=3) as profile:
    jax.block_until_ready([call() for _ in range(3)])
  with gzip.open(setting.results / f"{name}.hlo.txt.gz", "wt") as file:
    file.write(compiled.as_text())
  with gzip.open(setting.results / f"{name}.kernels.json.gz", "wt") as file:
    json.dump(profile.kernels, file)
  return {"profile": profile.summary()}


def forms_of_operations(setting: Setting, dtype: str, batch: str, *cases: str) -> Iterator[Row]:
  """Each form of an operation against its alternatives; without cases, of all."""
  names = ["pose stem", "pose pool"] if setting.toy else cases or list(forms.CASES)
  yield from forms.rows(names, 1 if setting.toy else int(batch), dtype, 3)


def evaluation(setting: Setting, dtype: str, batch: str) -> Iterator[Row]:
  """Predictions of clips that stay on the device."""
  size = setting.batch(batch)
  program = workload.trace(setting.config(dtype), "evaluation", size)
  step = program.compile()
  variables, clips = program.make_state(), program.make_batch()

  def call() -> Any:
    return step.compiled(variables, clips)

  jax.block_until_ready(call())
  with setting.alone():
    seconds = _seconds_per_call(call, setting.calls(size))
  yield {
    "clips_per_s": size / seconds,
    "ms": 1e3 * seconds,
    "compile_s": step.compile_seconds,
    "plan_GB": step.memory / 1e9,
  }
  yield _profile(setting, f"evaluation-{dtype}-{batch}", step.compiled, call)


def together(setting: Setting, dtype: str, batch: str, steps: str) -> Iterator[Row]:
  """So many steps in one call, which the host starts once."""
  size, count = setting.batch(batch), int(steps)
  config = setting.config(dtype)
  program = workload.trace(config, "training", size)
  schedule = learning_rate(program.spec.config.optimizer, workload.STEPS_PER_EPOCH)
  _, step = build_step(program.spec, schedule)

  def several(state: Any, clips: Any) -> tuple[Any, Any]:
    return jax.lax.scan(lambda state, _: step(state, clips), state, length=count)

  run = jit_step(several, data_mesh(jax.devices()[:1]), donate_argnums=0)
  state, clips = program.make_state(), program.make_batch()
  state, _ = jax.block_until_ready(run(state, clips))
  *_, runs = _timed(setting, run, state, clips, max(1, setting.calls(size) // count))
  yield _row(size, [seconds / count for seconds in runs])


def preprocessing(setting: Setting, dtype: str, batch: str) -> Iterator[Row]:
  """Crops, flips and heatmaps alone."""
  size = setting.batch(batch)
  spec = workload.model_spec(setting.config(dtype), "training")
  clips = jax.device_put(workload.made_up_batch(spec.batch_shapes(size), spec.stored_size))
  run = jax.jit(lambda clips, keys: preprocess(clips, spec.train_preprocessing, keys))
  keys = jax.random.split(jax.random.key(0), size)
  with setting.alone():
    seconds = _seconds_per_call(lambda: run(clips, keys), setting.calls(size))
  yield {"ms": 1e3 * seconds, "us_per_clip": 1e6 * seconds / size}


def equality(setting: Setting) -> Iterator[Row]:
  """A step on the accelerator against one on the CPU in float32.

  The network with a block per stage: every form of every layer. Differences are relative: of the
  momentum, which is the gradient after one step, of statistics and of prototypes to how far the
  step changed them.
  """
  mesh = {"cpu": data_mesh(jax.devices("cpu")[:1]), "accelerator": data_mesh(jax.devices()[:1])}

  def program(dtype: str, precision: str, where: str) -> workload.Program:
    config = setting.config(dtype)
    config.model.matmul_precision = precision
    if not setting.toy:
      config.input.update(train_size=112, test_size=112)
    config.model.dropout = 0.0
    config.model.rgb.blocks = (1,) * len(config.model.rgb.blocks)
    config.model.pose.blocks = (1,) * len(config.model.pose.blocks)
    return workload.trace(config, "training", 4 if setting.toy else 8, mesh[where])

  reference = program("float32", "default", "cpu")
  state = jax.tree_util.tree_map_with_path(_awake, jax.device_get(reference.make_state()))
  clips = jax.device_get(reference.make_batch())

  def step(program: workload.Program, where: str) -> tuple[Any, dict[str, float]]:
    compiled = program.traced.lower().compile()
    new, terms = compiled(
      jax.device_put(state, replicated(mesh[where])), jax.device_put(clips, sharded(mesh[where]))
    )
    return jax.device_get(new), {name: float(value) for name, value in terms.items()}

  expected, expected_terms = step(reference, "cpu")
  for label, dtype, precision in (
    ("float32, highest", "float32", "highest"),
    ("float32", "float32", "default"),
    ("bfloat16", "bfloat16", "default"),
  ):
    found, terms = step(program(dtype, precision, "accelerator"), "accelerator")
    row = {"precision": label}
    for name in ("loss", "gradient_norm"):
      row[name] = abs(terms[name] / expected_terms[name] - 1)
    for name in ("opt_state", "batch_stats", "prototypes"):
      ours, theirs = (
        _change(getattr(state, name), getattr(new, name)) for new in (found, expected)
      )
      row[name] = float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30))
    yield row


def _awake(path: tuple, values: np.ndarray) -> np.ndarray:
  """Scales that start at zero, as in a trained network: otherwise most of it would not count."""
  asleep = getattr(path[-1], "key", "") == "scale" and not values.any()
  return np.full_like(values, 0.5) if asleep else values


def _change(before: Any, after: Any) -> np.ndarray:
  pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after))
  return np.concatenate([np.ravel(new - old) for old, new in pairs])


def resume(setting: Setting, dtype: str, batch: str) -> Iterator[Row]:
  """Whether four steps end in the same bits: repeated, and with a save and new processes between.

  One of these finds the compiled programs that the others kept, the other compiles anew.
  """
  program = workload.trace(setting.config(dtype), "training", setting.batch(batch))
  step, clips = program.compile(), program.make_batch()
  expected = _digests(_steps(step, program.make_state(), clips, 4))
  state, returned = program.make_state(), []
  for number in (1, 2):
    state = jax.block_until_ready(_steps(step, state, clips, 1))
    with checkpoints.Checkpoints(setting.results / "scratch" / "checkpoints") as saved:
      start = time.perf_counter()
      saved.save(number, state.model(), state.training(), program.spec)
      returned.append(time.perf_counter() - start)
  found = _digests(_steps(step, state, clips, 2))
  yield {
    "arrays": len(expected),
    "saves_return_after_ms": [1e3 * seconds for seconds in returned],
    "differing_when_repeated": _differing(found, expected),
  }
  command = command_of(f"resumed:{dtype}:{batch}", setting.results, setting.name, toy=setting.toy)
  for programs, variables in (("kept", {}), ("new", {"JAX_ENABLE_COMPILATION_CACHE": "false"})):
    subprocess.run(command, env=os.environ | variables, check=True)
    found = json.loads((setting.results / "scratch" / "resumed.json").read_text())
    yield {"programs": programs, "differing_when_resumed": _differing(found, expected)}


def resumed(setting: Setting, dtype: str, batch: str) -> Iterator[Row]:
  """The second half of `resume`, in its process."""
  program = workload.trace(setting.config(dtype), "training", setting.batch(batch))
  step, state = program.compile(), program.make_state()
  saved = checkpoints.Checkpoints(setting.results / "scratch" / "checkpoints")
  state = state.restored(**saved.restore(2, **state.targets()))
  found = _digests(_steps(step, state, program.make_batch(), 2))
  (setting.results / "scratch" / "resumed.json").write_text(json.dumps(found))
  yield {"compile_s": step.compile_seconds}


def _steps(step: workload.Step, state: Any, clips: Any, number: int) -> Any:
  for _ in range(number):
    state, _ = step.compiled(state, clips)
  return state


def _digests(state: Any) -> list[str]:
  return [
    hashlib.sha256(np.asarray(array).tobytes()).hexdigest()
    for array in jax.tree.leaves(jax.device_get(state))
  ]


def _differing(found: list[str], expected: list[str]) -> int:
  return sum(one != other for one, other in zip(found, expected, strict=True))


def peer(
  setting: Setting, dtype: str, batch: str, form: str, kind: str = "training"
) -> Iterator[Row]:
  """The same step in PyTorch."""
  from benchmarks.torch_pcan.peer import time_peer

  seconds = 1.0 if setting.toy else 5.0
  config = setting.config(dtype)
  size = setting.batch(batch)
  yield time_peer(config, kind, size, form, seconds, alone=setting.alone)


def _seconds_per_call(call: Callable[[], Any], calls: int) -> float:
  """The median of five rounds of calls, whose last result is waited for."""

  def several() -> None:
    jax.block_until_ready([call() for _ in range(calls)])

  return timing.measure(several, repeats=5, warmup=2).median / calls


PARTS = {
  "machine": machine,
  "training": training,
  "forms": forms_of_operations,
  "peer": peer,
  "equality": equality,
  "evaluation": evaluation,
  "resume": resume,
  "resumed": resumed,
  "together": together,
  "preprocessing": preprocessing,
}


def main() -> None:
  """Runs one part, which other parts can stop from when none measures."""
  parser = argparse.ArgumentParser()
  parser.add_argument("part", help="name and arguments, separated by colons")
  parser.add_argument("results", type=pathlib.Path)
  parser.add_argument("--config", default="ma52")
  parser.add_argument("--toy", action="store_true")
  arguments = parser.parse_args()
  name, *options = arguments.part.split(":")
  setting = Setting(arguments.results, arguments.config, arguments.toy)
  with setting.measuring():
    entered = enter(arguments.results)
  with entered:
    results = Results(arguments.results)
    for row in PARTS[name](setting, *options):
      results.add(arguments.part, config=arguments.config, **row)


if __name__ == "__main__":
  main()

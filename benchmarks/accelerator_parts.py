"""The parts of `benchmarks.accelerator`, each run in a process of its own."""

import argparse
import contextlib
import dataclasses
import fcntl
import gzip
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import forms, kernel_profile, timing, workload
from benchmarks.accelerator import Results
from pcan_jax.config import load_config
from pcan_jax.inputs import preprocess
from pcan_jax.mesh import data_mesh, jit_step, replicated, send, sharded
from pcan_jax.training.optimizer import learning_rate
from pcan_jax.training.step import build_step

Row = dict[str, Any]

FLAGS = {"xla_gpu_enable_triton_gemm": True, "xla_gpu_enable_command_buffer": ""}


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

  @property
  def calls(self) -> int:
    """Calls that are timed together, so that the host's share of the time overlaps the device's."""
    return 2 if self.toy else 20

  def config(self, dtype: str, remat: str = "none") -> ConfigDict:
    config = load_config(self.name)
    config.model.dtype, config.model.remat = dtype, remat
    return config

  def batch(self, batch: str) -> int:
    return 4 if self.toy else int(batch)

  @contextlib.contextmanager
  def alone(self) -> Iterator[None]:
    """Waits until no other part measures."""
    with (self.results / "scratch" / "measuring").open("w") as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      yield


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


def training(setting: Setting, dtype: str, batch: str, option: str = "none") -> Iterator[Row]:
  """Steps on one batch that stays on the device; at the main size, their profile and feeding.

  The option is a value of `model.remat`, or "cpu_forms".
  """
  size = setting.batch(batch)
  config = setting.config(dtype, "none" if option == "cpu_forms" else option)
  platform = "cpu" if option == "cpu_forms" else None
  program = workload.trace(config, "training", size, platform=platform)
  step = program.compile()
  plan = step.compiled.memory_analysis()
  state, clips = program.make_state(), program.make_batch()
  losses = []
  for _ in range(3):
    state, terms = step.compiled(state, clips)
    losses.append(float(terms["loss"]))
  state, terms, runs = _timed(setting, step.compiled, state, clips)
  losses.append(float(terms["loss"]))
  yield _row(size, runs) | {
    "compile_s": step.compile_seconds,
    "plan_GB": step.memory / 1e9,
    "temporaries_GB": plan.temp_size_in_bytes / 1e9,
    "peak_GB": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e9,
    "losses_on_one_batch": losses,
  }
  if batch != "64":
    return
  name = f"training-{option}"
  with gzip.open(setting.results / f"{name}.hlo.txt.gz", "wt") as file:
    file.write(step.compiled.as_text())
  with setting.alone():
    state, profile = _profiled(step.compiled, state, clips)
  with gzip.open(setting.results / f"{name}.kernels.json.gz", "wt") as file:
    json.dump(profile.kernels, file)
  yield {"profile": profile.summary()}
  host = jax.device_get(clips)
  mesh = data_mesh(jax.devices()[:1])
  with setting.alone():
    ahead = send(host, mesh)
    start = time.perf_counter()
    for _ in range(setting.calls):
      state, terms = step.compiled(state, ahead)
      ahead = send(host, mesh)
    jax.block_until_ready((state, terms))
    fed = (time.perf_counter() - start) / setting.calls
  yield {"fed_from_host_ms": 1e3 * fed, "clips_per_s": size / fed}


def _timed(
  setting: Setting, step: Callable, state: Any, clips: Any, *, rounds: int = 5, calls: int = 0
) -> tuple[Any, Any, list[float]]:
  """The state and the terms after rounds of calls, and the seconds per call of each round."""
  calls, seconds, terms = calls or setting.calls, [], None
  with setting.alone():
    for _ in range(rounds):
      start = time.perf_counter()
      for _ in range(calls):
        state, terms = step(state, clips)
      jax.block_until_ready((state, terms))
      seconds.append((time.perf_counter() - start) / calls)
  return state, terms, seconds


def _row(size: int, runs: list[float]) -> Row:
  """Of runs, given as seconds per call, the median; other parts may have slowed some of them."""
  return {
    "clips_per_s": size / statistics.median(runs),
    "most_clips_per_s": size / min(runs),
    "ms": 1e3 * statistics.median(runs),
    "ms_of_runs": [1e3 * run for run in runs],
  }


def _profiled(step: Callable, state: Any, clips: Any) -> tuple[Any, kernel_profile.Profile]:
  """The state after three steps and the device's kernels in them."""
  with kernel_profile.recording(calls=3) as profile:
    for _ in range(3):
      state, terms = step(state, clips)
    jax.block_until_ready((state, terms))
  return state, profile


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
  jax.block_until_ready(step.compiled(variables, clips))
  with setting.alone():
    seconds = _seconds_per_call(lambda: step.compiled(variables, clips), setting.calls)
  yield {
    "clips_per_s": size / seconds,
    "ms": 1e3 * seconds,
    "compile_s": step.compile_seconds,
    "plan_GB": step.memory / 1e9,
  }


def together(setting: Setting, dtype: str, batch: str, steps: str) -> Iterator[Row]:
  """So many steps in one call, which the host starts once."""
  size, count = setting.batch(batch), int(steps)
  config = setting.config(dtype)
  program = workload.trace(config, "training", size)
  spec = workload.model_spec(program.config, "training")
  schedule = learning_rate(program.config.optimizer, workload.STEPS_PER_EPOCH)
  _, step = build_step(spec, schedule)

  def several(state: Any, clips: Any) -> tuple[Any, Any]:
    return jax.lax.scan(lambda state, _: step(state, clips), state, length=count)

  run = jit_step(several, data_mesh(jax.devices()[:1]), donate_argnums=0)
  state, clips = program.make_state(), program.make_batch()
  state, _ = jax.block_until_ready(run(state, clips))
  *_, runs = _timed(setting, run, state, clips, calls=max(1, setting.calls // count))
  yield _row(size, [seconds / count for seconds in runs])


def preprocessing(setting: Setting, dtype: str, batch: str) -> Iterator[Row]:
  """Crops, flips and heatmaps alone."""
  size = setting.batch(batch)
  spec = workload.model_spec(setting.config(dtype), "training")
  clips = jax.device_put(workload.made_up_batch(spec.batch_shapes(size), spec.stored_size))
  run = jax.jit(lambda clips, keys: preprocess(clips, spec.train_preprocessing, keys))
  keys = jax.random.split(jax.random.key(0), size)
  seconds = _seconds_per_call(lambda: run(clips, keys), setting.calls)
  yield {"ms": 1e3 * seconds, "us_per_clip": 1e6 * seconds / size}


def equality(setting: Setting) -> Iterator[Row]:
  """A step on the accelerator against one on the CPU in float32.

  The network with a block per stage: every form of every layer. Differences are relative: of the
  momentum, which is the gradient after one step, of statistics and of prototypes to how far the
  step changed them.
  """
  mesh = {"cpu": data_mesh(jax.devices("cpu")[:1]), "accelerator": data_mesh(jax.devices()[:1])}

  def program(dtype: str, precision: str | None, where: str) -> workload.Program:
    config = setting.config(dtype)
    if not setting.toy:
      config.input.update(train_size=112, test_size=112)
    config.model.dropout = 0.0
    config.model.rgb.blocks = (1,) * len(config.model.rgb.blocks)
    config.model.pose.blocks = (1,) * len(config.model.pose.blocks)
    with jax.default_matmul_precision(precision or "default"):
      return workload.trace(config, "training", 4 if setting.toy else 8, mesh[where])

  reference = program("float32", None, "cpu")
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
    ("float32", "float32", None),
    ("bfloat16", "bfloat16", None),
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


def repeatability(setting: Setting, dtype: str, batch: str) -> Iterator[Row]:
  """Whether the same steps again end in the same bits, and what a flag for that costs."""
  size = setting.batch(batch)
  program = workload.trace(setting.config(dtype), "training", size)
  flags = {"default": {}}
  if jax.default_backend() == "gpu":
    flags["deterministic"] = {"xla_gpu_exclude_nondeterministic_ops": True}
  for name, options in flags.items():
    start = time.perf_counter()
    compiled = program.lowered.compile(compiler_options=options)
    compile_seconds = time.perf_counter() - start
    clips = program.make_batch()
    ends, seconds = [], []
    for _ in range(2):
      state = program.make_state()
      with setting.alone():
        start = time.perf_counter()
        for _ in range(5):
          state, _ = compiled(state, clips)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
      ends.append(jax.tree.leaves(jax.device_get(state)))
    differing = sum(not np.array_equal(*pair) for pair in zip(*ends))
    yield {
      "flags": name,
      "arrays": len(ends[0]),
      "differing": differing,
      "ms": 1e3 * min(seconds) / 5,
      "compile_s": compile_seconds,
    }


def flags(setting: Setting, dtype: str, batch: str) -> Iterator[Row]:
  """Steps compiled with options of XLA that might help."""
  size = setting.batch(batch)
  program = workload.trace(setting.config(dtype), "training", size)
  for name, value in FLAGS.items():
    if jax.default_backend() != "gpu":
      return
    start = time.perf_counter()
    compiled = program.lowered.compile(compiler_options={name: value})
    compile_seconds = time.perf_counter() - start
    state, clips = program.make_state(), program.make_batch()
    *_, runs = _timed(setting, compiled, state, clips, rounds=4)
    yield {"flag": f"{name}={value}", "compile_s": compile_seconds} | _row(size, runs[1:])


def peer(setting: Setting, dtype: str, batch: str, form: str) -> Iterator[Row]:
  """The same training step in PyTorch."""
  from benchmarks.torch_pcan.peer import time_peer

  seconds = 1.0 if setting.toy else 8.0
  config = setting.config(dtype)
  size = setting.batch(batch)
  yield time_peer(config, "training", size, form, seconds, alone=setting.alone)


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
  "repeatability": repeatability,
  "flags": flags,
  "together": together,
  "preprocessing": preprocessing,
}


def main() -> None:
  """Runs one part."""
  parser = argparse.ArgumentParser()
  parser.add_argument("part", help="name and arguments, separated by colons")
  parser.add_argument("results", type=pathlib.Path)
  parser.add_argument("--config", default="ma52")
  parser.add_argument("--toy", action="store_true")
  arguments = parser.parse_args()
  name, *options = arguments.part.split(":")
  results = Results(arguments.results)
  for row in PARTS[name](Setting(arguments.results, arguments.config, arguments.toy), *options):
    results.add(arguments.part, **row)


if __name__ == "__main__":
  main()

"""Says what checkpoints hold and where they come from: `pcan describe DIR`."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from pcan_jax.console import quiet_libraries

if TYPE_CHECKING:
  from pcan_jax.saved_steps import SavedStep


def main() -> None:
  """The command line; exits with 1 if the checkpoint is damaged or there is none."""
  parser = argparse.ArgumentParser(
    usage="pcan describe DIR",
    description="Says what a checkpoint holds and where it comes from, and what lies beside it.",
  )
  parser.add_argument(
    "path", metavar="DIR", help="a working directory, DIR/best or DIR/checkpoints/STEP"
  )
  path = parser.parse_args().path
  quiet_libraries()
  from pcan_jax import saved_steps
  from pcan_jax.checkpoints import locate

  try:
    saved = saved_steps.SavedStep(*locate(path))
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  facts = _facts(saved) | {"beside it": _others(saved)}
  width = max(map(len, facts))
  for name, fact in facts.items():
    print(f"{name:>{width}}  {fact}")
  print(f"\nconfig\n{json.dumps(saved.description['config'], indent=2)}")


def _facts(saved: "SavedStep") -> dict[str, Any]:
  """A line per fact."""
  import jax

  description, spec = saved.description, saved.spec
  made_with, run = description.get("made_with", {}), description.get("run", {})
  score = description.get("f1_mean")
  params = saved.shapes("model")["params"]
  packages = (f"{name} {version}" for name, version in made_with.get("packages", {}).items())
  unknown = "not recorded"
  return {
    "checkpoint": saved.path,
    "step": saved.step,
    "digest": saved.digest,
    "written": made_with.get("time", unknown),
    "F1 mean": unknown if score is None else f"{100 * score:.2f} %, 1 clip per video",
    "model": f"{' + '.join(spec.model.streams)}, fusion {spec.config.model.fusion}",
    "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}",
    "labels": f"{spec.tree.num_actions} actions, {spec.tree.num_bodies} body parts",
    "keypoints": spec.layout.name,
    "stored size": f"{spec.stored_size} px",
    "data set": spec.config.data.path,
    "fingerprint": saved.trained_on or unknown,
    "devices": made_with.get("devices", unknown),
    "hosts": made_with.get("hosts", unknown),
    "python": made_with.get("python", unknown),
    "packages": ", ".join(packages) or unknown,
    "revision": made_with.get("revision") or unknown,
    "allowed changes": "; ".join(map(_change, run.get("allowed_changes", []))) or "none",
  }


def _change(change: dict[str, Any]) -> str:
  return f"{change['name']} from {change['was']} to {change['now']} at step {change['step']}"


def _others(saved: "SavedStep") -> str:
  """The other steps in the folder, and what is none."""
  from pcan_jax import saved_steps

  best = saved_steps.best(saved.directory)
  shown = []
  for other in saved_steps.find_steps(saved.directory):
    if other.step != saved.step:
      problem = other.find_problem()
      shown.append(
        f"step {other.step}"
        + (" (the best)" if other == best else "")
        + (f" (damaged: {problem})" if problem else "")
      )
  shown += [f"{name} (no checkpoint)" for name in saved_steps.find_others(saved.directory)]
  return ", ".join(shown) or "nothing"


if __name__ == "__main__":
  main()

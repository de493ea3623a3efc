"""Checks a source directory or a built data set: `pcan check DIR [--html PAGE]`.

Exits with 1 and names the first bad record if it would break a build or harm training.
"""

import argparse
import hashlib
import pathlib
import sys
from collections.abc import Sequence

import tqdm

from pcan_jax.clips import source_layout
from pcan_jax.clips.encode_clip import encode_clip
from pcan_jax.clips.parallel import map_clips
from pcan_jax.clips.problems import Problem
from pcan_jax.clips.source_layout import ClipSource
from pcan_jax.clips.stored_frames import Encoding
from pcan_jax.console import leave_out_keras, quiet_libraries
from pcan_jax.content import sha256
from pcan_jax.keypoints import KeypointLayout, get_layout
from pcan_jax.writing import require_writable

from . import findings
from .build import add_source_arguments, skeleton_fps
from .findings import CheckResult, ClipFacts, Finding

_SAMPLES = 12


def check_source(
  source: pathlib.Path,
  layout: KeypointLayout,
  tree: pathlib.Path | None = None,
  jobs: int = 0,
  fps: float | None = None,
) -> tuple[CheckResult, list[tuple[ClipSource, ClipFacts]]]:
  """Reads every file of a source directory, as a build would.

  Args:
    source: directory in MA-52's layout.
    layout: of its keypoints.
    tree: label tree; None is the source's own, else MA-52's.
    jobs: processes; 0 is one per core.
    fps: of skeletons that do not state it; None is `source_layout.SKELETON_FPS`.

  Returns:
    The findings, and the readable clips with their measurements.

  Raises:
    FileNotFoundError, ValueError: a list or a whole pickle cannot be read.
  """
  labels = source_layout.read_tree(source, tree)
  kind = "" if source_layout.has_videos(source) else ", skeletons without videos"
  result = CheckResult(f"source directory {source}{kind}", labels, {}, [])
  good = []
  fps = skeleton_fps(source, fps)
  for split in source_layout.find_splits(source):
    clips, problems = source_layout.scan_split(source, split, labels, layout, fps)
    result.clips[split] = []
    examined = map_clips(_examine, clips, jobs)
    for clip, facts in zip(clips, tqdm.tqdm(examined, split, len(clips), disable=None)):
      if isinstance(facts, Problem):
        problems.append(facts)
      else:
        result.clips[split].append(facts)
        good.append((clip, facts))
    result.findings += [
      Finding("bad clip", f"{split}/{problem.id}", problem.reason, is_error=True)
      for problem in problems
    ]
  result.findings += [
    Finding("unlisted video", str(path), "it is in no list and will not be used", is_error=False)
    for path in source_layout.find_unlisted(source)
  ]
  result.findings += findings.examine_clips(result.clips, labels)
  return result, good


def _examine(clip: ClipSource) -> ClipFacts:
  # Uses the code of the build, with tiny frames to save time.
  record = encode_clip(clip, Encoding(side=16))
  if clip.video is None:
    digest = findings.POSES + hashlib.sha256(clip.keypoints.tobytes()).hexdigest()
  else:
    digest = sha256(clip.video)
  keypoints = clip.keypoints[:, record["order"]]
  return findings.measure_clip(
    clip.id, clip.split, record, keypoints, record["original_size"], digest
  )


def print_result(result: CheckResult, shown: int) -> None:
  """Prints a summary of every split, the clips per class, and up to `shown` findings per kind."""
  print(result.title)
  for split, clips in result.clips.items():
    print(f"  {split}: {findings.describe_clips(clips)}")
  print()
  _print_classes(result)
  findings.print_findings(result.findings, shown)


def _print_classes(result: CheckResult) -> None:
  tree = result.tree
  counts = {split: result.counts(split) for split in result.clips}
  wide = max(len(name) for name in (*tree.actions, *tree.bodies)) + 5
  print(f"{'clips per class':{wide}}" + "".join(f"{split:>8}" for split in counts))
  for body, body_name in enumerate(tree.bodies):
    actions = [action for action, parent in enumerate(tree.parents) if parent == body]
    sums = [sum(of_split[action] for action in actions) for of_split in counts.values()]
    print(f"{body_name:{wide}}" + "".join(f"{count:8}" for count in sums))
    for action in actions:
      row = "".join(f"{of_split[action]:8}" for of_split in counts.values())
      print(f"{f'  {action:2} {tree.actions[action]}':{wide}}" + row)
  unlabelled = [of_split[source_layout.UNLABELLED] for of_split in counts.values()]
  if any(unlabelled):
    print(f"{'without a label':{wide}}" + "".join(f"{count:8}" for count in unlabelled))


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="pcan check",
    description="Checks every clip of a source directory in MA-52's layout or of a built data set. "
    "Exits with 1 if a clip is bad.",
  )
  parser.add_argument("directory", type=pathlib.Path, help="the source directory or data set")
  parser.add_argument("--html", type=pathlib.Path, help="write an HTML page with sample clips")
  parser.add_argument(
    "--samples", type=int, help=f"clips per split on the page of --html ({_SAMPLES})"
  )
  parser.add_argument(
    "--show", type=int, default=5, help="findings listed of each kind (%(default)s)"
  )
  add_source_arguments(parser)
  arguments = parser.parse_args(argv)
  if arguments.samples is not None and not arguments.html:
    parser.error("--samples means nothing without --html")
  quiet_libraries()
  leave_out_keras()
  try:
    result = _check(arguments)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  if result.errors:
    first = result.errors[0]
    sys.exit(f"\nfirst bad record: {first.clip}: {first.detail}")


def _check(arguments: argparse.Namespace) -> CheckResult:
  # Not at the top: worker processes import this module and do not need TensorFlow.
  from . import check_shards, contact_sheet

  directory = arguments.directory
  num_samples = _SAMPLES if arguments.samples is None else arguments.samples
  if arguments.html:
    require_writable(arguments.html.parent)
  if next(directory.rglob("dataset_info.json"), None):
    for name in ("layout", "tree", "fps"):
      if getattr(arguments, name) is not None:
        raise ValueError(f"--{name} means nothing for a built data set, which {directory} is")
    result, dataset, samples = check_shards.check_dataset(directory, num_samples)
    layout = dataset.layout
  else:
    source_layout.find_splits(directory)
    name = arguments.layout
    layout = get_layout(name) if name else source_layout.guess_layout(directory)
    result, clips = check_source(directory, layout, arguments.tree, arguments.jobs, arguments.fps)
    samples = None
  print_result(result, arguments.show)
  if arguments.html:
    if samples is None:
      samples = contact_sheet.samples_of_source(clips, num_samples)
    contact_sheet.write_page(arguments.html, result, layout, samples)
    print(f"\npage with sample clips: {arguments.html}")
  return result


if __name__ == "__main__":
  main()

"""Downloads MA-52 from the Hugging Face Hub and arranges it as a source directory.

    pcan download ma52 --accept-license --out SOURCE

Files are downloaded to SOURCE/download, zip files are unpacked from there into the layout of
`pcan_jax.clips.source_layout`, and the result is compared with the published numbers of clips. An
interrupted run resumes when repeated.
"""

import argparse
import collections
import dataclasses
import filecmp
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Mapping, Sequence

from pcan_jax.clips import source_layout
from pcan_jax.clips.source_layout import SPLITS
from pcan_jax.clips.video_files import VIDEO_SUFFIXES
from pcan_jax.keypoints import LAYOUTS, KeypointLayout

from . import hub_files
from .hub_files import HubError, HubFile
from .safe_zip import FREE_SPACE_LEFT, unpack

_SHOWN = 20
_SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SAMPLE_WORDS = {"sample", "samples"}  # a preview; the splits contain these clips, too
_LIST_WORDS = frozenset("annotation annotations label labels list lists ma video videos".split())


@dataclasses.dataclass(frozen=True)
class HubDataSet:
  """A gated data set on the hub.

  Attributes:
    title: its name.
    repos: the repositories it consists of, owner/name.
    clips: published number of clips per split.
    layout: of its keypoints.
    terms: the conditions of its licence.
    lists_page: where to find its lists of videos if the hub lacks them.
  """

  title: str
  repos: tuple[str, ...]
  clips: Mapping[str, int]
  layout: KeypointLayout
  terms: str
  lists_page: str


MA52 = HubDataSet(
  title="MA-52",
  repos=("kunli-cs/MA-52", "kunli-cs/MA-52_openpose_28kp"),
  clips={"train": 11_250, "val": 5_586, "test": 5_586},
  layout=LAYOUTS["openpose-28"],
  terms="""\
MA-52 shows the faces and bodies of real people. Its authors give it to researchers on request, for
non-commercial scientific purposes only, under a licence agreement that you sign.

  1. Read and sign the agreement, and apply: https://github.com/VUT-HFUT/Micro-Action#-data
  2. Request access on both pages of the hub, with the account whose token you use here:
     https://huggingface.co/datasets/kunli-cs/MA-52
     https://huggingface.co/datasets/kunli-cs/MA-52_openpose_28kp
  3. Run this command again with --accept-license, which states that you have read the agreement,
     accept it and will comply with it.

Nothing was downloaded.""",
  lists_page="https://github.com/VUT-HFUT/Micro-Action/tree/main/mar_scripts/manet/mmaction2/data/ma52",
)

DATA_SETS = {"ma52": MA52}


def download(
  dataset: HubDataSet,
  out: str | os.PathLike[str],
  splits: Sequence[str] = SPLITS,
  endpoint: str | None = None,
) -> list[str]:
  """Downloads splits of a data set, arranges them as a source directory, and checks the result.

  Args:
    dataset: the data set.
    out: the source directory; existing files are kept.
    splits: the splits.
    endpoint: address of the hub; None is `HF_ENDPOINT`, else huggingface.co.

  Returns:
    The differences between the source directory and the published data set, one sentence each.

  Raises:
    HubError: the hub cannot be reached or denies access.
    FileNotFoundError: the hub has no list of videos, or no poses.
    ValueError: a file is damaged or hostile, or would replace another one.
    OSError: the disk is full, or cannot be written to.
  """
  out = pathlib.Path(out)
  token = hub_files.read_token()
  files = {repo: hub_files.list_files(repo, token, endpoint) for repo in dataset.repos}
  wanted, unused = _choose(files, splits)
  if unused:
    print(f"not needed, stays on the hub: {_some(unused)}")
  folders = {repo: out / "download" / repo.rpartition("/")[2] for repo in dataset.repos}
  _check_free_space(wanted, folders, out)
  for file in wanted:
    hub_files.fetch(file, folders[file.repo], token, endpoint)
  unused = []
  for file in wanted:
    unused += _arrange(folders[file.repo] / file.path, file.path, out, splits)
  if unused:
    print(f"not needed, not unpacked: {_some(unused)}")
  _check_lists_and_poses(dataset, out, splits, files)
  return find_differences(dataset, out, splits)


def find_place(path: str, splits: Sequence[str]) -> str | None:
  """Determines where a file of the hub belongs in a source directory.

  Args:
    path: of the file, including the names of the folders and archives that contain it.
    splits: the requested splits.

  Returns:
    Path in the source directory, or None if the file is not needed.
  """
  *around, name = pathlib.PurePosixPath(path).parts
  if name.startswith(".") or any(_words(part) & _SAMPLE_WORDS for part in around):
    return None
  stem, suffix = pathlib.PurePosixPath(name).stem, pathlib.PurePosixPath(name).suffix.lower()
  folder_split = next(filter(None, map(_split_of, reversed(around))), None)
  if suffix in VIDEO_SUFFIXES:  # the file name is an id, which says nothing about the split
    if folder_split is None:
      return f"raw_videos/{name}"
    return f"raw_videos/{folder_split}/{name}" if folder_split in splits else None
  split = _split_of(stem) or folder_split
  if suffix == ".pkl" and (split is None or split in splits):
    return f"pose/{name}" if split == _split_of(stem) else f"pose/{stem}_{split}.pkl"
  if suffix == ".txt" and split in splits and _words(stem) - _SPLIT_WORDS.keys() <= _LIST_WORDS:
    return f"annotations/{split}_list_videos.txt"
  return None


def find_differences(
  dataset: HubDataSet, source: str | os.PathLike[str], splits: Sequence[str]
) -> list[str]:
  """Compares lists, poses and names of videos with each other and with the published counts.

  The videos are not decoded; `pcan check` does that.

  Args:
    dataset: the data set.
    source: its source directory.
    splits: the splits to compare.
  """
  tree = source_layout.read_tree(source)
  differences = []
  for split in splits:
    try:
      clips, problems = source_layout.scan_split(source, split, tree, dataset.layout)
    except (FileNotFoundError, ValueError) as error:
      differences.append(f"{split}: {error}")
      continue
    listed, published = len(clips) + len(problems), dataset.clips[split]
    print(f"{split}: {listed:,} clips, {len(clips):,} with video and pose, {published:,} published")
    if listed != published:
      differences.append(f"{split}: the list names {listed:,} clips, published are {published:,}")
    differences += map(str, problems)
  try:
    unlisted = source_layout.find_unlisted(source)
  except (FileNotFoundError, ValueError):
    return differences  # already includes the list that is missing or unreadable
  return differences + [f"{path}: this video is in no list" for path in unlisted]


def _split_of(text: str) -> str | None:
  """The split that a name mentions, if it mentions exactly one."""
  found = {_SPLIT_WORDS[word] for word in _words(text) & _SPLIT_WORDS.keys()}
  return found.pop() if len(found) == 1 else None


def _words(text: str) -> set[str]:
  return set(re.findall("[a-z]+", text.lower()))


def _choose(
  files: Mapping[str, Sequence[HubFile]], splits: Sequence[str]
) -> tuple[list[HubFile], list[str]]:
  """Returns the files to download, and the paths of the others."""
  wanted, unused = [], []
  for file in (file for of_repo in files.values() for file in of_repo):
    is_zip = file.path.lower().endswith(".zip")
    # An archive is needed if a video in it would be.
    if find_place(f"{file.path}/video.mp4" if is_zip else file.path, splits):
      wanted.append(file)
    else:
      unused.append(file.path)
  return wanted, unused


def _check_free_space(
  wanted: Sequence[HubFile], folders: Mapping[str, pathlib.Path], out: pathlib.Path
) -> None:
  """Archives need their size twice, because videos hardly compress."""
  missing = [file for file in wanted if not hub_files.is_fetched(file, folders[file.repo])]
  size = sum(file.size for file in missing)
  needed = size + sum(file.size for file in missing if file.path.lower().endswith(".zip"))
  out.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(out).free
  print(f"{len(wanted)} files, {len(missing)} of them to download: {size / 1e9:.1f} GB")
  if needed + FREE_SPACE_LEFT > free:
    raise OSError(
      f"about {needed / 1e9:.1f} GB are needed to download and unpack, but {out} has "
      f"{free / 1e9:.1f} GB free; free some space, or choose another --out or fewer --splits"
    )


def _arrange(path: pathlib.Path, name: str, out: pathlib.Path, splits: Sequence[str]) -> list[str]:
  """Places a file, or the files in an archive; returns the names of files that are not needed."""
  if path.suffix.lower() == ".zip":
    unused = unpack(path, out, lambda member: find_place(f"{name}/{member}", splits))
    return [f"{name}/{member}" for member in unused]
  target = out / find_place(name, splits)
  if target.exists():
    if not filecmp.cmp(path, target, shallow=False):
      raise ValueError(f"{target} exists and differs from {path}; move one of them away")
    return []
  target.parent.mkdir(parents=True, exist_ok=True)
  try:
    os.link(path, target)  # takes no space, and remains if the download is deleted
  except OSError:
    part = target.with_name(target.name + ".part")
    shutil.copyfile(path, part)
    part.replace(target)
  return []


def _check_lists_and_poses(
  dataset: HubDataSet,
  out: pathlib.Path,
  splits: Sequence[str],
  files: Mapping[str, Sequence[HubFile]],
) -> None:
  found = "; ".join(
    f"{repo} holds {_some([file.path for file in of_repo])}" for repo, of_repo in files.items()
  )
  for split in splits:
    path = out / "annotations" / f"{split}_list_videos.txt"
    if not path.is_file():
      raise FileNotFoundError(
        f"no list of the {split} videos is on the hub: {found}. Get {path.name} from "
        f"{dataset.lists_page}, put it at {path}, and run the command again"
      )
  if not any((out / "pose").glob("*.pkl")):
    raise FileNotFoundError(f"no pickle of poses for {', '.join(splits)} is on the hub: {found}")


def _some(names: Sequence[str]) -> str:
  """Lists names; many are abbreviated and counted by suffix."""
  if len(names) <= _SHOWN:
    return ", ".join(names) or "nothing"
  kinds = collections.Counter(pathlib.PurePosixPath(name).suffix or "no suffix" for name in names)
  counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
  return f"{len(names):,} files ({counts}): {', '.join(names[:_SHOWN])}, ..."


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="pcan download",
    description="Downloads a data set from the Hugging Face Hub to a source directory and checks "
    "it. Run it again to resume an interrupted download.",
  )
  parser.add_argument("dataset", choices=DATA_SETS, help="which data set")
  parser.add_argument("--out", type=pathlib.Path, required=True, help="the source directory")
  parser.add_argument(
    "--accept-license", action="store_true", help="you have read and accept the licence agreement"
  )
  parser.add_argument(
    "--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="default: all"
  )
  arguments = parser.parse_args(argv)
  dataset = DATA_SETS[arguments.dataset]
  if not arguments.accept_license:
    print(dataset.terms, file=sys.stderr)
    sys.exit(2)
  try:
    differences = download(dataset, arguments.out, arguments.splits)
  except (HubError, ValueError, OSError) as error:
    sys.exit(f"error: {error}")
  log = arguments.out / "download" / "differences.txt"
  log.unlink(missing_ok=True)  # from an earlier run
  if differences:
    log.write_text("".join(f"{difference}\n" for difference in differences), encoding="utf-8")
    print("".join(f"  {difference}\n" for difference in differences[:_SHOWN]), file=sys.stderr)
    sys.exit(f"{len(differences)} differences from the published data set, listed in {log}")
  print(f"complete; next: pcan check {arguments.out}")


if __name__ == "__main__":
  main()

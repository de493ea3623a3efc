"""Fetches a shared checkpoint from the Hugging Face Hub; nothing of it is executed.

Only the files of a checkpoint are fetched, by their names, and each is compared with the digest
that the hub lists for it. Their content is arrays and JSON.
"""

import contextlib
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator

MAX_BYTES = 4 << 30
"""A shared checkpoint that is larger is not fetched."""

NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Of a model on the hub: user/model."""

_EXPECTED = re.compile(
  r"checkpoints/(0|[1-9][0-9]*)/"
  r"(_CHECKPOINT_METADATA|commit_success\.txt|(model|training|description|digests)(/[\w.-]+)+)",
  re.ASCII,
)


def find_pretrained(name: str | os.PathLike[str], revision: str | None = None) -> pathlib.Path:
  """The folder of a model on this machine, or of one that is fetched from the hub.

  Args:
    name: a path as for `checkpoints.locate`, or `user/model` on the hub. A path that exists wins.
    revision: branch, tag or commit of the hub's repository; None is its latest.

  Returns:
    A folder as for `checkpoints.locate`; a fetched one is kept in the hub's cache.

  Raises:
    FileNotFoundError: there is neither such a path nor such a model, or it holds no checkpoint.
    ValueError: a fetched file is not what the hub lists, or is too large.
    OSError: the hub cannot be reached.
  """
  path = pathlib.Path(name)
  # DIR/best is no folder.
  if path.exists() or path.name == "best" and path.parent.exists():
    return path
  if not NAME.fullmatch(os.fspath(name)):
    raise FileNotFoundError(f"no checkpoint at {name}, and no model on the hub has such a name")
  return _fetch(os.fspath(name), revision)


def _fetch(repo: str, revision: str | None) -> pathlib.Path:
  import huggingface_hub

  with explained(repo):
    info = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
  expected = [file for file in info.siblings or () if _is_expected(file.rfilename)]
  steps = {int(file.rfilename.split("/")[1]) for file in expected}
  if len(steps) != 1:
    found = f"checkpoints of {len(steps)} steps" if steps else "no checkpoint"
    raise FileNotFoundError(
      f"https://huggingface.co/{repo} holds {found}; expected what `pcan hub push` writes"
    )
  total = sum(file.size or 0 for file in expected)
  if total > MAX_BYTES:
    raise ValueError(f"{repo} is {total >> 20} MiB large, more than {MAX_BYTES >> 20} MiB")
  folder = pathlib.Path()
  for file in expected:
    with explained(repo):
      arrived = pathlib.Path(
        huggingface_hub.hf_hub_download(repo, file.rfilename, revision=info.sha)
      )
    # The cache links to files named by what the hub said, which need not be what arrived.
    if not _is_listed(arrived, file.lfs.sha256 if file.lfs else None, file.blob_id):
      arrived.resolve().unlink(missing_ok=True)
      raise ValueError(f"{file.rfilename} of {repo} is not what the hub lists; it was deleted")
    folder = arrived.parents[len(pathlib.PurePosixPath(file.rfilename).parts) - 1]
  return folder


def _is_expected(name: str) -> bool:
  return _EXPECTED.fullmatch(name) is not None and not {".", ".."} & set(name.split("/"))


def _is_listed(path: pathlib.Path, sha256: str | None, blob: str | None) -> bool:
  """Whether a file has its SHA-256 or, if it is kept in Git itself, Git's digest."""
  content = path.read_bytes()
  if sha256 is not None:
    return hashlib.sha256(content).hexdigest() == sha256
  # Git's own digest, which is SHA-1.
  digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
  return digest.hexdigest() == blob


@contextlib.contextmanager
def explained(repo: str) -> Iterator[None]:
  """Turns errors of the hub into one sentence.

  Raises:
    FileNotFoundError: there is no such model, or access is denied.
    OSError: the hub cannot be reached, or refuses.
  """
  import httpx2
  from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

  page = f"https://huggingface.co/{repo}"
  try:
    yield
  except (GatedRepoError, RepositoryNotFoundError) as error:
    raise FileNotFoundError(
      f"no model at {page}, or you may not read it: check the name, or run `hf auth login`"
    ) from error
  except (HfHubHTTPError, httpx2.HTTPError) as error:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise OSError(f"{page}: the hub cannot be reached, or refuses ({reason})") from error

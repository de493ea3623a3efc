"""Lists and downloads the files of a gated data set on the Hugging Face Hub.

The hub's own `snapshot_download` restarts files that a killed run left unfinished. Here they are
resumed, which matters if one file contains a whole split.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

import httpx2
import huggingface_hub
from huggingface_hub.constants import MAX_HTTP_DOWNLOAD_SIZE
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from pcan_jax.content import sha256

from .safe_zip import check_name

_PART = ".part"


class HubError(RuntimeError):
  """The hub cannot be reached or denies access; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class HubFile:
  """One file of a data set on the hub, at one revision.

  Attributes:
    repo: owner/name of the data set.
    revision: hash of the commit.
    path: of the file within the data set.
    size: in bytes.
    sha256: of the content; None for small text files.
  """

  repo: str
  revision: str
  path: str
  size: int
  sha256: str | None


def read_token() -> str:
  """The access token from `HF_TOKEN` or from `hf auth login`.

  Raises:
    HubError: there is no token.
  """
  token = huggingface_hub.get_token()
  if not token:
    raise HubError(
      "no access token for Hugging Face: create one at https://huggingface.co/settings/tokens "
      "(read access), then run `hf auth login` or set HF_TOKEN"
    )
  return token


def list_files(repo: str, token: str, endpoint: str | None = None) -> list[HubFile]:
  """Lists the files of a data set at its latest revision, after checking that we may read them.

  Args:
    repo: owner/name.
    token: to log in with.
    endpoint: address of the hub; None is `HF_ENDPOINT`, else huggingface.co.

  Raises:
    HubError: the hub cannot be reached, the token is not valid, or access was not granted.
    ValueError: the name of a file leads out of the folder.
  """
  api = huggingface_hub.HfApi(endpoint=endpoint, token=token)
  with _explained(repo):
    api.auth_check(repo, repo_type="dataset")
    info = api.dataset_info(repo, files_metadata=True)
  files = [
    HubFile(repo, info.sha, file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
    for file in info.siblings or ()
  ]
  for file in files:
    check_name(file.path, f"https://huggingface.co/datasets/{repo}")
  return files


def is_fetched(file: HubFile, folder: pathlib.Path) -> bool:
  """Whether a file is complete in a folder; files get their final name when complete."""
  path = folder / file.path
  return path.is_file() and path.stat().st_size == file.size


def fetch(
  file: HubFile, folder: pathlib.Path, token: str, endpoint: str | None = None
) -> pathlib.Path:
  """Downloads a file, resuming an interrupted download, and checks its digest.

  Args:
    file: from `list_files`.
    folder: target, in which the file keeps its path within the data set.
    token, endpoint: as in `list_files`.

  Returns:
    Path of the complete file.

  Raises:
    HubError: the hub cannot be reached or denies access.
    ValueError: the downloaded file differs from what the hub lists.
  """
  path = folder / file.path
  if is_fetched(file, folder):
    return path
  path.parent.mkdir(parents=True, exist_ok=True)
  # Parts of different revisions must not be joined.
  part = path.with_name(f"{path.name}.{(file.sha256 or file.revision)[:12]}{_PART}")
  if part.exists() and part.stat().st_size > file.size:
    part.unlink()
  source = {"repo_type": "dataset", "revision": file.revision, "endpoint": endpoint}
  with _explained(file.repo):
    # Larger files are served by the hub's own protocol only, which cannot resume.
    if file.size > MAX_HTTP_DOWNLOAD_SIZE:
      arrived = huggingface_hub.hf_hub_download(
        file.repo, file.path, **source, local_dir=part.with_suffix(".whole"), token=token
      )
      pathlib.Path(arrived).replace(part)
    else:
      with part.open("ab") as output:
        http_get(
          huggingface_hub.hf_hub_url(file.repo, file.path, **source),
          output,
          resume_size=output.tell(),
          expected_size=file.size,
          headers=build_hf_headers(token=token),
          displayed_filename=file.path,
        )
  if part.stat().st_size != file.size or file.sha256 not in (None, sha256(part)):
    part.unlink()
    raise ValueError(
      f"{path}: the download differs from what {file.repo} lists; it was deleted, run the command "
      "again"
    )
  part.replace(path)
  return path


@contextlib.contextmanager
def _explained(repo: str) -> Iterator[None]:
  """Converts exceptions of the hub to `HubError`s that say what to do."""
  page = f"https://huggingface.co/datasets/{repo}"
  try:
    yield
  except GatedRepoError as error:
    raise HubError(
      f"you have no access to {repo}: log in at {page}, request access there, and wait "
      "for the authors' answer"
    ) from error
  except RepositoryNotFoundError as error:
    raise HubError(
      f"the hub shows you no data set {repo}: check that {page} opens while you are logged in, "
      "and that your token may read gated data sets"
    ) from error
  except HfHubHTTPError as error:
    status = error.response.status_code
    cause = "your token is not valid, create another one" if status == 401 else "try again later"
    raise HubError(f"{page}: the hub answered {status}; {cause} ({_first_line(error)})") from error
  except httpx2.HTTPError as error:
    raise HubError(
      f"the hub cannot be reached for {repo} ({_first_line(error)}); run the command again to "
      "resume the download"
    ) from error


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0]

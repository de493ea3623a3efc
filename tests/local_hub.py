"""A stand-in for the Hugging Face Hub: the addresses that the project asks for, on this machine."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator

TOKEN = "hf_of_a_test"


class LocalHub:
  """What the hub holds and how it behaves.

  Attributes:
    repos: content of the files of every repository, by owner/name and path.
    kind: of the repositories, datasets or models; the latter can be uploaded.
    granted: data sets that the token may read.
    wrong_digests: paths whose listed SHA-256 is not that of their content.
    serve_only: bytes after which the connection breaks while a file is sent; then the hub is down.
    is_down: every file gets the answer 503.
    requests: of files, path and the header Range.
    endpoint: address of the hub.
  """

  def __init__(self, repos: dict[str, dict[str, bytes]], kind: str = "datasets") -> None:
    self.repos = repos
    self.kind = kind
    self.granted = set(repos)
    self.wrong_digests: set[str] = set()
    self.serve_only: int | None = None
    self.is_down = False
    self.requests: list[tuple[str, str | None]] = []
    self.endpoint = ""

  def revision(self, repo: str) -> str:
    return hashlib.sha1(repr(sorted(self.repos[repo].items())).encode()).hexdigest()

  def info(self, repo: str) -> dict:
    return {
      "id": repo,
      "sha": self.revision(repo),
      "siblings": [self._sibling(path, content) for path, content in self.repos[repo].items()],
    }

  def _sibling(self, path: str, content: bytes) -> dict:
    blob = b"blob %d\0" % len(content) + content + b"!" * (path in self.wrong_digests)
    sibling = {"rfilename": path, "size": len(content), "blobId": hashlib.sha1(blob).hexdigest()}
    if path.endswith((".zip", ".pkl")):
      digest = hashlib.sha256(content + b"!" * (path in self.wrong_digests)).hexdigest()
      sibling["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 130}
    return sibling


@contextlib.contextmanager
def serve(hub: LocalHub) -> Iterator[LocalHub]:
  """Serves a hub until the block ends."""
  handler = type("Handler", (_Handler,), {"hub": hub})
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
      yield hub
    finally:
      server.shutdown()
      thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
  hub: LocalHub

  def do_GET(self) -> None:
    path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
    if self.headers.get("Authorization") != f"Bearer {TOKEN}":
      self._refuse(401, message="Invalid credentials in Authorization header")
    elif match := re.fullmatch(
      rf"/api/{self.hub.kind}/([^/]+/[^/]+)(/auth-check|/revision/main)?", path
    ):
      self._answer_api(match[1], is_auth_check=match[2] == "/auth-check")
    elif match := re.fullmatch(rf"/api/{self.hub.kind}/([^/]+/[^/]+)/tree/main", path):
      self._answer_tree(match[1])
    elif match := re.fullmatch(rf"{self._prefix}/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
      self._answer_file(*match.groups())
    else:
      self._refuse(404)

  @property
  def _prefix(self) -> str:
    return "" if self.hub.kind == "models" else f"/{self.hub.kind}"

  def do_HEAD(self) -> None:
    path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
    match = re.fullmatch(rf"{self._prefix}/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
    content = self.hub.repos.get(match[1], {}).get(match[3]) if match else None
    if match is None or content is None:
      self._refuse(404, code="EntryNotFound")
      return
    self.send_response(200)
    self.send_header("X-Repo-Commit", match[2])
    self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()

  def do_POST(self) -> None:
    """Takes an upload: every file within the commit, as the hub does with small ones."""
    path = urllib.parse.urlsplit(self.path).path
    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
    if self.headers.get("Authorization") != f"Bearer {TOKEN}":
      self._refuse(401, message="Invalid credentials in Authorization header")
    elif path == "/api/repos/create":
      asked = json.loads(body)
      name = f"{asked['organization']}/{asked['name']}"
      self.hub.repos.setdefault(name, {})
      self._answer({"url": f"{self.hub.endpoint}/{name}", "id": name})
    elif path == "/api/validate-yaml":
      self._answer({"errors": [], "warnings": []})
    elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
      asked = json.loads(body)["files"]
      self._answer(
        {
          "files": [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
            for file in asked
          ]
        }
      )
    elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
      self._commit(match[1], [json.loads(line) for line in body.splitlines()])
    else:
      self._refuse(404)

  def _commit(self, repo: str, lines: list[dict]) -> None:
    files = self.hub.repos[repo]
    for line in lines:
      value = line["value"]
      if line["key"] == "file":
        files[value["path"]] = base64.b64decode(value["content"])
      elif line["key"] == "deletedFile":
        files.pop(value["path"], None)
    commit = {"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{self.hub.revision(repo)}"}
    self._answer(commit | {"commitOid": self.hub.revision(repo), "success": True})

  def _answer_tree(self, repo: str) -> None:
    files = self.hub.repos[repo].items()
    self._answer([{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files])

  def _answer(self, content: object) -> None:
    self._send(200, json.dumps(content).encode(), "application/json")

  def _answer_api(self, repo: str, is_auth_check: bool) -> None:
    if repo not in self.hub.repos:
      self._refuse(404, code="RepoNotFound")
    elif is_auth_check and repo not in self.hub.granted:
      self._refuse(403, code="GatedRepo")
    else:
      self._send(200, json.dumps(self.hub.info(repo)).encode(), "application/json")

  def _answer_file(self, repo: str, revision: str, path: str) -> None:
    asked = self.headers.get("Range")
    self.hub.requests.append((path, asked))
    if revision != self.hub.revision(repo) or path not in self.hub.repos[repo]:
      self._refuse(404, code="EntryNotFound")
    elif self.hub.is_down:
      self._refuse(503)
    else:
      content = self.hub.repos[repo][path]
      start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
      self.send_response(206 if asked else 200)
      if asked:
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
      self.send_header("Content-Length", str(len(content) - start))
      self.end_headers()
      if self.hub.serve_only is not None:
        self.hub.is_down = True
        self.wfile.write(content[start : start + self.hub.serve_only])
        self.close_connection = True
      else:
        self.wfile.write(content[start:])

  def _refuse(self, status: int, code: str = "", message: str = "") -> None:
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    self._send(status, b"{}", "application/json", {k: v for k, v in headers.items() if v})

  def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None):
    self.send_response(status)
    for name, value in {"Content-Type": kind, **(headers or {})}.items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *_: object) -> None:
    """Tests need no log of requests."""

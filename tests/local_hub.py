"""A stand-in for the Hugging Face Hub: the addresses that a download asks for, on this machine."""

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
    repos: content of the files of every data set, by owner/name and path.
    granted: data sets that the token may read.
    wrong_digests: paths whose listed SHA-256 is not that of their content.
    serve_only: bytes after which the connection breaks while a file is sent; then the hub is down.
    is_down: every file gets the answer 503.
    requests: of files, path and the header Range.
    endpoint: address of the hub.
  """

  def __init__(self, repos: dict[str, dict[str, bytes]]) -> None:
    self.repos = repos
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
    sibling = {"rfilename": path, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
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
    elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(/auth-check|/revision/main)?", path):
      self._answer_api(match[1], is_auth_check=match[2] == "/auth-check")
    elif match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
      self._answer_file(*match.groups())
    else:
      self._refuse(404)

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

"""A local server that speaks as much of the Hub's API as Headstart uses, and can be told to fail.

    with serving() as hub:
        hub.put("owner/name", {"config.json": b"{}", "onnx/model.onnx": b"..."})
        os.environ["HF_ENDPOINT"] = hub.url
        ...
        hub.requests    what was asked, as (method, path, the Range header)

`hub.cut[path] = n` breaks the connection after n bytes, once for every n in a list; `hub.swapped[path] = bytes` serves
other bytes than the listing states; `hub.gated` holds repositories whose files ask for a token.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 1000  # bytes from which a file is large: its sha256 is stated


def commit(files: dict[str, bytes]) -> str:
    """A commit hash of a set of files."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Hub:
    """What the server holds, and what it was asked."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}  # repo -> revision -> files
        self.main: dict[str, str] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut: dict[str, list[int]] = {}
        self.swapped: dict[str, bytes] = {}
        self.gated: dict[str, int] = {}  # repo -> 401 or 403
        self.token = "hf_right"
        self.ranges = True
        self.body: bytes | None = None  # answered to everything
        self.elsewhere: str | None = None  # where files lie: they are redirected to
        self.tokens: list[str | None] = []  # that came with requests for files
        self.url = ""

    def put(self, repo: str, files: dict[str, bytes]) -> str:
        """A new commit, to which main points."""
        name = commit(files)
        self.repos.setdefault(repo, {})[name] = dict(files)
        self.main[repo] = name
        return name

    def asked(self, part: str = "") -> list[tuple[str, str, str | None]]:
        return [one for one in self.requests if part in one[1]]


def sibling(name: str, content: bytes) -> dict:
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    said = {"rfilename": name, "size": len(content), "blobId": git}
    if len(content) >= LARGE:
        said["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return said


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), content_type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.hub
        split = urlsplit(self.path)
        path, query = unquote(split.path), parse_qs(split.query)
        hub.requests.append((self.command, path, self.headers.get("range")))
        if hub.body is not None:
            self.send(200, hub.body, content_type="application/json")
        elif path == "/api/models":
            owner = query.get("author", [""])[0]
            self.json([{"id": repo} for repo in hub.repos if repo.startswith(owner + "/")])
        elif path.startswith("/api/models/"):
            repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            if repo not in hub.repos:
                self.send(401, b"{}", X_Error_Code="RepoNotFound")
            elif (found := self.resolved(repo, revision or "main")) is None:
                self.send(404, b"{}", X_Error_Code="RevisionNotFound")
            else:
                files = hub.repos[repo][found]
                self.json({"id": repo, "sha": found, "siblings": [sibling(n, c) for n, c in files.items()]})
        else:
            repo, _, rest = path.removeprefix("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            self.file(repo, revision, name)

    def resolved(self, repo: str, revision: str) -> str | None:
        found = self.hub.main[repo] if revision == "main" else revision
        return found if found in self.hub.repos[repo] else None

    def file(self, repo: str, revision: str, name: str) -> None:
        hub = self.hub
        hub.tokens.append(self.headers.get("authorization"))
        if repo in hub.gated and self.headers.get("authorization") != f"Bearer {hub.token}":
            self.send(hub.gated[repo], b"{}", X_Error_Code="GatedRepo", X_Error_Message="restricted")
            return
        found = self.resolved(repo, revision) if repo in hub.repos else None
        content = hub.repos[repo][found].get(name) if found else None
        if found is None or content is None:
            self.send(404, b"{}", X_Error_Code="EntryNotFound")
            return
        if hub.elsewhere:
            self.send(302, location=f"{hub.elsewhere}{self.path}")
            return
        content = hub.swapped.get(name, content)
        start, status = 0, 200
        if hub.ranges and (asked := self.headers.get("range")):
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(content):
                self.send(416)
                return
        self.send_response(status)
        if status == 206:
            self.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("content-length", str(len(content) - start))
        self.send_header("etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("x-repo-commit", found)
        self.end_headers()
        if self.command == "HEAD":
            return
        if hub.cut.get(name):
            self.wfile.write(content[start : start + hub.cut[name].pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(content[start:])


@contextmanager
def serving() -> Iterator[Hub]:
    """A server on this machine, in a thread."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Answer,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

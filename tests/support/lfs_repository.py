"""A real repository whose data Git LFS keeps, with its store on a disk, and a small LFS server for that store."""

from __future__ import annotations

import base64
import json
import shutil
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.git_server import LOGIN, PASSWORD, Repository, ThreadedServer

IS_INSTALLED = shutil.which("git-lfs") is not None


class LfsRepository(Repository):
    """A repository whose CSV files Git LFS keeps; ``url`` is that of the bare repository that it is pushed to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bare = folder.with_name(f"{folder.name}.git")
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        self.git("remote", "add", "origin", f"file://{self.bare}")
        self.git("lfs", "install", "--local")
        self.git("lfs", "track", "*.csv")

    @property
    def url(self) -> str:
        return f"file://{self.bare}"

    def data(self, text: str, file: str = "train.csv") -> str:
        """Write, commit and push data; give the commit."""
        commit = self.commit(text, file)
        self.git("push", "--quiet", "--force", "origin", "main")
        return commit

    def configure(self, url: str) -> str:
        """Say in ``.lfsconfig`` where the LFS server is; give the commit."""
        commit = self.commit(f"[lfs]\n\turl = {url}\n\tlocksverify = false\n", ".lfsconfig")
        self.git("-c", f"lfs.url=file://{self.bare}", "push", "--quiet", "origin", "main")
        return commit

    def kept(self, text: str) -> Path:
        """Give the object in the store that holds a content."""
        oid = sha256(text.encode()).hexdigest()
        return self.bare / "lfs/objects" / oid[:2] / oid[2:4] / oid


class LfsServer(ThreadedServer):
    """Answers downloads by the batch API from a store on the disk, to those who log in or, when it is open, to all."""

    def __init__(self, repository: LfsRepository, *, is_open: bool = False) -> None:
        wanted = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not is_open and self.headers["Authorization"] != f"Basic {wanted}":
                    self._send(401, b"{}", {"WWW-Authenticate": "Basic"})
                    return
                asked = json.loads(body)["objects"]
                self._send(
                    200, json.dumps({"transfer": "basic", "objects": [self._held(item) for item in asked]}).encode()
                )

            def do_GET(self) -> None:
                oid = self.path.rpartition("/")[2]
                self._send(200, (repository.bare / "lfs/objects" / oid[:2] / oid[2:4] / oid).read_bytes())

            def _held(self, item: dict[str, object]) -> dict[str, object]:
                oid = str(item["oid"])
                if not (repository.bare / "lfs/objects" / oid[:2] / oid[2:4] / oid).is_file():
                    return {**item, "error": {"code": 404, "message": "Object does not exist"}}
                return {**item, "actions": {"download": {"href": f"{server.url}/objects/{oid}"}}}

            def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, text in {"Content-Type": "application/vnd.git-lfs+json", **(headers or {})}.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

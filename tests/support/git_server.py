"""Real Git repositories, and a server for them over HTTP that asks for a login."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

LOGIN, PASSWORD = "bob", "s3cret-p%ss word"
_IDENTITY = {
    f"GIT_{role}_{field}": "tests@example.com" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")
}


class Repository:
    """A repository with a working tree on the branch ``main``.

    :param folder: a folder that does not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def git(self, *arguments: str) -> str:
        clean = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
        env = {**clean, **_IDENTITY, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments], check=True, capture_output=True, text=True, env=env
        )
        return done.stdout.strip()

    def sign_tag(self, name: str, key: Path, *options: str) -> None:
        """Make a tag that an SSH key signs."""
        self.git(
            *("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}"), "tag", "-s", name, "-m", "release", *options
        )

    def commit(self, text: str, file: str = "train.py") -> str:
        """Write a file, commit it and give the id of the commit."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.git("add", file)
        self.git("commit", "--quiet", "--allow-empty", "--message", text)
        return self.git("rev-parse", "HEAD")


def new_ssh_key(path: Path) -> str:
    """Make an SSH key that signs, and return its public key; Git takes the path as ``user.signingkey``."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text().strip()


class ThreadedServer:
    """Answers in a thread of its own, inside a ``with`` block."""

    _server: ThreadingHTTPServer

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class GitHttpServer(ThreadedServer):
    """Serves the repositories of a folder by ``git http-backend``; asks for login and password.

    :param root: folder of the repositories.
    :param host: address to listen at.
    """

    def __init__(self, root: Path, host: str = "127.0.0.1") -> None:
        self.seen_credentials: list[str] = []
        self.redirect_to = ""
        self._server = ThreadingHTTPServer((host, 0), _handler(self, root))
        self.url = f"http://{host}:{self._server.server_port}"


def _handler(server: GitHttpServer, root: Path) -> type[BaseHTTPRequestHandler]:
    expected = "Basic " + base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

        def _answer(self) -> None:
            given = self.headers.get("Authorization", "")
            if given:
                server.seen_credentials.append(given)
            if server.redirect_to:
                self.send_response(302)
                self.send_header("Location", server.redirect_to + self.path)
                self.end_headers()
            elif given != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._serve()

        def _serve(self) -> None:
            path, _, query = self.path.partition("?")
            env = {
                **os.environ,
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=env, check=False)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler

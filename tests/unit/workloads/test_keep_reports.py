"""The program that keeps reports, as a child process of its own, against a server that may go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airflow_mcp.workloads import keep_reports

PROGRAM = [sys.executable, "-I", str(Path(keep_reports.__file__))]
WRITE = "import pathlib, sys; [pathlib.Path(name).write_text('report ' + name) for name in sys.argv[1:]]"


class Server(BaseHTTPRequestHandler):
    stored: dict[str, bytes] = {}
    logins: set[str] = set()
    failures: list[int] = []
    root = "mlflow-artifacts:/7/abc/artifacts"

    def do_GET(self) -> None:
        body = json.dumps({"run": {"info": {"artifact_uri": self.root}}}).encode()
        self.send_response(200 if self.path == "/api/2.0/mlflow/runs/get?run_id=abc" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.logins.add(self.headers.get("Authorization", ""))
        status = self.failures.pop() if self.failures else 200
        if status == 200:
            self.stored[self.path] = content
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[str]:
    for kept in (Server.stored, Server.logins, Server.failures):
        kept.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def run(folder: Path, server: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    named = {"MLFLOW_TRACKING_URI": server, "MLFLOW_RUN_ID": "abc", "PATH": os.environ["PATH"], **env}
    return subprocess.run(
        [*PROGRAM, *arguments], cwd=folder, env=named, capture_output=True, text=True, timeout=60, check=False
    )


def write(*names: str) -> list[str]:
    return ["--", sys.executable, "-c", WRITE, *names]


def test_what_the_patterns_match_is_kept_below_reports(tmp_path: Path, server: str) -> None:
    (tmp_path / "lint").mkdir()
    done = run(tmp_path, server, "coverage.xml", "lint/*.sarif", *write("coverage.xml", "lint/a b.sarif", "other.txt"))
    assert done.returncode == 0, done.stderr
    root = "/api/2.0/mlflow-artifacts/artifacts/7/abc/artifacts/reports"
    assert Server.stored == {
        f"{root}/coverage.xml": b"report coverage.xml",
        f"{root}/lint/a%20b.sarif": b"report lint/a b.sarif",
    }
    assert "kept reports/coverage.xml in MLflow run abc" in done.stderr


@pytest.mark.parametrize("code", [1, 7])
def test_reports_of_a_command_that_fails_are_kept_and_its_exit_code_stays(
    tmp_path: Path, server: str, code: int
) -> None:
    command = [sys.executable, "-c", f"open('x.xml', 'w').write('failed'); raise SystemExit({code})"]
    assert run(tmp_path, server, "x.xml", "--", *command).returncode == code
    assert list(Server.stored.values()) == [b"failed"]
    (tmp_path / "x.xml").unlink()
    missing = run(tmp_path, server, "x.xml", "--", sys.executable, "-c", f"raise SystemExit({code})")
    assert missing.returncode == code


def test_a_report_that_the_command_does_not_leave_is_a_failure_and_the_others_are_kept(
    tmp_path: Path, server: str
) -> None:
    done = run(tmp_path, server, "a.xml", "b.xml", *write("a.xml"))
    assert done.returncode == 1
    assert "error: the command left no b.xml in" in done.stderr
    assert len(Server.stored) == 1


def test_a_link_that_leads_outside_is_not_kept(tmp_path: Path, server: str) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "secret.xml").write_text("secret")
    (folder / "x.xml").symlink_to(tmp_path / "secret.xml")
    assert run(folder, server, "x.xml", "--", "true").returncode == 1
    assert Server.stored == {}


def test_a_server_that_stumbles_is_asked_again(tmp_path: Path, server: str) -> None:
    Server.failures[:] = [503]
    assert run(tmp_path, server, "x.xml", *write("x.xml")).returncode == 0
    assert len(Server.stored) == 1


@pytest.mark.parametrize("failures", [[403], [404]])
def test_a_server_that_refuses_fails_the_step(tmp_path: Path, server: str, failures: list[int]) -> None:
    Server.failures[:] = failures
    done = run(tmp_path, server, "x.xml", *write("x.xml"))
    assert done.returncode == 1
    assert f"cannot be stored in MLflow run abc: MLflow answered {failures[0]}" in done.stderr


@pytest.mark.parametrize(
    ("env", "header"),
    [
        ({}, ""),
        ({"MLFLOW_TRACKING_TOKEN": "t0ken"}, "Bearer t0ken"),
        ({"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "pw"}, "Basic YWRhOnB3"),
    ],
)
def test_the_credentials_are_those_of_mlflows_own_client(
    tmp_path: Path, server: str, env: dict[str, str], header: str
) -> None:
    assert run(tmp_path, server, "x.xml", *write("x.xml"), **env).returncode == 0
    assert Server.logins == {header}


def test_a_command_that_is_not_there_ends_as_in_a_shell(tmp_path: Path, server: str) -> None:
    done = run(tmp_path, server, "x.xml", "--", "no-such-program")
    assert done.returncode == 127
    assert "'no-such-program' cannot be started" in done.stderr


def test_a_signal_reaches_the_command(tmp_path: Path, server: str) -> None:
    code = "import signal, time; signal.signal(15, lambda *_: exit(5)); print('ready', flush=True); time.sleep(30)"
    env = {"MLFLOW_TRACKING_URI": server, "MLFLOW_RUN_ID": "abc", "PATH": os.environ["PATH"]}
    process = subprocess.Popen(
        [*PROGRAM, "x.xml", "--", sys.executable, "-c", code], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 5
    process.stdout.close()


def test_a_command_that_a_signal_ends_is_counted_as_a_shell_does(tmp_path: Path, server: str) -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    assert run(tmp_path, server, "x.xml", "--", sys.executable, "-c", code).returncode == 137

"""A program that runs a step's command and stores the reports that it writes, in any image with Python 3.

It is sent along with the workload as text and needs only the standard library. Started as ``keep_reports.py PATTERN …
-- COMMAND …`` in the folder of the command, it runs the command with the same environment, forwards signals, and stores
the files that the patterns match below ``reports/`` in the MLflow run of the environment, through the server's artifact
proxy. Reports are stored even if the command fails, since those of failed tests matter most. The exit code is that of
the command; 1 if the command succeeded but a pattern matched nothing or a report could not be stored.
"""

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

FOLDER = "reports"
MAX_FILES = 100
MAX_BYTES = 64 * 1024 * 1024
TRIES = 4


class CannotKeepError(Exception):
    """A report is missing or cannot be stored."""


def main(arguments: list[str]) -> int:
    """Run the command and store its reports.

    :param arguments: patterns, ``--``, command.
    :return: the exit code.
    """
    end = arguments.index("--")
    patterns, command = arguments[:end], arguments[end + 1 :]
    code = run(command)
    try:
        keep(patterns)
    except CannotKeepError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return code or 1
    return code


def run(command: list[str]) -> int:
    """Run a command to its end, forward signals to it, and return its exit code as a shell would."""
    children: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        for child in children:
            child.send_signal(number)

    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, pass_on)
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"error: {command[0]!r} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
        return 127 if isinstance(error, FileNotFoundError) else 126
    children.append(child)
    for number in received:
        child.send_signal(number)
    code = child.wait()
    return 128 - code if code < 0 else code


def keep(patterns: list[str]) -> None:
    """Store every file that a pattern matches.

    :raises CannotKeepError: when a pattern matches nothing, or a file cannot be stored; the others are stored.
    """
    found = {pattern: matches(pattern) for pattern in patterns}
    files = sorted({file for matched in found.values() for file in matched})
    if len(files) > MAX_FILES:
        raise CannotKeepError(f"{len(files)} files match {' '.join(patterns)}; at most {MAX_FILES} are kept")
    if files:
        store = Store(os.environ)
        for file in files:
            store.put(file)
    missing = [pattern for pattern, matched in found.items() if not matched]
    if missing:
        raise CannotKeepError(f"the command left no {', '.join(missing)} in {os.getcwd()}")  # noqa: PTH109


def matches(pattern: str) -> list[str]:
    """Return the files below this folder that a pattern matches."""
    here = Path().resolve()
    return [path.as_posix() for path in Path().glob(pattern) if path.is_file() and here in path.resolve().parents]


class Store:
    """The artifacts of the MLflow run of an environment.

    :param environ: environment variables, as MLflow's own client reads them.
    """

    def __init__(self, environ: "os._Environ[str] | dict[str, str]") -> None:
        self._server = environ["MLFLOW_TRACKING_URI"].rstrip("/")
        self._run_id = environ["MLFLOW_RUN_ID"]
        self._headers = _authorization(environ)
        self._tls = ssl.create_default_context(cafile=environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
        if environ.get("MLFLOW_TRACKING_INSECURE_TLS") == "true":
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._root = ""

    def put(self, file: str) -> None:
        """Store one file, or replace it."""
        if Path(file).stat().st_size > MAX_BYTES:
            raise CannotKeepError(f"{file} is larger than {MAX_BYTES} bytes")
        self._root = self._root or self._find_root()
        path = f"{self._root}/{FOLDER}/{urllib.parse.quote(file)}"
        self._ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", Path(file).read_bytes())
        print(f"kept {FOLDER}/{file} in MLflow run {self._run_id}", file=sys.stderr, flush=True)

    def _find_root(self) -> str:
        run = json.loads(self._ask("GET", f"/api/2.0/mlflow/runs/get?run_id={self._run_id}"))
        root = urllib.parse.urlsplit(run["run"]["info"]["artifact_uri"])
        if root.scheme != "mlflow-artifacts" or root.netloc:
            raise CannotKeepError("the MLflow server does not proxy artifacts; start it with --serve-artifacts")
        return urllib.parse.quote(root.path.strip("/"))

    def _ask(self, method: str, path: str, content: "bytes | None" = None) -> bytes:
        headers = {**self._headers, "Content-Type": "application/octet-stream"}
        request = urllib.request.Request(self._server + path, content, headers, method=method)  # noqa: S310
        for left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=60, context=self._tls) as answer:  # noqa: S310
                    body: bytes = answer.read()
                    return body
            except urllib.error.HTTPError as error:
                problem = f"MLflow answered {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except OSError as error:
                problem = f"MLflow does not answer ({type(error).__name__})"
            if left:
                time.sleep(2.0 ** (TRIES - 1 - left))
        raise CannotKeepError(f"a report cannot be stored in MLflow run {self._run_id}: {problem}")


def _authorization(environ: "os._Environ[str] | dict[str, str]") -> dict[str, str]:
    if environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": "Bearer " + environ["MLFLOW_TRACKING_TOKEN"]}
    if environ.get("MLFLOW_TRACKING_USERNAME"):
        login = f"{environ['MLFLOW_TRACKING_USERNAME']}:{environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
    return {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

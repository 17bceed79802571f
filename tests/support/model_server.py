"""A model server as users start it, in a process of its own, and models for it that misbehave on demand."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.support.paths import ROOT
from tests.support.services import free_port

MISCHIEF = '''
import os, signal, time
import mlflow


class Mischief(mlflow.pyfunc.PythonModel):
    """Answers twice the column x, or does what the column act says."""

    def predict(self, context, model_input, params=None):
        for act in model_input["act"]:
            if act == "raise":
                raise ValueError("the rows were " + repr(model_input.to_dict("list")))
            if act == "hang":
                time.sleep(600)
            if act == "abort":
                os.abort()
            if act == "once" and not os.path.exists("{mark}"):
                open("{mark}", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            if act == "secret":
                return [float("MLFLOW_TRACKING_PASSWORD" in os.environ)] * len(model_input)
            if act == "home":
                home = os.path.expanduser("~")
                return [float(len(os.listdir(home)) if os.access(home, os.W_OK) else -1)] * len(model_input)
        if params and params.get("times"):
            return model_input["x"].to_numpy() * params["times"]
        return model_input["x"].to_numpy() * 2


mlflow.models.set_model(Mischief())
'''
WRAPPED = """
import mlflow


class Wrapped(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        import model_wrapper

        self._name = model_wrapper.NAME

    def predict(self, context, model_input, params=None):
        return {"predictions": [{"who": self._name, "rows": len(model_input)}]}


mlflow.models.set_model(Wrapped())
"""


def save_mischief(folder: Path) -> Path:
    """Save a model that dies, hangs and raises on demand; answers twice its column ``x``."""
    import mlflow
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature

    example = pd.DataFrame({"x": [1.5, 2.5], "act": ["", ""]})
    script = folder.with_suffix(".py")
    script.write_text(MISCHIEF.replace("{mark}", str(folder.with_suffix(".mark"))), encoding="utf-8")
    with _without_warnings():
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(script),
            signature=infer_signature(example, np.array([3.0]), params={"times": 0}),
            input_example=example,
            pip_requirements=[],
        )
    return folder


def save_wrapped(folder: Path, name: str) -> Path:
    """Save a model whose code is in a module ``model_wrapper`` that was logged with it, and that answers its name."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature

    folder.parent.mkdir(parents=True, exist_ok=True)
    script, module = folder.with_suffix(".py"), folder.parent / "model_wrapper.py"
    script.write_text(WRAPPED, encoding="utf-8")
    module.write_text(f"NAME = {name!r}\n", encoding="utf-8")
    with _without_warnings():
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(script),
            code_paths=[str(module)],
            signature=infer_signature(pd.DataFrame({"x": [1.0]})),
            pip_requirements=[],
        )
    return folder


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Ignore MLflow's warnings of type hints of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Answer(NamedTuple):
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Code of the error."""
        return str(self.json["error"]["code"])


class ModelServer:
    """``python -m airflow_mcp.serving`` in a process of its own.

    :param models: value of ``MODEL_URI``.
    :param environment: further environment variables.
    :param settings: settings, by name.
    """

    def __init__(self, models: str, environment: Mapping[str, str] | None = None, **settings: Any) -> None:
        self.port = free_port()
        given = {f"AIRFLOW_MCP_SERVING_{name.upper()}": str(value) for name, value in settings.items()}
        self._environment = {
            **os.environ,
            "MODEL_URI": models,
            "AIRFLOW_MCP_SERVING_HOST": "127.0.0.1",
            "AIRFLOW_MCP_SERVING_PORT": str(self.port),
            "AIRFLOW_MCP_SERVING_DRAIN_SECONDS": "0.3",
            **given,
            **(environment or {}),
        }
        self.lines: list[str] = []
        """Lines of the log of requests."""
        self.errors: list[str] = []
        """Lines of the log of the server and of its models."""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "airflow_mcp.serving"],
            env=self._environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=lambda: self.lines.extend(self.process.stdout or ()), daemon=True),
            threading.Thread(target=lambda: self.errors.extend(self.process.stderr or ()), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """End the server as Kubernetes does, and return its exit code."""
        self.process.terminate()
        try:
            code = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for reader, stream in zip(self._readers, (self.process.stdout, self.process.stderr), strict=True):
            reader.join(timeout=10)
            if stream is not None:
                stream.close()
        return code

    def wait_until_ready(self, seconds: float = 120.0) -> Self:
        """Wait until every model answers."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.process.poll() is None, "".join(self.errors[-20:])
            try:
                if self.get("/readyz").status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("not ready: " + "".join(self.errors[-20:]))

    def get(self, path: str) -> Answer:
        """Read a page."""
        return self.ask("GET", path, None)

    def post(self, body: Any, path: str = "/invocations", **headers: str) -> Answer:
        """Ask a model; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, content, {"content-type": "application/json", **named})

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read())
        finally:
            connection.close()

    def model_processes(self) -> list[int]:
        """Return the processes that answer: the children of those that have loaded a model."""
        return [answers for loader in children(self.process.pid) for answers in children(loader)]


def children(pid: int) -> list[int]:
    """Return the living processes that a process has started."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [int(child) for child in listed if _lives(child)]


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

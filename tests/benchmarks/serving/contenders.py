"""The model servers that are compared, each started with the same model, and the floors without a model."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.services import free_port

PEERS = ROOT / ".venv" / "peers"
HOW_TO_GET_PEERS = "make peers"
COLUMNS = 30
START_SECONDS = 120
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Contender:
    """One server of the comparison.

    :param command: command line; ``{port}`` is replaced.
    :param path: path of the requests that are measured.
    :param body: one row, as this server takes it.
    :param ready: path that answers 200 when the model is loaded.
    :param folder: working folder.
    """

    name: str
    command: tuple[str, ...]
    path: str
    body: bytes
    ready: str
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def running(self) -> Iterator[tuple[int, str]]:
        """Start it, wait until it answers the row, and return its process id and the URL that is measured."""
        port = free_port()
        command = [part.format(port=port) for part in self.command]
        with (self.folder / f"{self.path.strip('/').replace('/', '-')}-{port}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **_ONE_THREAD, **{k: v.format(port=port) for k, v in self.env.items()}},
                start_new_session=True,
            )
            try:
                base = f"http://127.0.0.1:{port}"
                self._wait(process, base, Path(log.name))
                yield process.pid, base + self.path
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _wait(self, process: subprocess.Popen[bytes], base: str, log: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(base + self.ready, timeout=5).close()
                answer = urllib.request.urlopen(
                    urllib.request.Request(
                        base + self.path, data=self.body, headers={"Content-Type": "application/json"}
                    ),
                    timeout=30,
                )
                assert answer.status == 200
                return
            time.sleep(0.2)
        raise AssertionError(f"{self.name} did not answer in {START_SECONDS} s:\n{log.read_text()[-3000:]}")


def row() -> list[float]:
    """Return one row of 30 doubles."""
    return [round(0.37 * number - 4.1, 3) for number in range(COLUMNS)]


def contenders(model: Path, folder: Path) -> list[Contender]:
    """Return the servers that can be started here: ours, MLflow's, the floors, and the peers that are installed."""
    split = json.dumps(
        {"dataframe_split": {"columns": [f"column_{number}" for number in range(COLUMNS)], "data": [row()]}}
    ).encode()
    found = [_ours(model, folder, split), *(_mlflow(model, folder, split, workers) for workers in (1, 2))]
    if (PEERS / "mlserver").is_dir():
        found += [_mlserver(model, folder, batching=batching) for batching in (False, True)]
    if (PEERS / "bentoml").is_dir():
        found += [_bentoml(model, folder, batching=batching) for batching in (False, True)]
    return [*found, _floor("FastAPI, pydantic body, no model", _FASTAPI, folder, split), raw_asgi(folder, split)]


def raw_asgi(folder: Path, body: bytes) -> Contender:
    """Return the physical limit: a server that reads the body and answers ``{}``."""
    return _floor("raw ASGI, body read, no model", _RAW_ASGI, folder, body)


def _ours(model: Path, folder: Path, body: bytes) -> Contender:
    command = (sys.executable, "-m", "airflow_mcp.cli", "serve", str(model), "--host", "127.0.0.1", "--port", "{port}")
    return Contender("airflow-mcp serve", command, "/invocations", body, "/readyz", folder)


def _mlflow(model: Path, folder: Path, body: bytes, workers: int) -> Contender:
    command = (
        *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"),
        *("--host", "127.0.0.1", "--port", "{port}", "--workers", str(workers)),
    )
    name = f"mlflow models serve, {workers} worker{'s' * (workers > 1)}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return Contender(name, command, "/invocations", body, "/ping", folder, {"PATH": path})


def _mlserver(model: Path, folder: Path, *, batching: bool) -> Contender:
    home = folder / f"mlserver-{batching}"
    home.mkdir(exist_ok=True)
    settings: dict[str, Any] = {
        "name": "model",
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": str(model)},
    }
    if batching:
        settings |= {"max_batch_size": 64, "max_batch_time": 0.005}
    (home / "model-settings.json").write_text(json.dumps(settings))
    (home / "settings.json").write_text(json.dumps({"parallel_workers": 0, "debug": False}))
    inputs = [
        {"name": f"column_{number}", "shape": [1, 1], "datatype": "FP64", "data": [value]}
        for number, value in enumerate(row())
    ]
    body = json.dumps({"parameters": {"content_type": "pd"}, "inputs": inputs}).encode()
    env = {"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_HOST": "127.0.0.1", "MLSERVER_GRPC_PORT": str(free_port())}
    env["MLSERVER_METRICS_PORT"] = str(free_port())
    command = (str(PEERS / "mlserver" / "bin" / "mlserver"), "start", str(home))
    name = "MLServer, batches of 64 within 5 ms" if batching else "MLServer"
    return Contender(name, command, "/v2/models/model/infer", body, "/v2/models/model/ready", home, env)


def _bentoml(model: Path, folder: Path, *, batching: bool) -> Contender:
    home = folder / f"bentoml-{batching}"
    home.mkdir(exist_ok=True)
    options = "batchable=True, max_batch_size=64" if batching else ""
    (home / "service.py").write_text(_BENTOML.format(model=str(model / "model.pkl"), options=options))
    command = (
        *(str(PEERS / "bentoml" / "bin" / "bentoml"), "serve", "service:Scorer", "--host", "127.0.0.1"),
        *("--port", "{port}"),
    )
    env = {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
    name = "BentoML, arrays, batchable" if batching else "BentoML, arrays"
    return Contender(name, command, "/predict", json.dumps({"rows": [row()]}).encode(), "/readyz", home, env)


def _floor(name: str, code: str, folder: Path, body: bytes) -> Contender:
    module = f"floor_{abs(hash(name))}"
    (folder / f"{module}.py").write_text(code)
    command = (
        *(sys.executable, "-m", "uvicorn", f"{module}:app", "--host", "127.0.0.1", "--port", "{port}"),
        *("--no-access-log", "--log-level", "warning"),
    )
    return Contender(name, command, "/invocations", body, "/ready", folder)


_BENTOML = """import pickle

import bentoml
import numpy as np

with open({model!r}, "rb") as file:
    model = pickle.load(file)


@bentoml.service(workers=1)
class Scorer:
    @bentoml.api({options})
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return model.predict(rows)
"""
_FASTAPI = """from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Frame(BaseModel):
    columns: list[str]
    data: list[list[float]]


class Body(BaseModel):
    dataframe_split: Frame


@app.get("/ready")
async def ready() -> dict[str, Any]:
    return {}


@app.post("/invocations")
async def invocations(body: Body) -> dict[str, Any]:
    return {"predictions": [0 for _ in body.dataframe_split.data]}
"""
_RAW_ASGI = """HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"2")],
}


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send(HEAD)
    await send({"type": "http.response.body", "body": b"{}"})
"""

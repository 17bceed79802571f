"""A model server as a process, versions that answer with their own number, and a client that asks all the time."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from airflow_mcp.core import contract
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.serving.cache import digest_of
from tests.support.services import LOOPBACK, Service, free_port

if TYPE_CHECKING:
    from airflow_mcp.hooks.mlflow import MlflowHook
    from tests.support.services import MlflowServer

IMAGE = "sha256:" + "1" * 64
BODY = json.dumps({"dataframe_split": {"columns": ["x1", "x2"], "data": [[0.5, 1.0]]}}).encode()
ROWS = json.dumps({"dataframe_split": {"columns": ["x1", "x2"], "data": [[0.5, 1.0]] * 3}}).encode()


class NumberedVersions:
    """Versions of one registered model, each of which predicts its own number.

    :param server: the MLflow server.
    :param hook: a hook on it.
    :param name: name of the registered model; created.
    :param folder: folder for files.
    """

    def __init__(self, server: MlflowServer, hook: MlflowHook, name: str, folder: Path) -> None:
        self._server, self.hook, self.name = server, hook, name
        self._template = folder / "template"
        self._experiment = hook.get_or_create_experiment(f"{name}-serving")
        hook.create_registered_model(name)
        self._save_template()
        self._count = 0

    def _save_template(self) -> None:
        import mlflow
        import pandas as pd

        frame = pd.DataFrame({"x1": [0.0, 1.0], "x2": [1.0, 0.0]})
        source = self._template.parent / f"{self.name}-source"
        source.mkdir(parents=True)
        (source / f"{_LOADER}.py").write_text(_LOADER_SOURCE)
        (source / "model.pkl").write_bytes(_pickled(0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow, about its own modules and about whole numbers
            mlflow.pyfunc.save_model(
                str(self._template),
                loader_module=_LOADER,
                code_paths=[str(source / f"{_LOADER}.py")],
                data_path=str(source / "model.pkl"),
                input_example=frame,
                signature=mlflow.models.infer_signature(frame, pd.Series([0, 0])),
                pip_requirements=[],
            )
        (self._template / "data" / "model.pkl").rename(self._template / "model.pkl")
        description = self._template / "MLmodel"
        description.write_text(description.read_text().replace("data: data/model.pkl", "data: model.pkl"))

    def add(
        self,
        *,
        tags: Mapping[str, str | None] | None = None,
        run_tags: Mapping[str, str] | None = None,
        change: Callable[[Path], None] | None = None,
        profile: str = "",
    ) -> str:
        """Register a version with sound evidence, and return its number.

        :param tags: tags of the version that differ; None leaves one out.
        :param run_tags: tags of its run that differ.
        :param change: changes its files before their digest is recorded.
        :param profile: profile of its training data, as JSON.
        """
        self._count += 1
        evidence = {contract.TAG_GATE_VERDICT: "passed", contract.TAG_DATA_HASH: "sha256:" + "a" * 64}
        run = self.hook.create_run(self._experiment, "training", {**evidence, **(run_tags or {})}, 0)
        if profile:
            self.hook.upload_artifact(run.run_id, contract.ARTIFACT_PROFILE, profile.encode())
            evidence[contract.TAG_DATA_PROFILE] = contract.ARTIFACT_PROFILE
        self.hook.update_run(run.run_id, "FINISHED", 1)
        model_id, folder = self._logged_model(run.run_id)
        shutil.copytree(self._template, folder, dirs_exist_ok=True)
        (folder / "model.pkl").write_bytes(_pickled(self._count))
        if change is not None:
            change(folder)
        check = LoadCheck("passed", "it loads", "2026-11-29T00:00:00+00:00", run.run_id, IMAGE, {}, digest_of(folder))
        wanted: dict[str, str | None] = {**evidence, **check.to_tags(), **(tags or {})}
        named = {name: value for name, value in wanted.items() if value is not None}
        version = self.hook.create_model_version(
            self.name, f"models:/{model_id}", run_id=run.run_id, model_id=model_id, tags=named
        )
        assert version.version == str(self._count)
        return version.version

    def files(self, number: str) -> Path:
        """Return where the server keeps the files of a version."""
        model_id = self.hook.get_model_version(self.name, number).model_id
        (found,) = (self._server.folder / "artifacts").rglob(f"{model_id}/artifacts")
        return found

    def promote(self, number: str) -> None:
        """Point the alias at a version."""
        self.hook.set_alias(self.name, contract.ALIAS_CHAMPION, number)

    def _logged_model(self, run_id: str) -> tuple[str, Path]:
        from airflow_mcp.mlflow_client.api import API
        from airflow_mcp.mlflow_client.wire import MlflowRequest

        def operation(method: Any, path: str, body: Mapping[str, Any]) -> Any:
            response = yield MlflowRequest(path, method, f"{API}/{path}", json=body)
            return response.data

        body = {"experiment_id": self._experiment, "name": "model", "source_run_id": run_id}
        info = self.hook.perform(operation("POST", "logged-models", body))["model"]["info"]
        model_id = str(info["model_id"])
        ready = {"model_id": model_id, "status": "LOGGED_MODEL_READY"}
        self.hook.perform(operation("PATCH", f"logged-models/{model_id}", ready))
        path = str(info["artifact_uri"]).removeprefix("mlflow-artifacts:").strip("/")
        folder = self._server.folder / "artifacts" / path
        folder.mkdir(parents=True, exist_ok=True)
        return model_id, folder


_LOADER = "load_numbered"
_LOADER_SOURCE = """
import pickle


def _load_pyfunc(path):
    with open(path, "rb") as stream:
        return pickle.load(stream)
"""
"""Loads the model without a library of models: the import of scikit-learn would be a third of what each load costs."""


def _pickled(number: int) -> bytes:
    import cloudpickle

    class Numbered:  # within the function, so that it is pickled with its code
        def predict(self, rows: Any) -> Any:
            import numpy as np

            return np.full(len(rows), number)

    content: bytes = cloudpickle.dumps(Numbered())
    return content


class FollowingServer(Service):
    """A model server that follows a registry.

    :param folder: folder for its cache and its log.
    :param model: what it serves.
    :param tracking_uri: address of the MLflow server.
    :param environment: further environment variables.
    :param settings: further settings, by their names in upper case.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        tracking_uri: str,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.port = free_port()
        given = {
            "HOST": LOOPBACK,
            "PORT": self.port,
            "CACHE_FOLDER": folder / "cache",
            "LOG_FOLDER": folder / "spool",
            "IMAGE_DIGEST": IMAGE,
            "POLL_SECONDS": 0.3,
            "REGISTRY_TIMEOUT": 1,
            "DRAIN_SECONDS": 1,
            "FORCED": "true",
            **settings,
        }
        env = {f"AIRFLOW_MCP_SERVING_{name}": str(value) for name, value in given.items()}
        super().__init__(
            "model-server",
            [sys.executable, "-m", "airflow_mcp.serving"],
            folder=folder,
            env={**env, "MODEL_URI": model, "MLFLOW_TRACKING_URI": tracking_uri, **(environment or {})},
            health_url=f"http://{LOOPBACK}:{self.port}/healthz",
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal to the front alone."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for its end and return the exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def ask(
        self, path: str = "/invocations", body: bytes | None = BODY, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request; without a body it is a GET."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=30)
        try:
            return _exchange(connection, path, body, headers or {})
        finally:
            connection.close()

    def status(self) -> Any:
        """Return ``/status``."""
        return self.ask("/status", None).json

    def state(self, version: str) -> Any:
        """Return what the server says about a version; an empty mapping when it does not hold it."""
        versions = self.status()["registry"]["versions"]
        return next((found for key, found in versions.items() if key.endswith(f"/{version}")), {})

    def wait_for(self, what: Callable[[], Any], seconds: float = 120.0) -> Any:
        """Ask until something is true, and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := what():
                return found
            time.sleep(0.05)
        raise AssertionError(f"it did not happen in {seconds:g} s: {json.dumps(self.status(), indent=1)}")

    def wait_for_version(self, version: str, **headers: str) -> None:
        """Wait until a version answers."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.wait_for(lambda: self.ask(headers=named).version == version)

    @property
    def log(self) -> str:
        """Everything that it has logged."""
        return self.log_path.read_text(errors="replace")


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def version(self) -> str:
        return self.headers.get("x-model-version", "")

    @property
    def role(self) -> str:
        return self.headers.get("x-model-role", "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_consistent(self) -> bool:
        """Whether header, body and prediction name the same version."""
        found = self.json
        return found["model"]["version"] == self.version and set(map(str, found["predictions"])) == {self.version}


def _exchange(
    connection: http.client.HTTPConnection, path: str, body: bytes | None, headers: Mapping[str, str]
) -> Answer:
    kind = {"Content-Type": "application/json"} if body is not None else {}
    connection.request("GET" if body is None else "POST", path, body, {**kind, **headers})
    response = connection.getresponse()
    content = response.read()
    named = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, named, content)


@dataclass
class SteadyClient:
    """Asks a server all the time on several connections that stay open.

    :param server: the server.
    :param connections: number of connections.
    :param leaves: whether a connection asks no more after an answer that says ``connection: close``, as a load balancer
        does that has seen that the server is not ready.
    :param pause: seconds between an answer and the next request of a connection.
    """

    server: FollowingServer
    connections: int = 3
    leaves: bool = False
    pause: float = 0.02
    answers: list[Answer] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.connections)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self.server.port, timeout=60)
        body = ROWS if number % 2 else BODY
        while not self._stop.is_set():
            try:
                found = _exchange(connection, "/invocations", body, {})
                self.answers.append(found)
                if self.leaves and found.headers.get("connection") == "close":
                    break
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                connection.close()
            time.sleep(self.pause)  # leaves the machine to the server
        connection.close()

    @property
    def versions(self) -> set[str]:
        """Versions that answered."""
        return {answer.version for answer in self.answers}

    def require_no_failure(self) -> None:
        """Check that every request was answered, by one version alone each."""
        assert self.errors == []
        failed = [answer for answer in self.answers if answer.status != 200]
        assert failed == []
        assert all(answer.is_consistent for answer in self.answers)
        assert len(self.answers) > 10

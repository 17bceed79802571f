"""What tests of operators start from on a real MLflow server: runs, models, versions, and tasks tried again."""

from __future__ import annotations

import itertools
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, ModelEvidence, ModelUnderTest
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Run
from airflow_mcp.core.registry.load_check import LoadCheck, LoadVerdict
from airflow_mcp.exceptions import MlflowNotFoundError
from airflow_mcp.hooks.mlflow import MlflowHook
from tests.support.task_harness import FakeSupervisor, TaskOutcome, run_task

NOW = 1_767_268_800_000

REST_TRAINING = '''
"""A training in another language, so to say: standard library and MLflow's REST API only. Arguments: model names."""
import json, os, sys, urllib.request

def call(method, path, **body):
    url = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/" + path
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)

run_id, experiment_id = os.environ["AIRFLOW_MCP_RUN_ID"], os.environ["MLFLOW_EXPERIMENT_ID"]
for step, argument in enumerate(sys.argv[1:]):
    name, _, status = argument.partition(":")
    model = call("POST", "logged-models", experiment_id=experiment_id, name=name, source_run_id=run_id)["model"]["info"]
    if status != "PENDING":
        status = "LOGGED_MODEL_" + (status or "READY")
        call("PATCH", "logged-models/" + model["model_id"], model_id=model["model_id"], status=status)
    call("POST", "runs/outputs", run_id=run_id, models=[dict(model_id=model["model_id"], step=step)])
print("trained", *sys.argv[1:])
call("POST", "runs/update", run_id=run_id, status="FINISHED")
'''
"""Logs a model in a tenth of a second, where MLflow's own client needs several."""


class World:
    """One MLflow server through the hook, with names of its own for each test.

    :param url: address of the server.
    :param folder: folder for scripts.
    :param conn_id: connection that the tests themselves look by.
    """

    def __init__(self, url: str, folder: Path, conn_id: str = "mlflow_tests") -> None:
        self.url, self.folder = url, folder
        self.hook = MlflowHook(conn_id)
        unique = uuid.uuid4().hex[:10]
        self.model_name = f"model-{unique}"
        self.experiment = f"experiment-{unique}"
        self.dag_id = f"dag_{unique}"
        self.marker = f"marker-{unique}"
        """Put into the environment of workloads, to find their processes by."""

    # --- tasks ------------------------------------------------------------------------------------------------
    def run(
        self,
        operator_class: type[BaseOperator],
        *,
        try_number: int = 1,
        retries: int = 3,
        url: str | None = None,
        extra: Mapping[str, Any] | None = None,
        supervisor: FakeSupervisor | None = None,
        dag_run_id: str = "run-1",
        before: Callable[[Any], None] | None = None,
        connection: Mapping[str, Any] | None = None,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        **arguments: Any,
    ) -> TaskOutcome:
        """Run a new operator of this test's Dag, as a try of the task ``task``.

        :param extra: extras of the MLflow connection; None repeats no request, so that faults show at once.
        :param before: is given the operator before it runs.
        :param connection: further fields of the MLflow connection.
        :param connections: further connections.
        """
        with DAG(self.dag_id, schedule=None):
            operator = operator_class(**{"task_id": "task", **arguments}, retries=retries)
        if before is not None:
            before(operator)
        fields = {"host": url or self.url, "extra": dict(extra or {"retries": 0, "timeout": 20}), **(connection or {})}
        return run_task(
            operator,
            connections={"mlflow_default": fields, **(connections or {})},
            supervisor=supervisor,
            try_number=try_number,
            run_id=dag_run_id,
        )

    def command(self, *arguments: str, script: str = REST_TRAINING) -> list[str]:
        """Write a script and give the command line that runs it."""
        path = self.folder / "train_it.py"
        path.write_text(script)
        return [sys.executable, "-I", "-S", str(path), *arguments]

    # --- what is on the server --------------------------------------------------------------------------------
    @property
    def experiment_id(self) -> str:
        return self.hook.get_or_create_experiment(self.experiment)

    def runs(self, *statuses: str) -> list[Run]:
        found = self.hook.search_runs([self.experiment_id])
        return [run for run in found if not statuses or run.status in statuses]

    def new_run(self, tags: Mapping[str, str] | None = None, status: Any = "FINISHED") -> Run:
        run = self.hook.create_run(self.experiment_id, "a run", dict(tags or {}), NOW)
        if status != "RUNNING":
            self.hook.update_run(run.run_id, status, NOW + 5)
        return self.hook.get_run(run.run_id)

    def logged_model(self, run: Run, name: str = "model", status: str = "READY") -> str:
        """Log a model without files and give its id."""
        body = {"experiment_id": run.experiment_id, "name": name, "source_run_id": run.run_id}
        model_id = str(self._post("POST", "logged-models", body)["model"]["info"]["model_id"])
        if status != "PENDING":
            named = {"model_id": model_id, "status": f"LOGGED_MODEL_{status}"}
            self._post("PATCH", f"logged-models/{model_id}", named)
        self._post("POST", "runs/outputs", {"run_id": run.run_id, "models": [{"model_id": model_id, "step": 0}]})
        return model_id

    def judged_model(self, verdict: str | None = "passed", **tags: str) -> tuple[Run, str]:
        """Make a run with a model that the gate has judged; give both."""
        gate = {contract.TAG_GATE_VERDICT: verdict} if verdict else {}
        run = self.new_run({**gate, **{f"{contract.TAG_PREFIX}{name}": value for name, value in tags.items()}})
        model_id = self.logged_model(run)
        return self.hook.get_run(run.run_id), model_id

    def versions(
        self, count: int, verdict: str | None = "passed", check: LoadVerdict | None = "passed"
    ) -> list[ModelVersion]:
        """Register versions of this test's model that the gate has judged, and that have been loaded just now."""
        self.hook.create_registered_model(self.model_name)
        gate = {contract.TAG_GATE_VERDICT: verdict} if verdict else {}
        gate |= load_check_tags(check) if check else {}
        made = []
        for _ in range(count):
            run, model_id = self.judged_model(verdict)
            made.append(
                self.hook.create_model_version(
                    self.model_name, f"models:/{model_id}", run_id=run.run_id, model_id=model_id, tags=gate
                )
            )
        return made

    def all_versions(self) -> list[ModelVersion]:
        return self.hook.search_model_versions(f"name = '{self.model_name}'")

    @property
    def registered(self) -> RegisteredModel:
        return self.hook.get_registered_model(self.model_name)

    @property
    def aliases(self) -> dict[str, str]:
        try:
            return dict(self.registered.aliases)
        except MlflowNotFoundError:
            return {}

    @property
    def claims(self) -> list[str]:
        """Claims left on the registered model; none when there is no such model."""
        try:
            return [name for name in self.registered.tags if name.startswith(contract.TAG_CLAIM_PREFIX)]
        except MlflowNotFoundError:
            return []

    def let_claims_run_out(self) -> None:
        """Do what the next mover does after a minute: remove the claims of killed tasks."""
        for name in self.claims:
            self.hook.delete_registered_model_tag(self.model_name, name)

    def artifact(self, run: Run | str, path: str) -> bytes:
        return self.hook.download_artifact(run if isinstance(run, str) else run.run_id, path)

    def store_evidence(
        self,
        run: Run,
        metrics: Mapping[str, float],
        champion: ModelUnderTest | None = None,
        champion_metrics: Mapping[str, float] | None = None,
        **changes: Any,
    ) -> EvaluationEvidence:
        """Store evidence of an evaluation in a run, as the work plane does."""
        evidence = EvaluationEvidence(
            **{
                "identity": "evaluation-1",
                "run_id": run.run_id,
                "model_type": "classifier",
                "target": "y",
                "dataset": DatasetPin(uri="/data/evaluation.csv", version="v1", hash="sha256:00"),
                "rows": 100,
                "candidate": ModelEvidence(model_uri="models:/m-1", run_id=run.run_id, metrics=dict(metrics)),
                "champion": champion
                and ModelEvidence(
                    model_uri=champion.model_uri,
                    run_id=champion.run_id,
                    version=champion.version,
                    metrics=dict(champion_metrics or {}),
                ),
                "created_at": "2026-01-01T00:00:00+00:00",
                **changes,
            }
        )
        self.hook.upload_artifact(run.run_id, contract.ARTIFACT_EVIDENCE, dump_document(evidence).encode())
        return evidence

    # --- processes --------------------------------------------------------------------------------------------
    def processes(self) -> list[int]:
        """Find the living processes that carry this test's marker in their environment."""
        return [pid for pid in _pids() if self.marker.encode() in _environ(pid) and _is_running(pid)]

    def _post(self, method: Any, path: str, body: Mapping[str, Any]) -> Any:
        from airflow_mcp.mlflow_client.api import API
        from airflow_mcp.mlflow_client.wire import MlflowRequest

        def operation() -> Any:
            response = yield MlflowRequest(f"{method} {path}", method, f"{API}/{path}", json=body)
            return response.data

        return self.hook.perform(operation())


def load_check_tags(
    verdict: LoadVerdict, at: datetime | None = None, reason: str = "so it was found"
) -> dict[str, str]:
    """Give the tags of a version that a load check has left, now or at another time."""
    return LoadCheck(verdict, reason, (at or datetime.now(UTC)).isoformat(), "a-run").to_tags()


class Killed(BaseException):
    """Stands for SIGKILL: the task does nothing more."""


class KillSwitch:
    """Kills a task right after its n-th operation on MLflow was carried out: nothing it still tries reaches the server.

    :param after: number of the operation, from 1.
    :param writes_only: whether operations that only read are left out of the count.
    """

    def __init__(self, after: int, *, writes_only: bool = False) -> None:
        self._left, self._writes_only = after, writes_only
        self.has_fired = False

    def arm(self, operator: Any) -> None:
        """Put the switch between the operator and its hook."""
        hook = MlflowHook("mlflow_default")
        perform = hook.perform

        def guarded(operation: Any) -> Any:
            if self.has_fired:
                raise Killed
            wrote: list[bool] = []
            answer = perform(_watched(operation, wrote))
            self._left -= any(wrote) if self._writes_only else 1
            if self._left == 0:
                self.has_fired = True
                raise Killed
            return answer

        hook.perform = guarded  # type: ignore[method-assign]
        operator.__dict__["hook"] = hook


def kill_points(*, writes_only: bool = True) -> Iterator[KillSwitch]:
    """Give switches that kill after the first operation, the second and so on, until one never fires.

    A task that is killed after a read leaves the same server behind as one that is killed after the write before it,
    and a retry starts with nothing else. So the points after writes stand for all of them.

    :param writes_only: False also kills after reads, for tasks that leave more behind than what is on the server.
    """
    for after in itertools.count(1):
        switch = KillSwitch(after, writes_only=writes_only)
        yield switch
        if not switch.has_fired:
            return


def _watched(operation: Any, wrote: list[bool]) -> Any:
    """Pass an operation through, and note for each of its requests whether it can change something."""
    answer, error = None, None
    while True:
        try:
            request = operation.throw(error) if error is not None else operation.send(answer)
        except StopIteration as end:
            return end.value
        wrote.append(request.method != "GET" and not request.path.endswith("/search"))
        answer, error = None, None
        try:
            answer = yield request
        except Exception as raised:  # the operation decides what a failed request means
            error = raised


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False

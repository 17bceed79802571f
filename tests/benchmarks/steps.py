"""The compared steps: our operators, and the same steps written with MLflow's own client in a task.

The peers decide and render with the same pure functions as ours: what differs is how they reach MLflow.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from airflow.sdk import BaseOperator

EXPERIMENT_STEPS = ("gate", "register", "promote")
THRESHOLDS = ["accuracy >= 0.92", "latency_ms <= 150", "f1 >= champion - 0.01"]


class EmptyOperator(BaseOperator):
    """A task that does nothing, for the cost of Airflow's task runner itself."""

    def execute(self, context: Any) -> dict[str, Any]:
        return {}


class PeerGateOperator(BaseOperator):
    """Download the evidence, judge, log both reports, tag the run."""

    template_fields = ("run_id", "model_name", "thresholds")

    def __init__(self, *, uri: str, run_id: str, model_name: str, thresholds: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.uri, self.run_id, self.model_name, self.thresholds = uri, run_id, model_name, thresholds

    def execute(self, context: Any) -> dict[str, Any]:
        import tempfile
        from pathlib import Path

        from mlflow import MlflowClient

        from airflow_mcp.core import contract
        from airflow_mcp.core.document import parse_document
        from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
        from airflow_mcp.core.gate.judgement import evaluate_gate
        from airflow_mcp.core.gate.policy import GatePolicy
        from airflow_mcp.core.gate.report.page import render_gate_report

        client = MlflowClient(self.uri)
        client.get_run(self.run_id)
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(self.run_id, contract.ARTIFACT_EVIDENCE, folder)
            evidence = parse_document(EvaluationEvidence, Path(path).read_text(), path)
        policy = GatePolicy.parse(self.thresholds)
        report = evaluate_gate(evidence, policy, model_name=self.model_name, created_at="2026-01-01T00:00:00+00:00")
        client.log_text(self.run_id, render_gate_report(report, evidence), contract.ARTIFACT_GATE_REPORT_HTML)
        client.log_text(self.run_id, report.model_dump_json(by_alias=True), contract.ARTIFACT_GATE_REPORT_JSON)
        client.set_tag(self.run_id, contract.TAG_GATE_VERDICT, report.verdict.value)
        return {"verdict": report.verdict.value}


class PeerRegisterOperator(BaseOperator):
    """Refuse an unjudged run, look for an existing version, create one, wait until it is ready, tag the run."""

    template_fields = ("model_name", "source")

    def __init__(self, *, uri: str, model_name: str, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.uri, self.model_name, self.source = uri, model_name, source

    def execute(self, context: Any) -> dict[str, Any]:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        from airflow_mcp.core import contract

        client = MlflowClient(self.uri)
        model = client.get_logged_model(self.source.removeprefix("models:/"))
        run = client.get_run(model.source_run_id)
        if run.data.tags.get(contract.TAG_GATE_VERDICT) != "passed":
            raise ValueError("not judged")
        found = client.search_model_versions(f"name = '{self.model_name}' and run_id = '{run.info.run_id}'")
        version = next((version for version in found if version.model_id == model.model_id), None)
        if version is None:
            try:
                client.create_registered_model(self.model_name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            tags = {key: value for key, value in run.data.tags.items() if key.startswith(contract.TAG_PREFIX)}
            version = client.create_model_version(
                self.model_name, self.source, run.info.run_id, tags=tags, model_id=model.model_id
            )
        client.set_tag(run.info.run_id, contract.TAG_MODEL_VERSION, f"{self.model_name}/{version.version}")
        return {"version": str(version.version)}


class PeerPromoteOperator(BaseOperator):
    """Compare the champion, keep the previous one, move the alias, read it back, tag the version; without a claim."""

    template_fields = ("model_name", "version", "expected_champion")

    def __init__(self, *, uri: str, model_name: str, version: str, expected_champion: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.uri, self.model_name, self.version = uri, model_name, version
        self.expected_champion = expected_champion

    def execute(self, context: Any) -> dict[str, Any]:
        from mlflow import MlflowClient

        from airflow_mcp.core import contract

        client, name = MlflowClient(self.uri), self.model_name
        version = client.get_model_version(name, self.version)
        if version.tags.get(contract.TAG_GATE_VERDICT) != "passed":
            raise ValueError("not judged")
        champion = str(client.get_registered_model(name).aliases.get("champion", "none"))
        if champion != self.expected_champion:
            raise ValueError("another champion")
        if champion != "none":
            client.set_registered_model_alias(name, contract.ALIAS_PREVIOUS_CHAMPION, champion)
        client.set_registered_model_tag(name, contract.TAG_LAST_MOVE, json.dumps({"champion_after": self.version}))
        client.set_registered_model_alias(name, contract.ALIAS_CHAMPION, self.version)
        assert str(client.get_registered_model(name).aliases["champion"]) == self.version
        client.set_registered_model_tag(name, f"{contract.TAG_MOVE_PREFIX}{self.version}", "{}")
        return {"version": self.version}


def make_operator(side: str, step: str, uri: str, arguments: dict[str, Any]) -> BaseOperator:
    """Make the operator of a step. Ours is imported here, so that a fresh process pays for it, as a task does."""
    if side == "ours":
        from airflow_mcp.operators.gate import EvaluationGateOperator
        from airflow_mcp.operators.registry import PromoteModelOperator, RegisterModelOperator

        ours = {"gate": EvaluationGateOperator, "register": RegisterModelOperator, "promote": PromoteModelOperator}
        waived = {"require_load_check": False} if step == "promote" else {}  # the peer makes none
        return ours[step](task_id=step, **arguments, **waived)
    peers: dict[str, Any] = {
        "gate": PeerGateOperator,
        "register": PeerRegisterOperator,
        "promote": PeerPromoteOperator,
    }
    return peers[step](task_id=step, uri=uri, **arguments)  # type: ignore[no-any-return]


def main(side: str, step: str, uri: str, arguments: str) -> None:
    """Time one step in this fresh process, minus an empty task; Airflow's own modules are loaded before."""
    from tests.support.task_harness import run_task

    run_task(EmptyOperator(task_id="warm_up"))
    started = time.perf_counter()
    run_task(EmptyOperator(task_id="empty"))
    empty = time.perf_counter() - started
    started = time.perf_counter()
    outcome = run_task(make_operator(side, step, uri, json.loads(arguments)), mlflow_url=uri)
    taken = time.perf_counter() - started
    assert outcome.state == "success", outcome.error
    print("\n" + json.dumps({"own": (taken - empty) * 1000}))


if __name__ == "__main__":
    main(*sys.argv[1:])

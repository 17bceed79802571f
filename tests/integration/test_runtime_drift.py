"""Step ``drift`` against a real MLflow server and real Evidently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airflow_mcp.core import contract
from airflow_mcp.core.evidence import DriftSummary, parse_document
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.runtime.drift import check_drift
from demo.services import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


class Check:
    """Two datasets and a run to record their comparison in."""

    def __init__(self, server: MlflowServer, folder: Path) -> None:
        self.client, self.folder, self.url = MlflowClient(server.url), folder, server.url
        self.run_id = self.client.create_run("0").info.run_id
        random = np.random.default_rng(5)
        self.reference = pd.DataFrame(
            {
                "age": random.normal(40, 10, 300),
                "income": random.normal(1, 1, 300),
                "kind": random.choice(["a", "b"], 300),
            }
        )
        self.current = self.reference.sample(frac=1, random_state=1)

    def environ(self, **changes: object) -> dict[str, str]:
        self.reference.to_csv(self.folder / "reference.csv", index=False)
        self.current.to_csv(self.folder / "current.csv", index=False)
        request = {
            "identity": "i",
            "run_id": self.run_id,
            "reference": {"uri": str(self.folder / "reference.csv")},
            "current": {"uri": str(self.folder / "current.csv")},
            "numerical_method": "wasserstein",
            "numerical_threshold": 0.2,
            "categorical_method": "jensenshannon",
            "categorical_threshold": 0.1,
            "drift_share": 0.5,
            "min_rows": 100,
        }
        path = self.folder / "request.json"
        path.write_text(json.dumps(request | changes))
        return {"MLFLOW_TRACKING_URI": self.url, "AIRFLOW_MCP_REQUEST_PATH": str(path)}

    def stored(self) -> DriftSummary:
        run = self.client.get_run(self.run_id)
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{contract.ARTIFACT_DRIFT_SUMMARY}")
        return parse_document(DriftSummary, text, "summary")

    def artifacts(self) -> set[str]:
        return {item.path for item in self.client.list_artifacts(self.run_id, "drift")}


@pytest.fixture
def check(mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    return Check(mlflow_server, tmp_path)


def test_moved_columns_are_drift_by_the_command_line_without_airflow(check: Check) -> None:
    check.current = check.current.assign(age=lambda frame: frame["age"] + 20, income=lambda frame: frame["income"] + 2)
    code = "import sys, runpy; sys.modules['airflow'] = None; sys.argv = ['runtime', 'drift']; "
    done = subprocess.run(
        [sys.executable, "-c", code + "runpy.run_module('airflow_mcp.runtime', run_name='__main__')"],
        env={**os.environ, **check.environ()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    run, summary = check.client.get_run(check.run_id), check.stored()
    assert run.info.status == "FINISHED"
    assert run.data.tags["airflow_mcp.drift_verdict"] == summary.verdict == "drifted"
    assert run.data.metrics["drifted_columns_count"] == summary.drifted_columns_count == 2
    assert run.data.metrics["drift_share"] == pytest.approx(2 / 3)
    scores = {column.column: column.score for column in summary.columns}
    assert {name: run.data.metrics[f"drift/{name}"] for name in scores} == pytest.approx(scores)
    assert check.artifacts() == {
        contract.ARTIFACT_DRIFT_SUMMARY,
        contract.ARTIFACT_DRIFT_REPORT_JSON,
        contract.ARTIFACT_DRIFT_REPORT_HTML,
    }


def test_the_same_rows_in_another_order_are_no_drift(check: Check) -> None:
    check_drift(check.environ())
    summary = check.stored()
    assert summary.verdict == "not_drifted"
    assert [column.score for column in summary.columns] == pytest.approx([0, 0, 0], abs=1e-6)
    assert summary.reference.hash.startswith("sha256:")
    assert "evidently" in summary.environment


def test_too_few_rows_are_inconclusive_and_have_no_report(check: Check) -> None:
    check.current = check.current.head(99)
    check_drift(check.environ())
    run = check.client.get_run(check.run_id)
    assert check.stored().verdict == run.data.tags["airflow_mcp.drift_verdict"] == "inconclusive"
    assert run.info.status == "FINISHED"
    assert check.artifacts() == {contract.ARTIFACT_DRIFT_SUMMARY}
    assert "drift_share" not in run.data.metrics


def test_an_empty_and_a_missing_column_prevent_a_pass_and_are_named(check: Check) -> None:
    check.current = check.current.drop(columns="kind").assign(age=np.nan, extra=1)
    check_drift(check.environ())
    summary = check.stored()
    assert summary.verdict == "inconclusive"
    assert "kind: missing in the current data" in summary.reason
    assert "age: 0 values in the current data" in summary.reason
    assert "only in the current data: extra" in summary.reason
    assert [column.drifted for column in summary.columns] == [None, False, None]


def test_no_column_in_common_is_inconclusive(check: Check) -> None:
    check.current = check.current.add_prefix("new_")
    check_drift(check.environ())
    assert check.stored().verdict == "inconclusive"
    assert check.stored().drift_share is None


def test_a_requested_column_that_is_missing_is_refused(check: Check) -> None:
    with pytest.raises(DatasetError, match="no column 'height'"):
        check_drift(check.environ(columns=["height"]))
    assert check.client.get_run(check.run_id).info.status == "RUNNING"


def test_a_method_evidently_does_not_have_is_refused_with_those_allowed(check: Check) -> None:
    with pytest.raises(InvalidArgumentError, match=r"numerical_method is 'magic'; allowed: .*wasserstein"):
        check_drift(check.environ(numerical_method="magic"))


def test_changed_data_are_refused(check: Check) -> None:
    pin = {"uri": str(check.folder / "current.csv"), "hash": "sha256:" + "0" * 64}
    with pytest.raises(DatasetError, match="is not the one that was pinned"):
        check_drift(check.environ(current=pin))

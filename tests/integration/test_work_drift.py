"""Step ``drift`` against a real MLflow server, on data and on stored profiles, with and without Evidently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import read_profile, write_profile
from airflow_mcp.core.drift.summary import DriftSummary, read_drift_summary
from airflow_mcp.exceptions import DatasetError, EvidenceError, InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.work.drift.profiles import profile_dataset
from airflow_mcp.work.steps.drift import check_drift, metric_names
from tests.support.services import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]
POLICY = {"numerical_method": "wasserstein", "numerical_threshold": 0.2, "categorical_method": "jensenshannon"}


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

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.csv")

    def environ(self, **changes: Any) -> dict[str, str]:
        self.reference.to_csv(self.path("reference"), index=False)
        self.current.to_csv(self.path("current"), index=False)
        request = {
            "identity": "i",
            "run_id": self.run_id,
            "reference": {"data": [{"uri": self.path("reference")}]},
            "current": {"data": [{"uri": self.path("current")}]},
            **changes,
            "policy": {**POLICY, **changes.get("policy", {})},
        }
        path = self.folder / "request.json"
        path.write_text(json.dumps(request))
        return {"MLFLOW_TRACKING_URI": self.url, "AIRFLOW_MCP_REQUEST_PATH": str(path)}

    def text(self, artifact: str) -> str:
        run = self.client.get_run(self.run_id)
        return str(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{artifact}"))

    def stored(self) -> DriftSummary:
        return read_drift_summary(self.text(contract.ARTIFACT_DRIFT_SUMMARY).encode(), "summary")

    def artifacts(self) -> set[str]:
        folders = ("drift", "profile")
        return {item.path for folder in folders for item in self.client.list_artifacts(self.run_id, folder)}

    def keep_profile(self, name: str = "reference") -> str:
        """Store the profile of a dataset in a run of its own, as a training does; give its address."""
        run_id = self.client.create_run("0").info.run_id
        profile = profile_dataset([DatasetPin(uri=self.path(name))])
        self.client.log_text(run_id, write_profile(profile), contract.ARTIFACT_PROFILE)
        return f"runs:/{run_id}/{contract.ARTIFACT_PROFILE}"


@pytest.fixture
def check(mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    return Check(mlflow_server, tmp_path)


def test_moved_columns_are_drift_by_the_command_line_without_airflow(check: Check) -> None:
    check.current = check.current.assign(age=lambda frame: frame["age"] + 20, income=lambda frame: frame["income"] + 2)
    code = (
        "import sys, runpy; sys.modules['airflow'] = sys.modules['evidently'] = None; sys.argv = ['runtime', 'drift']; "
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "runpy.run_module('airflow_mcp.work', run_name='__main__')"],
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
    assert run.data.tags["airflow_mcp.drift_verdict"] == summary.result.verdict == "drifted"
    assert run.data.metrics["drifted_columns_count"] == summary.result.drifted_columns_count == 2
    assert run.data.metrics["drift_share"] == pytest.approx(2 / 3)
    assert (run.data.metrics["reference_rows"], run.data.metrics["current_rows"]) == (300, 300)
    scores = {column.column: column.score for column in summary.result.columns}
    assert {name: run.data.metrics[f"drift/{name}"] for name in scores} == pytest.approx(scores)
    assert summary.drifted_columns == ["age", "income"]
    assert check.artifacts() == {
        contract.ARTIFACT_DRIFT_SUMMARY,
        contract.ARTIFACT_DRIFT_REPORT_HTML,
        contract.ARTIFACT_PROFILE,
    }
    assert "▲ drifted" in check.text(contract.ARTIFACT_DRIFT_REPORT_HTML)
    assert read_profile(check.text(contract.ARTIFACT_PROFILE), "x").rows == 300


def test_the_same_rows_in_another_order_are_no_drift(check: Check) -> None:
    check_drift(check.environ())
    result = check.stored().result
    assert result.verdict == "not_drifted"
    assert [column.score for column in result.columns] == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_stored_profile_stands_for_its_data_and_gives_the_same_verdict(check: Check) -> None:
    check.current = check.current.assign(age=lambda frame: frame["age"] + 20)
    environ = check.environ()
    direct = check_drift(environ)
    check.run_id = check.client.create_run("0").info.run_id
    uri = check.keep_profile()
    environ = check.environ(reference={"profiles": [uri]}, evidently_rows=100)
    Path(check.path("reference")).unlink()
    by_profile = check_drift(environ)
    assert by_profile.result.verdict == direct.result.verdict
    assert by_profile.drifted_columns == direct.drifted_columns == ["age"]
    assert by_profile.reference_profiles == (uri,)
    assert by_profile.result.reference_is_profile
    assert by_profile.evidently is not None
    assert by_profile.evidently.note == "Evidently's report needs rows, and a profile has none"


def test_profiles_of_hours_are_merged_into_one_dataset(check: Check) -> None:
    check.environ()
    whole = check.current
    for hour in range(2):
        whole.iloc[hour * 150 : (hour + 1) * 150].to_csv(check.path(f"hour-{hour}"), index=False)
    hours = [check.keep_profile(f"hour-{hour}") for hour in range(2)]
    summary = check_drift(check.environ(current={"profiles": hours}))
    assert (summary.result.verdict, summary.result.current_rows) == ("not_drifted", 300)


def test_several_files_are_one_dataset(check: Check) -> None:
    check.environ()
    check.current.head(150).to_csv(check.path("first"), index=False)
    check.current.tail(150).to_csv(check.path("second"), index=False)
    files = [{"uri": check.path("first")}, {"uri": check.path("second")}]
    assert check_drift(check.environ(current={"data": files})).result.current_rows == 300


def test_evidently_reports_on_the_sample_that_is_stated(check: Check) -> None:
    check.current = check.current.assign(age=lambda frame: frame["age"] + 20)
    summary = check_drift(check.environ(evidently_rows=120))
    assert summary.evidently is not None, "asked for"
    assert (summary.evidently.reference_rows, summary.evidently.current_rows) == (120, 120)
    assert not summary.evidently.is_complete
    assert "Wasserstein" in check.text(contract.ARTIFACT_EVIDENTLY_REPORT)
    page = check.text(contract.ARTIFACT_DRIFT_REPORT_HTML)
    assert "a random sample: 120 reference and 120 current rows" in page


def test_evidently_that_fails_or_is_missing_decides_nothing(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evidently", None)
    summary = check_drift(check.environ(evidently_rows=1000))
    assert summary.result.verdict == "not_drifted"
    assert summary.evidently is not None
    assert "there is no Evidently report: evidently" in summary.evidently.note
    assert contract.ARTIFACT_EVIDENTLY_REPORT not in check.artifacts()


def test_too_few_rows_are_inconclusive_and_keep_their_report(check: Check) -> None:
    check.current = check.current.head(99)
    check_drift(check.environ())
    run = check.client.get_run(check.run_id)
    assert check.stored().result.verdict == run.data.tags["airflow_mcp.drift_verdict"] == "inconclusive"
    assert run.info.status == "FINISHED"
    assert contract.ARTIFACT_DRIFT_REPORT_HTML in check.artifacts()
    assert "drift_share" not in run.data.metrics


def test_an_empty_and_a_missing_column_prevent_a_pass_and_are_named(check: Check) -> None:
    check.current = check.current.drop(columns="kind").assign(age=np.nan, extra=1)
    check_drift(check.environ())
    result = check.stored().result
    assert result.verdict == "inconclusive"
    assert {column.column: column.drifted for column in result.columns} == {"age": None, "income": False, "kind": None}
    assert {(finding.kind, finding.column) for finding in result.findings if finding.exceeded} >= {
        ("added_column", "extra"),
        ("removed_column", "kind"),
        ("missing_rate", "age"),
    }


def test_no_column_in_common_is_inconclusive(check: Check) -> None:
    check.current = check.current.add_prefix("new_")
    check_drift(check.environ())
    assert check.stored().result.verdict == "inconclusive"
    assert check.stored().result.drift_share is None


def test_a_requested_column_that_is_missing_is_refused(check: Check) -> None:
    with pytest.raises(DatasetError, match="'height'"):
        check_drift(check.environ(policy={"columns": ["height"]}))
    assert check.client.get_run(check.run_id).info.status == "RUNNING"


def test_a_request_that_makes_no_sense_is_refused(check: Check) -> None:
    with pytest.raises(EvidenceError, match=r"numerical_method must be one of auto, wasserstein, .*; got 'magic'"):
        check_drift(check.environ(policy={"numerical_method": "magic", "numerical_threshold": None}))
    with pytest.raises(InvalidArgumentError, match="is a profile"):
        check_drift(check.environ(reference={"profiles": [check.keep_profile()]}, policy={"precision": "exact"}))


def test_a_profile_that_is_gone_or_is_none_is_refused(check: Check) -> None:
    check.environ()
    with pytest.raises(MlflowNotFoundError, match=r"has no artifact profile/other\.json"):
        check_drift(check.environ(reference={"profiles": [f"runs:/{check.run_id}/profile/other.json"]}))
    (check.folder / "profile.json").write_text("{}")
    with pytest.raises(EvidenceError, match=r"profile\.json is not a valid DataProfile"):
        check_drift(check.environ(reference={"profiles": [str(check.folder / "profile.json")]}))


def test_changed_data_are_refused(check: Check) -> None:
    pin = {"uri": check.path("current"), "hash": "sha256:" + "0" * 64}
    with pytest.raises(DatasetError, match="is not the one that was pinned"):
        check_drift(check.environ(current={"data": [pin]}))


def test_metrics_have_names_that_mlflow_takes_and_no_two_columns_share_one() -> None:
    names = metric_names(["a", "a%", "a&", "..", "x" * 300])
    assert names["a%"] == "drift/a_"
    assert names["a&"] == "drift/a__2"
    assert names[".."] == "drift/_"
    assert len(set(names.values())) == 5
    assert max(map(len, names.values())) <= 250

"""``airflow-mcp pods``: what it shows, what it removes, and when it removes nothing."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core.workload.pod import ANNOTATION_OWNS_RUN, ANNOTATION_RUN, LABEL_MANAGED_BY, MANAGED_BY
from tests.support.fakes.faulty_server import Fault, FaultyServer, answer
from tests.support.fakes.kube_api import KubeApi

HOUR = timedelta(hours=1)


def add_pod(kube: KubeApi, name: str, *, run_id: str = "", **options: Any) -> None:
    notes = {ANNOTATION_RUN: run_id, ANNOTATION_OWNS_RUN: "true"}
    kube.add_pod(name, labels={LABEL_MANAGED_BY: MANAGED_BY}, annotations=notes, **options)


def run_is(status: str) -> Fault:
    """What MLflow answers about a run; one that has ended, ended three hours ago."""
    then = round(time.time() * 1000) - 3 * 3_600_000
    ended = {} if status == "RUNNING" else {"end_time": then}
    info = {"run_id": "r", "experiment_id": "1", "status": status, "start_time": then, **ended}
    return answer(200, json.dumps({"run": {"info": {**info, "lifecycle_stage": "active"}, "data": {}}}))


@pytest.fixture
def pods(kube: KubeApi, mlflow: FaultyServer) -> KubeApi:
    """Four pods of ours, oldest first, and a stranger: a leftover, one at work, an unknown one, a young one."""
    for number, (name, phase) in enumerate((("leftover", "Running"), ("at-work", "Running"), ("unknown", "Failed"))):
        add_pod(kube, name, run_id=f"run-{number}", phase=phase, age=(9 - number) * HOUR)
    add_pod(kube, "young", run_id="run-3", phase="Succeeded", age=timedelta(minutes=5))
    kube.add_pod("stranger", age=20 * HOUR)
    mlflow.fail("runs/get", run_is("KILLED"), times=1)
    mlflow.fail("runs/get", run_is("RUNNING"), times=1)
    mlflow.fail("runs/get", answer(404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}'), times=1)
    mlflow.fail("runs/get", run_is("FINISHED"), times=1)
    return kube


def test_the_list_and_what_was_removed_are_json_too(pods: KubeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pods", "clean", "--yes", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(pod["name"], pod["verdict"]) for pod in document["pods"]] == [
        ("leftover", "leftover"),
        ("at-work", "kept"),
        ("unknown", "unknown"),
        ("young", "kept"),
    ]
    assert (document["namespace"], document["removed"]) == ("default", ["leftover"])
    assert set(document["pods"][0]) == {"name", "phase", "age_seconds", "verdict", "reason"}


def test_the_list_shows_every_pod_of_ours_oldest_first_with_the_reason(
    pods: KubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pods", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "4 pods of workloads in namespace default"
    assert [line.split()[:4] for line in lines] == [
        ["LEFTOVER", "leftover", "Running", "9h"],
        ["kept", "at-work", "Running", "8h"],
        ["unknown", "unknown", "Failed", "7h"],
        ["kept", "young", "Succeeded", "5m"],
    ]
    assert [line.split(maxsplit=4)[4] for line in lines] == [
        "its MLflow run is KILLED",
        "its MLflow run is RUNNING",
        "its MLflow run run-2 is not known",
        "is younger than 1h",
    ]
    assert pods.deleted == []


@pytest.mark.parametrize("choice", [[], ["--dry-run"]])
def test_cleaning_removes_nothing_without_yes(
    pods: KubeApi, capsys: pytest.CaptureFixture[str], choice: list[str]
) -> None:
    assert main(["pods", "clean", *choice]) == 0
    assert capsys.readouterr().out.endswith("\ndry run: 1 would be removed; --yes removes them\n")
    assert pods.deleted == []


def test_cleaning_with_yes_removes_the_leftovers_and_nothing_else(
    pods: KubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pods", "clean", "--yes"]) == 0
    assert capsys.readouterr().out.endswith("\nremoved: leftover\n")
    assert pods.deleted == ["leftover"]


def test_a_lower_age_makes_more_pods_leftovers(pods: KubeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pods", "clean", "--yes", "--older-than", "1m"]) == 0
    assert capsys.readouterr().out.endswith("\nremoved: leftover, young\n")
    assert sorted(pods.pods) == ["at-work", "stranger", "unknown"]


@pytest.mark.parametrize("status", [404, 409])
def test_a_pod_that_is_gone_or_another_one_by_now_is_not_counted_as_removed(
    pods: KubeApi, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    pods.fail("pods/leftover", answer(status, "{}"), method="DELETE")
    assert main(["pods", "clean", "--yes"]) == 0
    assert capsys.readouterr().out.endswith("\nremoved: none, they were gone already\n")


def test_an_empty_namespace_is_nothing_to_do(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pods", "clean", "--yes", "--namespace", "default"]) == 0
    assert capsys.readouterr().out == "0 pods of workloads in namespace default\n"


def test_the_context_names_the_namespace(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pods", "list", "--context", "nowhere"]) == 1
    assert "in namespace 'not-there': 404 Not Found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--older-than", "soon"], "--older-than must be a number and one of s, m, h, d, for example 1h; got 'soon'"),
        (["--older-than", "-1h"], "expected one argument"),
        (
            ["--tracking-uri", "sqlite:///x.db"],
            "--tracking-uri must be the http:// or https:// address of an MLflow server; got 'sqlite:///x.db'",
        ),
        (["--context", "missing"], "no usable Kubernetes configuration: "),
        (["--dry-run"], "argument --dry-run: not allowed with argument --yes"),
    ],
)
def test_a_wrong_argument_ends_with_2_and_removes_nothing(
    pods: KubeApi, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    try:
        code: Any = main(["pods", "clean", "--yes", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert (code, capsys.readouterr().err.count(says)) == (2, 1)
    assert pods.deleted == []


@pytest.mark.parametrize("status", [401, 503])
def test_nothing_is_removed_when_mlflow_cannot_be_asked(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    add_pod(kube, "old", run_id="r", age=9 * HOUR)
    mlflow.fail("runs/get", answer(status))
    assert main(["pods", "clean", "--yes"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert kube.deleted == []


def test_a_refusal_of_the_cluster_is_one_line_and_ends_with_1(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    kube.fail("pods", answer(403, '{"message": "no"}'))
    assert main(["pods", "list"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"error: {kube.url} refuses to list pods in namespace 'default': 403 Forbidden\n"

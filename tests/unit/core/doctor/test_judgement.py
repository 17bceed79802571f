"""What the doctor concludes, case by case."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from airflow_mcp.core.doctor.judgement import (
    RIGHTS,
    Diagnosis,
    ProbeReport,
    as_json,
    as_text,
    judge_address,
    judge_artifacts,
    judge_ending,
    judge_load_checks,
    judge_mlflow_version,
    judge_moves,
    judge_probe,
    judge_rights,
    judge_store,
    read_probe,
    worst,
)
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.core.registry.moves import MoveRecord
from airflow_mcp.core.workload.pod_ending import PodEnding
from tests.support.paths import DOCS

PACKAGES = {
    "airflow-mcp": "0.1.0",
    "mlflow": "3.17.2",
    "evidently": "0.7.23",
    "pandas": "2.3.3",
    "scikit-learn": "1.9.1",
}
REPORT = ProbeReport("3.11.7", PACKAGES, 10001, False, True, False, 200, "", "3.17.2")


def judged(report: ProbeReport, asked_mlflow: bool = True) -> dict[str, Diagnosis]:
    findings = judge_probe(
        report,
        image="image:1",
        own_python="3.11.9",
        own_version="0.1.0",
        server_version="3.17.2",
        asked_mlflow=asked_mlflow,
    )
    assert len({finding.subject for finding in findings}) == len(findings)
    return {finding.subject: finding for finding in findings}


def test_a_pod_in_order_gives_only_good_findings() -> None:
    findings = judged(REPORT)
    assert {finding.level for finding in findings.values()} == {"ok"}
    assert not any(finding.advice for finding in findings.values())
    assert list(findings) == [
        *(
            "image",
            "image: Python",
            "image: airflow-mcp",
            "image: mlflow",
            "pod: user",
            "pod: root",
            "MLflow from a pod",
        )
    ]


def test_a_pod_that_was_not_to_ask_mlflow_says_nothing_about_the_way_there() -> None:
    assert "MLflow from a pod" not in judged(REPORT, asked_mlflow=False)


@pytest.mark.parametrize(
    ("changes", "subject", "level", "says", "advice"),
    [
        ({"python": "3.12.1"}, "image: Python", "warning", "CloudPicklingError", "one Python version"),
        ({"packages": {}}, "image: airflow-mcp", "warning", "ModuleNotFoundError", "airflow-mcp[runtime]"),
        ({"packages": {}}, "image: mlflow", "problem", "ModuleNotFoundError", "pip install mlflow"),
        (
            {"packages": PACKAGES | {"evidently": None}},
            "image: libraries",
            "warning",
            "evidently not installed",
            "airflow-mcp[runtime]",
        ),
        (
            {"packages": PACKAGES | {"airflow-mcp": "0.2.0"}},
            "image: airflow-mcp",
            "warning",
            "0.2.0, but 0.1.0",
            "same",
        ),
        ({"mlflow_version": "2.9.0"}, "image: mlflow", "problem", "INVALID_PARAMETER_VALUE", "mlflow==2.9.0"),
        (
            {"mlflow_version": "3.10.1"},
            "image: mlflow",
            "warning",
            "client 3.17.2, server 3.10.1",
            "upgrade the server",
        ),
        ({"mlflow_version": "3.20.0"}, "image: mlflow", "ok", "client 3.17.2, server 3.20.0", ""),
        ({"user_id": 0}, "pod: user", "problem", "is root", "webhook"),
        ({"user_id": 1000}, "pod: user", "warning", "user 1000", "volumes"),
        ({"root_is_writable": True}, "pod: root", "warning", "writable", "changed"),
        ({"scratch_is_writable": False}, "pod: scratch", "problem", "PermissionError", "fsGroup"),
        ({"has_token": True}, "pod: token", "warning", "token is mounted", "workloads could"),
        ({"mlflow_status": 401}, "MLflow from a pod", "ok", "asks for credentials", ""),
        (
            {"mlflow_status": 403, "mlflow_error": "Invalid Host header"},
            "MLflow from a pod",
            "problem",
            "Invalid Host header",
            "--allowed-hosts",
        ),
        ({"mlflow_status": 502, "mlflow_error": "<html>"}, "MLflow from a pod", "problem", "502", "something else"),
        *(
            ({"mlflow_status": None, "mlflow_error": error}, "MLflow from a pod", "problem", error, advice)
            for error, advice in (
                ("[Errno 111] Connection refused", "--host 0.0.0.0"),
                ("[Errno 99] Cannot assign requested address", "--host 0.0.0.0"),
                ("[Errno -2] Name or service not known", "does not resolve"),
                ("[Errno -3] Temporary failure in name resolution", "does not resolve"),
                ("timed out", "network policy"),
                ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "ca_bundle"),
                ("something new", "check the address"),
            )
        ),
    ],
)
def test_what_is_wrong_in_a_pod_is_said_with_what_to_do(
    changes: dict[str, Any], subject: str, level: str, says: str, advice: str
) -> None:
    finding = judged(replace(REPORT, **changes))[subject]
    assert finding.level == level
    assert says in finding.says
    assert advice in finding.advice
    assert bool(finding.advice) is (level != "ok")


@pytest.mark.parametrize(
    ("version", "level"),
    [("3.17.2", "ok"), ("3.10.0", "ok"), ("3.9.4", "problem"), ("2.12.1", "problem"), ("", "warning")],
)
def test_a_server_that_is_too_old_is_a_problem(version: str, level: str) -> None:
    assert judge_mlflow_version(version).level == level


@pytest.mark.parametrize(
    ("store", "level"), [("SqlStore", "ok"), ("FileStore", "problem"), (None, "warning"), ("X", "warning")]
)
def test_runs_belong_into_a_database(store: str | None, level: str) -> None:
    finding = judge_store(store)
    assert finding.level == level
    assert ("--backend-store-uri" in finding.advice) is (level != "ok")


@pytest.mark.parametrize(
    ("location", "level"),
    [
        ("mlflow-artifacts:/0", "ok"),
        ("mlflow-artifacts://host:5000/0", "ok"),
        ("./mlruns/0", "problem"),
        ("/var/mlruns/0", "problem"),
        ("file:///var/mlruns/0", "problem"),
        ("s3://bucket/0", "warning"),
    ],
)
def test_artifacts_belong_behind_the_server(location: str, level: str) -> None:
    assert judge_artifacts(location).level == level


@pytest.mark.parametrize(
    "url", ["http://localhost:5000", "http://127.0.0.1:5000", "http://[::1]:5000", "http://0.0.0.0:5000"]
)
def test_an_address_of_this_machine_is_none_for_a_pod(url: str) -> None:
    finding = judge_address(url)
    assert finding is not None
    assert "workload_url" in finding.advice


@pytest.mark.parametrize("url", ["http://mlflow:5000", "https://10.0.0.1", "http://localhosting.example.com"])
def test_any_other_address_may_be_one(url: str) -> None:
    assert judge_address(url) is None


def allowed(*denied: tuple[str, str]) -> dict[tuple[str, str], bool]:
    return {(resource, verb): (resource, verb) not in denied for resource, verbs in RIGHTS.items() for verb in verbs}


def test_a_missing_right_is_named_with_its_resource_and_namespace() -> None:
    findings = judge_rights(allowed(("pods", "create"), ("pods", "delete")), "ml")
    (problem,) = [finding for finding in findings if finding.level != "ok"]
    assert (problem.subject, problem.level) == ("right: pods", "problem")
    assert problem.says == "may not create, delete in namespace 'ml'"
    assert '["create", "delete"] on pods' in problem.advice


def test_a_right_that_is_only_convenient_is_a_warning() -> None:
    levels = {finding.subject: finding.level for finding in judge_rights(allowed(("events", "watch")), "ml")}
    assert levels.pop("right: events") == "warning"
    assert set(levels.values()) == {"ok"}
    assert worst(judge_rights(allowed(("events", "watch"), ("events", "list")), "ml")) == "problem"


def test_the_role_in_the_documentation_grants_exactly_the_rights_that_are_checked() -> None:
    page = (DOCS / "kubernetes.md").read_text(encoding="utf-8")
    block = page.split("<!-- rbac: start -->")[1].split("<!-- rbac: end -->")[0].strip()
    documents = yaml.safe_load_all(block.removeprefix("```yaml").removesuffix("```"))
    (role,) = [document for document in documents if document["kind"] == "Role"]
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert granted == set(allowed())
    assert all(rule["apiGroups"] == [""] for rule in role["rules"])


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        (
            PodEnding(name="p", image="busybox", reason="ContainerCannotRun", message="no python", exit_code=127),
            "busybox has no",
        ),
        (PodEnding(name="p", image="busybox", reason="StartError", message="no python"), "has no `python`: no python"),
        (PodEnding(name="p", image="x:1", reason="ImagePullBackOff", phase="Pending"), "image 'x:1' cannot be pulled"),
        (PodEnding(name="p", image="x:1", reason="Unschedulable", phase="Pending"), "no node has room"),
    ],
)
def test_a_pod_that_did_not_report_is_a_problem_that_says_why(ending: PodEnding, says: str) -> None:
    finding = judge_ending(ending)
    assert finding.level == "problem"
    assert says in finding.says


def test_the_report_is_found_among_other_lines() -> None:
    line = json.dumps(REPORT.__dict__)
    assert read_probe(f"warning: x\n{line}\nbye\n") == REPORT
    assert read_probe("nothing\n{}\n[1]\n7\n") is None


def test_findings_are_written_for_people_and_for_programs() -> None:
    findings = [
        Diagnosis("a", "ok", "fine"),
        Diagnosis("long", "problem", "bad", "mend it"),
        Diagnosis("c", "warning", "hm", "x"),
    ]
    assert as_text(findings).splitlines() == [
        "ok       a     fine",
        "PROBLEM  long  bad",
        "               -> mend it",
        "WARNING  c     hm",
        "               -> x",
        "",
        "1 ok, 1 warnings, 1 problems",
    ]
    document = json.loads(as_json(findings))
    assert document["worst"] == "problem"
    assert document["findings"][1] == {"subject": "long", "level": "problem", "says": "bad", "advice": "mend it"}
    assert worst(findings[:1]) == "ok"
    assert worst([]) == "ok"


def test_aliases_are_compared_with_the_moves_that_were_recorded() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    move = MoveRecord("promote", "m1", None, "1", "2026-11-21T08:00:00+00:00", "churn.promote run-1")
    tags = {move.done_tag: move.to_tag()}
    moved = RegisteredModel("moved", tags=tags, aliases={"champion": "4"})
    gone = RegisteredModel("gone", tags=tags)
    kept = RegisteredModel("kept", tags=tags, aliases={"champion": "1"})
    by_hand = RegisteredModel("by-hand", aliases={"champion": "1"})
    (one, other) = judge_moves([moved, gone, kept, by_hand], now)
    assert (one.subject, one.level) == ("MLflow alias of moved", "warning")
    assert "'champion' is at 4, but the last recorded move (promote by churn.promote run-1 at 2026-11-21" in one.says
    assert "left it at 1" in one.says
    assert "airflow-mcp registry history moved" in one.advice
    assert "'champion' is at no version" in other.says
    (fine,) = judge_moves([kept, by_hand], now)
    assert (fine.level, fine.says[:8]) == ("ok", "1 models")


def test_an_alias_at_a_version_that_does_not_load_is_a_problem_where_it_is_the_champion() -> None:
    failed = [ModelVersion("a", "3", "READY", tags=LoadCheck("failed", "torn", "2026-11-25T00:00:00+00:00").to_tags())]
    model = RegisteredModel("a", aliases={"champion": "3", "previous_champion": "3", "challenger": "4"})
    other = RegisteredModel("b", aliases={"champion": "3"})
    found = judge_load_checks([model, other], failed)
    assert [(one.level, one.says.partition(" is at")[0]) for one in found] == [
        ("problem", "'champion'"),
        ("warning", "'previous_champion'"),
    ]
    assert "its load check failed at 2026-11-25T00:00:00+00:00: torn" in found[0].says
    (fine,) = judge_load_checks([other], failed)
    assert fine.level == "ok"

"""What the doctor concludes about an image, case by case."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_mcp.core.doctor.diagnosis import Diagnosis
from airflow_mcp.core.doctor.workload_image import ProbeReport, judge_ending, judge_probe, read_probe
from airflow_mcp.core.workload.pod_ending import PodEnding

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

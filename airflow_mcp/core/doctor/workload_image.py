"""What the doctor concludes about an image, from a pod that was started with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_mcp.core.doctor.diagnosis import Diagnosis, Level
from airflow_mcp.core.mlflow_versions import version_numbers
from airflow_mcp.core.workload.pod import USER_ID
from airflow_mcp.core.workload.pod_ending import PodEnding


@dataclass(frozen=True)
class ProbeReport:
    """The findings of the probe inside a pod."""

    python: str
    packages: Mapping[str, str | None]
    """Installed versions; None when not installed."""
    user_id: int
    root_is_writable: bool
    scratch_is_writable: bool
    has_token: bool
    mlflow_status: int | None = None
    """HTTP status of MLflow's ``/health``; None when it was not requested or did not answer."""
    mlflow_error: str = ""
    mlflow_version: str = ""


def judge_ending(ending: PodEnding) -> Diagnosis:
    """Judge a probe pod that did not write a report."""
    no_python = ending.reason in ("ContainerCannotRun", "StartError") or ending.exit_code in (126, 127)
    if no_python:
        return Diagnosis(
            "image",
            "problem",
            f"{ending.image} has no `python`: {ending.message.strip() or ending.reason}",
            "scripts and built-in steps need an image with Python and airflow-mcp; only `command` can run in this one",
        )
    return Diagnosis("image", "problem", ending.describe(), "see docs/kubernetes.md; the probe did not run")


def judge_probe(
    report: ProbeReport, *, image: str, own_python: str, own_version: str, server_version: str, asked_mlflow: bool
) -> list[Diagnosis]:
    """Judge the findings of the probe.

    :param report: the findings.
    :param image: name of the image.
    :param own_python: Python version here.
    :param own_version: version of this package here.
    :param server_version: version of the MLflow server; empty when unknown.
    :param asked_mlflow: whether the pod had to connect to MLflow.
    """
    findings = [
        Diagnosis("image", "ok", f"{image} was pulled and started"),
        _judge_python(report.python, own_python),
        _judge_package(report.packages.get("airflow-mcp"), own_version),
        _judge_client(report.packages.get("mlflow"), report.mlflow_version or server_version),
        *_judge_libraries(report.packages),
        *_judge_sandbox(report),
    ]
    return [*findings, _judge_way_to_mlflow(report)] if asked_mlflow else findings


def _judge_python(image: str, own: str) -> Diagnosis:
    if image.split(".")[:2] == own.split(".")[:2]:
        return Diagnosis("image: Python", "ok", image)
    return Diagnosis(
        "image: Python",
        "warning",
        f"{image}, but {own} here: a model that was pickled by one may not load in the other (CloudPicklingError)",
        "train, evaluate and serve in images of one Python version; harmless where the local runtime is not used",
    )


def _judge_package(image: str | None, own: str) -> Diagnosis:
    if image is None:
        return Diagnosis(
            "image: airflow-mcp",
            "warning",
            "is not installed: scripts, evaluation and drift checks end with ModuleNotFoundError; commands can run",
            "pip install 'airflow-mcp[runtime]' in the image, or build on ours (make image)",
        )
    if image != own:
        return Diagnosis("image: airflow-mcp", "warning", f"{image}, but {own} here", "use the same version in both")
    return Diagnosis("image: airflow-mcp", "ok", image)


def _judge_client(client: str | None, server: str) -> Diagnosis:
    subject = "image: mlflow"
    if client is None:
        advice = "pip install mlflow in the image"
        return Diagnosis(subject, "problem", "is not installed: ModuleNotFoundError in every training", advice)
    mine, theirs = version_numbers(client), version_numbers(server)
    if not theirs:
        return Diagnosis(subject, "warning", f"{client}; the server's version is unknown", "compare them by hand")
    if mine[:1] != theirs[:1] or mine[:2] > theirs[:2]:
        level: Level = "problem" if mine[:1] != theirs[:1] else "warning"
        return Diagnosis(
            subject,
            level,
            f"client {client}, server {server}: a newer client uses what the server does not have "
            "(INVALID_PARAMETER_VALUE, 404)",
            f"upgrade the server to {client}, or install mlflow=={server} in the image",
        )
    return Diagnosis(subject, "ok", f"client {client}, server {server}")


def _judge_libraries(packages: Mapping[str, str | None]) -> list[Diagnosis]:
    missing = [name for name in ("evidently", "pandas", "scikit-learn") if packages.get(name) is None]
    if not missing:
        return []
    return [
        Diagnosis(
            "image: libraries",
            "warning",
            f"{', '.join(missing)} not installed: evaluation and drift checks end with ModuleNotFoundError",
            "pip install 'airflow-mcp[runtime]' in the image, or give those operators another image",
        )
    ]


def _judge_sandbox(report: ProbeReport) -> list[Diagnosis]:
    findings = []
    if report.user_id == 0:
        findings.append(
            Diagnosis("pod: user", "problem", "is root", "a webhook of the cluster changes pods: find out which one")
        )
    else:
        level: Level = "ok" if report.user_id == USER_ID else "warning"
        advice = (
            "" if level == "ok" else "something in the cluster changed it; files in volumes may belong to another user"
        )
        findings.append(Diagnosis("pod: user", level, f"runs as user {report.user_id}", advice))
    if report.root_is_writable:
        findings.append(
            Diagnosis("pod: root", "warning", "the root file system is writable", "something in the cluster changed it")
        )
    else:
        findings.append(Diagnosis("pod: root", "ok", "the root file system is read-only"))
    if not report.scratch_is_writable:
        advice = "the volume belongs to another user: check fsGroup and admission policies"
        findings.append(Diagnosis("pod: scratch", "problem", "/scratch is not writable (PermissionError)", advice))
    if report.has_token:
        advice = "something in the cluster mounts one: workloads could talk to Kubernetes"
        findings.append(Diagnosis("pod: token", "warning", "a service account token is mounted", advice))
    return findings


_WAYS: Mapping[str, str] = {
    r"not known|name resolution|nodename nor servname|No address": (
        "the name does not resolve in the cluster: use the service's full name, <service>.<namespace>.svc"
    ),
    r"refused|Cannot assign requested address": (
        "nothing listens there as pods see it (localhost in a pod is the pod): start MLflow with --host 0.0.0.0, and "
        "check address and port"
    ),
    r"timed out|unreachable|No route": (
        "packets do not arrive: look for a network policy, a firewall, or a wrong address"
    ),
    r"CERTIFICATE|SSL": (
        "the certificate does not verify in the pod: mount the CA bundle, and name it in ca_bundle of the connection"
    ),
}
"""The most likely cause of a network error, by a pattern in its text."""


def _judge_way_to_mlflow(report: ProbeReport) -> Diagnosis:
    subject = "MLflow from a pod"
    if report.mlflow_status == 200:
        return Diagnosis(subject, "ok", f"reachable, version {report.mlflow_version or 'unknown'}")
    if report.mlflow_status in (401, 407):
        return Diagnosis(subject, "ok", "reachable; it asks for credentials, which the connection gives to pods")
    if report.mlflow_status == 403:
        says = f"answers 403: {report.mlflow_error}"
        advice = (
            "MLflow refuses host names it does not know: start it with --allowed-hosts naming the one that pods use"
        )
        return Diagnosis(subject, "problem", says, advice)
    if report.mlflow_status is not None:
        says = f"answers {report.mlflow_status}: {report.mlflow_error}"
        return Diagnosis(
            subject, "problem", says, "something else than MLflow answers there: check the address and proxies"
        )
    advice = next(
        (advice for pattern, advice in _WAYS.items() if re.search(pattern, report.mlflow_error, re.I)),
        "check the address",
    )
    return Diagnosis(subject, "problem", f"not reachable: {report.mlflow_error}", advice)


def read_probe(log: str) -> ProbeReport | None:
    """Return the probe's report from the log of its pod; None when there is none."""
    for line in reversed(log.splitlines()):
        try:
            return ProbeReport(**json.loads(line))
        except (ValueError, TypeError):
            continue
    return None

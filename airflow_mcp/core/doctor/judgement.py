"""What the doctor concludes from what was found: plain data in, findings with advice out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.history import unrecorded_moves
from airflow_mcp.core.registry.load_check import read_load_check
from airflow_mcp.core.registry.moves import read_history, read_last_move
from airflow_mcp.core.workload.pod import USER_ID
from airflow_mcp.core.workload.pod_ending import PodEnding

Level = Literal["ok", "warning", "problem"]

RIGHTS: Mapping[str, tuple[str, ...]] = {
    "pods": ("create", "get", "list", "patch", "delete"),
    "pods/log": ("get",),
    "configmaps": ("create", "update", "patch", "delete"),
    "secrets": ("create", "update", "patch", "delete"),
    "events": ("list", "watch"),
    "services": ("create",),
}
"""What workers and triggerer do in the namespace of the pods, by resource."""
_CONVENIENT = {("events", "watch"): "", ("services", "create"): "; only for trainings on several pods (replicas)"}
"""Rights without which everything else still works, and what they are for."""
OLDEST_MLFLOW = (3, 10)
_LOOPBACK = re.compile(r"(.+\.)?localhost|127\.[\d.]+|::1?|0\.0\.0\.0")


@dataclass(frozen=True)
class Diagnosis:
    """One finding."""

    subject: str
    level: Level
    says: str
    advice: str = ""
    """What to do; empty when nothing has to be done."""


@dataclass(frozen=True)
class ProbeReport:
    """What the probe found inside a pod."""

    python: str
    packages: Mapping[str, str | None]
    """Installed versions; None: not installed."""
    user_id: int
    root_is_writable: bool
    scratch_is_writable: bool
    has_token: bool
    mlflow_status: int | None = None
    """HTTP status of MLflow's ``/health``; None when it was not asked or did not answer."""
    mlflow_error: str = ""
    mlflow_version: str = ""


def judge_mlflow_version(version: str) -> Diagnosis:
    """Judge the version of the MLflow server; empty when it does not tell."""
    numbers = _numbers(version)
    wanted = ".".join(map(str, OLDEST_MLFLOW))
    if not numbers:
        return Diagnosis(
            "MLflow version",
            "warning",
            "the server does not tell its version",
            f"make sure that it is {wanted} or newer",
        )
    if numbers[:2] < OLDEST_MLFLOW:
        return Diagnosis(
            "MLflow version", "problem", f"{version} is too old", f"upgrade the server to {wanted} or newer"
        )
    return Diagnosis("MLflow version", "ok", version)


def judge_store(store_type: str | None) -> Diagnosis:
    """Judge where MLflow keeps runs.

    :param store_type: what the server says, for example ``SqlStore``; None when it does not tell.
    """
    if store_type == "SqlStore":
        return Diagnosis("MLflow store", "ok", "runs and registry are in a database")
    if store_type == "FileStore":
        return Diagnosis(
            "MLflow store",
            "problem",
            "runs are in a folder of files: slow, and not safe when several write",
            "start the server with --backend-store-uri postgresql://… (or mysql://…, sqlite:///… for one machine)",
        )
    return Diagnosis(
        "MLflow store",
        "warning",
        f"the server does not tell where it keeps runs (answer: {store_type})",
        "make sure that --backend-store-uri names a database, not a folder",
    )


def judge_artifacts(location: str) -> Diagnosis:
    """Judge where artifacts of new runs go.

    :param location: artifact location of the default experiment.
    """
    scheme = location.partition(":")[0] if "://" in location or location.startswith("mlflow-artifacts:") else ""
    if scheme == "mlflow-artifacts":
        return Diagnosis("MLflow artifacts", "ok", "go through the server")
    if scheme in ("", "file"):
        return Diagnosis(
            "MLflow artifacts",
            "problem",
            f"new experiments write to {location!r}, a folder of whatever machine the workload runs on: a pod would "
            "write models to its own disk (PermissionError, or files that nobody finds)",
            "start the server with --serve-artifacts --artifacts-destination …; present experiments keep theirs",
        )
    return Diagnosis(
        "MLflow artifacts",
        "warning",
        f"new experiments write to {scheme}:// directly: every pod and every worker needs credentials for it",
        "start the server with --serve-artifacts --artifacts-destination …, or give pods the credentials (secrets)",
    )


def judge_moves(models: Sequence[RegisteredModel], now: datetime) -> list[Diagnosis]:
    """Judge whether aliases are where the last recorded moves left them.

    :param models: registered models; those that were never moved by us are left out.
    :param now: present time, with a time zone.
    """
    ours = [model for model in models if read_history(model.tags) or read_last_move(model.tags)]
    findings = [
        Diagnosis(
            f"MLflow alias of {model.name}",
            "warning",
            f"{move.alias!r} is at {move.found or 'no version'}, but the last recorded move ({move.last.action} by "
            f"{move.last.by} at {move.last.at}) left it at {move.recorded or 'no version'}: it was moved outside "
            "airflow-mcp, or its version was deleted",
            f"look: airflow-mcp registry history {model.name}; undo: trigger the Dag rollback_model with to_version. "
            "Nothing has to be done to keep it: the next promotion goes on from there",
        )
        for model in ours
        for move in unrecorded_moves(model, now)
    ]
    return findings or [
        Diagnosis("MLflow aliases", "ok", f"{len(ours)} models: their aliases are where the recorded moves left them")
    ]


def judge_load_checks(models: Sequence[RegisteredModel], failed: Sequence[ModelVersion]) -> list[Diagnosis]:
    """Judge whether aliases point at versions that are known not to load.

    :param models: registered models with their aliases.
    :param failed: versions whose load check failed, of all models.
    """
    unusable = {(version.name, version.version): read_load_check(version.tags) for version in failed}
    findings = []
    for model in models:
        for alias, version in sorted(model.aliases.items()):
            check = unusable.get((model.name, version))
            if check is None:
                continue
            level: Level = "problem" if alias == ALIAS_CHAMPION else "warning"
            advice = "go back: trigger the Dag rollback_model" if alias == ALIAS_CHAMPION else "do not count on it"
            findings.append(
                Diagnosis(
                    f"MLflow alias of {model.name}",
                    level,
                    f"{alias!r} is at version {version}, which is unusable: its load check {check}",
                    f"{advice}; or restore its files, and check it again with LoadCheckOperator",
                )
            )
    return findings or [Diagnosis("MLflow load checks", "ok", "no alias is at a version that is known not to load")]


def judge_address(url: str) -> Diagnosis | None:
    """Say so when pods are told an address that means themselves.

    :param url: address of MLflow as pods get it.
    """
    host = urlsplit(url).hostname or ""
    if not _LOOPBACK.fullmatch(host):
        return None
    return Diagnosis(
        "MLflow address",
        "problem",
        f"{url} is the pod itself when a pod reads it",
        "give pods an address they can reach: extra workload_url of the connection; here: --pod-tracking-uri",
    )


def judge_rights(allowed: Mapping[tuple[str, str], bool], namespace: str) -> list[Diagnosis]:
    """Judge the rights in a namespace, one finding per resource.

    :param allowed: (resource, verb) to whether it is allowed.
    :param namespace: the namespace, for the message.
    """
    findings = []
    for resource, verbs in RIGHTS.items():
        missing = [verb for verb in verbs if not allowed[resource, verb]]
        if not missing:
            findings.append(Diagnosis(f"right: {resource}", "ok", ", ".join(verbs)))
            continue
        level: Level = "warning" if all((resource, verb) in _CONVENIENT for verb in missing) else "problem"
        advice = f"add verbs {json.dumps(missing)} on {resource} to the role of Airflow's account (docs/kubernetes.md)"
        purpose = "".join(_CONVENIENT.get((resource, verb), "") for verb in missing)
        says = f"may not {', '.join(missing)} in namespace {namespace!r}{purpose}"
        findings.append(Diagnosis(f"right: {resource}", level, says, advice))
    return findings


def judge_ending(ending: PodEnding) -> Diagnosis:
    """Judge a probe pod that did not report."""
    no_python = ending.reason in ("ContainerCannotRun", "StartError") or ending.exit_code in (126, 127)
    if no_python:
        return Diagnosis(
            "image",
            "problem",
            f"{ending.image} has no `python`: {ending.message.strip() or ending.reason}",
            "scripts and built-in steps need an image with Python and airflow-mcp; only `command` can run in this one",
        )
    return Diagnosis(
        "image", "problem", ending.describe(), "see docs/kubernetes.md; nothing of ours has run in the pod"
    )


def judge_probe(
    report: ProbeReport, *, image: str, own_python: str, own_version: str, server_version: str, asked_mlflow: bool
) -> list[Diagnosis]:
    """Judge what was found inside a pod.

    :param report: what the probe wrote.
    :param image: name of the image.
    :param own_python: Python version here.
    :param own_version: version of this package here.
    :param server_version: version of the MLflow server; empty when it is not known.
    :param asked_mlflow: whether the pod was to ask MLflow.
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
    mine, theirs = _numbers(client), _numbers(server)
    if not theirs:
        return Diagnosis(subject, "warning", f"{client}; the server's version is not known", "compare them by hand")
    if mine[:1] != theirs[:1] or mine[:2] > theirs[:2]:
        level: Level = "problem" if mine[:1] != theirs[:1] else "warning"
        return Diagnosis(
            subject,
            level,
            f"client {client}, server {server}: a newer client asks for what the server does not know "
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
            Diagnosis("pod: user", "problem", "is root", "a webhook of the cluster changes pods: find out which")
        )
    else:
        level: Level = "ok" if report.user_id == USER_ID else "warning"
        advice = "" if level == "ok" else "something in the cluster changed it; files of volumes may belong to another"
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
"""What an error of the network mostly means, by a pattern in its text."""


def _judge_way_to_mlflow(report: ProbeReport) -> Diagnosis:
    subject = "MLflow from a pod"
    if report.mlflow_status == 200:
        return Diagnosis(subject, "ok", f"reachable, version {report.mlflow_version or 'not told'}")
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
            subject, "problem", says, "something else than MLflow answers there: check the address, and proxies"
        )
    advice = next(
        (advice for pattern, advice in _WAYS.items() if re.search(pattern, report.mlflow_error, re.I)),
        "check the address",
    )
    return Diagnosis(subject, "problem", f"not reachable: {report.mlflow_error}", advice)


def read_probe(log: str) -> ProbeReport | None:
    """Find the probe's report in the log of its pod; None when there is none."""
    for line in reversed(log.splitlines()):
        try:
            return ProbeReport(**json.loads(line))
        except (ValueError, TypeError):
            continue
    return None


def worst(findings: Iterable[Diagnosis]) -> Level:
    """Give the worst level of some findings."""
    order: tuple[Level, ...] = ("ok", "warning", "problem")
    return max((finding.level for finding in findings), key=order.index, default="ok")


def as_text(findings: Sequence[Diagnosis]) -> str:
    """Write findings for people."""
    marks = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.level]:<8} {finding.subject:<{width}}  {finding.says}")
        if finding.advice:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.advice}")
    counts = {level: sum(finding.level == level for finding in findings) for level in marks}
    lines.append(f"\n{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems")
    return "\n".join(lines)


def as_json(findings: Sequence[Diagnosis]) -> str:
    """Write findings for programs: ``{"worst": level, "findings": [{subject, level, says, advice}]}``."""
    document: dict[str, Any] = {"worst": worst(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(document, indent=2, ensure_ascii=False)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])

"""What the doctor concludes about an MLflow server: version, storage, aliases, and its address for pods."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.doctor.diagnosis import Diagnosis, Level, worst
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.mlflow_versions import FIRST_UNKNOWN_MLFLOW, OLDEST_MLFLOW, version_numbers, why_too_old
from airflow_mcp.core.registry.history import unrecorded_moves
from airflow_mcp.core.registry.load_check import read_load_check
from airflow_mcp.core.registry.moves import read_last_move, read_recent_history
from airflow_mcp.core.registry.rehearsal import failed_rehearsal

MOST_FINDINGS = 20
"""Number of findings of one kind that are shown; the others are counted."""
_LOOPBACK = re.compile(r"(.+\.)?localhost|127\.[\d.]+|::1?|0\.0\.0\.0")


def judge_mlflow_version(version: str) -> Diagnosis:
    """Judge the version of an MLflow server.

    :param version: empty when the server does not report it.
    """
    numbers = version_numbers(version)
    wanted = ".".join(map(str, OLDEST_MLFLOW))
    if not numbers:
        return Diagnosis(
            "MLflow version",
            "warning",
            "the server does not report its version",
            f"make sure that it is {wanted} or newer",
        )
    if problem := why_too_old(version):
        says, _, advice = problem.removeprefix("MLflow ").partition(": ")
        return Diagnosis("MLflow version", "problem", says, advice)
    if numbers >= FIRST_UNKNOWN_MLFLOW:
        return Diagnosis(
            "MLflow version",
            "warning",
            f"{version} is newer than every version that airflow-mcp knows",
            f"use a server from {wanted} to below {'.'.join(map(str, FIRST_UNKNOWN_MLFLOW))}",
        )
    return Diagnosis("MLflow version", "ok", version)


def judge_store(store_type: str | None) -> Diagnosis:
    """Judge where MLflow keeps runs.

    :param store_type: what the server reports, for example ``SqlStore``; None when it does not.
    """
    if store_type == "SqlStore":
        return Diagnosis("MLflow store", "ok", "runs and registry are in a database")
    if store_type == "FileStore":
        return Diagnosis(
            "MLflow store",
            "problem",
            "runs are in a folder of files, which is slow and not safe for several writers",
            "start the server with --backend-store-uri postgresql://… (or mysql://…, sqlite:///… for one machine)",
        )
    return Diagnosis(
        "MLflow store",
        "warning",
        f"the server does not report where it keeps runs (answer: {store_type})",
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
            "write models to its own disk (PermissionError, or lost files)",
            "start the server with --serve-artifacts --artifacts-destination …; existing experiments keep theirs",
        )
    return Diagnosis(
        "MLflow artifacts",
        "warning",
        f"new experiments write to {scheme}:// directly: every pod and every worker needs credentials for it",
        "start the server with --serve-artifacts --artifacts-destination …, or give pods the credentials (secrets)",
    )


def judge_moves(models: Sequence[RegisteredModel]) -> list[Diagnosis]:
    """Judge whether aliases are where the last recorded moves left them.

    :param models: registered models; those without recorded moves are left out.
    """
    ours = [model for model in models if read_recent_history(model.tags) or read_last_move(model.tags)]
    findings = [
        Diagnosis(
            f"MLflow alias of {model.name}",
            "warning",
            f"{move.alias!r} is at {move.found or 'no version'}, but the last recorded move ({move.last.action} by "
            f"{move.last.by} at {move.last.at}) left it at {move.recorded or 'no version'}: it was moved outside "
            "airflow-mcp, or its version was deleted",
            f"see: airflow-mcp registry history {model.name}; to undo: airflow-mcp rollback {model.name} --to-version "
            "N --reason TEXT. To keep it, do nothing: the next promotion starts from there",
        )
        for model in ours
        for move in unrecorded_moves(model)
    ]
    return _bounded("MLflow aliases", findings) or [
        Diagnosis("MLflow aliases", "ok", f"{len(ours)} models: their aliases are where the recorded moves left them")
    ]


def judge_deleted(models: Sequence[RegisteredModel], deleted: Collection[tuple[str, str]]) -> list[Diagnosis]:
    """Judge aliases that point at deleted versions.

    :param models: registered models as MLflow keeps them.
    :param deleted: model and number of each deleted version that an alias points at.
    """
    findings = []
    for model in models:
        for alias, version in sorted(model.aliases.items()):
            if (model.name, version) not in deleted:
                continue
            level: Level = "problem" if alias == ALIAS_CHAMPION else "warning"
            advice = f"roll back: airflow-mcp rollback {model.name} --reason TEXT; or promote another version"
            findings.append(
                Diagnosis(
                    f"MLflow alias of {model.name}",
                    level,
                    f"{alias!r} is at version {version}, which was deleted",
                    advice if alias == ALIAS_CHAMPION else "there is no way back until the next promotion",
                )
            )
    return _bounded("MLflow aliases of deleted versions", findings)


def _bounded(subject: str, findings: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Return the worst findings, and how many more there are: of 1,000 models nobody reads 1,000 lines."""
    ordered = sorted(findings, key=lambda finding: finding.level != "problem")
    shown, others = ordered[:MOST_FINDINGS], ordered[MOST_FINDINGS:]
    if not others:
        return list(findings)
    says = (
        f"{len(others)} more findings of this kind, {sum(each.level == 'problem' for each in others)} of them problems"
    )
    return [*shown, Diagnosis(subject, worst(others), says, "to list all models, the worst first: airflow-mcp status")]


def judge_load_checks(models: Sequence[RegisteredModel], failed: Sequence[ModelVersion]) -> list[Diagnosis]:
    """Judge whether aliases point to versions that are known not to load.

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
            roll_back = f"roll back: airflow-mcp rollback {model.name} --reason TEXT"
            advice = roll_back if alias == ALIAS_CHAMPION else "do not rely on it"
            findings.append(
                Diagnosis(
                    f"MLflow alias of {model.name}",
                    level,
                    f"{alias!r} is at version {version}, which is unusable: its load check {check}",
                    f"{advice}; or restore its files, and check it again with LoadCheckOperator",
                )
            )
    return _bounded("MLflow load checks", findings) or [
        Diagnosis("MLflow load checks", "ok", "no alias points to a version that is known not to load")
    ]


def judge_rehearsals(models: Sequence[RegisteredModel], not_ready: Sequence[ModelVersion]) -> list[Diagnosis]:
    """Judge whether the ways back from the champions were ready when they were rehearsed.

    :param models: registered models with their aliases.
    :param not_ready: versions whose latest rehearsal did not pass, of all models.
    """
    findings = []
    for model in models:
        flagged = {version.version: version for version in not_ready if version.name == model.name}
        rehearsal = failed_rehearsal(model.name, model.aliases.get(ALIAS_CHAMPION), flagged)
        if rehearsal is not None:
            findings.append(
                Diagnosis(
                    f"MLflow way back of {model.name}",
                    "warning",
                    f"from version {rehearsal.champion} to version {rehearsal.version}: its rehearsal {rehearsal}",
                    "put it right, and rehearse it again with RehearseRollbackOperator",
                )
            )
    return _bounded("MLflow rehearsals", findings)


def judge_address(url: str) -> Diagnosis | None:
    """Return a finding if the address of MLflow that pods get would be the pod itself; otherwise None.

    :param url: the address.
    """
    host = urlsplit(url).hostname or ""
    if not _LOOPBACK.fullmatch(host):
        return None
    return Diagnosis(
        "MLflow address",
        "problem",
        f"{url} would be the pod itself when a pod uses it",
        "give pods an address they can reach: extra workload_url of the connection; here: --pod-tracking-uri",
    )

"""``airflow-mcp``: what the on-call person asks at 3 a.m., answered by MLflow and the cluster, without Airflow."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from airflow_mcp import __version__
from airflow_mcp.core import contract, doctor
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.promotion import read_history, read_last_move
from airflow_mcp.core.sweep import format_age, parse_age
from airflow_mcp.diagnosis.cluster import connect
from airflow_mcp.diagnosis.doctor import PodCheck, check_cluster, check_mlflow, check_pod, server_version
from airflow_mcp.diagnosis.sweep import JudgedPod, judge_pods, remove_leftovers, workload_pods
from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError
from airflow_mcp.hooks import mlflow_api, mlflow_registry_api
from airflow_mcp.hooks.mlflow_settings import MlflowSettings
from airflow_mcp.hooks.mlflow_transport import SyncDriver

_SHOWN_TAGS: Mapping[str, str] = {
    "gate verdict": contract.TAG_GATE_VERDICT,
    "reason": contract.TAG_REASON,
    "data version": contract.TAG_DATA_VERSION,
    "data hash": contract.TAG_DATA_HASH,
    "code commit": contract.TAG_CODE_COMMIT,
    "config hash": contract.TAG_CONFIG_HASH,
    "image": contract.TAG_IMAGE,
    "Dag run": contract.TAG_DAG_RUN_ID,
    "rolled back": contract.TAG_ROLLED_BACK,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: arguments; None takes those of the process.
    :return: exit code: 0 done, 1 MLflow or the cluster could not be asked, 2 the call is wrong.
    """
    parsed = _parser().parse_args(arguments)
    commands: Mapping[str, Callable[[argparse.Namespace], int]] = {
        "version": _version,
        "status": _status,
        "pods": _pods,
        "doctor": _doctor,
    }
    try:
        return commands[parsed.command](parsed)
    except ModelControlPlaneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidArgumentError) else 1
    except BrokenPipeError:  # the reader, for example head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="airflow-mcp", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version", help="print the version")
    status = commands.add_parser("status", help="which version is the champion, why, and how to go back")
    status.add_argument("model_name", help="registered model")
    _add_tracking_uri(status)
    _add_doctor(commands.add_parser("doctor", help="what is wrong with MLflow, cluster and image, and what to do"))
    _add_pods(commands.add_parser("pods", help="pods of workloads, and which of them are left over"))
    return parser


def _add_doctor(command: argparse.ArgumentParser) -> None:
    _add_tracking_uri(command)
    _add_cluster(command)
    command.add_argument("--image", default="", help="start a pod with this image and look into it")
    command.add_argument("--from-pod", action="store_true", help="ask MLflow from that pod too; needs --image")
    command.add_argument("--pod-tracking-uri", default="", help="MLflow as pods see it; default: --tracking-uri")
    command.add_argument("--image-pull-secret", action="append", default=[], help="Secret to pull the image with")
    command.add_argument("--service-account", help="service account of the pod")
    command.add_argument("--timeout", default="120s", help="time until the pod must have reported; default: 120s")
    command.add_argument("--no-cluster", action="store_true", help="check MLflow only")
    command.add_argument("--format", choices=("text", "json"), default="text")


def _add_pods(pods: argparse.ArgumentParser) -> None:
    actions = pods.add_subparsers(dest="action", required=True)
    for name, what in (("list", "show every pod, and whether it is left over"), ("clean", "remove what is left over")):
        action = actions.add_parser(name, help=what)
        _add_cluster(action)
        _add_tracking_uri(action)
        action.add_argument("--older-than", default="1h", help="age that a leftover must have (90s, 30m, 1h, 2d)")
        if name == "clean":
            choice = action.add_mutually_exclusive_group()
            choice.add_argument("--dry-run", action="store_true", help="only say what would be removed (the default)")
            choice.add_argument("--yes", action="store_true", help="remove it")


def _add_cluster(command: argparse.ArgumentParser) -> None:
    command.add_argument("--namespace", default="", help="default: that of the context, or of this pod")
    command.add_argument("--context", default="", help="context of the kubeconfig; default: the current one")


def _add_tracking_uri(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tracking-uri", default="", help="MLflow server; default: MLFLOW_TRACKING_URI")


def _version(parsed: argparse.Namespace) -> int:
    print(f"airflow-mcp {__version__}")
    return 0


def _settings(tracking_uri: str) -> MlflowSettings:
    """Read address and credentials the way MLflow's own tools do."""
    url = (tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise InvalidArgumentError(
            f"--tracking-uri is {url!r}; allowed: the http:// or https:// address of an MLflow server, here or in "
            "MLFLOW_TRACKING_URI"
        )
    return MlflowSettings(
        "command line",
        url,
        url,
        retries=1,
        username=os.environ.get("MLFLOW_TRACKING_USERNAME", ""),
        password=os.environ.get("MLFLOW_TRACKING_PASSWORD", ""),
        token=os.environ.get("MLFLOW_TRACKING_TOKEN", ""),
        verify=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
        or os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() != "true",
    )


def _status(parsed: argparse.Namespace) -> int:
    name, settings = parsed.model_name, _settings(parsed.tracking_uri)
    driver = SyncDriver(settings)
    try:
        model = driver.perform(mlflow_registry_api.get_registered_model(name))
        wanted = (contract.ALIAS_CHAMPION, contract.ALIAS_PREVIOUS_CHAMPION)
        versions = {
            alias: driver.perform(mlflow_registry_api.get_model_version(name, model.aliases[alias]))
            for alias in wanted
            if alias in model.aliases
        }
    finally:
        driver.close()
    print(f"{name} on {settings.base_url}")
    for alias in wanted:
        _print_version(alias, versions.get(alias), model)
    _print_last_move(model)
    return 0


def _pods(parsed: argparse.Namespace) -> int:
    grace, now = parse_age("--older-than", parsed.older_than), datetime.now(UTC)
    driver = SyncDriver(_settings(parsed.tracking_uri))
    try:
        cluster = connect(parsed.namespace, parsed.context)
        judged = judge_pods(
            workload_pods(cluster, now),
            run_of=lambda run_id: driver.perform(mlflow_api.get_run(run_id)),
            task_state_of=lambda task: None,  # only Airflow knows
            grace=grace,
            now=now,
        )
    finally:
        driver.close()
    _print_pods(judged, cluster.namespace)
    leftovers = [item for item in judged if item.finding.action == "remove"]
    if parsed.action == "list" or not leftovers:
        return 0
    if not parsed.yes:
        print(f"\ndry run: {len(leftovers)} would be removed; --yes removes them")
        return 0
    print(f"\nremoved: {', '.join(remove_leftovers(cluster, leftovers)) or 'none, they were gone already'}")
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    settings, timeout = _settings(parsed.tracking_uri), parse_age("--timeout", parsed.timeout)
    if parsed.from_pod and not parsed.image:
        raise InvalidArgumentError("--from-pod needs --image: the image to start the pod with")
    findings = list(check_mlflow(settings))
    mlflow_answers = findings[0].level == "ok"
    if not parsed.no_cluster:
        cluster = connect(parsed.namespace, parsed.context)
        seen = list(check_cluster(cluster))
        findings += seen
        if parsed.image and not any(
            item.level == "problem" for item in seen if item.subject in ("cluster", "namespace")
        ):
            url = (parsed.pod_tracking_uri.rstrip("/") or settings.base_url) if parsed.from_pod else ""
            secrets = tuple(parsed.image_pull_secret)
            check = PodCheck(parsed.image, url, timeout.total_seconds(), parsed.service_account, secrets)
            findings += check_pod(cluster, check, server_version(settings) if mlflow_answers else "")
    print(doctor.as_json(findings) if parsed.format == "json" else doctor.as_text(findings))
    return 1 if doctor.worst(findings) == "problem" else 0


def _print_pods(judged: Sequence[JudgedPod], namespace: str) -> None:
    print(f"{len(judged)} pods of workloads in namespace {namespace}")
    for item in judged:
        what = "LEFTOVER" if item.finding.action == "remove" else "unknown" if item.finding.is_unknown else "kept"
        print(
            f"{what:<9} {item.pod.name:<62} {item.pod.phase:<10} {format_age(item.pod.age):>5}  {item.finding.reason}"
        )


def _print_version(alias: str, version: ModelVersion | None, model: RegisteredModel) -> None:
    if version is None:
        print(f"\n{alias}: none")
        return
    print(f"\n{alias}: version {version.version} ({version.status})")
    print(f"  {'MLflow run':<14} {version.run_id}")
    for move in read_history(model.tags)[::-1]:
        if move.champion_after == version.version:
            print(f"  {'champion since':<14} {move.at}\n  {'moved there by':<14} {move.by}")
            break
    for label, tag in _SHOWN_TAGS.items():
        if version.tags.get(tag):
            print(f"  {label:<14} {version.tags[tag]}")


def _print_last_move(model: RegisteredModel) -> None:
    move = read_last_move(model.tags)
    if move is not None:
        print(f"\nlast move: {move.action} {move.champion_before or 'none'} -> {move.champion_after}")
        print(f"  {'at':<14} {move.at}\n  {'by':<14} {move.by}\n  {'reason':<14} {move.reason or 'none given'}")
        if move.champion_after != model.aliases.get(contract.ALIAS_CHAMPION):
            print("  the champion is another version now: it was moved outside airflow-mcp, or a move broke off")
    if contract.ALIAS_PREVIOUS_CHAMPION in model.aliases:
        print(f"\nto go back: trigger the Dag rollback_model with model_name={model.name}")


if __name__ == "__main__":
    sys.exit(main())

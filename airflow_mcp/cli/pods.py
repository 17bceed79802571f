"""``airflow-mcp pods``: the pods of workloads, and which of them are leftovers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_mcp.cli.options import add_cluster, add_format, add_tracking_uri, mlflow_settings
from airflow_mcp.cluster.client import connect
from airflow_mcp.cluster.sweep import JudgedPod, judge_pods, remove_leftovers, workload_pods
from airflow_mcp.core.workload.sweep import format_age, parse_age
from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client.transport import SyncDriver


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the two actions, ``list`` and ``clean``."""
    actions = command.add_subparsers(dest="action", required=True)
    for name, what in (("list", "list pods and show leftovers"), ("clean", "remove leftovers")):
        action = actions.add_parser(name, help=what)
        add_cluster(action)
        add_tracking_uri(action)
        add_format(action)
        action.add_argument("--older-than", default="1h", help="minimum age of a leftover (90s, 30m, 1h, 2d)")
        if name == "clean":
            choice = action.add_mutually_exclusive_group()
            choice.add_argument("--dry-run", action="store_true", help="only show what would be removed (the default)")
            choice.add_argument("--yes", action="store_true", help="remove leftovers")


def run(parsed: argparse.Namespace) -> int:
    """Judge every pod by its MLflow run; remove leftovers only with ``--yes``."""
    grace, now = parse_age("--older-than", parsed.older_than), datetime.now(UTC)
    driver = SyncDriver(mlflow_settings(parsed.tracking_uri))
    try:
        cluster = connect(parsed.namespace, parsed.context)
        judged = judge_pods(
            workload_pods(cluster, now),
            run_of=lambda run_id: driver.perform(mlflow_api.get_run(run_id)),
            task_state_of=lambda task: None,  # only Airflow knows it
            grace=grace,
            now=now,
        )
    finally:
        driver.close()
    leftovers = [item for item in judged if item.finding.action == "remove"]
    is_removing = parsed.action == "clean" and parsed.yes and bool(leftovers)
    if parsed.format == "text":
        _print_pods(judged, cluster.namespace)
    removed = list(remove_leftovers(cluster, leftovers)) if is_removing else []
    if parsed.format == "json":
        print(json.dumps(_document(judged, cluster.namespace, removed), indent=2))
    elif is_removing:
        print(f"\nremoved: {', '.join(removed) or 'none, they were gone already'}")
    elif parsed.action == "clean" and leftovers:
        print(f"\ndry run: {len(leftovers)} would be removed; --yes removes them")
    return 0


def _document(judged: Sequence[JudgedPod], namespace: str, removed: Sequence[str]) -> dict[str, Any]:
    pods = [
        {
            "name": item.pod.name,
            "phase": item.pod.phase,
            "age_seconds": round(item.pod.age.total_seconds()),
            "verdict": _verdict(item).lower(),
            "reason": item.finding.reason,
        }
        for item in judged
    ]
    return {"namespace": namespace, "pods": pods, "removed": list(removed)}


def _verdict(item: JudgedPod) -> str:
    return "LEFTOVER" if item.finding.action == "remove" else "unknown" if item.finding.is_unknown else "kept"


def _print_pods(judged: Sequence[JudgedPod], namespace: str) -> None:
    print(f"{len(judged)} pods of workloads in namespace {namespace}")
    for item in judged:
        pod, age = item.pod, format_age(item.pod.age)
        print(f"{_verdict(item):<9} {pod.name:<62} {pod.phase:<10} {age:>5}  {item.finding.reason}")

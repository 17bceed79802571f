"""``airflow-mcp pods``: the pods of workloads, and which of them are leftovers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from airflow_mcp.cli.options import add_cluster, add_tracking_uri, mlflow_settings
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
    _print_pods(judged, cluster.namespace)
    leftovers = [item for item in judged if item.finding.action == "remove"]
    if parsed.action == "list" or not leftovers:
        return 0
    if not parsed.yes:
        print(f"\ndry run: {len(leftovers)} would be removed; --yes removes them")
        return 0
    print(f"\nremoved: {', '.join(remove_leftovers(cluster, leftovers)) or 'none, they were gone already'}")
    return 0


def _print_pods(judged: Sequence[JudgedPod], namespace: str) -> None:
    print(f"{len(judged)} pods of workloads in namespace {namespace}")
    for item in judged:
        what = "LEFTOVER" if item.finding.action == "remove" else "unknown" if item.finding.is_unknown else "kept"
        print(
            f"{what:<9} {item.pod.name:<62} {item.pod.phase:<10} {format_age(item.pod.age):>5}  {item.finding.reason}"
        )
